"""Exponential integrators: exact linear part of the reverse process, polynomial approximation of the Denoiser.

In terms of y = x / alpha and the time variable lambda = log(alpha / sigma), every process has the same reverse
equation,

    dy = -(1 + tau^2) (y - D) dlambda + sqrt(2) tau exp(-lambda) dw,

where tau = 0 is the probability flow and tau = 1 the reverse-time SDE. Its solution over a step of length h is

    y(start + h) = exp(-r h) y(start) + integral over u in [0, h] of r exp(-r (h - u)) D(start + u) du + noise,
    r = 1 + tau^2,   noise ~ N(0, exp(-2 (start + h)) (1 - exp(-2 tau^2 h))),

in which only D is unknown. In terms of the noise predicted by the Denoiser, the probability flow is

    y(start + h) = y(start) - integral over u in [0, h] of exp(-(start + u)) noise(start + u) du.

In both integrals D or the noise is replaced by the interpolation polynomial through known values. The integrals are
evaluated by Gauss-Legendre quadrature, which is exact to rounding for the steps of all grids and polynomials in any
variable, and avoids the cancellation of closed forms at small steps.

Sources: Hochbruck and Ostermann (2010), https://doi.org/10.1017/S0962492910000048, for exponential integrators; Lu et al.
(2022), https://arxiv.org/abs/2211.01095, proposition 4.1; Xue et al. (2023), https://arxiv.org/abs/2309.05019, for tau.
"""

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from sde_lib.numerics import sqrt_or_zero
from sde_lib.randomness import standard_normal
from sde_lib.sde import Process

Variable = Literal["log_snr", "angle", "time"]


def half_log_snr(sde: Process, t: Array) -> Array:
    """lambda = log(alpha / sigma), of t's shape."""
    return 0.5 * sde.log_snr(t)


# (process, lambda) -> the variable of the interpolation polynomial.
VARIABLES: dict[str, Callable[[Process, Array], Array]] = {
    "log_snr": lambda sde, half: half,
    "angle": lambda sde, half: jnp.arctan(jnp.exp(-half)),
    "time": lambda sde, half: sde.time_at_log_snr(2 * half),
}


def lagrange(at: Array, nodes: Array, known: Array) -> Array:
    """Returns the Lagrange polynomials of the known nodes (K,) at points (Q,): (K, Q), 0 for unknown nodes."""
    others = known & ~jnp.eye(len(nodes), dtype=bool)  # [k, m]: polynomial k vanishes at m
    gaps = jnp.where(others, nodes[:, None] - nodes, 1)
    factors = jnp.where(others[..., None], (at - nodes[:, None]) / gaps[..., None], 1)
    return jnp.where(known[:, None], factors.prod(1), 0)


def quadrature(h: Array) -> tuple[Array, Array]:
    """Returns the points (16,) and weights (16,) of Gauss-Legendre quadrature on [0, h], exact to degree 31."""
    points, weights = np.polynomial.legendre.leggauss(16)
    return h * jnp.asarray(0.5 * points + 0.5, h.dtype), h * jnp.asarray(0.5 * weights, h.dtype)


def data_kernel(u: Array, h: Array, tau: ArrayLike) -> Array:
    """Integration kernel: weight of D(start + u) in y(start + h), per unit of u."""
    rate = 1 + jnp.square(tau)
    return rate * jnp.exp(-rate * (h - u))


def noise_kernel(start: Array, u: Array) -> Array:
    """Integration kernel: weight of noise(start + u) in y(start + h), per unit of u, for the probability flow."""
    return -jnp.exp(-(start + u))


def homogeneous(keys: Array, y: Array, start: Array, h: Array, tau: ArrayLike) -> Array:
    """Returns y(start + h) without the integral over D: the decayed y (B, *event) plus the noise of the step."""
    decayed = jnp.exp(-(1 + jnp.square(tau)) * h) * y
    std = sqrt_or_zero(-jnp.expm1(-2 * jnp.square(tau) * h))
    return decayed + jnp.exp(-(start + h)) * std * standard_normal(keys, y)


def combine(weights: Array, values: Array) -> Array:
    """Returns the sum of values (K, B, *event) with weights (K,): (B, *event)."""
    return jnp.tensordot(weights, values, 1)
