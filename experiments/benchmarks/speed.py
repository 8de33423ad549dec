"""How fast an experiment is on this machine. Every figure is of compiled code, waited for with `block_until_ready`.

Repeats of the things that are compared are interleaved and their minima taken, so that other load on the machine blurs
the ratios little.
"""

import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import sde_lib
from experiments.factory.experiment import Experiment
from experiments.learning import state
from experiments.training.train import initial_state, load_data, make_step, take_batches, training_stream

REPEATS = 5


def seconds(function: Callable[[], Any]) -> float:
    """How long a call takes, until what it returns is computed."""
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def minima(**functions: Callable[[], Any]) -> tuple[dict[str, float], dict[str, float]]:
    """First-call seconds and the least of later ones, for each function; the later ones take turns."""
    first = {name: seconds(function) for name, function in functions.items()}
    rounds = [{name: seconds(function) for name, function in functions.items()} for _ in range(REPEATS)]
    return first, {name: min(r[name] for r in rounds) for name in functions}


def benchmark(experiment: Experiment) -> str:
    """Measures and returns a table; takes a minute or two, mostly compilation."""
    jax.config.update("jax_enable_compilation_cache", False)  # compile times are to be those of a first start
    rows = [("devices", f"{jax.local_device_count()} x {jax.local_devices()[0].device_kind}")]
    rows += _training(experiment) + _sampling(experiment) + _memory()
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {value}" for name, value in rows)


def _training(experiment: Experiment) -> list[tuple[str, str]]:
    strategy, k = experiment.strategy, experiment.training.steps_per_call
    images = load_data(experiment).train
    iterator = training_stream(experiment, images)
    start = time.perf_counter()
    single = jax.block_until_ready(initial_state(experiment))
    init_seconds = time.perf_counter() - start
    parameters = sum(leaf.size for leaf in jax.tree.leaves(single.params))
    step = make_step(experiment, strategy)
    alone = strategy.map_training(lambda state, batch, n: step(state, batch))
    loop = strategy.map_training(state.make_train_steps(step, k))
    stacked = take_batches(iterator, k, k)
    batch = strategy.shard(jax.tree.map(lambda x: x[0], stacked))
    batches = strategy.shard(stacked, axis=1)
    current = {"alone": strategy.place(single), "loop": strategy.place(jax.tree.map(jnp.copy, single))}

    def run(name, program, batches, n):
        current[name] = program(current[name], batches, np.int32(n))[0]
        return current[name].step

    first, least = minima(alone=lambda: run("alone", alone, batch, 1), loop=lambda: run("loop", loop, batches, k))
    start = time.perf_counter()
    for _ in range(20):
        take_batches(iterator, k, k)
    pipeline = 20 * k * experiment.data.batch_size / (time.perf_counter() - start)
    iterator.close()
    in_loop = least["loop"] / k
    return [
        ("parameters", f"{parameters:,}"),
        ("initialization, first start", f"{init_seconds:.1f} s"),
        ("compilation of a training call", f"{first['loop'] - least['loop']:.1f} s"),
        ("training step alone", f"{1e3 * least['alone']:.1f} ms"),
        (f"training step in a loop of {k}", f"{1e3 * in_loop:.1f} ms"),
        ("  relative to one alone", f"{in_loop / least['alone']:.3f}"),
        ("training images per second", f"{experiment.data.batch_size / in_loop:,.0f}"),
        ("data pipeline, images per second", f"{pipeline:,.0f}"),
    ]


def _sampling(experiment: Experiment) -> list[tuple[str, str]]:
    size, shape = experiment.sampling.batch_size, experiment.medium.event_shape
    condition = experiment.condition(jnp.arange(size) % max(experiment.num_classes, 1))
    denoiser = experiment.denoiser(experiment.init_variables(), experiment.sampling.t_min).replace(condition=condition)
    method, times = experiment.sampler, experiment.times(denoiser.sde)
    keys = jax.random.split(jax.random.key(0), size)
    x = jax.random.normal(jax.random.key(1), (size, *shape))
    network = jax.jit(lambda variables, x, level: denoiser.network.apply(variables, x, level, condition, train=False))
    level = jnp.full((size,), 0.5)
    first, least = minima(
        network=lambda: network(denoiser.variables, x, level),
        sampler=lambda: sde_lib.sample(keys, denoiser, method, times, shape),
    )
    nfe = experiment.evaluations
    return [
        (f"network evaluation, batch {size}", f"{1e3 * least['network']:.1f} ms"),
        (f"sampling, {experiment.sampler_and_steps[0]}, {nfe} evaluations", f"{least['sampler']:.3f} s"),
        ("  relative to its evaluations", f"{least['sampler'] / (nfe * least['network']):.3f}"),
        ("  samples per second on one device", f"{size / least['sampler']:,.0f}"),
        ("compilation of the sampler", f"{first['sampler'] - least['sampler']:.1f} s"),
    ]


def _memory() -> list[tuple[str, str]]:
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    rows = [
        ("peak memory of the process", f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20:,.0f} MiB")
    ]
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        rows.append(("peak memory of a device", f"{np.float64(statistics['peak_bytes_in_use']) / 2**20:,.0f} MiB"))
    return rows
