"""Samplers of the probability-flow ODE: Euler, DDIM and Heun.

In terms of y = x / alpha and the noise level s = sigma / alpha, the flow of every process is

    dy / ds = noise(x, t).

DDIM is the Euler step of this equation, Heun the trapezoidal rule. Both can add noise: DDIM with `eta`, Heun with
`churn`. `ProbabilityFlow` is the Euler step in x and t, as in score_sde, for comparison.

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
    """The Euler step of dx/dt = velocity(x, t), for any process; `DDIM` is more accurate at equal cost."""

    def step(self, carry, keys, x, t, s, denoiser):
        """From t to s; one evaluation."""
        return carry, x + (s - t) * denoiser.velocity(x, t)


@struct.dataclass
class DDIM(Sampler):
    """DDIM: x_s = alpha_s x0 + sqrt(sigma_s^2 - eta^2 v) noise + eta sqrt(v) z, with v = Var[x_s | x_t, x_0].

    Attributes:
        eta: stochasticity, >= 0 (ValueError): 0 is the probability flow to first order, 1 is ancestral sampling.
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
        # Not sqrt(eta^2 v), whose gradient at eta = 0 would be infinite.
        added_noise = self.eta * jnp.sqrt(posterior_variance(sde, s, t)) * standard_normal(keys, x)
        return carry, mean + added_noise


@struct.dataclass
class Heun(Sampler):
    """EDM's second-order sampler: an Euler step of dy/ds = noise, corrected by the trapezoidal rule.

    With churn, each step with s in [churn_min, churn_max] first adds noise, which increases s by a factor 1 + gamma,
    gamma = min(churn / n, sqrt(2) - 1).

    Attributes:
        churn: S_churn, >= 0 (ValueError); 0 is deterministic.
        churn_min, churn_max: S_min and S_max, bounds of sigma / alpha.
        churn_noise: S_noise, scale factor of the added noise.
    """

    churn: float = struct.field(pytree_node=False, default=0.0)
    churn_min: float = 0.0
    churn_max: float = math.inf
    churn_noise: float = 1.0

    def __post_init__(self):
        at_least("Heun", 0, churn=self.churn)

    evaluations_per_step = 2

    def init(self, x: Array, denoiser: Denoiser, times: Array) -> Any:
        """Returns gamma, where n is the number of steps of the grid, including the denoising step, as in EDM."""
        return jnp.minimum(self.churn / (times.shape[0] - 1), math.sqrt(2) - 1)

    def _raise_noise(self, gamma: Array, keys: Array, x: Array, t: Array, denoiser: Denoiser) -> tuple[Array, Array]:
        """Returns x and t with the noise level raised by 1 + gamma, and unchanged outside [churn_min, churn_max]."""
        sde = scalar(denoiser.sde)
        now = sde.noise_to_signal(t)
        inside = (now >= self.churn_min) & (now <= self.churn_max)
        # At t_max, time_at_log_snr may clip the time; the added noise is computed from the clipped time.
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


# Names used in configs.
SAMPLERS = {"probability_flow": ProbabilityFlow, "ddim": DDIM, "heun": Heun}
