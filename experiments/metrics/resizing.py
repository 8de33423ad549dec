"""Resizing methods of the published feature networks, bit for bit for uint8 results: differences change FID values.

All methods are separable: along each axis, an output pixel is a weighted sum of input pixels,

    y[i] = sum_j w((j + 1/2 - c_i) / s) x[j] / sum_j w(...),    c_i = (i + 1/2) n_in / n_out

- `pil`: Pillow. The filter w is widened by s = max(1, n_in / n_out), for antialiasing. On uint8 the weights are
  fixed-point numbers with 22 fractional bits, and the result of the columns is rounded to bytes before the rows are
  summed. (Pillow 13 processes the rows first for some images that are not square; here columns are always first, as in
  earlier releases, with which values were published.)
- `pil_float`: Pillow on float32 channels, with unrounded weights, clipped to [0, 255]; used by clean-fid.
- `bilinear`: PyTorch's interpolate(mode="bilinear", align_corners=False), s = 1 for all sizes, so downsampling aliases;
  used by pytorch-fid.
- `bilinear_tf1`: TensorFlow 1's resize_bilinear(align_corners=False) in the graph of the original FID: s = 1 and
  c_i - 1/2 = i n_in / n_out, so the image is shifted by up to half a pixel.

All methods resize images of any size to squares, without keeping the aspect ratio, as the published implementations do.

Sources: https://github.com/python-pillow/Pillow/blob/main/src/libImaging/Resample.c; Parmar et al. (2022),
https://arxiv.org/abs/2104.11222, https://github.com/GaParmar/clean-fid/blob/main/cleanfid/resize.py.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

PRECISION_BITS = 22  # of Pillow's weights for 8-bit channels: 32 bits minus 8 for the pixel and 2 for overshoot


def _triangle(x):
    return np.maximum(1 - np.abs(x), 0)


def _cubic(x, a=-0.5):
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


FILTERS = {"bilinear": (_triangle, 1.0), "bicubic": (_cubic, 2.0)}  # (filter, half-width)


class Taps(NamedTuple):
    """Indices and weights of the input pixels of each output pixel, both (n_out, taps)."""

    places: np.ndarray
    weights: np.ndarray


@functools.cache
def pil_taps(size: int, new_size: int, filter_name: str) -> Taps:
    """Returns Pillow's taps with float64 weights, padded with zero weights to a common number of taps."""
    function, half_width = FILTERS[filter_name]
    scale = size / new_size
    stretch = max(scale, 1.0)
    support = half_width * stretch
    centres = (np.arange(new_size) + 0.5) * scale
    first = np.maximum((centres - support + 0.5).astype(int), 0)
    last = np.minimum((centres + support + 0.5).astype(int), size)
    places = first[:, None] + np.arange((last - first).max())
    weights = function((places - centres[:, None] + 0.5) / stretch) * (places < last[:, None])
    return Taps(np.minimum(places, size - 1), weights / weights.sum(1, keepdims=True))


@functools.cache
def bilinear_taps(size: int, new_size: int, half_pixel: bool) -> Taps:
    """Returns two taps with float32 weights; the centre of pixel i is at i + 1/2 with `half_pixel`, else at i."""
    scale = np.float32(size) / np.float32(new_size)
    places = np.arange(new_size, dtype=np.float32)
    places = np.maximum((places + np.float32(0.5)) * scale - np.float32(0.5), 0) if half_pixel else places * scale
    low = np.minimum(places.astype(int), size - 1)
    fraction = places - low.astype(np.float32)
    high = np.minimum(low + 1, size - 1)
    return Taps(np.stack([low, high], 1), np.stack([1 - fraction, fraction], 1))


def pil(images: jax.Array, size: int, filter_name: str) -> jax.Array:
    """Resizes uint8 (B, H, W, C) to uint8 (B, size, size, C), bit for bit as Pillow's Image.resize.

    Args:
        images: the pixels.
        size: height and width of the result; the aspect ratio is not kept.
        filter_name: "bilinear" or "bicubic".
    """
    x = images.astype(jnp.int32)
    for axis in (2, 1):  # columns first, as Pillow
        if x.shape[axis] != size:
            places, weights = pil_taps(x.shape[axis], size, filter_name)
            whole = np.trunc(weights * (1 << PRECISION_BITS) + np.copysign(0.5, weights)).astype(np.int32)
            x = _weighted_sum(x, Taps(places, whole), axis) + (1 << (PRECISION_BITS - 1))
            x = jnp.clip(x >> PRECISION_BITS, 0, 255)
    return x.astype(jnp.uint8)


def pil_float(images: jax.Array, size: int, filter_name: str) -> jax.Array:
    """Resizes (B, H, W, C) to float32 (B, size, size, C) as Pillow does in mode "F"; clipped to [0, 255]."""
    return jnp.clip(unclipped(images, size, filter_name), 0, 255)


def unclipped(images: jax.Array, size: int, filter_name: str) -> jax.Array:
    """Resizes like `pil_float` without clipping: linear, so gradients do not vanish outside of [0, 255]."""
    x = images.astype(jnp.float32)
    for axis in (2, 1):
        if x.shape[axis] != size:
            places, weights = pil_taps(x.shape[axis], size, filter_name)
            x = _weighted_sum(x, Taps(places, weights.astype(np.float32)), axis)
    return x


def bilinear(images: jax.Array, size: int) -> jax.Array:
    """Resizes (B, H, W, C) to float32 (B, size, size, C) as PyTorch's interpolate does, without antialiasing."""
    return _two_taps(images, size, half_pixel=True)


def bilinear_tf1(images: jax.Array, size: int) -> jax.Array:
    """Resizes (B, H, W, C) to float32 (B, size, size, C) as TensorFlow 1 did, without antialiasing."""
    return _two_taps(images, size, half_pixel=False)


def _two_taps(images, size, half_pixel):
    x = images.astype(jnp.float32)
    for axis in (2, 1):
        x = _weighted_sum(x, bilinear_taps(x.shape[axis], size, half_pixel), axis)
    return x


def _weighted_sum(x, taps, axis):
    """Returns sum_j weights[i, j] x[places[i, j]] along the axis, in the dtype of x."""
    shape = [1] * x.ndim
    shape[axis] = -1
    terms = (
        jnp.take(x, places, axis, mode="clip") * weights.astype(x.dtype).reshape(shape)
        for places, weights in zip(taps.places.T, taps.weights.T, strict=True)
    )
    return functools.reduce(jnp.add, terms)
