"""The training step: gradients, averages and loops against the same done by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import averaging, state
from experiments.parallel import Fsdp, Pmap

SEED, DECAY = 3, 0.9
WEIGHTS = np.linspace(-0.4, 0.5, 8, dtype=np.float32)


def loss(draws, params, batch):
    """A linear model with a noisy target, so that keys, places, weights and data all matter."""
    noise = jax.vmap(jax.random.normal)(draws.keys)
    spread = (jax.random.uniform(draws.shared) + draws.places / draws.size) % 1
    return jnp.square(batch["image"] @ params["w"] - noise - spread)


def batches(n, size=16):
    return {"image": np.random.default_rng(0).normal(size=(n, size, 8)).astype(np.float32)}


def start():
    return state.create({"w": jnp.array(WEIGHTS)}, optax.sgd(0.1))


def step(strategy=None, project=state.unchanged):
    return state.make_train_step(
        loss,
        optax.sgd(0.1),
        ema=averaging.warmup(DECAY),
        seed=SEED,
        project=project,
        axis_name=strategy and strategy.axis_name,
        mean_gradient=strategy and strategy.mean_gradient,
    )


def assert_every_device_has(array, expected):
    """Its copy, or its share, whichever its place says."""
    for shard in array.addressable_shards:
        np.testing.assert_allclose(shard.data, expected[shard.index], rtol=1e-4)


def to_the_sphere(params):
    """A projection: weights of length 1."""
    return {"w": params["w"] / jnp.linalg.norm(params["w"])}


def by_hand(n, project=lambda w: w):
    """n steps of gradient descent in numpy, with keys from (seed, step, place)."""
    w = ema = WEIGHTS.astype(np.float64)
    losses = []
    for i, x in enumerate(batches(n)["image"]):
        key = jax.random.fold_in(jax.random.key(SEED), i)
        noise = np.array([jax.random.normal(jax.random.fold_in(key, place)) for place in range(16)])
        spread = (jax.random.uniform(jax.random.fold_in(key, 16)) + np.arange(16) / 16) % 1
        residual = x @ w - noise - spread
        losses.append(np.square(residual).mean())
        w = project(w - 0.1 * 2 * x.T @ residual / 16)
        decay = min(DECAY, (1 + i) / (10 + i))
        ema = decay * ema + (1 - decay) * w
    return w, ema, losses


def test_steps_are_gradient_descent_with_an_average_that_warms_up():
    current = start()
    for i in range(12):
        current, metrics = jax.jit(step())(current, {"image": batches(12)["image"][i]})
    w, ema, losses = by_hand(12)
    np.testing.assert_allclose(current.params["w"], w, rtol=1e-4)
    np.testing.assert_allclose(current.ema["w"], ema, rtol=1e-4)
    np.testing.assert_allclose(metrics["loss"], losses[-1], rtol=1e-4)
    assert current.step == 12


@pytest.mark.parametrize("kind", [Pmap, Fsdp])
@pytest.mark.parametrize("devices", [1, 2, 8])
def test_a_loop_on_any_number_of_devices_is_the_same_steps(kind, devices):
    strategy = kind(jax.devices()[:devices])
    run = strategy.map_training(state.make_train_steps(step(strategy), 6))
    current, metrics = run(strategy.place(start()), strategy.shard(batches(6), axis=1), np.int32(4))
    w, ema, losses = by_hand(4)
    assert_every_device_has(current.params["w"], w)
    np.testing.assert_allclose(strategy.whole(current).ema["w"], ema, rtol=1e-4)
    np.testing.assert_allclose(metrics["loss"][:4], losses, rtol=1e-4)
    assert np.isnan(metrics["loss"][4:]).all()


@pytest.mark.parametrize("strategy", [Pmap, Fsdp])
@pytest.mark.parametrize("devices", [1, 8])
def test_weights_are_projected_after_the_update_and_before_the_average(strategy, devices):
    """The projection is of whole weights, of which a device of `Fsdp` has a share."""
    strategy = strategy(jax.devices()[:devices])
    run = strategy.map_training(state.make_train_steps(step(strategy, to_the_sphere), 6))
    current, _ = run(strategy.place(start()), strategy.shard(batches(6), axis=1), np.int32(4))
    w, ema, _ = by_hand(4, lambda w: w / np.linalg.norm(w))
    assert_every_device_has(current.params["w"], w)
    assert_every_device_has(current.ema["w"], ema)


def test_no_key_is_used_twice():
    with jax.debug_key_reuse(True):
        jax.jit(step())(start(), {"image": batches(1)["image"][0]})
    drawn = [state.draws(jax.random.key(0), s, np.arange(8), 8) for s in range(4)]
    keys = [jax.random.key_data(key).reshape(-1, 2) for d in drawn for key in (d.keys, d.shared)]
    assert len(np.unique(np.concatenate(keys), axis=0)) == 36
