"""Processes of papers whose losses are tested, beside those of `processes`."""

import jax.numpy as jnp
from flax import struct

from sde_lib import SDE


@struct.dataclass
class StraightSDE(SDE):
    """Rectified flow's: alpha = 1 - t, sigma = t."""

    def alpha(self, t):
        return 1 - jnp.asarray(t)

    def sigma(self, t):
        return jnp.asarray(t)


@struct.dataclass
class NoiseLevelSDE(SDE):
    """EDM's: alpha = 1, and the time is the noise level."""

    def alpha(self, t):
        return jnp.ones_like(t)

    def sigma(self, t):
        return jnp.asarray(t)
