"""Processes specified by drift and diffusion, whose alpha and sigma are integrated numerically.

    dx = f(t) x dt + g(t) dw:    d log alpha / dt = f,    d sigma^2 / dt = 2 f sigma^2 + g^2,    both 0 at t = 0

diffrax solves these equations from 0 to each requested t with separate steps, so a result does not depend on the other
times of the batch. Derivatives with respect to t are the right-hand sides above, not derivatives of the solver.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from sde_lib.sde import SDE

Rate = Callable[[Array], Array]


@partial(jax.jit, static_argnums=(0, 1))
def _integrate(f: Rate, g2: Rate, t: Array) -> tuple[Array, Array]:
    """Returns log alpha and sigma^2 at t, of the shape of t."""

    def slope(u, moments, t):
        _, variance = moments
        rate = f(u * t)
        return t * rate, t * (2 * rate * variance + g2(u * t))

    # Integrates over u = t' / t in [0, 1], so that the accuracy is equal for small and large t; atol only avoids 0 / 0
    # for f = 0.
    rtol = 3e-6 if t.dtype == jnp.float32 else 1e-10
    controller = diffrax.PIDController(rtol=rtol, atol=1e-30)

    def solve(t):
        start = (jnp.zeros_like(t), jnp.zeros_like(t))
        end: Any = diffrax.diffeqsolve(
            diffrax.ODETerm(slope), diffrax.Dopri8(), 0.0, 1.0, 0.1, start, args=t, stepsize_controller=controller,
            adjoint=diffrax.ForwardMode(),
        ).ys  # fmt: skip
        return end[0][-1], end[1][-1]

    log_alpha, variance = jax.vmap(solve)(t.ravel())
    return log_alpha.reshape(t.shape), variance.reshape(t.shape)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _moments(f: Rate, g2: Rate, t: Array) -> tuple[Array, Array]:
    return _integrate(f, g2, t)


@_moments.defjvp
def _moments_jvp(f, g2, primals, tangents):
    (t,), (t_dot,) = primals, tangents
    log_alpha, variance = _moments(f, g2, t)
    rate = f(t)
    return (log_alpha, variance), (rate * t_dot, (2 * rate * variance + g2(t)) * t_dot)


@struct.dataclass
class LinearSDE(SDE):
    """Linear SDE dx = f(t) x dt + sqrt(g2(t)) dw with arbitrary f and g2; alpha and sigma are integrated by diffrax.

    The relative accuracy is about 1e-9 in float64 and 1e-5 in float32. Each evaluation of alpha or sigma costs one ODE
    solve per time, so an `SDE` with alpha and sigma in closed form is preferable for frequent use. The moments are
    differentiable with respect to t, to any order. Parameters inside f and g2 are constants; differentiation with
    respect to them raises an error.

    Source: Song et al. (2021), https://arxiv.org/abs/2011.13456, appendix B, for the equations of the moments.

    Attributes:
        f: t -> drift rate, per unit of time. f and g2 act element by element, return the shape of t and are finite on
            [0, t_max]; both are static.
        g2: t -> squared diffusion, positive, in squared units of the data per unit of time.
    """

    f: Rate = struct.field(pytree_node=False)
    g2: Rate = struct.field(pytree_node=False)

    def _moments(self, t: ArrayLike) -> tuple[Array, Array]:
        return _moments(self.f, self.g2, jnp.asarray(t, jnp.result_type(float, t)))

    def log_alpha(self, t):
        """The integral of f from 0 to t."""
        return self._moments(t)[0]

    def alpha(self, t):
        """exp(log_alpha)."""
        return jnp.exp(self.log_alpha(t))

    def sigma(self, t):
        """The square root of the integral of g2 / alpha^2 from 0 to t, times alpha."""
        return jnp.sqrt(self._moments(t)[1])

    def log_snr(self, t):
        """2 log alpha - log sigma^2, from one solve."""
        log_alpha, variance = self._moments(t)
        return 2 * log_alpha - jnp.log(variance)

    def noise_to_signal(self, t):
        """sigma / alpha, from one solve."""
        return jnp.exp(-0.5 * self.log_snr(t))

    def drift_rate(self, t):
        """`f(t)`."""
        return self.f(jnp.asarray(t, jnp.result_type(float, t)))

    def squared_diffusion(self, t):
        """`g2(t)`."""
        return self.g2(jnp.asarray(t, jnp.result_type(float, t)))
