"""Halving and doubling against XLA's grouped convolution, which spells out StyleGAN2's upfirdn2d."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from models.layers.convolution import transposed_convolution
from models.layers.resampling import ResamplingConv, _filtered, average_pool, nearest_upsample, resample
from models.layers.trilinear import LAYOUTS

TAPS = [(1, 1), (1, 3, 3, 1), (1, 2, 4), (5, -1, 2, 3, 4)]


def normal(seed, *shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def upfirdn(x, taps, up, down, low, high):
    """Zeros between the pixels, padding, convolution with the taps in both directions, and every `down`-th pixel of it."""
    kernel = jnp.asarray(np.outer(taps, taps)[::-1, ::-1] * up**2 / np.sum(taps) ** 2, x.dtype)
    channels = x.shape[-1]
    # XLA puts no zeros after the last pixel, StyleGAN2 does.
    return lax.conv_general_dilated(
        x,
        jnp.broadcast_to(kernel[:, :, None, None], (*kernel.shape, 1, channels)),
        (down, down),
        ((low, high + up - 1),) * 2,
        lhs_dilation=(up, up),
        dimension_numbers=LAYOUTS[2],
        feature_group_count=channels,
    )


def by_xla(x, direction, taps):
    pad = len(taps) - 2
    if direction == "down":
        return upfirdn(x, taps, 1, 2, (pad + 1) // 2, pad // 2)
    return upfirdn(x, taps, 2, 1, (pad + 1) // 2 + 1, pad // 2)


@pytest.mark.parametrize("direction", ["down", "up"])
@pytest.mark.parametrize("taps", TAPS, ids=str)
def test_filters_and_their_gradients_are_those_of_xla(direction, taps):
    """In one program: value and gradient under vmap over stacked images."""
    x = normal(0, 3, 2, 6, 8, 3)

    @functools.partial(jax.jit, static_argnums=0)
    def value_and_gradient(f):
        def both(x):
            y, pullback = jax.vjp(lambda x: f(x, direction, taps), x)
            return y, *pullback(jnp.sin(y))

        return jax.vmap(both)(x)

    for actual, expected in zip(value_and_gradient(resample), value_and_gradient(by_xla), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_two_equal_taps_are_means_and_repeats():
    x = normal(0, 2, 4, 6, 3)
    np.testing.assert_allclose(resample(x, "down", (2, 2)), average_pool(x), atol=1e-6)
    np.testing.assert_allclose(resample(x, "up", (2, 2)), nearest_upsample(x), atol=1e-6)
    np.testing.assert_array_equal(resample(x, "down"), average_pool(x))
    np.testing.assert_array_equal(resample(x, "up"), nearest_upsample(x))


@pytest.mark.parametrize("taps", [(1, 3, 3, 1), (1, 2, 4)], ids=str)
@pytest.mark.parametrize("direction", ["down", "up"])
def test_a_filtering_convolution_is_the_convolution_of_the_padded_and_filtered_image(direction, taps):
    """Down: StyleGAN2's order, filter then convolution. Up: its order too, by XLA's transposed convolution."""
    module, x = ResamplingConv(4, direction, taps), normal(0, 2, 6, 8, 3)
    variables = jax.jit(module.init)(jax.random.key(0), x)
    variables = {"params": variables["params"] | {"bias": jnp.arange(4.0)}}
    kernel = variables["params"]["kernel"]

    def expected(x):
        if direction == "down":
            pad = len(taps)
            h = upfirdn(x, taps, 1, 1, (pad + 1) // 2, pad // 2)
            h = lax.conv_general_dilated(h, kernel, (2, 2), "VALID", dimension_numbers=LAYOUTS[2])
        else:
            pad = len(taps) - 4
            h = lax.conv_general_dilated(
                x, kernel, (1, 1), ((2, 2), (2, 2)), lhs_dilation=(2, 2), dimension_numbers=LAYOUTS[2]
            )
            h = 4 * upfirdn(h, taps, 1, 1, (pad + 1) // 2 + 1, pad // 2 + 1)
        return h + jnp.arange(4.0)

    y = jax.jit(module.apply)(variables, x)
    assert y.shape == ((2, 3, 4, 4) if direction == "down" else (2, 12, 16, 4))
    np.testing.assert_allclose(y, jax.jit(expected)(x), atol=1e-5)
    rounded = jax.jit(ResamplingConv(4, direction, taps, jnp.bfloat16).apply)(variables, x)
    assert rounded.dtype == jnp.bfloat16
    np.testing.assert_allclose(rounded.astype(jnp.float32), y, atol=0.05)


@pytest.mark.parametrize("stride, window", [(2, (3, 3)), ((3, 1), (2, 4))], ids=str)
def test_a_transposed_convolution_and_its_gradients_are_those_of_xla(stride, window):
    x, kernel = normal(0, 2, 4, 5, 3), normal(1, *window, 3, 4)
    strides = (stride, stride) if isinstance(stride, int) else stride

    def xla(x, kernel):
        padding = [(k - 1, k - 1) for k in window]
        return lax.conv_general_dilated(x, kernel, (1, 1), padding, lhs_dilation=strides, dimension_numbers=LAYOUTS[2])

    def value_and_gradients(f):
        y, pullback = jax.vjp(f, x, kernel)
        return y, *pullback(jnp.sin(y))

    ours = value_and_gradients(jax.jit(functools.partial(transposed_convolution, stride=stride)))
    for actual, expected in zip(ours, value_and_gradients(jax.jit(xla)), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-4)


@pytest.mark.parametrize("direction", ["down", "up"])
def test_filters_sum_in_float32_and_round_once(direction):
    """By themselves; with a convolution, whose input or output is rounded, the filter is one of its two steps."""
    x = normal(0, 2, 8, 6, 3).astype(jnp.bfloat16)
    y = resample(x, direction, (5, -1, 2, 3, 4))
    exact = resample(x.astype(jnp.float32), direction, (5, -1, 2, 3, 4))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, exact.astype(jnp.bfloat16))
    taps = [0.3, -0.7, 0.9, 0.2]
    filtered = _filtered(x, taps, 2, 1)
    assert filtered.dtype == jnp.bfloat16
    np.testing.assert_array_equal(filtered, _filtered(x.astype(jnp.float32), taps, 2, 1).astype(jnp.bfloat16))
