"""Exponential integrators: the linear part of the reverse process exactly, the Denoiser by a polynomial.

On y = x / alpha, with lambda = log(alpha / sigma) for the time, every process has the same reverse equation,

    dy = -(1 + tau^2) (y - D) dlambda + sqrt(2) tau exp(-lambda) dw,

where tau = 0 is the probability flow and tau = 1 the reverse-time SDE. Its solution over a step of length h is

    y(start + h) = exp(-r h) y(start) + integral over u in [0, h] of r exp(-r (h - u)) D(start + u) du + noise,
    r = 1 + tau^2,   noise ~ N(0, exp(-2 (start + h)) (1 - exp(-2 tau^2 h))),

and only D under the integral is unknown. In terms of the noise that the Denoiser finds, the flow is plainer still,

    y(start + h) = y(start) - integral of exp(-(start + u)) noise(start + u) du.

Both are integrated here with the polynomial through known values. The integrals are taken by Gauss-Legendre quadrature:
exact to rounding for the steps of any grid, in any variable that the polynomial may be in, and free of the cancellation
that closed forms suffer at small steps.

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


# lambda -> the variable in which a sampler takes the Denoiser to be a polynomial.
VARIABLES: dict[str, Callable[[Process, Array], Array]] = {
    "log_snr": lambda sde, half: half,
    "angle": lambda sde, half: jnp.arctan(jnp.exp(-half)),
    "time": lambda sde, half: sde.time_at_log_snr(2 * half),
}


def lagrange(at: Array, nodes: Array, known: Array) -> Array:
    """The Lagrange polynomials through the known ones of the nodes (K,), at points (Q,): (K, Q), 0 for unknown nodes."""
    others = known & ~jnp.eye(len(nodes), dtype=bool)  # [k, m]: polynomial k vanishes at m
    gaps = jnp.where(others, nodes[:, None] - nodes, 1)
    factors = jnp.where(others[..., None], (at - nodes[:, None]) / gaps[..., None], 1)
    return jnp.where(known[:, None], factors.prod(1), 0)


def quadrature(h: Array) -> tuple[Array, Array]:
    """Points and weights of Gauss-Legendre quadrature on [0, h]; 16 of them, exact to degree 31."""
    points, weights = np.polynomial.legendre.leggauss(16)
    return h * jnp.asarray(0.5 * points + 0.5, h.dtype), h * jnp.asarray(0.5 * weights, h.dtype)


def data_kernel(u: Array, h: Array, tau: ArrayLike) -> Array:
    """What D(start + u) counts for in y(start + h), by length of u."""
    rate = 1 + jnp.square(tau)
    return rate * jnp.exp(-rate * (h - u))


def noise_kernel(start: Array, u: Array) -> Array:
    """What noise(start + u) counts for in y(start + h), by length of u, on the flow."""
    return -jnp.exp(-(start + u))


def homogeneous(keys: Array, y: Array, start: Array, h: Array, tau: ArrayLike) -> Array:
    """y(start + h) less its part in D: what is left of y (B, *event), and the noise that the step adds."""
    left = jnp.exp(-(1 + jnp.square(tau)) * h) * y
    std = sqrt_or_zero(-jnp.expm1(-2 * jnp.square(tau) * h))
    return left + jnp.exp(-(start + h)) * std * standard_normal(keys, y)


def combine(weights: Array, values: Array) -> Array:
    """The sum of values (K, B, *event) with weights (K,)."""
    return jnp.tensordot(weights, values, 1)
