"""The update of a Gaussian N(D, C) by y = A x_0 + noise of variance S, where C is a Denoiser's n^2 dD/du:

    update = C A^T v,      (A C A^T + S) v = r = y - A D.

C is known by its products alone, and only of the exact Denoiser is it a covariance. A network's is not symmetric, and some
of its eigenvalues are negative; where those of A C A^T + S pass near 0, v is without bound, and with it what the update does
to that part of x_0 which y does not see. How wrong C is, can be seen: C - C^T would be 0. So the equation is solved in the
Krylov space of r, whose orthonormal basis V is made of the products in turn, with H = V^T A C A^T V:

    (K + |N| I + V^T S V) c = V^T r,   v = V c,   K = (H + H^T) / 2 less its negative part,   N = (H - H^T) / 2.

The part of C that is symmetric is as wrong as the part that is not, so |N|, the spectral norm, is variance that the error of
C amounts to. For a covariance N = 0 and K = H, and v is that of as many steps of conjugate gradients; exact, once the space
holds v. After one step N is 0 for any C.

Source: Saad (2003), https://doi.org/10.1137/1.9780898718003, sections 6.3 and 6.4, for Arnoldi's basis and the projection.
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
    """The update (B, *event) of the expected data; each step takes one product with C, and nothing else does.

    Derivatives are those of the solution, not of the iterations.

    Args:
        covariance: C, of x (B, *event).
        forward, adjoint: A and A^T.
        noise: S >= 0, that broadcasts against the misfit.
        misfit: r (B, *measured).
        rtol: an example rests when its residual is this part of r.
        max_steps: the dimension of the space, at most.
    """

    # v and the update are the unknowns, so that the products that gave v give the update too: one array of both, since
    # the derivative of a linear solve with several (JAX 0.10) fails where that of one is 0.
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
    """v and L v, where (G + S) v = b and products(v) = (L v, G v)."""
    shapes = jax.eval_shape(products, b)
    vectors, lengths = jnp.zeros((max_steps, *b.shape), b.dtype), sqrt_or_zero(dot(b, b))
    images, measured = (jnp.zeros((max_steps, *shape.shape), shape.dtype) for shape in shapes)

    def unfinished(state):
        step, *_, going = state
        return (step < max_steps) & going.any()

    def iterate(state):
        step, vectors, images, measured, following, length, pivot, residual, going = state
        v = jnp.where(expand(going & (length > 0), following), following, 0) / expand(
            jnp.where(length > 0, length, 1), b
        )
        image, product = products(v)
        vectors, images = vectors.at[step].set(v), images.at[step].set(image)
        measured = measured.at[step].set(product)
        following = product + noise * v
        # The recurrence of Lanczos, by which conjugate gradients know their residual; the basis itself is made orthogonal
        # to all of its vectors, since that of a C that is not symmetric takes them all. Twice, for the sake of rounding.
        curvature = dot(v, following)
        pivot = curvature - jnp.where(step > 0, length**2 / jnp.where(pivot != 0, pivot, 1), 0)
        for _ in range(2):
            following = following - jnp.einsum("mb...,mb->b...", vectors, jax.vmap(dot, (0, None))(vectors, following))
        length = sqrt_or_zero(dot(following, following))
        residual = residual * length / jnp.where(pivot != 0, jnp.abs(pivot), 1)
        return step + 1, vectors, images, measured, following, length, pivot, residual, going & (residual > rtol)

    one = jnp.ones_like(lengths)
    state = 0, vectors, images, measured, b, lengths, one, one, lengths > 0
    _, vectors, images, measured, *_ = jax.lax.while_loop(unfinished, iterate, state)
    sides = jax.vmap(dot, (0, None))(vectors, b).T
    weights = _projected_solve(_inner(vectors, measured), _inner(vectors, jnp.multiply(noise, vectors)), sides)
    return jnp.einsum("mb...,bm->b...", vectors, weights), jnp.einsum("mb...,bm->b...", images, weights)


def _inner(a: Array, b: Array) -> Array:
    """The inner products (B, M, M) of vectors (M, B, *event) of two sets."""
    a, b = (vectors.reshape(*vectors.shape[:2], -1) for vectors in (a, b))
    return jnp.einsum("mbi,nbi->bmn", a, b)


def _projected_solve(h: Array, s: Array, b: Array) -> Array:
    """(K + |N| I + s)^-1 b, (B, M); see above. Directions without variance, as those not used are, have weight 0."""
    symmetric, skew = 0.5 * (h + h.mT), 0.5 * (h - h.mT)
    variances, axes = jnp.linalg.eigh(symmetric)
    # The eigenvalues of N come in pairs, so that its Frobenius norm is sqrt(2) |N| up to three steps, and more beyond.
    error = sqrt_or_zero(0.5 * jnp.square(skew).sum((1, 2)))[:, None, None] * jnp.eye(h.shape[-1], dtype=h.dtype)
    whole = (axes * jnp.maximum(variances, 0)[:, None, :]) @ axes.mT + error + s
    values, axes = jnp.linalg.eigh(whole)
    kept = values > values[:, -1:] * len(values[0]) * jnp.finfo(values.dtype).eps
    along = jnp.einsum("bmk,bm->bk", axes, b) * jnp.where(kept, 1 / jnp.where(kept, values, 1), 0)
    return jnp.einsum("bmk,bk->bm", axes, along)
