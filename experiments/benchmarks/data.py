"""How fast the data pipeline of an experiment is, stage by stage, beside what training takes of it.

    gather       the images of one batch by their numbers, read and decoded, in one process
    batches      the stream as training has it: gathered ahead in a thread or in `data.workers` processes, flipped
    to device    the batches of a call stacked, divided among the devices and sent: all of the pipeline, and nothing else
    prepare      on the device: dequantization and augmentation, which are part of the training step

The last two lines are what counts: the pipeline alone should give at least 3 times what training takes, and training that
is fed by it should lose nothing against training on batches that lie ready on the device.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.speed import seconds
from experiments.data.pipeline import batches_ahead
from experiments.devices.parallel import BATCH
from experiments.factory.experiment import Experiment
from experiments.learning import state
from experiments.training.train import initial_state, load_data, make_step, take_batches, training_stream

CALLS = 2  # of training, fed and not, in one measurement
REPEATS = 3


def benchmark(experiment: Experiment) -> str:
    """Measures and returns a table; takes as long as compiling a training step, and then seconds."""
    images = load_data(experiment).train
    with training_stream(experiment, images) as iterator:
        rows = _rows(experiment, images, iterator)
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {value}" for name, value in rows)


def _rows(experiment: Experiment, images: Any, iterator: Any) -> list[tuple[str, str]]:
    strategy, k, size = experiment.strategy, experiment.training.steps_per_call, experiment.data.batch_size
    ahead, rng = batches_ahead(experiment.data.workers), np.random.default_rng(0)
    calls = -(-ahead // k)  # so many that they are not out of what was read before

    def gather():
        return images.gather(rng.integers(len(images), size=size))

    def sharded():
        return strategy.shard(take_batches(iterator, k, k), axis=1)

    def sent():
        return arrive(strategy.shard(jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), take_batches(iterator, k, k))))

    def ready(leaf):
        return leaf if isinstance(leaf, jax.Array) else strategy.map(lambda x: x, (BATCH,), BATCH)(leaf)

    arrive = strategy.map(lambda batch: batch["image"].ravel()[:1], (BATCH,), BATCH)
    step = strategy.map_training(state.make_train_steps(make_step(experiment, strategy), k))
    current, waiting = initial_state(experiment, None, strategy), jax.tree.map(ready, sharded())  # on the devices
    prepare = jax.jit(experiment.preparation)
    keys = jax.random.split(jax.random.key(0), size // strategy.num_devices)
    one = jax.tree.map(lambda field: jnp.asarray(field[: len(keys)]), next(iterator))

    def train(take):
        nonlocal current  # a call takes the memory of the state before
        for _ in range(CALLS):
            current, _ = step(current, take(), np.int32(k))
        return current.step

    def emptied(function):
        for _ in range(ahead):
            next(iterator)
        return seconds(function)

    stages = {
        "gather": lambda: seconds(gather),
        "batches": lambda: emptied(lambda: [next(iterator) for _ in range(calls * k)]),
        "device": lambda: emptied(lambda: [sent() for _ in range(calls)]),
        "prepare": lambda: seconds(lambda: prepare(keys, one)),
        "training": lambda: seconds(lambda: train(lambda: waiting)),
        "fed": lambda: seconds(lambda: train(sharded)),
    }
    rounds = [{name: measure() for name, measure in stages.items()} for _ in range(1 + REPEATS)]
    least = {name: min(r[name] for r in rounds[1:]) for name in stages}  # the first ones compile
    pipeline, training, fed = calls * k / least["device"], CALLS * k / least["training"], CALLS * k / least["fed"]
    workers = f"{experiment.data.workers} worker processes" if experiment.data.workers else "a thread"
    shape = "x".join(map(str, one["image"].shape[1:]))

    def per_second(batches_per_second):
        return f"{batches_per_second * size:,.0f} images/s"

    return [
        ("devices", f"{jax.local_device_count()} x {jax.local_devices()[0].device_kind}"),
        ("data", f"{len(images):,} images {shape}, batches of {size}, read in {workers}"),
        ("gather", per_second(1 / least["gather"])),
        ("batches", per_second(calls * k / least["batches"])),
        ("to device", per_second(pipeline)),
        ("prepare, on each device", per_second(len(keys) / size / least["prepare"])),
        ("training, on batches that lie ready", per_second(training)),
        ("training, fed by the pipeline", per_second(fed)),
        ("pipeline relative to training", f"{pipeline / training:.1f}"),
        ("training fed relative to training alone", f"{fed / training:.3f}"),
    ]
