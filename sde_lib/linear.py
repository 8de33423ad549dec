"""LinearSDE: a process told by its drift and diffusion, whose moments nobody has integrated in closed form.

    dx = f(t) x dt + g(t) dw:    d log alpha / dt = f,    d sigma^2 / dt = 2 f sigma^2 + g^2,    both 0 at t = 0

diffrax integrates both from 0 to each t that is asked, each with its own steps, so a result does not depend on what else
is in the batch. Their derivatives with respect to t are the right-hand sides above, not those of the solver.
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
    """log alpha and sigma^2 at each t, of its shape."""

    def slope(u, moments, t):
        _, variance = moments
        rate = f(u * t)
        return t * rate, t * (2 * rate * variance + g2(u * t))

    # Over u = t' / t in [0, 1], so that a small t is as exact as a large one; atol only avoids 0 / 0 for f = 0.
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
    """dx = f(t) x dt + sqrt(g2(t)) dw for any functions f and g2; alpha and sigma are integrated by diffrax.

    Accurate to some 1e-9 (float64) or 1e-5 (float32), at the price of an ODE solve for each time at which alpha or sigma
    is asked: for a process that is used much, write alpha and sigma down. The moments differentiate with respect to t, to
    any order; parameters inside f and g2 are constants, and differentiating with respect to one is an error.

    Source: Song et al. (2021), https://arxiv.org/abs/2011.13456, appendix B, for the moments' equations.

    Attributes:
        f: t -> drift rate, per unit of time; acts element by element, keeps t's shape and is finite on [0, t_max].
            Static; so is g2, of which the same is asked.
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
        """`f(t)` itself."""
        return self.f(jnp.asarray(t, jnp.result_type(float, t)))

    def squared_diffusion(self, t):
        """`g2(t)` itself."""
        return self.g2(jnp.asarray(t, jnp.result_type(float, t)))
