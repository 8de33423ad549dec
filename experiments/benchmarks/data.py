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
from ml_collections import ConfigDict

from experiments import build, state
from experiments.benchmarks.speed import minima
from experiments.parallel import AXIS
from experiments.train import initial_state, load_data, make_step, take_batches, training_stream

CALLS = 3  # of training, fed and not, in one measurement


def benchmark(config: ConfigDict) -> str:
    """Measures and returns a table; takes as long as compiling a training step, and then seconds."""
    images = load_data(config).train
    with training_stream(config, images) as iterator:
        rows = _rows(config, images, iterator)
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {value}" for name, value in rows)


def _rows(config: ConfigDict, images: Any, iterator: Any) -> list[tuple[str, str]]:
    strategy, k, size = build.parallel(config), config.training.steps_per_call, config.data.batch_size
    rng = np.random.default_rng(0)

    def gather():
        return images.gather(rng.integers(len(images), size=size))

    def batches():
        return [next(iterator) for _ in range(k)]

    def sharded():
        return strategy.shard(take_batches(iterator, k, k), axis=1)

    arrive = strategy.map(lambda batch: batch["image"].ravel()[0], in_axes=(0,))
    step = strategy.map(state.make_train_steps(make_step(config, AXIS), k), in_axes=(0, 0, None))
    start, waiting = strategy.replicate(initial_state(config)), sharded()
    waiting = jax.tree.map(lambda leaf: strategy.map(lambda x: x, in_axes=(0,))(leaf), waiting)  # on the devices

    def train(take):
        current = start
        for _ in range(CALLS):
            current, _ = step(current, take(), jnp.int32(k))
        return current.step

    prepare = jax.jit(build.preparation(config))
    keys, one = jax.random.split(jax.random.key(0), size // strategy.num_devices), waiting["image"][0, 0]
    _, seconds = minima(
        gather=gather,
        batches=batches,
        device=lambda: arrive(sharded()),
        prepare=lambda: prepare(keys, one),
        training=lambda: train(lambda: waiting),
        fed=lambda: train(sharded),
    )
    pipeline, training, fed = k / seconds["device"], CALLS * k / seconds["training"], CALLS * k / seconds["fed"]
    workers = f"{config.data.workers} worker processes" if config.data.workers else "a thread"
    shape = "x".join(map(str, one.shape[1:]))

    def per_second(batches_per_second):
        return f"{batches_per_second * size:,.0f} images/s"

    return [
        ("devices", f"{jax.local_device_count()} x {jax.local_devices()[0].device_kind}"),
        ("data", f"{len(images):,} images {shape}, batches of {size}, read in {workers}"),
        ("gather", per_second(1 / seconds["gather"])),
        ("batches", per_second(k / seconds["batches"])),
        ("to device", per_second(pipeline)),
        ("prepare, on each device", per_second(len(keys) / size / seconds["prepare"])),
        ("training, on batches that lie ready", per_second(training)),
        ("training, fed by the pipeline", per_second(fed)),
        ("pipeline relative to training", f"{pipeline / training:.1f}"),
        ("training fed relative to training alone", f"{fed / training:.3f}"),
    ]
