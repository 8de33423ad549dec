"""The processes that every test of the mathematics runs on: the library's and a researcher's own."""

import jax
import jax.numpy as jnp
import pytest
from flax import struct

from sde_lib import EDMSDE, SDE, VESDE, VPSDE, CosineVPSDE, DiscreteVP, Process, RectifiedFlow, SubVPSDE


@struct.dataclass
class TrigonometricSDE(SDE):
    """What a researcher writes in a notebook: alpha, sigma, nothing else."""

    bend: float = 1.0

    def alpha(self, t):
        return jnp.cos(0.5 * jnp.pi * t**self.bend)

    def sigma(self, t):
        return jnp.sin(0.5 * jnp.pi * t**self.bend)


class Units(Process):
    """An SDE whose states are in other units, one for each number of the data: a process without scalar coefficients.

    Attributes:
        inner: the SDE.
        units: of the event's shape.
    """

    inner: SDE
    units: jax.Array

    def log_snr(self, t):
        return self.inner.log_snr(t)

    def drift(self, x, t):
        return self.inner.drift(x, t)

    def apply_diffusion(self, noise, t):
        return self.units * self.inner.apply_diffusion(noise, t)

    def apply_squared_diffusion(self, score, t):
        return self.units**2 * self.inner.apply_squared_diffusion(score, t)

    def marginal(self, x0, t):
        mean, std = self.inner.marginal(x0, t)
        return self.units * mean, std

    def perturb(self, x0, noise, t):
        return self.units * self.inner.perturb(x0, noise, t)

    def diffuse(self, x_s, noise, s, t):
        return self.units * self.inner.diffuse(x_s / self.units, noise, s, t)

    def prior_sample(self, key, shape):
        return self.units * self.inner.prior_sample(key, shape)

    def prior_log_prob(self, x):
        return self.inner.prior_log_prob(x / self.units) - jnp.log(self.units).sum()

    def to_data_scale(self, x, t):
        return self.inner.to_data_scale(x / self.units, t)

    def log_prob_beyond_data_scale(self, x, t):
        return self.inner.log_prob_beyond_data_scale(x / self.units, t) - jnp.log(self.units).sum()

    def noise_from_x0(self, x, x0, t):
        return self.inner.noise_from_x0(x / self.units, x0, t)

    def noise_from_data_scale(self, x, noise, t):
        return noise

    def score_from_noise(self, noise, t):
        return self.inner.score_from_noise(noise, t) / self.units


EVERY_SDE = [
    VPSDE(t_min=1e-3),
    SubVPSDE(t_min=1e-2),
    VESDE(sigma_max=20.0),
    TrigonometricSDE(t_min=1e-2, t_max=0.995),
    CosineVPSDE(t_min=1e-3),
    EDMSDE(),
    RectifiedFlow(t_min=1e-3),
    DiscreteVP.linear(),
]

# The library's first three and the researcher's: for tests whose subject is not the process, where each costs a compilation.
SOME_SDES = EVERY_SDE[:4]

every_sde = pytest.mark.parametrize("sde", EVERY_SDE, ids=lambda sde: type(sde).__name__)
some_sdes = pytest.mark.parametrize("sde", SOME_SDES, ids=lambda sde: type(sde).__name__)


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)
