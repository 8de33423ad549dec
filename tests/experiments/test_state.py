"""The training step: gradients, averages and loops against the same done by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.devices.parallel import Fsdp, Pmap
from experiments.learning import averaging, state

pytestmark = pytest.mark.devices

SEED, DECAY = 3, 0.9
WEIGHTS = np.linspace(-0.4, 0.5, 8, dtype=np.float32)


def loss(draws, params, batch, frozen):
    """A linear model with a noisy target, so that keys, places, weights and data all matter."""
    noise = jax.vmap(jax.random.normal)(draws.keys)
    spread = (jax.random.uniform(draws.shared) + draws.places / draws.size) % 1
    return jnp.square(batch["image"] @ params["w"] - noise - spread)


def batches(n, size=16):
    return {"image": np.random.default_rng(0).normal(size=(n, size, 8)).astype(np.float32)}


def start(**options):
    return state.create({"w": jnp.array(WEIGHTS)}, optax.sgd(0.1), **options)


def step(strategy=None, emas=None, loss=loss, **options):
    emas = emas or (averaging.warmup(DECAY),)
    return make_step(strategy, loss, optax.sgd(0.1), emas=emas, seed=SEED, **options)


def make_step(strategy, *arguments, **options):
    of_strategy = {"axis_name": strategy.axis_name, "mean_gradient": strategy.mean_gradient} if strategy else {}
    return state.make_train_step(*arguments, **options, **of_strategy)


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
        w = w - 0.1 * 2 * x.T @ residual / 16
        decay = min(DECAY, (1 + i) / (10 + i))
        ema = decay * ema + (1 - decay) * w
        w = project(w)
    return w, ema, losses


def test_steps_are_gradient_descent_with_an_average_that_warms_up():
    current, take_step = start(), jax.jit(step())
    for i in range(12):
        current, metrics = take_step(current, {"image": batches(12)["image"][i]})
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
def test_weights_are_projected_after_the_average_has_taken_them(strategy, devices):
    """The projection is of whole weights, of which a device of `Fsdp` has a share."""
    strategy = strategy(jax.devices()[:devices])
    run = strategy.map_training(state.make_train_steps(step(strategy, project=to_the_sphere), 6))
    current, _ = run(strategy.place(start()), strategy.shard(batches(6), axis=1), np.int32(4))
    w, ema, _ = by_hand(4, lambda w: w / np.linalg.norm(w))
    assert_every_device_has(current.params["w"], w)
    assert_every_device_has(current.ema["w"], ema)


@pytest.mark.parametrize("strategy, devices, parts", [(Pmap, 1, 2), (Pmap, 2, 4), (Fsdp, 2, 4)])
def test_accumulated_gradients_make_the_same_steps(strategy, devices, parts):
    """Every example keeps its place in the global batch, whatever part it is in."""
    strategy = strategy(jax.devices()[:devices])
    run = strategy.map_training(state.make_train_steps(step(strategy, accumulate=parts), 6))
    current, metrics = run(strategy.place(start()), strategy.shard(batches(6), axis=1), np.int32(4))
    w, ema, losses = by_hand(4)
    assert_every_device_has(current.params["w"], w)
    assert_every_device_has(current.ema["w"], ema)
    np.testing.assert_allclose(metrics["loss"][:4], losses, rtol=1e-4)


def test_accumulation_is_exact_to_rounding():
    """In float64 one step with 1, 2, 4 and 16 parts agrees to 1e-15."""
    with jax.enable_x64(True):
        batch = {"image": jnp.asarray(batches(1)["image"][0], jnp.float64)}
        first = state.create({"w": jnp.array(WEIGHTS, jnp.float64)}, optax.sgd(0.1))
        ends = [jax.jit(step(accumulate=parts))(first, batch)[0].params["w"] for parts in (1, 2, 4, 16)]
    for end in ends[1:]:
        np.testing.assert_allclose(end, ends[0], rtol=1e-15, atol=1e-16)


def test_several_averages_are_tracked_each_by_its_own_rule():
    rules = (averaging.warmup(DECAY), averaging.constant(0.5), averaging.power(averaging.LARGEST_STD))
    current, passed = start(emas=3), []
    take_step = jax.jit(step(emas=rules))
    for i in range(4):
        current, _ = take_step(current, {"image": batches(4)["image"][i]})
        passed.append(current.params["w"])
    np.testing.assert_allclose(current.emas[0]["w"], by_hand(4)[1], rtol=1e-4)
    halves = 0.5 ** np.array([4, 4, 3, 2, 1])  # of the start and of each update
    np.testing.assert_allclose(current.emas[1]["w"], halves @ np.array([start().params["w"], *passed]), rtol=1e-5)
    np.testing.assert_allclose(current.emas[2]["w"], np.mean(passed, 0), rtol=1e-5)


def breaking_loss(draws, params, batch, frozen):
    """The loss, plus what the batch says: a NaN, or a slope at which the loss stays as it is."""
    zero = (params["w"] - jax.lax.stop_gradient(params["w"])).sum()
    return loss(draws, params, batch, frozen) + batch["bad"] + batch["steep"] * zero


def broken(n, nan_at=(), steep_at=()):
    """Batches of which some have one bad example, the last of the global batch."""
    bad, steep = np.zeros((n, 16), np.float32), np.zeros((n, 16), np.float32)
    bad[list(nan_at), -1], steep[list(steep_at), -1] = np.nan, 1e30  # of which the square is infinite
    return batches(n) | {"bad": bad, "steep": steep}


@pytest.mark.parametrize("strategy", [Pmap, Fsdp])
@pytest.mark.parametrize("devices", [1, 8])
def test_steps_that_are_not_finite_change_nothing_but_the_counts(strategy, devices):
    """All devices leave out what one of them finds; the steps before, and the optimizer, are those of a run without."""
    strategy, optimizer = strategy(jax.devices()[:devices]), optax.adam(0.1)
    train_step = make_step(strategy, breaking_loss, optimizer, emas=(averaging.constant(0.5),) * 2, seed=SEED)
    one = strategy.map_training(lambda state, batch, n: train_step(state, batch))
    stream = broken(6, nan_at=[2], steep_at=[3])

    def run(skip, steps):
        current = strategy.place(state.create({"w": jnp.ones(8)}, optimizer, emas=2, skip_nonfinite=skip))
        history = []
        for i in steps:
            batch = strategy.shard({name: array[i] for name, array in stream.items()})
            current, metrics = one(current, batch, np.int32(1))
            history.append(jax.tree.map(np.array, strategy.whole(current)))  # the next call takes its memory
        return history, metrics

    skipping, metrics = run(True, range(6))
    stopping, _ = run(False, range(2))
    for a, b in zip(jax.tree.leaves(stopping[1]), jax.tree.leaves(skipping[1].replace(skipped=None)), strict=True):
        np.testing.assert_array_equal(a, b)  # bit for bit
    before, after = skipping[1], skipping[3]
    assert (after.step, after.skipped) == (4, 2)
    for field in ("params", "opt_state", "emas"):
        for a, b in zip(jax.tree.leaves(getattr(before, field)), jax.tree.leaves(getattr(after, field)), strict=True):
            np.testing.assert_array_equal(a, b)
    assert (skipping[5].params["w"] != after.params["w"]).all()
    assert metrics["skipped"] == 2
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(skipping[5]))


def test_averages_count_updates_where_steps_are_skipped():
    """The first update is taken whole by a power average, though the first step was skipped."""
    take_step = jax.jit(step(emas=(averaging.power(0.1),), loss=breaking_loss))
    current, stream = start(skip_nonfinite=True), broken(2, nan_at=[0])
    for i in range(2):
        current, _ = take_step(current, {name: array[i] for name, array in stream.items()})
    np.testing.assert_array_equal(current.ema["w"], current.params["w"])
    assert (current.step, current.skipped, current.updates) == (2, 1, 1)


def test_no_key_is_used_twice():
    with jax.debug_key_reuse(True):
        jax.jit(step())(start(), {"image": batches(1)["image"][0]})
    drawn = [state.draws(jax.random.key(0), s, np.arange(8), 8) for s in range(4)]
    keys = [jax.random.key_data(key).reshape(-1, 2) for d in drawn for key in (d.keys, d.shared)]
    assert len(np.unique(np.concatenate(keys), axis=0)) == 36


@pytest.mark.parametrize("strategy", [None, Pmap, Fsdp])
def test_metrics_are_of_the_gradient_before_clipping_and_of_the_weights_after_the_last_step(strategy):
    """Means over the whole batch, of what the loss gives besides too; the norm of the weights is at every place."""
    strategy = strategy and strategy(jax.devices()[:2])

    def with_more(draws, params, batch, frozen):
        return loss(draws, params, batch, frozen), {"place": draws.places[:, None] * jnp.array([1.0, 10.0])}

    clipped = optax.chain(optax.clip_by_global_norm(1e-2), optax.sgd(0.1))
    emas = (averaging.constant(0.5),)
    one = make_step(strategy, with_more, clipped, emas=emas, seed=SEED, has_aux=True)
    current = state.create({"w": jnp.array(WEIGHTS)}, clipped)
    many = state.make_train_steps(one, 3)
    if strategy is None:
        current, metrics = jax.jit(many)(current, batches(3), 2)
    else:
        run = strategy.map_training(many)
        current, metrics = run(strategy.place(current), strategy.shard(batches(3), axis=1), np.int32(2))
        current = strategy.whole(current)
    w, norms = WEIGHTS.astype(np.float64), []
    for i, x in enumerate(batches(2)["image"]):
        key = jax.random.fold_in(jax.random.key(SEED), i)
        noise = np.array([jax.random.normal(jax.random.fold_in(key, place)) for place in range(16)])
        spread = (jax.random.uniform(jax.random.fold_in(key, 16)) + np.arange(16) / 16) % 1
        gradient = 2 * x.T @ (x @ w - noise - spread) / 16
        norms.append(np.linalg.norm(gradient))
        w = w - 0.1 * 1e-2 * gradient / norms[-1]
    np.testing.assert_allclose(metrics["grad_norm"][:2], norms, rtol=1e-4)
    np.testing.assert_allclose(current.params["w"], w, rtol=1e-5)
    np.testing.assert_allclose(metrics["param_norm"], [np.linalg.norm(w)] * 3, rtol=1e-5)
    np.testing.assert_allclose(metrics["place"][:2], [[7.5, 75]] * 2, rtol=1e-6)
    assert np.isnan(metrics["place"][2:]).all() and metrics["place"].shape == (3, 2)
    assert set(metrics) == {"loss", "grad_norm", "param_norm", "place"}


@pytest.mark.parametrize("parts, first, last", [(1, 0, 11), (3, 1, 10), (12, 5.5, 5.5)])
def test_a_part_has_every_so_manieth_example(parts, first, last):
    """Part i of n begins with example i, so that devices that have examples in turn share each part evenly."""
    function = state.mean_over_parts(lambda x: (x["a"][0], {"end": x["a"][-1], "whole": x["a"].sum()}), parts)
    begin, rest = function({"a": jnp.arange(12.0)})
    assert (begin, rest["end"], rest["whole"]) == (first, last, 66 / parts)
