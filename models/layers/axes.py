"""Spatial axes of arrays (N, *spatial, C) of any spatial rank."""

import jax
import jax.numpy as jnp


def spatial_axes(x: jax.Array) -> tuple[int, ...]:
    """Returns the indices of the spatial axes of x (N, *spatial, C)."""
    return tuple(range(1, x.ndim - 1))


def axis_sizes(x: jax.Array) -> dict[str, int]:
    """Returns names of the spatial axes of x (N, *spatial, C) for einops patterns, with their sizes."""
    return {f"x{axis}": x.shape[axis] for axis in spatial_axes(x)}


def over_positions(values: jax.Array, x: jax.Array) -> jax.Array:
    """Expands values (N, C) to (N, 1, ..., 1, C), so that they broadcast over the positions of x (N, *spatial, C)."""
    return jnp.expand_dims(values, spatial_axes(x))
