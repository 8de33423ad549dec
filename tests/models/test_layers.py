"""The layers against independent implementations, closed forms and symmetries."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.layers.attention import Attention
from models.layers.dropout import Dropout
from models.layers.embedding import FourierEmbedding, positional_embedding
from models.layers.normalization import GroupNorm, group_count
from models.layers.resampling import average_pool, nearest_upsample
from models.layers.residual import ResidualBlock


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def randomized(variables, seed=0):
    """The variables plus noise, so that no layer is zero or one as at initialization."""
    leaves, structure = jax.tree.flatten(variables)
    return jax.tree.unflatten(structure, [leaf + 0.2 * normal(seed + i, *leaf.shape) for i, leaf in enumerate(leaves)])


def test_group_norm_and_its_gradient_equal_flax():
    ours, flax = GroupNorm(num_groups=4), nn.GroupNorm(num_groups=4, use_fast_variance=False)
    x = normal(0, 3, 5, 4, 12) * jnp.arange(1, 13) + 3
    variables = randomized(ours.init(jax.random.key(0), x))

    @functools.partial(jax.jit, static_argnums=0)
    def value_and_gradients(module):
        y, pullback = jax.vjp(module.apply, variables, x)
        return y, *pullback(jnp.sin(y))

    expected = value_and_gradients(flax)
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-5), value_and_gradients(ours), expected
    )


def test_group_norm_keeps_its_precision_where_the_mean_is_large():
    """One-pass variances, E[x^2] - E[x]^2, are lost to rounding here."""
    x = normal(0, 2, 8, 8, 8)
    module = GroupNorm(num_groups=2)
    variables = module.init(jax.random.key(0), x)
    np.testing.assert_allclose(module.apply(variables, x + 1024), module.apply(variables, x), atol=1e-3)


@pytest.mark.parametrize("channels, groups", [(1, 1), (6, 1), (32, 8), (48, 12), (128, 32), (144, 24), (512, 32)])
def test_groups_hold_at_least_four_channels_and_number_at_most_32(channels, groups):
    assert group_count(channels) == groups


def test_positional_embedding_turns_at_known_frequencies():
    """A shift of the level rotates each sine-cosine pair by its own frequency: 1 for the first, 1e-4 for the last."""
    level, shift, features = 321.0, 0.5, 16
    at, later = (positional_embedding(jnp.array([v]), features)[0] for v in (level, level + shift))
    phases = jnp.arctan2(later[:8], later[8:]) - jnp.arctan2(at[:8], at[8:])
    frequencies = 10_000.0 ** (-np.arange(8) / 7)
    np.testing.assert_allclose(jnp.mod(phases, 2 * np.pi), shift * frequencies, atol=1e-4)


def test_fourier_features_approximate_a_gaussian_kernel():
    """E[cos(2 pi w (a - b))] for w ~ N(0, s^2) is exp(-2 (pi s (a - b))^2); the frequencies are not trained."""
    module = FourierEmbedding(8192, scale=2.0)
    levels = jnp.array([0.3, 0.35, 0.5])
    variables = module.init(jax.random.key(0), levels)
    features = module.apply(variables, levels)
    expected = np.exp(-2 * (np.pi * 2.0 * (levels[:, None] - levels)) ** 2)
    np.testing.assert_allclose(features @ features.T / 4096, expected, atol=0.05)
    gradient = jax.grad(lambda v: jnp.sum(module.apply(v, levels) ** 3))(variables)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


def attention_by_hand(params, x, num_heads):
    """Softmax attention written with loops over images and heads, in NumPy."""
    batch, height, width, channels = x.shape
    normed = np.asarray(GroupNorm().apply({"params": params["norm"]}, x)).reshape(batch, height * width, channels)
    q, k, v = np.split(normed @ params["qkv"]["kernel"][0, 0] + params["qkv"]["bias"], 3, axis=-1)
    out = np.zeros_like(q)
    size = channels // num_heads
    for image in range(batch):
        for head in range(num_heads):
            part = (image, slice(None), slice(head * size, (head + 1) * size))
            weights = np.exp(q[part] @ k[part].T / np.sqrt(size))
            out[part] = weights / weights.sum(-1, keepdims=True) @ v[part]
    return x + (out @ params["out"]["kernel"][0, 0] + params["out"]["bias"]).reshape(x.shape)


def test_attention_equals_loops_and_moves_with_its_pixels():
    module, x = Attention(num_heads=2), normal(0, 2, 3, 4, 8)
    init = jax.jit(module.init)(jax.random.key(0), x)
    np.testing.assert_array_equal(module.apply(init, x), x)
    variables = randomized(init)
    y = module.apply(variables, x)
    np.testing.assert_allclose(y, attention_by_hand(variables["params"], x, 2), atol=1e-4)

    order = np.random.default_rng(1).permutation(12)

    def permute(images):
        return images.reshape(2, 12, 8)[:, order].reshape(images.shape)

    np.testing.assert_allclose(module.apply(variables, permute(x)), permute(y), atol=1e-5)


def test_dropout_of_an_example_depends_on_its_own_key_alone():
    module, x = Dropout(0.3), jnp.ones((6, 16, 16, 8))
    keys = jax.random.split(jax.random.key(0), 6)
    y = module.apply({}, x, keys)
    np.testing.assert_array_equal(module.apply({}, x[:1], keys[4:5])[0], y[4])
    np.testing.assert_array_equal(module.apply({}, x, keys[::-1]), y[::-1])
    assert not np.array_equal(y[0], y[1])
    np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - 77 / 256)], rtol=1e-6)  # 0.3 is applied as 77/256
    np.testing.assert_allclose(np.mean(y == 0), 77 / 256, atol=0.01)
    np.testing.assert_allclose(np.mean(y), 1, atol=0.02)
    np.testing.assert_array_equal(module.apply({}, x, None), x)


def test_two_dropout_layers_draw_different_masks():
    class Two(nn.Module):
        @nn.compact
        def __call__(self, x, keys):
            return Dropout(0.5, name="first")(x, keys), Dropout(0.5, name="second")(x, keys)

    first, second = Two().apply({}, jnp.ones((1, 64)), jax.random.split(jax.random.key(0), 1))
    assert not np.array_equal(first, second)


def test_layers_of_one_name_in_two_blocks_draw_different_masks():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, keys):
            return Dropout(0.5, name="dropout")(x, keys)

    class Two(nn.Module):
        @nn.compact
        def __call__(self, x, keys):
            return Block(name="down_0")(x, keys), Block(name="down_1")(x, keys)

    first, second = Two().apply({}, jnp.ones((1, 64)), jax.random.split(jax.random.key(0), 1))
    assert not np.array_equal(first, second)


def largest(kernel):
    """Of a uniform distribution on [-a, a], a in units of DDPM's sqrt(6 / (fan_in + fan_out))."""
    area = kernel.shape[0] * kernel.shape[1] if kernel.ndim == 4 else 1
    return float(np.abs(kernel).max() / np.sqrt(6 / (area * (kernel.shape[-1] + kernel.shape[-2]))))


