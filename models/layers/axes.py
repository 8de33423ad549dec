"""Spatial axes of arrays (N, *spatial, C), whatever their number."""

import jax
import jax.numpy as jnp


def spatial_axes(x: jax.Array) -> tuple[int, ...]:
    """Axes of x (N, *spatial, C) between the first and the last."""
    return tuple(range(1, x.ndim - 1))


def over_positions(values: jax.Array, x: jax.Array) -> jax.Array:
    """Values (N, C), constant over the positions, in a shape that broadcasts against x (N, *spatial, C)."""
    return jnp.expand_dims(values, spatial_axes(x))
