"""Halving and doubling the resolution of images."""

import jax
from einops import reduce, repeat


def average_pool(x: jax.Array) -> jax.Array:
    """Means of 2x2 pixels: (B, H, W, C) to (B, H/2, W/2, C); H and W are even."""
    return reduce(x, "b (h i) (w j) c -> b h w c", "mean", i=2, j=2)


def nearest_upsample(x: jax.Array) -> jax.Array:
    """Repeats every pixel 2x2 times: (B, H, W, C) to (B, 2H, 2W, C)."""
    return repeat(x, "b h w c -> b (h i) (w j) c", i=2, j=2)


RESAMPLINGS = {"down": average_pool, "up": nearest_upsample}
