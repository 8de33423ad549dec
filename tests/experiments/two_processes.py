"""One of two real processes with four devices each, started by `test_distributed.py`; and the toy run of all topologies.

python -m tests.experiments.two_processes PORT INDEX FOLDER
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import data
from experiments.devices import distributed
from experiments.devices.parallel import AXIS, BATCH, SAME, STATE, STRATEGIES, Strategy
from experiments.errors import RunError, UserError
from experiments.evaluation.features import OnAllDevices
from experiments.learning import averaging, state
from experiments.runs.checkpoint import Checkpoints
from experiments.training.train import take_batches

HALF, BATCH_SIZE = 3, 16
FEATURES = 16  # pixels of an image


def loss(draws, params, batch, frozen):
    """A small network with noise of its own for each example: data, keys, places and weights all matter."""
    x = batch["image"].reshape(-1, FEATURES) / 255.0 + jax.vmap(lambda key: jax.random.normal(key, (FEATURES,)))(
        draws.keys
    )
    hidden = jnp.tanh(x @ params["first"]) * params["scale"]
    return jnp.square(hidden @ params["second"] - draws.places / draws.size)


def start(optimizer):
    """Weights of which some can be split over eight devices and one cannot."""
    rng = np.random.default_rng(0)
    shapes = {"first": (FEATURES, 24), "second": (24,), "scale": ()}
    params = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    return state.create(params, optimizer)


class Toy:
    """A run of six steps on a topology: three, a checkpoint, three more."""

    def __init__(self, strategy: Strategy):
        self.strategy = strategy
        self.optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(1e-2))
        step = state.make_train_step(
            loss, self.optimizer, emas=[averaging.warmup(0.9)], seed=0,
            axis_name=strategy.axis_name, mean_gradient=strategy.mean_gradient,
        )  # fmt: skip
        self.steps = strategy.map_training(state.make_train_steps(step, HALF))
        images = np.random.default_rng(1).integers(0, 256, (50, 4, 4, 1), dtype=np.uint8)
        self.iterator = data.training_batches(
            data.Images(images, None), batch_size=BATCH_SIZE, seed=0, flip=False,
            host=jax.process_index(), hosts=jax.process_count(),
        )  # fmt: skip

    def first_half(self, folder: Path) -> list[float]:
        """The losses of steps 1 to 3, whose end is saved."""
        current, losses = self._run(start(self.optimizer))
        with Checkpoints(folder, keep=1) as checkpoints:
            checkpoints.save(self.strategy.whole(current), self.iterator)
        return losses

    def undisturbed(self) -> list[float]:
        """The losses of steps 1 to 6, without a checkpoint between them."""
        current, losses = self._run(start(self.optimizer))
        return losses + self._run(current)[1]

    def second_half(self, folder: Path) -> list[float]:
        """The losses of steps 4 to 6, from the checkpoint of any topology."""
        abstract = jax.eval_shape(lambda: start(self.optimizer))
        with Checkpoints(folder, keep=1) as checkpoints:
            current = checkpoints.restore(self.strategy.layout(abstract), self.iterator)
        return self._run(current)[1]

    def _run(self, current):
        batches = self.strategy.shard(take_batches(self.iterator, HALF, HALF), axis=1)
        current, metrics = self.steps(self.strategy.place(current), batches, np.int32(HALF))
        return current, np.asarray(metrics["loss"]).tolist()


def gathered(strategy: Strategy) -> dict:
    """What the programs of all processes saw, joined in this one."""
    size = 2 * strategy.num_devices
    places = strategy.shard(np.arange(size, dtype=np.int32)[strategy.rows(size)])

    def program(places, weights, offset):
        return places + offset + weights["w"].sum().astype(int), jax.lax.psum(places.sum(), AXIS)

    mapped = strategy.map(program, (BATCH, STATE, SAME), (BATCH, SAME))
    shifted, total = mapped(places, strategy.place({"w": np.ones(8, np.float32)}), np.int32(100))
    return {"joined": strategy.gather(shifted).tolist(), "total": int(total)}


class Pixels:
    """A feature network for devices, of two images on each at a time."""

    name, preprocessing, sha256, batch_size = "pixels", "none", "0" * 64, 2

    def __init__(self):
        self.variables = {"scale": np.float32(2)}

    def apply(self, variables, images):
        return {"pool": variables["scale"] * images.reshape(len(images), -1).astype(np.float32)}


def features(strategy: Strategy, count: int) -> list:
    """The features of images 0, 1, ... whose pixels are their numbers, as every process has them."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 1, 1, 1))
    return OnAllDevices(Pixels(), strategy)(images)["pool"][:, 0].tolist()


def agreement() -> dict:
    """What this process learns of the others."""

    def refuse():
        raise UserError("the folder is taken")

    try:
        distributed.first_process_does(refuse)
    except (UserError, RunError) as error:
        refused = f"{type(error).__name__}: {error}"
    mine = jax.process_index() == 1
    together = distributed.together(jax.process_index)
    return {
        "together": together,
        "any": [distributed.any_process(flag) for flag in (mine, not mine, False)],
        "refused": refused,
        "told": distributed.first_tells(lambda: {"who": jax.process_index(), "figures": [0.1, None]}),
    }


def main(port: str, index: str, folder: str) -> None:
    jax.config.update("jax_num_cpu_devices", 4)
    distributed.start(f"127.0.0.1:{port}", 2, int(index))
    seen = {"agreement": agreement(), "losses": {}, "resumed": {}, "gathered": {}}
    others = sorted(Path(folder).glob("one_process_*"))
    for name in STRATEGIES:
        topology = f"two_processes_{name}"
        toy = Toy(STRATEGIES[name]())
        seen["losses"][topology] = toy.first_half(Path(folder) / topology)
        for saved in [*others, *sorted(Path(folder).glob("two_processes_*"))]:
            seen["resumed"][f"{topology} after {saved.name}"] = toy.second_half(saved)
        seen["gathered"][name] = gathered(toy.strategy) | {"features": features(toy.strategy, 35)}
    Path(folder, f"seen_by_{index}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
