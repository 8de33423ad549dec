"""Sequential Monte Carlo: weighted particles for p(x_0 | y), exact in the limit of many particles.

The target is p(x_{t_0}, ..., x_{t_n}, x_0) p(y | x_0) of the ancestral chain with the prior's Denoiser. The proposal q
is the ancestral step shifted by the gradient of a twisting function psi_t(x) ~ p(y | x_t = x). Each step updates the
importance weights:

    w <- w * p(x_s | x_t) psi_s(x_s) / (q(x_s | x_t) psi_t(x_t)),      and finally  w <- w * p(y | x_0) / psi(x).

The estimate is consistent for any psi > 0; a psi close to p(y | x_t) gives nearly uniform weights. Particles are
resampled when the effective sample size is small.

Source: Wu et al. (2023), https://arxiv.org/abs/2306.17775 (the twisted diffusion sampler), algorithm 1.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from sde_lib.denoiser import Denoiser
from sde_lib.exact import isotropic_variance
from sde_lib.inverse.conjugate_gradients import dot
from sde_lib.inverse.gaussian import isotropic_weights
from sde_lib.inverse.measurement import Measurement, Noise
from sde_lib.inverse.posterior import Posterior, log_likelihood, require_noise, variance
from sde_lib.sampling.predictors import posterior_variance
from sde_lib.sde import scalar
from sde_lib.struct import Struct


@struct.dataclass
class Particles(Struct):
    """Weighted particles that approximate p(x_0 | y), as returned by `twisted_sample`.

    Attributes:
        x: (K, *event).
        log_weights: normalized log-weights, (K,): their exponentials sum to 1.
        log_evidence: estimate of log p(y) in nats, (); its exponential is an unbiased estimate of the evidence under
            the ancestral chain.
    """

    x: Array
    log_weights: Array
    log_evidence: Array

    def resample(self, key: Array) -> Array:
        """Returns K equally weighted particles (K, *event), by systematic resampling."""
        return self.x[systematic(key, self.log_weights)]


def systematic(key: Array, log_weights: Array) -> Array:
    """Systematic resampling: returns indices (K,) in which i occurs K w_i times, rounded up or down.

    Args:
        key: PRNG key.
        log_weights: (K,), not necessarily normalized.
    """
    n = len(log_weights)
    edges = jnp.cumsum(jax.nn.softmax(log_weights))
    points = (jnp.arange(n) + jax.random.uniform(key, dtype=log_weights.dtype)) / n
    return jnp.minimum(jnp.searchsorted(edges, points), n - 1)


@struct.dataclass
class _Twist(Posterior):
    """The twisting function psi_t(x), proportional to N(y; A D, s^2 I + r^2 A A^T).

    r^2 = n^2 v / (n^2 + v) with v = data_std^2. This is the p(y | x_t) of `PiGDM` without the normalization, so
    particles follow the Denoiser of `PiGDM`. A is the derivative of the measurement at D, and s^2 the mean of the noise
    variances. These approximations do not bias the result, because the final weights use the exact likelihood.
    """

    data_std: ArrayLike = 1.0

    def evaluate(self, x: Array, t: ArrayLike) -> tuple[Array, Array, Array]:
        """Returns D (B, *event), n^2 (dD/du)^T grad log psi (B, *event) and log psi (B,)."""
        x0, _, covariance = self.linearize(x, t)
        clean, tangent = self.measurement.forward(x0), self.measurement.derivative(x0)
        variances = jnp.broadcast_to(variance(self.measurement_noise, clean), clean.shape)
        noise_variance = variances.reshape(len(clean), -1).mean(1)
        x0_variance, misfit = isotropic_variance(self.sde.noise_to_signal(t), self.data_std), self.y - clean
        weights = isotropic_weights(tangent, misfit, noise_variance, x0_variance)
        return x0, covariance(tangent.adjoint(weights)), -0.5 * dot(misfit, weights)


def twisted_sample(
    key: Array,
    denoiser: Denoiser,
    measurement: Measurement,
    y: Array,
    measurement_noise: Noise | ArrayLike,
    times: Array,
    event_shape: tuple[int, ...],
    n_particles: int,
    *,
    data_std: ArrayLike = 1.0,
    threshold: ArrayLike = 0.5,
) -> Particles:
    """Draws weighted particles for p(x_0 | y) of a single y with the twisted diffusion sampler.

    Unlike the examples of `sample`, the particles of one call are not independent: they share one key and one y. As
    their number K grows, weighted averages converge at rate 1 / sqrt(K) to averages over the posterior of the ancestral
    chain on `times`; that chain converges to the prior's process as the steps become small.

    Cost: one evaluation, one product with its Jacobian and one `normal_solve` per step and particle.

    Args:
        key: one typed key.
        denoiser: the prior's Denoiser (not conditioned on y), on a process with scalar noise.
        measurement: linear or not; differentiable.
        y: (*measured), without a batch.
        measurement_noise: a `Noise`, or the standard deviation of Gaussian noise, more than 0.
        times: (n + 1,), decreasing, ending in 0, as for `sample`: the last step is x_0 = D(x, times[-2]).
        event_shape: shape of one particle.
        n_particles: K.
        data_std: standard deviation of the data, for the variance of x_0 given x_t in the twisting function, as in
            `PiGDM`.
        threshold: particles are resampled when the effective sample size falls below this fraction of K.

    Returns:
        K weighted particles and an estimate of log p(y).

    Raises:
        ValueError: the noise is 0, which has no likelihood.
    """
    require_noise("twisted_sample", measurement_noise)
    twist = _Twist(denoiser, measurement, jnp.asarray(y)[None], measurement_noise, data_std)
    return _twisted_sample(key, twist, jnp.asarray(times), tuple(event_shape), n_particles, threshold)


@partial(jax.jit, static_argnames=("event_shape", "n_particles"))
def _twisted_sample(key, twist, times, event_shape, n_particles, threshold):
    sde = scalar(twist.sde)
    key_prior, key_steps = jax.random.split(key)
    x = sde.prior_sample(key_prior, (n_particles, *event_shape))
    evaluated = twist.evaluate(x, times[0])
    log_n = jnp.log(n_particles)

    def step(state, step):
        x, evaluated, log_weights, log_evidence = state
        key, t, s = step
        key_indices, key_noise = jax.random.split(key)
        # The mean weight is moved to the evidence; the remaining weights have mean 1.
        mean = jax.nn.logsumexp(log_weights) - log_n
        log_weights, log_evidence = log_weights - mean, log_evidence + mean
        is_uneven = 2 * log_n - jax.nn.logsumexp(2 * log_weights) < jnp.log(threshold) + log_n
        indices = jnp.where(is_uneven, systematic(key_indices, log_weights), jnp.arange(n_particles))
        log_weights = jnp.where(is_uneven, 0, log_weights)
        x, (x0, gradient, log_twist) = x[indices], jax.tree.map(lambda a: a[indices], evaluated)

        scale, kernel_variance = sde.transition_coefficients(s, t)
        x_weight = scale * (sde.sigma(s) / sde.sigma(t)) ** 2
        x0_weight = sde.alpha(s) * kernel_variance / sde.sigma(t) ** 2
        std, shift = jnp.sqrt(posterior_variance(sde, s, t)), x0_weight * gradient
        noise = jax.random.normal(key_noise, x.shape, x.dtype)
        x = x_weight * x + x0_weight * x0 + shift + std * noise
        # log p(x_s | x_t) - log q(x_s | x_t): both are Gaussian with variance std^2, and the means differ by the shift.
        kernels = -(shift * noise / std + 0.5 * jnp.square(shift / std)).sum(tuple(range(1, x.ndim)))
        evaluated = twist.evaluate(x, s)
        return (x, evaluated, log_weights + kernels + evaluated[2] - log_twist, log_evidence), None

    keys = jax.random.split(key_steps, len(times) - 2)
    state = (x, evaluated, evaluated[2], jnp.zeros_like(log_n))
    x, (x0, _, log_twist), log_weights, log_evidence = jax.lax.scan(step, state, (keys, times[:-2], times[1:-1]))[0]
    likelihood = log_likelihood(twist.measurement_noise, twist.y, twist.measurement.forward(x0))
    log_weights = log_weights + likelihood - log_twist
    total = jax.nn.logsumexp(log_weights)
    return Particles(x0, log_weights - total, log_evidence + total - log_n)
