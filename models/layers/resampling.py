"""Downsampling and upsampling by 2: means and repetitions of 2x2 pixels, or a smoothing FIR filter.

All functions take arrays (B, *spatial, C) of any spatial rank. With the filter k, normalized to sum 1, along each
spatial axis:

    down:  y[i] = sum_a k[a] x[2 i + low - a]          up:  y[i] = 2 sum over a, j with 2 j + a = i + low of k[a] x[j]

Pixels outside the image are zero. `low` centres the filter. k = (1, 1) gives means and repetitions; StyleGAN2 and
NCSN++ use k = (1, 3, 3, 1).

The filter is implemented as a sum of shifted images instead of a grouped `jax.lax.conv_general_dilated`. Compilers fuse
the additions, also in the gradient, which is needed only for the image since the taps are constant. XLA's grouped
convolution takes more than ten times as long on CPU (up to a hundred times for the gradient and for upsampling).

Source: Karras et al. (2020), https://arxiv.org/abs/1912.04958; the padding is that of
https://github.com/NVlabs/stylegan2/blob/master/dnnlib/tflib/ops/upfirdn_2d.py.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import reduce, repeat
from jax import lax

from models.layers.axes import axis_sizes, spatial_axes
from models.layers.convolution import convolution, scaled_init, transposed_convolution

Direction = Literal["down", "up"]


def average_pool(x: jax.Array) -> jax.Array:
    """Averages pairs of positions along each axis (2x2 pixels): (B, *spatial, C) with even sizes to half the sizes."""
    coarse, fine, twos = _einops_axes(x)
    return reduce(x, f"b {fine} c -> b {coarse} c", "mean", **twos)


def nearest_upsample(x: jax.Array) -> jax.Array:
    """Repeats every position twice along each axis (2x2 pixels of an image): (B, *spatial, C) to twice the sizes."""
    coarse, fine, twos = _einops_axes(x)
    return repeat(x, f"b {coarse} c -> b {fine} c", **twos)


def _einops_axes(x: jax.Array) -> tuple[str, str, dict[str, int]]:
    """Returns einops patterns of the axes at both resolutions, such as "h w" and "(h h2) (w w2)", and h2 = w2 = 2."""
    names = list(axis_sizes(x))
    fine = " ".join(f"({name} {name}_2)" for name in names)
    return " ".join(names), fine, {f"{name}_2": 2 for name in names}


RESAMPLINGS = {"down": average_pool, "up": nearest_upsample}


def resample(x: jax.Array, direction: Direction, fir_kernel: Sequence[float] | None = None) -> jax.Array:
    """Halves ("down") or doubles ("up") the spatial sizes of x.

    Args:
        x: (B, *spatial, C); the sizes must be even for "down".
        direction: "down" or "up".
        fir_kernel: taps of the filter, two or more, in any scale; None for means and repetitions.
    """
    if fir_kernel is None:
        return RESAMPLINGS[direction](x)
    taps, pad = _taps(fir_kernel), len(fir_kernel) - 2
    result = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    for axis in spatial_axes(x):
        if direction == "down":
            result = _halved(result, axis, taps, low=len(taps) - 1 - (pad + 1) // 2)
        else:
            result = _doubled(result, axis, [2 * tap for tap in taps], low=len(taps) - 2 - (pad + 1) // 2)
    return result.astype(x.dtype)


class ResamplingConv(nn.Module):
    """Convolution with 3 taps per axis that halves or doubles the resolution, optionally with an FIR filter.

    Without a filter: a convolution of stride 2 (down), or a convolution of repeated pixels (up). With a filter: the
    filter, then a convolution of stride 2 (down), or a transposed convolution of stride 2, then the filter (up). The
    image is padded once for both.

    Source: Song et al. (2021), https://github.com/yang-song/score_sde/blob/main/models/up_or_down_sampling.py.

    Attributes:
        features: channels of the output.
        direction: "down" or "up".
        fir_kernel: taps of the filter, in any scale; None for no filter.
        dtype: dtype of the computation; parameters are float32.
    """

    features: int
    direction: Direction
    fir_kernel: tuple[float, ...] | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, *spatial, C) to (B, *spatial', features) with half (even sizes only) or twice the sizes."""
        shape = (*(3,) * (x.ndim - 2), x.shape[-1], self.features)
        kernel = self.param("kernel", scaled_init(1.0), shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if self.fir_kernel is None and self.direction == "down":
            y = convolution(x, kernel, stride=2)
        elif self.fir_kernel is None:
            y = convolution(nearest_upsample(x), kernel)
        elif self.direction == "down":
            pad = len(self.fir_kernel)  # (taps - 2) for the filter, 2 for the convolution
            x = _filtered(x, _taps(self.fir_kernel), (pad + 1) // 2, pad // 2)
            y = convolution(x, kernel, stride=2, padding="VALID")
        else:
            pad = len(self.fir_kernel) - 4
            y = transposed_convolution(x, kernel, stride=2)
            y = _filtered(y, [2 * tap for tap in _taps(self.fir_kernel)], (pad + 1) // 2 + 1, pad // 2 + 1)
        return y + bias.astype(self.dtype)


def _taps(fir_kernel: Sequence[float]) -> list[float]:
    return [tap / sum(fir_kernel) for tap in fir_kernel]


def _sum(terms: Iterable[jax.Array]) -> jax.Array:
    return cast(jax.Array, sum(terms))


def _shifted(x, offset, axis):
    """Returns y[i] = x[i + offset] along the axis, with zeros outside."""
    config = [(0, 0, 0)] * x.ndim
    config[axis] = (-offset, offset, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def _halved(x, axis, taps, low):
    phases = x.reshape(*x.shape[:axis], x.shape[axis] // 2, 2, *x.shape[axis + 1 :])
    phases = [lax.index_in_dim(phases, parity, axis + 1, keepdims=False) for parity in range(2)]
    return _sum(tap * _shifted(phases[(low - a) % 2], (low - a) // 2, axis) for a, tap in enumerate(taps))


def _doubled(x, axis, taps, low):
    def phase(parity):  # the pixels i = 2 m + parity
        terms = [(tap, parity + low - a) for a, tap in enumerate(taps)]
        return _sum(tap * _shifted(x, twice // 2, axis) for tap, twice in terms if twice % 2 == 0)

    y = jnp.stack([phase(0), phase(1)], axis + 1)
    return y.reshape(*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :])


def _filtered(x, taps, low, high):
    """Convolves x, padded by (low, high), with the taps along each spatial axis, at constant resolution."""
    y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    for axis in spatial_axes(x):
        config = [(0, 0, 0)] * y.ndim
        config[axis] = (low, high, 0)
        padded = lax.pad(y, jnp.zeros((), y.dtype), config)
        size = padded.shape[axis] - len(taps) + 1
        y = _sum(tap * lax.slice_in_dim(padded, a, a + size, axis=axis) for a, tap in enumerate(reversed(taps)))
    return y.astype(x.dtype)
