"""Processes and Denoisers of one structure, so that one compiled program serves the tests of every process."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from sde_lib import SDE, exact
from sde_lib.sde import expand
from tests.sde_lib.processes import SOME_SDES


@struct.dataclass
class OneOf(SDE):
    """The process of the given place in `sdes`."""

    place: int = 0
    sdes: tuple[SDE, ...] = tuple(SOME_SDES)

    def _call(self, name, t):
        return jax.lax.switch(self.place, [getattr(sde, name) for sde in self.sdes], jnp.asarray(t, float))

    def alpha(self, t):
        return self._call("alpha", t)

    def sigma(self, t):
        return self._call("sigma", t)

    def log_alpha(self, t):
        return self._call("log_alpha", t)

    def log_snr(self, t):
        return self._call("log_snr", t)

    def time_at_log_snr(self, log_snr):
        return self._call("time_at_log_snr", log_snr)


def one_program(sde):
    """The process as one of the structure that all share."""
    place = [type(other) for other in SOME_SDES].index(type(sde))
    sdes = tuple(sde if i == place else other for i, other in enumerate(SOME_SDES))
    return OneOf(t_min=float(sde.t_min), t_max=float(sde.t_max), place=place, sdes=sdes)


@struct.dataclass
class Fragile(exact.GaussianMixture):
    """A mixture whose Denoiser gives NaN where x[0] is above `highest`, or below `lowest` after time `lowest_at`."""

    highest: float = jnp.inf
    lowest: float = -jnp.inf
    lowest_at: float = 0.0

    def __call__(self, x, t):
        first, t = x[:, 0], jnp.broadcast_to(t, x.shape[:1])
        broken = (first > self.highest) | ((first < self.lowest) & (t > self.lowest_at))
        return jnp.where(expand(broken, x), jnp.nan, super().__call__(x, t))


MEANS = np.array([[0.5, 0.3], [-0.5, -0.3]])  # two modes, off the axes, with mean 0


def shared_mixture(sde, means=MEANS, stds=0.3):
    """A mixture of two modes in the plane, for calls of compiled programs."""
    return Fragile(one_program(sde), jnp.asarray(means), stds=stds)


def symmetric_sample(sde, means=MEANS, stds=0.3):
    """8 draws of x_{t_min}, each with its negative."""
    x0 = exact.GaussianMixture(sde, means, stds=stds).sample(jax.random.key(0), 4)
    x = sde.perturb(x0, jax.random.normal(jax.random.key(1), x0.shape), sde.t_min)
    return jnp.concatenate([x, -x])
