"""Bilinear interpolation of images to any size."""

import jax
import jax.numpy as jnp
import numpy as np


def bilinear_resize(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Interpolates (B, H, W, C) to (B, *size, C) with aligned corner pixels.

    Equals PyTorch's `interpolate(mode="bilinear", align_corners=True)`; `jax.image.resize` aligns the image borders
    instead.
    """
    for axis, letters in ((1, "bhwc,oh->bowc"), (2, "bhwc,ow->bhoc")):
        weights = _linear_weights(x.shape[axis], size[axis - 1])
        if weights is not None:
            x = jnp.einsum(letters, x, jnp.asarray(weights, x.dtype))
    return x


def _linear_weights(old, new):
    """Returns the matrix (new, old) of linear interpolation with aligned endpoints; None for the identity."""
    if old == new:
        return None
    positions = np.linspace(0, old - 1, new) if new > 1 else np.zeros(1)
    return np.maximum(0, 1 - np.abs(positions[:, None] - np.arange(old)))
