"""Exact Denoisers of Gaussians and Gaussian mixtures, in closed form. They serve as references in the tests.

y = x_t / alpha, which is x_0 plus noise of standard deviation n = sigma / alpha, is a sufficient statistic of x_t for
x_0 (`sde.py`, "views"). For data N(m, s^2 I), y ~ N(m, (s^2 + n^2) I) and

    E[x_0 | x_t] = m + s^2 / (s^2 + n^2) (y - m).

The posterior mean of a mixture is the average of the components' posterior means, weighted by their posterior
probabilities.

The posterior of a Gaussian mixture given a linear Gaussian measurement of x_0 is a Gaussian mixture too
(`CorrelatedMixture.given`), so linear inverse problems also have exact Denoisers and exact posterior samples.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from sde_lib.denoiser import Denoiser
from sde_lib.sde import expand, scalar


def isotropic_variance(noise_to_signal: ArrayLike, data_std: ArrayLike) -> Array:
    """Returns Var[x_0 | x_t] per value of data N(m, v I): n^2 v / (n^2 + v), v = data_std^2; n^2 for infinite v."""
    return 1 / (1 / jnp.square(noise_to_signal) + 1 / jnp.square(data_std))


def _event_sum(x: Array, event_ndim: int) -> Array:
    return x.sum(tuple(range(x.ndim - event_ndim, x.ndim)))


@struct.dataclass
class Gaussian(Denoiser):
    """The exact Denoiser of data N(mean, std^2), independent between dimensions.

    Attributes:
        mean, std: mean and standard deviation of the data, each () or of the event's shape.
    """

    mean: ArrayLike = 0.0
    std: ArrayLike = 1.0

    def __call__(self, x: Array, t: ArrayLike) -> Array:
        """Returns the posterior mean, (B, *event)."""
        y, variance = self.sde.to_data_scale(x, t), jnp.square(self.std)
        share = variance / (variance + expand(self.sde.noise_to_signal(t), y) ** 2)
        return jnp.add(self.mean, share * jnp.subtract(y, self.mean))

    def marginal_std(self, t: ArrayLike) -> Array:
        """Returns the standard deviation of x_t, not conditioned on x_0, for an `SDE`; t is ()."""
        sde = scalar(self.sde)
        return jnp.sqrt((sde.alpha(t) * jnp.asarray(self.std)) ** 2 + sde.sigma(t) ** 2)

    def flow(self, x: Array, t: ArrayLike, s: ArrayLike) -> Array:
        """Returns the exact solution at time s of the probability-flow ODE with value x at time t; t and s are ()."""
        sde = scalar(self.sde)
        z = (x - sde.alpha(t) * self.mean) / self.marginal_std(t)
        return sde.alpha(s) * self.mean + self.marginal_std(s) * z

    def log_prob(self, x: Array, t: ArrayLike) -> Array:
        """Returns log p_t(x) in nats, (B,)."""
        y = self.sde.to_data_scale(x, t)
        std = jnp.sqrt(jnp.square(self.std) + expand(self.sde.noise_to_signal(t), y) ** 2)
        log_density = _event_sum(jax.scipy.stats.norm.logpdf(y, self.mean, std), y.ndim - 1)
        return log_density + self.sde.log_prob_beyond_data_scale(x, t)

    def sample(self, key: Array, shape: tuple[int, ...]) -> Array:
        """Returns samples of the data, of the given shape (B, *event)."""
        return jnp.add(self.mean, jnp.multiply(self.std, jax.random.normal(key, shape)))


@struct.dataclass
class CorrelatedGaussian(Denoiser):
    """The exact Denoiser of data N(mean, covariance).

    Attributes:
        mean: () or of the event's shape.
        covariance: (d, d), of the d values of an event in the order of `ravel`.
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
        stds: standard deviations of the components, () or (K,).
        weights: (K,), summing to 1; None for equal weights.
    """

    means: Array
    stds: ArrayLike = 0.1
    weights: Array | None = None

    def _log_joint(self, x: Array, t: ArrayLike) -> tuple[Array, Array, Array]:
        """Returns log(weight_k p(y | k)) (B, K), y - mean_k (B, K, *event) and Var[y | k] (B, K)."""
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
        """Returns n samples of the data, (n, *event)."""
        key_component, key_noise = jax.random.split(key)
        k = self.means.shape[0]
        component = jax.random.choice(key_component, k, (n,), p=self.weights)
        noise = jax.random.normal(key_noise, (n, *self.means.shape[1:]), self.means.dtype)
        return jnp.asarray(self.means)[component] + expand(jnp.broadcast_to(self.stds, (k,))[component], noise) * noise


@struct.dataclass
class CorrelatedMixture(Denoiser):
    """The exact Denoiser of a mixture of K Gaussians with arbitrary covariances.

    Attributes:
        means: (K, *event).
        covariances: (K, d, d), of the d values of an event in the order of `ravel`; may be singular.
        weights: (K,), summing to 1; None for equal weights.
    """

    means: Array
    covariances: Array
    weights: Array | None = None

    def _log_weights(self) -> Array:
        k = len(self.means)
        return jnp.full(k, -jnp.log(k)) if self.weights is None else jnp.log(self.weights)

    def _flat_means(self) -> Array:
        return jnp.asarray(self.means).reshape(len(self.means), -1)

    def _in_axes(self, x: Array, t: ArrayLike) -> tuple[Array, Array, Array, Array]:
        """Evaluates each component k along its principal axes.

        Returns:
            log(weight_k p(y | k)) (B, K), y - mean_k (B, K, d), Var[x_0 | k] / Var[y | k] (B, K, d), axes (K, d, d).
        """
        variances, axes = jnp.linalg.eigh(self.covariances)
        noise_to_signal = self.sde.noise_to_signal(jnp.broadcast_to(t, x.shape[:1]))[:, None, None]
        y = self.sde.to_data_scale(x, t).reshape(len(x), 1, -1)
        offset = jnp.einsum("bkd,kde->bke", y - self._flat_means(), axes)
        variances = jnp.maximum(variances, 0)  # rounding makes eigenvalues of singular covariances negative
        y_variances = variances + noise_to_signal**2
        log_density = -0.5 * (offset**2 / y_variances + jnp.log(2 * jnp.pi * y_variances)).sum(-1)
        return self._log_weights() + log_density, offset, variances / y_variances, axes

    def __call__(self, x: Array, t: ArrayLike) -> Array:
        """The posterior mean, (B, *event)."""
        log_joint, offset, share, axes = self._in_axes(x, t)
        components = self._flat_means() + jnp.einsum("bke,kde->bkd", share * offset, axes)
        mean = (jax.nn.softmax(log_joint, axis=1)[..., None] * components).sum(1)
        return mean.reshape(len(x), *self.means.shape[1:])

    def log_prob(self, x: Array, t: ArrayLike) -> Array:
        """log p_t(x) in nats, (B,)."""
        return jax.nn.logsumexp(self._in_axes(x, t)[0], axis=1) + self.sde.log_prob_beyond_data_scale(x, t)

    def sample(self, key: Array, n: int) -> Array:
        """Returns n samples of the data, (n, *event)."""
        key_component, key_noise = jax.random.split(key)
        component = jax.random.categorical(key_component, self._log_weights(), shape=(n,))
        variances, axes = jnp.linalg.eigh(self.covariances)
        roots = axes * jnp.sqrt(jnp.maximum(variances, 0))[:, None]
        means = self._flat_means()
        noise = jax.random.normal(key_noise, (n, means.shape[1]), means.dtype)
        x = means[component] + jnp.einsum("nde,ne->nd", roots[component], noise)
        return x.reshape(n, *self.means.shape[1:])

    def given(self, matrix: Array, y: Array, std: ArrayLike) -> "CorrelatedMixture":
        """Returns the exact posterior of the data given y = A x_0 + noise, noise ~ N(0, std^2).

        With the gain G_k = C_k A^T S_k^-1 and S_k = A C_k A^T + std^2, component k of the posterior has the mean m_k +
        G_k (y - A m_k) and the covariance (I - G_k A) C_k (I - G_k A)^T + std^2 G_k G_k^T. Its weight is multiplied by
        N(y; A m_k, S_k).

        Source: Bishop (2006), Pattern Recognition and Machine Learning, section 2.3.3.

        Args:
            matrix: A, (M, d), applied to x_0.ravel().
            y: the measurement, (M,).
            std: standard deviation of the noise, () or (M,).
        """
        means, noise = self._flat_means(), jnp.broadcast_to(jnp.asarray(std) ** 2, y.shape)

        def condition(mean, covariance):
            y_covariance = matrix @ covariance @ matrix.T + jnp.diag(noise)
            gain = jnp.linalg.solve(y_covariance, matrix @ covariance).T
            residual = jnp.eye(len(mean)) - gain @ matrix
            log_density = jax.scipy.stats.multivariate_normal.logpdf(y, matrix @ mean, y_covariance)
            posterior = residual @ covariance @ residual.T + (gain * noise) @ gain.T
            return mean + gain @ (y - matrix @ mean), posterior, log_density

        means, covariances, log_density = jax.vmap(condition)(means, self.covariances)
        weights = jax.nn.softmax(self._log_weights() + log_density)
        return CorrelatedMixture(self.sde, means.reshape(self.means.shape), covariances, weights)
