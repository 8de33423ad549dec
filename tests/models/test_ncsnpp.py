"""NCSN++ beyond its parity with the peers (see tests/models/pretrained): what the options promise, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from tests.models.pretrained.named import named_normal

TINY = {
    "channels": 8,
    "channel_multipliers": (1, 2),
    "blocks_per_level": 1,
    "attention_resolutions": (4,),
    "dropout": 0.0,
}


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def weights(net, *inputs):
    """Random values for every weight, with fan-in's scale: at initialization most layers are zero and hide their faults."""

    def draw(path, leaf):
        return named_normal(jax.tree_util.keystr(path), *leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(net.init, jax.random.key(0), *inputs))


def network(**options):
    return models.create("ncsnpp", **TINY | options)


@functools.cache
def outputs():
    """One network of discrete levels, its weights, images, and its compiled application."""
    net = network(channel_multipliers=(1,), embedding="discrete", num_scales=11)
    x = normal(0, 3, 4, 8, 2)
    return net, weights(net, x, jnp.zeros(3)), x, jax.jit(net.apply)


def test_output_starts_at_zero_with_as_many_channels_as_asked():
    net = network(channel_multipliers=(1,), out_channels=5, progressive="output_skip")
    output, _ = jax.jit(net.init_with_output)(jax.random.key(0), normal(0, 2, 4, 4, 3), jnp.zeros(2))
    np.testing.assert_array_equal(output, np.zeros((2, 4, 4, 5)))


def test_discrete_levels_are_the_nearest_on_a_logarithmic_scale():
    """Levels 50, ..., 0.01 in 11 steps: what rounds to one level gives one output; beyond the ends is the end."""
    _, variables, x, apply = outputs()
    step = np.log(5000) / 10
    middle = np.log(50) - 4 * step
    at = apply(variables, x, jnp.full(3, middle))
    np.testing.assert_allclose(apply(variables, x, jnp.full(3, middle + 0.45 * step)), at, atol=1e-6)
    assert float(jnp.abs(apply(variables, x, jnp.full(3, middle + 0.55 * step)) - at).max()) > 1e-3
    ends = [apply(variables, x, jnp.full(3, np.log(sigma))) for sigma in (50.0, 500.0)]
    np.testing.assert_array_equal(*ends)


def test_scaling_by_sigma_divides_by_the_level_that_the_network_was_told():
    net, variables, x, apply = outputs()
    scaled = jax.jit(net.clone(scale_by_sigma=True).apply)
    levels = jnp.log(jnp.array([50.0, 0.0123, 2.0]))
    nearest = np.exp(np.log(50) - np.round((np.log(50) - np.asarray(levels)) * 10 / np.log(5000)) * np.log(5000) / 10)
    ratio = apply(variables, x, levels) / scaled(variables, x, levels)
    np.testing.assert_allclose(ratio, np.broadcast_to(nearest[:, None, None, None], ratio.shape), rtol=1e-4)


def test_an_unconditional_network_knows_no_level_and_no_augmentation_is_zeros():
    x, level = normal(0, 2, 4, 4, 3), jnp.zeros(2)
    net = network(channel_multipliers=(1,), conditional=False)
    variables, apply = weights(net, x, level), jax.jit(net.apply)
    assert not any("embedding" in jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(variables))
    np.testing.assert_array_equal(apply(variables, x, level + 1), apply(variables, x, level))

    net = network(channel_multipliers=(1,), augment_features=2)
    variables, apply = weights(net, x, level), jax.jit(net.apply)
    y = apply(variables, x, level)
    np.testing.assert_allclose(apply(variables, x, level, {"augmentation": jnp.zeros((2, 2))}), y, atol=1e-6)
    assert float(jnp.abs(apply(variables, x, level, {"augmentation": jnp.ones((2, 2))}) - y).max()) > 1e-3


@pytest.mark.parametrize(
    "message, options",
    [
        ("progressive='skip'", {"progressive": "skip"}),
        ("progressive_combine='concat'", {"progressive_combine": "concat"}),
        ("fir_kernel=", {"fir_kernel": (1,)}),
        ("num_classes needs conditional=True", {"num_classes": 2, "conditional": False}),
        ("scale_by_sigma", {"scale_by_sigma": True, "embedding": "positional"}),
        ("width 6 is not divisible by 4", {"channel_multipliers": (1, 1, 1)}),
    ],
)
def test_what_cannot_be_is_refused(message, options):
    net = network(**options)
    condition = {"label": jnp.zeros(1, int)} if net.num_classes else None
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 4, 6, 3)), jnp.zeros(1), condition)


def test_augmentation_of_another_shape_is_refused():
    net = network(augment_features=2)
    with pytest.raises(ValueError, match=r"\(1, 3\), not \(1, 2\)"):
        net.apply({}, jnp.zeros((1, 4, 4, 3)), jnp.zeros(1), {"augmentation": jnp.zeros((1, 3))})
