"""Samplers of the probability-flow ODE, which carries p_t through time without noise: Euler, DDIM and Heun.

On y = x / alpha, with s = sigma / alpha for the time, the flow of any process is the same simple equation,

    dy / ds = noise(x, t),

so DDIM and Heun work on y and s: DDIM takes the Euler step, Heun the trapezoidal one. Each can add noise: DDIM by `eta`,
Heun by `churn`. `ProbabilityFlow` is the Euler step in x and t, score_sde's, kept for comparison.

Sources: Song, Meng and Ermon (2021), https://arxiv.org/abs/2010.02502, eq. 12 to 14; Karras et al. (2022),
https://arxiv.org/abs/2206.00364, algorithms 1 and 2.
"""

import math
from typing import Any

import jax.numpy as jnp
from flax import struct
from jax import Array

from sde_lib.checks import at_least
from sde_lib.denoiser import Denoiser
from sde_lib.numerics import sqrt_or_zero
from sde_lib.randomness import standard_normal
from sde_lib.sampling.predictors import posterior_variance
from sde_lib.sampling.sampler import Sampler
from sde_lib.sde import scalar


@struct.dataclass
class ProbabilityFlow(Sampler):
    """The Euler step of dx/dt = velocity(x, t), on any process; `DDIM` is more accurate for one evaluation too."""

    def step(self, carry, keys, x, t, s, denoiser):
        """From t to s; one evaluation."""
        return carry, x + (s - t) * denoiser.velocity(x, t)


@struct.dataclass
class DDIM(Sampler):
    """x_s = alpha_s x0 + sqrt(sigma_s^2 - eta^2 v) noise + eta sqrt(v) z, with v the variance of p(x_s | x_t, x_0).

    Attributes:
        eta: 0 is the probability flow to first order, 1 is ancestral sampling.
    """

    eta: float = 0.0

    def __post_init__(self):
        at_least("DDIM", 0, eta=self.eta)

    def step(self, carry, keys, x, t, s, denoiser):
        """From t to s; one evaluation."""
        sde = scalar(denoiser.sde)
        x0, noise = denoiser.x0_and_noise(x, t)
        variance = self.eta**2 * posterior_variance(sde, s, t)
        mean = sde.alpha(s) * x0 + jnp.sqrt(sde.sigma(s) ** 2 - variance) * noise
        # The square root of v alone: of eta^2 v its gradient at eta = 0 would be infinite.
        fresh = self.eta * jnp.sqrt(posterior_variance(sde, s, t)) * standard_normal(keys, x)
        return carry, mean + fresh


@struct.dataclass
class Heun(Sampler):
    """EDM's second-order method: an Euler step of dy/ds = noise, then the trapezoid with the noise found at its end.

    With churn, each step first adds noise to raise s by a factor 1 + gamma, gamma = min(churn / n, sqrt(2) - 1), where
    s lies in [churn_min, churn_max].

    Attributes:
        churn: S_churn; 0 is deterministic.
        churn_min, churn_max: S_min and S_max, bounds of sigma / alpha.
        churn_noise: S_noise, the standard deviation of the noise that is added.
    """

    churn: float = struct.field(pytree_node=False, default=0.0)
    churn_min: float = 0.0
    churn_max: float = math.inf
    churn_noise: float = 1.0

    def __post_init__(self):
        at_least("Heun", 0, churn=self.churn)

    evaluations_per_step = 2

    def init(self, x: Array, denoiser: Denoiser, times: Array) -> Any:
        """gamma: n counts every step of the grid, the denoising step too, as in EDM."""
        return jnp.minimum(self.churn / (times.shape[0] - 1), math.sqrt(2) - 1)

    def _raise_noise(self, gamma: Array, keys: Array, x: Array, t: Array, denoiser: Denoiser) -> tuple[Array, Array]:
        """x and t with the noise level raised by 1 + gamma, or as they are outside [churn_min, churn_max]."""
        sde = scalar(denoiser.sde)
        now = sde.noise_to_signal(t)
        inside = (now >= self.churn_min) & (now <= self.churn_max)
        # At t_max there is no room: time_at_log_snr may clip, and the noise added is that of the time it gives.
        higher = jnp.where(inside, sde.time_at_log_snr(sde.log_snr(t) - 2 * jnp.log1p(gamma)), t)
        added = sqrt_or_zero(sde.noise_to_signal(higher) ** 2 - now**2)
        y = x / sde.alpha(t) + self.churn_noise * added * standard_normal(keys, x)
        return sde.alpha(higher) * y, higher

    def step(self, carry, keys, x, t, s, denoiser):
        """From t to s; two evaluations."""
        sde = scalar(denoiser.sde)
        if self.churn > 0:
            x, t = self._raise_noise(carry, keys, x, t, denoiser)
        y, length = x / sde.alpha(t), sde.noise_to_signal(s) - sde.noise_to_signal(t)
        slope = denoiser.noise(x, t)
        slope_at_end = denoiser.noise(sde.alpha(s) * (y + length * slope), s)
        return carry, sde.alpha(s) * (y + 0.5 * length * (slope + slope_at_end))


# By the name that a config gives.
SAMPLERS = {"probability_flow": ProbabilityFlow, "ddim": DDIM, "heun": Heun}
