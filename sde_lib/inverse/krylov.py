"""Gaussian conditioning in a Krylov space: the update of N(D, C) by y = A x_0 + noise of variance S.

    update = C A^T v,      (A C A^T + S) v = r = y - A D,      C = n^2 dD/du of a Denoiser.

C is available only through matrix-vector products, and it is a covariance only for the exact Denoiser. The C of a
network is not symmetric and has some negative eigenvalues. Where an eigenvalue of A C A^T + S is near 0, v is
unbounded, and so is the update in the null space of A. The asymmetry C - C^T, which would be 0 for a covariance,
measures the error of C. The equation is therefore solved in the Krylov space of r with Arnoldi's orthonormal basis V,
with H = V^T A C A^T V:

    (K + |N| I + V^T S V) c = V^T r,   v = V c,   K = positive part of (H + H^T) / 2,   N = (H - H^T) / 2.

The error of the symmetric part of C is assumed to be as large as the antisymmetric part, so the spectral norm |N| is
added as variance. For a covariance, N = 0 and K = H, and v equals the result of conjugate gradients after as many
steps; it is exact once the space contains v. After one step, N = 0 for any C.

Source: Saad (2003), https://doi.org/10.1137/1.9780898718003, sections 6.3 and 6.4, for Arnoldi's basis and the
projection.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from sde_lib.inverse.conjugate_gradients import dot
from sde_lib.numerics import sqrt_or_zero
from sde_lib.sde import expand

Map = Callable[[Array], Array]


def gaussian_update(
    covariance: Map, forward: Map, adjoint: Map, noise: ArrayLike, misfit: Array, rtol: float, max_steps: int
) -> Array:
    """Returns the update (B, *event) of E[x_0]. Cost: one product with C per step.

    Derivatives are those of the solution (implicit differentiation), not of the iterations.

    Args:
        covariance: the product with C, of and to arrays (B, *event).
        forward, adjoint: the products with A and A^T.
        noise: S >= 0, broadcast against the misfit.
        misfit: r, (B, *measured).
        rtol: an example stops when the norm of its residual is at most rtol |r|.
        max_steps: maximal dimension of the Krylov space.
    """

    # Both v and the update are unknowns, so that the products computed for v also give the update. They are packed into
    # one array, because the derivative of `custom_linear_solve` with several arrays (JAX 0.10) fails where one tangent
    # is 0.
    size = misfit[0].size
    event_shape = jax.eval_shape(adjoint, misfit).shape

    def pack(v, update):
        return jnp.concatenate([v.reshape(len(v), -1), update.reshape(len(v), -1)], 1)

    def unpack(both):
        return both[:, :size].reshape(misfit.shape), both[:, size:].reshape(event_shape)

    def equations(unknowns):
        v, update = unpack(unknowns)
        return pack(forward(update) + noise * v, update - covariance(adjoint(v)))

    def solve(_, sides):
        measured, image = unpack(sides)

        def products(v):
            update = covariance(adjoint(v))
            return update, forward(update)

        v, update = _solve(products, noise, measured - forward(image), rtol, max_steps)
        return pack(v, image + update)

    def solve_transposed(transposed, sides):
        measured, image = unpack(sides)

        def measured_product(x):  # A C^T x
            return -unpack(transposed(pack(jnp.zeros_like(misfit), x)))[0]

        def products(v):
            x = adjoint(v)
            return x, measured_product(x)

        v, x = _solve(products, noise, measured + measured_product(image), rtol, max_steps)
        return pack(v, image - x)

    sides = pack(misfit, jnp.zeros(event_shape, misfit.dtype))
    return unpack(jax.lax.custom_linear_solve(equations, sides, solve, solve_transposed))[1]


def _solve(
    products: Callable[[Array], tuple[Array, Array]], noise: ArrayLike, b: Array, rtol: float, max_steps: int
) -> tuple[Array, Array]:
    """Returns v and L v, where (G + S) v = b and products(v) = (L v, G v)."""
    shapes = jax.eval_shape(products, b)
    vectors, lengths = jnp.zeros((max_steps, *b.shape), b.dtype), sqrt_or_zero(dot(b, b))
    images, measured = (jnp.zeros((max_steps, *shape.shape), shape.dtype) for shape in shapes)

    def unfinished(state):
        step, *_, active = state
        return (step < max_steps) & active.any()

    def iterate(state):
        step, vectors, images, measured, following, length, pivot, residual, active = state
        v = jnp.where(expand(active & (length > 0), following), following, 0) / expand(
            jnp.where(length > 0, length, 1), b
        )
        image, product = products(v)
        vectors, images = vectors.at[step].set(v), images.at[step].set(image)
        measured = measured.at[step].set(product)
        following = product + noise * v
        # The residual follows from the Lanczos recurrence, as in conjugate gradients. The basis is orthogonalized
        # against all previous vectors, which an asymmetric C requires (Arnoldi); twice, to remove rounding errors.
        curvature = dot(v, following)
        pivot = curvature - jnp.where(step > 0, length**2 / jnp.where(pivot != 0, pivot, 1), 0)
        for _ in range(2):
            following = following - jnp.einsum("mb...,mb->b...", vectors, jax.vmap(dot, (0, None))(vectors, following))
        length = sqrt_or_zero(dot(following, following))
        residual = residual * length / jnp.where(pivot != 0, jnp.abs(pivot), 1)
        return step + 1, vectors, images, measured, following, length, pivot, residual, active & (residual > rtol)

    one = jnp.ones_like(lengths)
    state = 0, vectors, images, measured, b, lengths, one, one, lengths > 0
    _, vectors, images, measured, *_ = jax.lax.while_loop(unfinished, iterate, state)
    sides = jax.vmap(dot, (0, None))(vectors, b).T
    weights = _projected_solve(_inner(vectors, measured), _inner(vectors, jnp.multiply(noise, vectors)), sides)
    return jnp.einsum("mb...,bm->b...", vectors, weights), jnp.einsum("mb...,bm->b...", images, weights)


def _inner(a: Array, b: Array) -> Array:
    """Returns the inner products (B, M, M) between two sets of vectors, each (M, B, *event)."""
    a, b = (vectors.reshape(*vectors.shape[:2], -1) for vectors in (a, b))
    return jnp.einsum("mbi,nbi->bmn", a, b)


def _projected_solve(h: Array, s: Array, b: Array) -> Array:
    """Returns (K + |N| I + s)^-1 b, (B, M), see the module docstring; unused directions (variance 0) have weight 0."""
    symmetric, skew = 0.5 * (h + h.mT), 0.5 * (h - h.mT)
    variances, axes = jnp.linalg.eigh(symmetric)
    # The eigenvalues of N come in pairs: its Frobenius norm is sqrt(2) |N| for up to three steps, and at least that
    # beyond.
    error = sqrt_or_zero(0.5 * jnp.square(skew).sum((1, 2)))[:, None, None] * jnp.eye(h.shape[-1], dtype=h.dtype)
    total = (axes * jnp.maximum(variances, 0)[:, None, :]) @ axes.mT + error + s
    values, axes = jnp.linalg.eigh(total)
    kept = values > values[:, -1:] * len(values[0]) * jnp.finfo(values.dtype).eps
    along = jnp.einsum("bmk,bm->bk", axes, b) * jnp.where(kept, 1 / jnp.where(kept, values, 1), 0)
    return jnp.einsum("bmk,bk->bm", axes, along)
