"""Denoisers with no network: distributions whose posterior mean has a closed form. The ground truth of the tests.

What x_t tells of x_0 is y = x_t / alpha: x_0 plus noise of standard deviation n = sigma / alpha (`sde.py`, "views").
For data N(m, s^2 I), y is N(m, (s^2 + n^2) I) and

    E[x_0 | x_t] = m + s^2 / (s^2 + n^2) (y - m);

a mixture averages its components' posterior means with their posterior probabilities.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from sde_lib.denoiser import Denoiser
from sde_lib.sde import expand


def isotropic_variance(noise_to_signal: ArrayLike, data_std: ArrayLike) -> Array:
    """Var[x_0 | x_t] of each value of data N(m, v I): n^2 v / (n^2 + v), v = data_std^2; n^2 where data_std is infinite."""
    return 1 / (1 / jnp.square(noise_to_signal) + 1 / jnp.square(data_std))


def _event_sum(x: Array, event_ndim: int) -> Array:
    return x.sum(tuple(range(x.ndim - event_ndim, x.ndim)))


@struct.dataclass
class Gaussian(Denoiser):
    """The exact Denoiser of data N(mean, std^2).

    Attributes:
        mean, std: of the data, each () or of the event's shape (then std is the diagonal).
    """

    mean: ArrayLike = 0.0
    std: ArrayLike = 1.0

    def __call__(self, x: Array, t: ArrayLike) -> Array:
        """The posterior mean, (B, *event)."""
        y, variance = self.sde.to_data_scale(x, t), jnp.square(self.std)
        return self.mean + variance / (variance + expand(self.sde.noise_to_signal(t), y) ** 2) * (y - self.mean)

    def marginal_std(self, t: ArrayLike) -> Array:
        """The standard deviation of x_t itself; t is ()."""
        return jnp.sqrt((self.sde.alpha(t) * jnp.asarray(self.std)) ** 2 + self.sde.sigma(t) ** 2)

    def flow(self, x: Array, t: ArrayLike, s: ArrayLike) -> Array:
        """The exact solution at time s of the probability-flow ODE that is at x at time t; t and s are ()."""
        z = (x - self.sde.alpha(t) * self.mean) / self.marginal_std(t)
        return self.sde.alpha(s) * self.mean + self.marginal_std(s) * z

    def log_prob(self, x: Array, t: ArrayLike) -> Array:
        """log p_t(x) in nats, (B,)."""
        y = self.sde.to_data_scale(x, t)
        std = jnp.sqrt(jnp.square(self.std) + expand(self.sde.noise_to_signal(t), y) ** 2)
        log_density = _event_sum(jax.scipy.stats.norm.logpdf(y, self.mean, std), y.ndim - 1)
        return log_density + self.sde.log_prob_beyond_data_scale(x, t)

    def sample(self, key: Array, shape: tuple[int, ...]) -> Array:
        """Draws of the data, of the given shape (B, *event)."""
        return self.mean + self.std * jax.random.normal(key, shape)


@struct.dataclass
class CorrelatedGaussian(Denoiser):
    """The exact Denoiser of data N(mean, covariance).

    Attributes:
        mean: () or of the event's shape.
        covariance: (d, d) of the event's d numbers, in the order of `ravel`.
    """

    mean: ArrayLike
    covariance: Array

    def __call__(self, x: Array, t: ArrayLike) -> Array:
        """The posterior mean, (B, *event)."""
        y = self.sde.to_data_scale(x, t)
        variances, axes = jnp.linalg.eigh(self.covariance)
        noise_to_signal = self.sde.noise_to_signal(jnp.broadcast_to(t, x.shape[:1]))[:, None]
        along = (y - self.mean).reshape(len(y), -1) @ axes
        along *= variances / (variances + noise_to_signal**2)
        return self.mean + (along @ axes.T).reshape(y.shape)


@struct.dataclass
class GaussianMixture(Denoiser):
    """The exact Denoiser of a mixture of K isotropic Gaussians.

    Attributes:
        means: (K, *event).
        stds: () or (K,).
        weights: (K,), summing to 1; None for equal ones.
    """

    means: Array
    stds: ArrayLike = 0.1
    weights: Array | None = None

    def _log_joint(self, x: Array, t: ArrayLike) -> tuple[Array, Array, Array]:
        """log(weight_k p(y | k)) (B, K), y - mean_k (B, K, *event) and the variance of y in each component (B, K)."""
        k, event_ndim = self.means.shape[0], self.means.ndim - 1
        offset = self.sde.to_data_scale(x, t)[:, None] - self.means
        noise_to_signal = self.sde.noise_to_signal(jnp.broadcast_to(t, x.shape[:1]))[:, None]
        variance = jnp.broadcast_to(self.stds, (k,)) ** 2 + noise_to_signal**2
        size = self.means[0].size
        log_weights = -jnp.log(k) if self.weights is None else jnp.log(self.weights)
        square = _event_sum(offset**2, event_ndim)
        return log_weights - 0.5 * (square / variance + size * jnp.log(2 * jnp.pi * variance)), offset, variance

    def __call__(self, x: Array, t: ArrayLike) -> Array:
        """The posterior mean, (B, *event)."""
        log_joint, offset, variance = self._log_joint(x, t)
        components = self.means + expand(jnp.square(self.stds) / variance, offset) * offset
        return (expand(jax.nn.softmax(log_joint, axis=1), components) * components).sum(1)

    def log_prob(self, x: Array, t: ArrayLike) -> Array:
        """log p_t(x) in nats, (B,)."""
        return jax.nn.logsumexp(self._log_joint(x, t)[0], axis=1) + self.sde.log_prob_beyond_data_scale(x, t)

    def sample(self, key: Array, n: int) -> Array:
        """n draws of the data, (n, *event)."""
        key_component, key_noise = jax.random.split(key)
        k = self.means.shape[0]
        component = jax.random.choice(key_component, k, (n,), p=self.weights)
        noise = jax.random.normal(key_noise, (n, *self.means.shape[1:]), self.means.dtype)
        return jnp.asarray(self.means)[component] + expand(jnp.broadcast_to(self.stds, (k,))[component], noise) * noise
