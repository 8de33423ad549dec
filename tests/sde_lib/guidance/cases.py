"""Data, Denoisers and processes of the tests of guidance, and how two Denoisers are compared."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from sde_lib import SDE, CriticallyDampedLangevin, Denoiser, EDMPreconditioning, NetworkDenoiser, exact
from sde_lib.struct import Struct
from tests.sde_lib.processes import EVERY_SDE

MEANS = np.array([[-1.0, 0.5], [2.0, 1.0], [0.3, -2.0], [1.5, -0.4]])
STDS, WEIGHTS = np.array([0.2, 0.5, 1.0, 0.4]), np.array([0.4, 0.2, 0.3, 0.1])
X = np.array([[0.3, -0.7], [1.5, 2.0], [-4.0, 0.1]])
Z = np.random.default_rng(0).normal(size=(3, 2, 2))  # states of a process with velocities
CLD = CriticallyDampedLangevin(beta=3.0, mass=0.3, gamma=0.1)


def mixture(sde):
    return exact.GaussianMixture(sde, MEANS, stds=STDS, weights=WEIGHTS)


def of_class_a(sde):
    """The data of the first class: two of the four modes."""
    return exact.GaussianMixture(sde, MEANS[:2], stds=STDS[:2], weights=WEIGHTS[:2] / WEIGHTS[:2].sum())


def gaussian(sde, mean, std=0.5):
    return exact.Gaussian(sde, mean=jnp.asarray(mean), std=jnp.asarray(std))


@struct.dataclass
class LogProbabilityOfA(Struct):
    """log p(A | x_t) of the mixture, up to a constant, from two densities."""

    joint: Denoiser
    conditional: Denoiser

    def __call__(self, x, t):
        return self.conditional.log_prob(x, t) - self.joint.log_prob(x, t)


@struct.dataclass
class Near(Struct):
    """log N(value; x0, variance), up to a constant."""

    value: jax.Array
    variance: float = 0.3

    def __call__(self, x0):
        return -0.5 * ((x0 - self.value) ** 2).sum(1) / self.variance


@jax.jit
def views(denoiser, x, t):
    x0, noise = denoiser.x0_and_noise(x, t)
    return denoiser(x, t), x0, noise, denoiser.score(x, t)


def assert_same(denoiser, other, x, t, rtol=1e-10, atol=1e-10):
    for got, expected in zip(views(denoiser, x, t), views(other, x, t), strict=True):
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol)


@struct.dataclass
class AtThreeTimes(SDE):
    """A process at three times, the only ones at which it is asked: one program serves all processes."""

    times: jax.Array
    alphas: jax.Array
    sigmas: jax.Array

    def alpha(self, t):
        return jnp.asarray(self.alphas)[jnp.searchsorted(self.times, t)]

    def sigma(self, t):
        return jnp.asarray(self.sigmas)[jnp.searchsorted(self.times, t)]


@functools.cache
def _processes(place):
    sde = EVERY_SDE[place]
    t = sde.t_min + (sde.t_max - sde.t_min) * np.array([0.02, 0.3, 0.9])
    return AtThreeTimes(t, np.asarray(sde.alpha(t)), np.asarray(sde.sigma(t))), X, t


def processes(sde):
    """The process as it is at three times, a state of each, and the times."""
    return _processes([type(other) for other in EVERY_SDE].index(type(sde)))


class Net:
    """A small network of x, noise level and label, with label 3 for none."""

    rng = np.random.default_rng(1)
    weights, table = 0.5 * rng.normal(size=(2, 2)), rng.normal(size=(4, 2))

    def __init__(self):
        self.calls = []

    def apply(self, variables, x, noise_level, condition, *, train):
        self.calls.append(x.shape)
        return (
            jnp.tanh(x @ variables[0] + 0.1 * noise_level[:, None] * variables[1][condition]) + variables[1][condition]
        )

    def denoiser(self, sde):
        return NetworkDenoiser(sde, EDMPreconditioning(0.5), self, (self.weights, self.table))


LABELS = np.array([2, 0, 1])
