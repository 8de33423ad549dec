"""Strategies: who has which examples and which part of the weights, and that programs see both as they are told."""

import jax
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec

from experiments.devices.parallel import AXIS, BATCH, SAME, STATE, Fsdp, Pmap

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

    def of_device(params, batch, step):
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
