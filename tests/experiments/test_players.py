"""Several sets of weights in one training: each descends its own loss, on any devices, and is stored and averaged."""

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.devices.parallel import Fsdp, Pmap
from experiments.learning import players, state
from experiments.learning.players import Player
from experiments.runs.checkpoint import Checkpoints

pytestmark = pytest.mark.devices

TEAM = {
    "a": Player(optax.sgd(0.1), (lambda n: 0.5, lambda n: 0.25), lambda w: w + 1),
    "b": Player(optax.adam(0.01), (lambda n: 1.0,)),
}
FROZEN = np.arange(1.0, 9.0, dtype=np.float32)


def start():
    params = {"a": jnp.full(8, 2.0), "b": jnp.full(8, -1.0)}
    return state.create(params, players.optimizer(TEAM), emas=players.averaged(TEAM), frozen={"t": jnp.asarray(FROZEN)})


def losses(draws, params, batch, frozen):
    """Each player's loss has gradients of the other's weights too, which must not be followed."""
    x = batch["image"]
    a = (x * params["a"] * params["b"] * frozen["t"]).sum(1)
    return {"a": a, "b": (params["a"] * params["b"] ** 2).sum() + 0 * a + draws.progress}, {"mean": x.mean(1)}


def train_step(strategy=None, **options):
    return state.make_train_step(
        losses, players.optimizer(TEAM), emas=players.averages(TEAM), project=players.project(TEAM), seed=0, has_aux=True,
        num_steps=4, axis_name=strategy and strategy.axis_name, mean_gradient=strategy and strategy.mean_gradient,
        **options,
    )  # fmt: skip


BATCH = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)


def expected():
    """The first update, written out: sgd of a, Adam of b, which moves by its rate against the gradient's sign."""
    x = BATCH.mean(0)
    a = 2.0 - 0.1 * x * -1.0 * FROZEN
    b = -1.0 - 0.01 * np.sign(2 * 2.0 * -1.0)
    return a, np.full(8, b)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("strategy", [None, Pmap, Fsdp])
def test_each_descends_its_own_loss(strategy, accumulate):
    made = strategy and strategy()
    step = train_step(made, accumulate=accumulate)
    if made is None:
        after, metrics = jax.jit(step)(start(), {"image": BATCH})
        one = metrics
    else:
        run = made.map_training(state.make_train_steps(step, 2))
        batches = made.shard({"image": np.stack([BATCH, BATCH])}, axis=1)
        after, metrics = run(made.place(start()), batches, np.int32(1))
        after, one = made.to_host(after), jax.tree.map(lambda m: np.asarray(m)[0], metrics)
    a, b = expected()
    np.testing.assert_allclose(after.params["a"], a + 1, rtol=1e-5)  # projected
    np.testing.assert_allclose(after.params["b"], b, rtol=1e-5)
    np.testing.assert_allclose(after.emas[0]["a"], (a + 2) / 2, rtol=1e-5)
    np.testing.assert_allclose(after.emas[0]["b"], b, rtol=1e-5)
    assert after.emas[1].keys() == {"a"}
    np.testing.assert_allclose(after.emas[1]["a"], 0.75 * 2 + 0.25 * a, rtol=1e-5)
    np.testing.assert_array_equal(after.frozen["t"], FROZEN)
    of_a, of_b = (BATCH * 2.0 * -1.0 * FROZEN).sum(1).mean(), 8 * 2.0
    np.testing.assert_allclose([one["loss_a"], one["loss_b"]], [of_a, of_b], rtol=1e-4)
    np.testing.assert_allclose(one["loss"], of_a + of_b, rtol=1e-4)
    np.testing.assert_allclose(one["mean"], BATCH.mean(), rtol=1e-4)


def test_the_loss_is_given_the_progress_of_the_training():
    step, current, seen = jax.jit(train_step()), start(), []
    for _ in range(4):
        before = current
        current, metrics = step(current, {"image": BATCH})
        seen.append(float(metrics["loss_b"] - (before.params["a"] * before.params["b"] ** 2).sum()))
    np.testing.assert_allclose(seen, [0, 0.25, 0.5, 0.75], atol=1e-4)


def test_a_checkpoint_holds_all_players_and_no_frozen_weights(tmp_path):
    trained, _ = jax.jit(train_step())(start(), {"image": BATCH})
    with Checkpoints(tmp_path, 2) as checkpoints:
        rows = iter(grain.MapDataset.range(8).to_iter_dataset())
        checkpoints.save(trained, rows)
        checkpoints.wait()
        restored = checkpoints.restore(jax.eval_shape(start), rows)
        step, average = checkpoints.restore_ema(jax.eval_shape(lambda: start().emas[1]), place=1)
    assert restored.frozen is None and step == 1
    same = trained.replace(frozen=None)
    assert jax.tree.structure(restored) == jax.tree.structure(same)
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(average["a"], trained.emas[1]["a"])
    assert average.keys() == {"a"}


def test_one_player_is_the_training_of_one_network():
    alone = {"network": Player(optax.adam(0.1), (lambda n: 0.5,))}
    assert players.optimizer(alone) is alone["network"].optimizer and players.averaged(alone) == 1
    assert players.averages(alone) == alone["network"].averages and players.project(alone) is state.unchanged
