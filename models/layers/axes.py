"""Spatial axes of arrays (N, *spatial, C), whatever their number."""

import jax
import jax.numpy as jnp


def spatial_axes(x: jax.Array) -> tuple[int, ...]:
    """Axes of x (N, *spatial, C) between the first and the last."""
    return tuple(range(1, x.ndim - 1))


def axis_sizes(x: jax.Array) -> dict[str, int]:
    """Names of the spatial axes of x (N, *spatial, C) in patterns of einops, with their sizes."""
    return {f"x{axis}": x.shape[axis] for axis in spatial_axes(x)}


def over_positions(values: jax.Array, x: jax.Array) -> jax.Array:
    """Values (N, C), constant over the positions, in a shape that broadcasts against x (N, *spatial, C)."""
    return jnp.expand_dims(values, spatial_axes(x))
