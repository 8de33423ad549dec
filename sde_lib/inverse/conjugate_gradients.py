"""Conjugate gradients for a batch of systems: each example has its own, and none waits on another's numbers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from sde_lib.sde import expand


def dot(a: Array, b: Array) -> Array:
    """The inner product of each example, (B,)."""
    return (a * b).sum(tuple(range(1, a.ndim)))


def conjugate_gradients(product: Callable[[Array], Array], b: Array, rtol: float, max_steps: int) -> Array:
    """Solves product(v) = b, both (B, *measured), for a symmetric positive semi-definite matrix of each example.

    Of a singular matrix, the solution of least norm, where b is in its range. An example rests when its residual is `rtol`
    times its b, whatever the others need. Derivatives are those of the solution, not of the iterations.

    Not lineax.CG, whose `product` sees one example alone: it gives infinities where |A p|^2 < 100 eps n |p|^2 for n values,
    which in float32 is more than most blurs leave of an image of 64 x 64 pixels (lineax 0.1.1).
    """

    def solve(product, b):
        target = rtol**2 * dot(b, b)

        def is_going(square):
            return (square > target) & (square > 0)

        def unfinished(state):
            step, *_, square = state
            return (step < max_steps) & is_going(square).any()

        def iterate(state):
            step, v, residual, direction, square = state
            image, going = product(direction), is_going(square)
            curvature = dot(direction, image)
            # No curvature: the matrix is singular along this direction, and the example stays where it is.
            length = jnp.where(going & (curvature > 0), square / jnp.where(curvature > 0, curvature, 1), 0)
            v, residual = v + expand(length, v) * direction, residual - expand(length, v) * image
            now = dot(residual, residual)
            turn = jnp.where(going, now / jnp.where(going, square, 1), 0)
            direction = jnp.where(expand(going, v), residual + expand(turn, v) * direction, direction)
            return step + 1, v, residual, direction, now

        return jax.lax.while_loop(unfinished, iterate, (0, jnp.zeros_like(b), b, b, dot(b, b)))[1]

    return jax.lax.custom_linear_solve(product, b, solve, symmetric=True)
