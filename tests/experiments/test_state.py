"""The training step: gradients, averages and loops against the same done by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import averaging, state
from experiments.parallel import AXIS, Pmap

SEED, DECAY = 3, 0.9


def loss(draws, params, batch):
    """A linear model with a noisy target, so that keys, places, weights and data all matter."""
    noise = jax.vmap(jax.random.normal)(draws.keys)
    spread = (jax.random.uniform(draws.shared) + draws.places / draws.size) % 1
    return jnp.square(batch["image"] @ params["w"] - noise - spread)


def batches(n, size=16):
    return {"image": np.random.default_rng(0).normal(size=(n, size, 3)).astype(np.float32)}


def start():
    return state.create({"w": jnp.array([0.3, -0.2, 0.5])}, optax.sgd(0.1))


def step(axis_name=None, project=state.unchanged):
    ema = averaging.warmup(DECAY)
    return state.make_train_step(loss, optax.sgd(0.1), ema=ema, seed=SEED, project=project, axis_name=axis_name)


def to_the_sphere(params):
    """A projection: weights of length 1."""
    return {"w": params["w"] / jnp.linalg.norm(params["w"])}


def by_hand(n, project=lambda w: w):
    """n steps of gradient descent in numpy, with keys from (seed, step, place)."""
    w = ema = np.array([0.3, -0.2, 0.5])
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


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_a_loop_on_any_number_of_devices_is_the_same_steps(devices):
    strategy = Pmap(jax.devices()[:devices])
    run = strategy.map(state.make_train_steps(step(AXIS), 6), in_axes=(0, 0, None))
    current, metrics = run(strategy.replicate(start()), strategy.shard(batches(6), axis=1), jnp.int32(4))
    w, ema, losses = by_hand(4)
    for copy in range(devices):
        np.testing.assert_allclose(current.params["w"][copy], w, rtol=1e-4)
    np.testing.assert_allclose(strategy.first(current).ema["w"], ema, rtol=1e-4)
    np.testing.assert_allclose(metrics["loss"][0][:4], losses, rtol=1e-4)
    assert np.isnan(metrics["loss"][0][4:]).all()


@pytest.mark.parametrize("devices", [1, 8])
def test_weights_are_projected_after_the_update_and_before_the_average(devices):
    strategy = Pmap(jax.devices()[:devices])
    run = strategy.map(state.make_train_steps(step(AXIS, to_the_sphere), 6), in_axes=(0, 0, None))
    current, _ = run(strategy.replicate(start()), strategy.shard(batches(6), axis=1), jnp.int32(4))
    w, ema, _ = by_hand(4, lambda w: w / np.linalg.norm(w))
    for copy in range(devices):
        np.testing.assert_allclose(current.params["w"][copy], w, rtol=1e-4)
        np.testing.assert_allclose(current.ema["w"][copy], ema, rtol=1e-4)


def test_shard_gives_device_d_its_places_in_the_global_batch():
    strategy = Pmap(jax.devices()[:4])
    array = np.arange(2 * 8).reshape(2, 8)
    sharded = strategy.shard({"a": array}, axis=1)["a"]
    np.testing.assert_array_equal(sharded[1], [[2, 3], [10, 11]])
    np.testing.assert_array_equal(strategy.gather(strategy.shard(np.arange(8))), np.arange(8))


def test_no_key_is_used_twice():
    with jax.debug_key_reuse(True):
        jax.jit(step())(start(), {"image": batches(1)["image"][0]})
    drawn = [state.draws(jax.random.key(0), s, np.arange(8), 8) for s in range(4)]
    keys = [jax.random.key_data(key).reshape(-1, 2) for d in drawn for key in (d.keys, d.shared)]
    assert len(np.unique(np.concatenate(keys), axis=0)) == 36