def test_kernels_start_at_the_scale_that_their_option_names():
    """Uniform, of a variance of `scale` over the mean of both fans: the largest of thousands is close to sqrt(scale) a."""
    x, embedding, key = jnp.ones((1, 4, 4, 32)), jnp.ones((1, 16)), jax.random.key(0)
    layers = jax.jit(Attention(qkv_init_scale=0.2, init_scale=0.5).init)(key, x)["params"]
    sizes = {name: largest(layers[name]["kernel"]) for name in ("qkv", "out")}
    assert sizes == pytest.approx({"qkv": 0.2**0.5, "out": 0.5**0.5}, rel=0.02)
    block = ResidualBlock(48, init_scale=0.3, skip_init_scale=0.1)
    layers = jax.jit(block.init)(key, x, embedding)["params"]
    sizes = {name: largest(layer["kernel"]) for name, layer in layers.items() if "kernel" in layer}
    expected = {"conv_in": 1.0, "conv_out": 0.3**0.5, "skip": 0.1**0.5, "embedding": 1.0}
    assert sizes == pytest.approx(expected, rel=0.02)


def test_upsampling_is_four_times_the_adjoint_of_pooling():
    """<pool(x), y> = <x, upsample(y)> / 4, and pooling undoes upsampling."""
    x, y = normal(0, 2, 6, 8, 3), normal(1, 2, 3, 4, 3)
    np.testing.assert_allclose(jnp.vdot(average_pool(x), y), jnp.vdot(x, nearest_upsample(y)) / 4, rtol=1e-5)
    np.testing.assert_allclose(average_pool(nearest_upsample(y)), y, rtol=1e-6)


@pytest.mark.parametrize("resampling, skip", [("up", nearest_upsample), ("down", average_pool), (None, lambda x: x)])
def test_a_residual_block_starts_as_its_skip(resampling, skip):
    x, embedding = normal(0, 2, 4, 6, 8), normal(1, 2, 16)
    block = ResidualBlock(8, resampling=resampling)
    variables = jax.jit(block.init)(jax.random.key(0), x, embedding)
    np.testing.assert_allclose(jax.jit(block.apply)(variables, x, embedding), skip(x), atol=1e-6)


def test_a_shift_alone_passes_through_the_norm_and_scale_shift_does_not():
    """DDPM's shift enters before the norm, which removes what is equal in a group; ADM's enters after it."""
    x, embedding = normal(0, 2, 4, 4, 4), normal(1, 2, 16)  # four channels: one group
    for scale_shift in (False, True):
        block = ResidualBlock(4, scale_shift=scale_shift)
        variables = randomized(jax.jit(block.init)(jax.random.key(0), x, embedding))
        bias = variables["params"]["embedding"]["bias"]
        moved = jax.tree.map(lambda leaf: leaf, variables)
        moved["params"]["embedding"]["bias"] = bias + (jnp.repeat(jnp.array([0.0, 1.0]), 4) if scale_shift else 1.0)
        apply = jax.jit(block.apply)
        difference = jnp.abs(apply(moved, x, embedding) - apply(variables, x, embedding)).max()
        assert (difference > 1e-2) == scale_shift
