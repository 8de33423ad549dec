"""Processes and Denoisers of one structure, so that one compiled program serves the tests of every process."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from sde_lib import SDE, exact
from sde_lib.sde import expand
from tests.sde_lib.processes import EVERY_SDE, SOME_SDES, keys


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


def one_program(sde, among=SOME_SDES):
    """The process as one of the structure that all processes of `among` share."""
    place = [type(other) for other in among].index(type(sde))
    sdes = tuple(sde if i == place else other for i, other in enumerate(among))
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
    """A mixture of two modes in the plane under any of the processes, for calls of compiled programs."""
    return Fragile(one_program(sde, EVERY_SDE), jnp.asarray(means), stds=stds)


def symmetric_sample(sde, means=MEANS, stds=0.3):
    """8 draws of x_{t_min}, each with its negative."""
    x0 = exact.GaussianMixture(sde, means, stds=stds).sample(jax.random.key(0), 4)
    x = sde.perturb(x0, jax.random.normal(jax.random.key(1), x0.shape), sde.t_min)
    return jnp.concatenate([x, -x])


LONGEST = 1024  # steps


@jax.jit
def _run(method, x, times, n, denoiser):
    def body(i, state):
        carry, x = state
        return method.step(carry, keys(len(x)), x, times[i], times[i + 1], denoiser)

    return jax.lax.fori_loop(0, n, body, (method.init(x, denoiser, times), x))[1]


def gaussian_error(sde, grid, method, n):
    """The root mean square error of n steps at t_min, against the exact probability flow of a Gaussian.

    One program of a method serves all processes, grids and n; for `sample` every n is another program.
    """
    # Of several widths at once: the error of one alone may change its sign between two grids.
    stds = jnp.array([0.3, 0.5, 1.2])
    exactly, denoiser = (exact.Gaussian(each, mean=0.7, std=stds) for each in (sde, one_program(sde, EVERY_SDE)))
    start = jnp.linspace(-2, 2, 7)[:, None] * jnp.ones(3) * sde.sigma(sde.t_max)
    times = jnp.pad(grid(sde, n, denoise=False), (0, LONGEST - n))
    x = _run(method, start, times, n, denoiser)
    return np.sqrt(np.mean((x - exactly.flow(start, sde.t_max, sde.t_min)) ** 2))
