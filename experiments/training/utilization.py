"""How much of the devices training uses: operations per second beside those of a large matrix product, and memory."""

import resource
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp

MIB = 2**20
SIZES = (1024, 2048, 4096, 8192)  # of the square matrices; the next is for devices too fast for the one before
LONG_ENOUGH = 0.01  # seconds that a product shall take
REPEATS, BUDGET = 4, 0.4  # products of one size, and seconds for all of them


def peak_flops(dtype: str) -> float:
    """Operations per second of all devices of all processes, each at a large matrix product at once.

    A multiplication with its addition counts as two. It is what can be had on this machine as it is now, for matrices
    of this dtype at JAX's default precision (TensorFloat-32 for float32, where the device has it); data sheets say more. It
    takes under a second.
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
    """Memory in use and its peak so far, in MiB: of the fullest device of this process, or of the process on CPU."""
    statistics = [device.memory_stats() or {} for device in jax.local_devices()]
    if all("bytes_in_use" in s for s in statistics):
        used = max(s["bytes_in_use"] for s in statistics)
        peak = max(s.get("peak_bytes_in_use", 0) for s in statistics)
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        resident = Path("/proc/self/statm")
        used = int(resident.read_text().split()[1]) * resource.getpagesize() if resident.exists() else peak
    return {"memory_mib": used / MIB, "memory_peak_mib": max(used, peak) / MIB}
