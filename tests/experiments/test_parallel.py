"""Strategies: who has which examples and which part of the weights, and that programs see both as they are told."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec

from experiments.devices.parallel import AXIS, BATCH, SAME, STATE, Fsdp, Pmap

pytestmark = pytest.mark.devices

STRATEGIES = pytest.mark.parametrize("kind", [Pmap, Fsdp])


def test_pmap_gives_device_d_its_places_in_the_global_batch():
    strategy = Pmap(jax.devices()[:4])
    sharded = strategy.shard({"a": np.arange(2 * 8).reshape(2, 8)}, axis=1)["a"]
    np.testing.assert_array_equal(sharded[1], [[2, 3], [10, 11]])


def test_fsdp_gives_device_d_its_places_in_the_global_batch():
    strategy = Fsdp(jax.devices()[:4])
    sharded = strategy.shard({"a": np.arange(2 * 8).reshape(2, 8)}, axis=1)["a"]
    (second,) = [shard for shard in sharded.addressable_shards if shard.device == jax.devices()[1]]
    np.testing.assert_array_equal(second.data, [[2, 3], [10, 11]])


@STRATEGIES
def test_programs_see_their_examples_and_the_whole_weights(kind):
    """Results come back in the order of examples; collectives run over all devices."""
    strategy = kind(jax.devices()[:4])
    weights = {"split": np.arange(24.0).reshape(2, 12), "odd": np.arange(3.0)}

    def program(x, weights, offset):
        place = lax.axis_index(AXIS) * x.shape[0] + np.arange(x.shape[0])
        return x + weights["split"][1, 11] + weights["odd"].sum() + offset, place, lax.psum(x.sum(), AXIS)

    mapped = strategy.map(program, (BATCH, STATE, SAME), (BATCH, BATCH, SAME))
    x = np.arange(8.0)
    shifted, places, total = mapped(strategy.shard(x), strategy.place(weights), np.float32(100))
    np.testing.assert_array_equal(strategy.gather(shifted), x + 23 + 3 + 100)
    np.testing.assert_array_equal(strategy.gather(places), np.arange(8))
    assert total == x.sum()


@STRATEGIES
def test_values_and_gradients_are_means_over_devices(kind):
    """Each device sees the whole weights, its own two examples and the step; a sum would grow with the devices."""
    strategy = kind(jax.devices()[:4])
    weights = {"split": np.arange(16, dtype=np.float32).reshape(2, 8), "odd": np.arange(3, dtype=np.float32)}

    def of_device(params, batch, step, frozen=None):
        gradient = {"split": params["split"] * batch.sum(), "odd": params["odd"].sum() + params["odd"] * batch[0]}
        return batch.sum() * step, gradient

    def train(state, batches, step):
        value, gradient = strategy.mean_gradient(of_device)(state, batches, step)
        return jax.tree.map(lambda w, g: 100 * w + g, state, gradient), value

    examples = np.arange(8, dtype=np.float32)  # sums 1, 5, 9, 13 on the devices; the first ones 0, 2, 4, 6
    state, value = strategy.map_training(train)(strategy.place(weights), strategy.shard(examples), np.float32(2))
    found = strategy.to_host(state)
    np.testing.assert_allclose(found["split"], weights["split"] * (100 + 7))
    np.testing.assert_allclose(found["odd"], weights["odd"] * (100 + 3) + 3)
    assert float(value) == 2 * 7


@pytest.mark.parametrize(
    "shape, expected",
    [
        ((3, 3, 8, 16), PartitionSpec(None, None, None, AXIS)),
        ((3, 3, 16, 8), PartitionSpec(None, None, AXIS)),
        ((8, 8), PartitionSpec(None, AXIS)),
        ((32, 20), PartitionSpec(AXIS)),
        ((20, 3), PartitionSpec()),
        ((), PartitionSpec()),
        ((0,), PartitionSpec()),
    ],
)
def test_fsdp_splits_along_the_largest_axis_that_devices_divide(shape, expected):
    assert Fsdp().spec(shape) == expected


@STRATEGIES
def test_what_is_placed_stays_and_comes_back_whole(kind):
    strategy = kind()
    tree = {"a": np.arange(16.0).reshape(2, 8), "b": np.float32(3)}
    placed = strategy.place(tree)
    again = strategy.place(placed)
    assert all(x is y for x, y in zip(jax.tree.leaves(placed), jax.tree.leaves(again), strict=True))
    jax.tree.map(np.testing.assert_array_equal, strategy.whole(placed), tree)


def test_fsdp_keeps_a_share_of_the_state_on_each_device():
    """8 devices: an eighth of what can be split, all of what cannot."""
    placed = Fsdp().place({"split": np.zeros((16, 5)), "odd": np.zeros(5)})
    sizes = {name: {shard.data.size for shard in x.addressable_shards} for name, x in placed.items()}
    assert sizes == {"split": {10}, "odd": {5}}


@pytest.mark.parametrize(
    "of_processes, mine, size, expected",
    [
        ([0, 0, 1, 1], 0, 8, (0, 4)),
        ([0, 0, 1, 1], 1, 8, (4, 8)),
        ([0, 1, 1, 1], 1, 8, (2, 8)),
        ([0, 0, 1, 2], 2, 12, (9, 12)),
        ([0], 0, 5, (0, 5)),
    ],
)
def test_a_process_has_the_rows_of_its_devices(monkeypatch, of_processes, mine, size, expected):
    """In the order of devices, each with an equal share."""
    strategy = object.__new__(Pmap)
    strategy.devices = [SimpleNamespace(process_index=index) for index in of_processes]
    monkeypatch.setattr(jax, "process_index", lambda: mine)
    assert strategy.rows(size) == slice(*expected)
    assert strategy.num_devices == len(of_processes) and len(strategy.local_devices) == of_processes.count(mine)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_examples_are_divided_along_any_axis_and_others_stay(axis):
    """Pmap has devices first, Fsdp the global array."""
    x = np.arange(4 * 6 * 8 * 3).reshape(4, 6, 8, 3)
    pmap, fsdp = (kind(jax.devices()[:2]) for kind in (Pmap, Fsdp))
    halves = np.split(x, 2, axis)
    for half, found in zip(halves, pmap.shard({"a": x}, axis)["a"], strict=True):
        np.testing.assert_array_equal(found, half)
    whole = fsdp.shard({"a": x}, axis)["a"]
    np.testing.assert_array_equal(whole, x)
    for half, shard in zip(halves, sorted(whole.addressable_shards, key=lambda s: s.device.id), strict=True):
        np.testing.assert_array_equal(shard.data, half)


@STRATEGIES
def test_arrays_that_lie_otherwise_are_laid_out(kind):
    """On one device, on all whole, or divided: each comes to lie as the strategy has it."""
    strategy = kind(jax.devices()[:4])
    x = np.arange(24.0).reshape(8, 3)
    expected = jax.sharding.NamedSharding(strategy.mesh, strategy.spec(x.shape))
    for given in (x, jax.device_put(x, jax.devices()[7]), Fsdp().place(x), Pmap(jax.devices()[:2]).place(x)):
        placed = strategy.place({"a": given})["a"]
        assert placed.sharding.is_equivalent_to(expected, 2)
        np.testing.assert_array_equal(placed, x)
    (laid,) = jax.tree.leaves(strategy.layout({"a": np.zeros((8, 3), np.int8)}))
    assert (laid.shape, laid.dtype) == ((8, 3), np.int8) and laid.sharding.is_equivalent_to(expected, 2)
    assert Pmap().axis_name == Fsdp().axis_name == AXIS


@STRATEGIES
def test_a_call_of_training_takes_the_memory_of_the_state_and_leaves_the_batches(kind):
    strategy = kind(jax.devices()[:2])
    state, batches = strategy.place({"w": np.arange(4.0)}), strategy.shard(np.ones(4))
    if kind is Fsdp:
        function = strategy.map_training(lambda state, batches, n: (jax.tree.map(lambda w: w + n, state), n))
    else:
        function = strategy.map_training(lambda state, batches, n: ({"w": state["w"] + n}, n))
    after, _ = function(state, batches, np.int32(3))
    np.testing.assert_array_equal(strategy.whole(after)["w"], np.arange(4.0) + 3)
    assert state["w"].is_deleted() and np.asarray(batches).sum() == 4


@STRATEGIES
def test_a_state_that_is_computed_lies_as_one_that_is_placed(kind):
    strategy = kind(jax.devices()[:4])
    made = strategy.create(lambda x, factor: {"a": factor * x}, np.arange(8.0), 2.0)
    np.testing.assert_array_equal(made["a"], 2 * np.arange(8))
    assert made["a"].sharding.is_equivalent_to(jax.sharding.NamedSharding(strategy.mesh, strategy.spec((8,))), 1)
