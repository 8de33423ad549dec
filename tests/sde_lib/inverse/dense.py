"""Measurements told by a matrix, and the posterior of a Gaussian in closed form, for tests of all posterior methods."""

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from sde_lib.inverse import LinearMeasurement, Measurement, SpectralMeasurement
from sde_lib.sde import expand


@struct.dataclass(kw_only=True)
class Dense(LinearMeasurement):
    """y = matrix x, of vectors."""

    matrix: Array

    def forward(self, x):
        return x @ self.matrix.T

    def normal_solve(self, y, c=0.0):
        squares, axes = jnp.linalg.eigh(self.matrix @ self.matrix.T)
        return (y @ axes / (squares + expand(c, y))) @ axes.T


@struct.dataclass(kw_only=True)
class DenseSpectral(SpectralMeasurement):
    """U diag(s) V^T of vectors, with fewer measurements than dimensions: u (M, M), s (M,), v (D, D)."""

    u: Array
    s: Array
    v: Array

    def singular_values(self):
        return jnp.pad(self.s, (0, len(self.v) - len(self.s)))

    def to_spectrum(self, x):
        return x @ self.v

    def from_spectrum(self, z):
        return z @ self.v.T

    def measured_to_spectrum(self, y):
        return jnp.pad(y @ self.u, ((0, 0), (0, len(self.v) - len(self.s))))

    def measured_from_spectrum(self, z):
        return z[:, : len(self.s)] @ self.u.T


@struct.dataclass(kw_only=True)
class Magnitude(Measurement):
    """A measurement that is not linear."""

    def forward(self, x):
        return x**2


def picks(*pixels, size):
    """The pixels of the given places."""
    return Dense(event_shape=(size,), matrix=np.eye(size)[np.array(pixels)])


def random_orthogonal(size, seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


def gaussian_posterior(mean, covariance, matrix, y, std, x=None, sde=None, t=None):
    """Mean (D,) and covariance of x_0 ~ N(mean, covariance) given y = matrix x_0 + std noise, and x_t = x if given."""
    information, precision = np.linalg.solve(covariance, mean), np.linalg.inv(covariance)
    information, precision = information + matrix.T @ (np.asarray(y) / std**2), precision + matrix.T @ matrix / std**2
    if x is not None:
        variance = (sde.sigma(t) / sde.alpha(t)) ** 2
        information, precision = information + x / sde.alpha(t) / variance, precision + np.eye(len(x)) / variance
    return np.linalg.solve(precision, information), np.linalg.inv(precision)
