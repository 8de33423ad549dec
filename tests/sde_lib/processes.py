"""The processes that every test of the mathematics runs on: the library's and a researcher's own."""

import jax
import jax.numpy as jnp
import pytest
from flax import struct

from sde_lib import EDMSDE, SDE, VESDE, VPSDE, CosineVPSDE, DiscreteVP, RectifiedFlow, SubVPSDE


@struct.dataclass
class TrigonometricSDE(SDE):
    """What a researcher writes in a notebook: alpha, sigma, nothing else."""

    bend: float = 1.0

    def alpha(self, t):
        return jnp.cos(0.5 * jnp.pi * t**self.bend)

    def sigma(self, t):
        return jnp.sin(0.5 * jnp.pi * t**self.bend)


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
