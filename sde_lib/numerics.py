"""Functions with finite derivatives at the boundary of their domain."""

import jax.numpy as jnp
from jax import Array


def sqrt_or_zero(x: Array) -> Array:
    """Returns sqrt(x), and 0 with derivative 0 where x <= 0; the derivative of sqrt at 0 would give NaN gradients."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)
