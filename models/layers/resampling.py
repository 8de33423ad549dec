"""Changing the resolution of images: halving, doubling, and interpolation to any size."""

import jax
import jax.numpy as jnp
import numpy as np
from einops import reduce, repeat


def average_pool(x: jax.Array) -> jax.Array:
    """Means of 2x2 pixels: (B, H, W, C) to (B, H/2, W/2, C); H and W are even."""
    return reduce(x, "b (h i) (w j) c -> b h w c", "mean", i=2, j=2)


def nearest_upsample(x: jax.Array) -> jax.Array:
    """Repeats every pixel 2x2 times: (B, H, W, C) to (B, 2H, 2W, C)."""
    return repeat(x, "b h w c -> b (h i) (w j) c", i=2, j=2)


RESAMPLINGS = {"down": average_pool, "up": nearest_upsample}


def bilinear_resize(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Interpolates (B, H, W, C) to (B, *size, C) such that the corner pixels stay in the corners.

    That is PyTorch's `interpolate(mode="bilinear", align_corners=True)`; `jax.image.resize` aligns the borders instead.
    """
    for axis, letters in ((1, "bhwc,oh->bowc"), (2, "bhwc,ow->bhoc")):
        weights = _linear_weights(x.shape[axis], size[axis - 1])
        if weights is not None:
            x = jnp.einsum(letters, x, jnp.asarray(weights, x.dtype))
    return x


def _linear_weights(old, new):
    """The matrix (new, old) that interpolates linearly between the first and the last; None for the identity."""
    if old == new:
        return None
    places = np.linspace(0, old - 1, new) if new > 1 else np.zeros(1)
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(old)))
