"""Device utilization: the peak rate of a large matrix product, for the MFU, and memory."""

import resource
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp

MIB = 2**20
SIZES = (1024, 2048, 4096, 8192)  # sizes of the square matrices, tried in order until a product takes long enough
LONG_ENOUGH = 0.01  # minimum seconds of one product
REPEATS, BUDGET = 4, 0.4  # products of one size, and time limit of the measurement in seconds


def peak_flops(dtype: str) -> float:
    """Measures the operations per second of a large matrix product, summed over all devices of all processes.

    A multiply-add counts as two operations. The result is the rate that this machine reaches now with matrices of this
    dtype at JAX's default precision (TensorFloat-32 for float32, if the device supports it); data sheets state higher
    rates. The measurement takes under a second.
    """
    devices, best, start = jax.local_devices(), 0.0, time.perf_counter()
    multiply = jax.pmap(lambda a: a @ a, devices=devices)
    for size in SIZES:
        matrix = jax.pmap(
            lambda i, size=size: (
                jnp.sin(i + jnp.arange(size * size, dtype=jnp.float32)).reshape(size, size).astype(dtype)
            ),
            devices=devices,
        )(jnp.arange(len(devices)))
        jax.block_until_ready(multiply(matrix))  # compiles
        shortest = float("inf")
        for _ in range(REPEATS):
            begin = time.perf_counter()
            jax.block_until_ready(multiply(matrix))
            shortest = min(shortest, time.perf_counter() - begin)
            if time.perf_counter() - start > BUDGET:
                break
        best = max(best, 2 * size**3 * len(devices) / shortest)
        if shortest > LONG_ENOUGH or time.perf_counter() - start > BUDGET:
            break
    return best * jax.process_count()


def memory() -> dict[str, float]:
    """Returns the memory in use and its peak so far, in MiB: of the fullest local device or, on CPU, of the process."""
    statistics = [device.memory_stats() or {} for device in jax.local_devices()]
    if all("bytes_in_use" in s for s in statistics):
        used = max(s["bytes_in_use"] for s in statistics)
        peak = max(s.get("peak_bytes_in_use", 0) for s in statistics)
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        resident = Path("/proc/self/statm")
        used = int(resident.read_text().split()[1]) * resource.getpagesize() if resident.exists() else peak
    return {"memory_mib": used / MIB, "memory_peak_mib": max(used, peak) / MIB}
