"""Functions whose derivatives JAX would get wrong at the edge of their domain."""

import jax.numpy as jnp
from jax import Array


def sqrt_or_zero(x: Array) -> Array:
    """sqrt(x), and 0 with derivative 0 where x <= 0: sqrt's infinite derivative there makes NaN of a gradient."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)
