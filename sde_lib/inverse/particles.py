"""Sequential Monte Carlo: particles that are weighed against y, exact in the limit of many of them.

The target is p(x_{t_0}, ..., x_{t_n}, x_0) p(y | x_0) of the ancestral chain on the prior's Denoiser. Particles follow the
chain with the gradient of a twist psi_t(x) ~ p(y | x_t = x) in it, and each step weighs what that has changed:

    w <- w * p(x_s | x_t) psi_s(x_s) / (q(x_s | x_t) psi_t(x_t)),      and at last  w <- w * p(y | x_0) / psi(x).

Any psi > 0 is right; a good one keeps the weights even. Where they are not, particles are drawn anew by their weights.

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
    """What `twisted_sample` returns: the weighted particles stand for p(x_0 | y).

    Attributes:
        x: (K, *event).
        log_weights: (K,), whose exponentials sum to 1.
        log_evidence: (), an estimate of log p(y) in nats; its exponential is unbiased, for the chain.
    """

    x: Array
    log_weights: Array
    log_evidence: Array

    def resample(self, key: Array) -> Array:
        """K particles (K, *event) of equal weights, by systematic resampling."""
        return self.x[systematic(key, self.log_weights)]


def systematic(key: Array, log_weights: Array) -> Array:
    """Places (K,) of particles to keep: particle i comes K w_i times, rounded up or down, for log-weights of any scale."""
    n = len(log_weights)
    edges = jnp.cumsum(jax.nn.softmax(log_weights))
    points = (jnp.arange(n) + jax.random.uniform(key, dtype=log_weights.dtype)) / n
    return jnp.minimum(jnp.searchsorted(edges, points), n - 1)


@struct.dataclass
class _Twist(Posterior):
    """psi_t(x): the likelihood N(y; A D, s^2 I + r^2 A A^T), less its constant, r^2 = n^2 v / (n^2 + v), v = data_std^2.

    That is the p(y | x_t) of `PiGDM`, so that particles follow its Denoiser. A is the measurement's derivative at D, s^2 the
    mean of the noise's variances: psi may be any function, and the last weights have the likelihood as it is.
    """

    data_std: ArrayLike = 1.0

    def evaluate(self, x: Array, t: ArrayLike) -> tuple[Array, Array, Array]:
        """D (B, *event), n^2 (dD/du)^T grad log psi (B, *event) and log psi (B,)."""
        x0, _, covariance = self.linearize(x, t)
        clean, tangent = self.measurement.forward(x0), self.measurement.derivative(x0)
        of_y = jnp.broadcast_to(variance(self.measurement_noise, clean), clean.shape).reshape(len(clean), -1).mean(1)
        of_x0, misfit = isotropic_variance(self.sde.noise_to_signal(t), self.data_std), self.y - clean
        weights = isotropic_weights(tangent, misfit, of_y, of_x0)
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
    """The twisted diffusion sampler: particles for p(x_0 | y), of one y.

    Unlike all of `sample`, the particles of one call depend on one another: there is one key, and one y. As their number K
    grows, averages over them become those of the posterior of the ancestral chain on `times`, at rate 1 / sqrt(K); the
    chain becomes the prior's as the steps become small.

    Cost: for each step and particle, one evaluation, one product with its Jacobian and one `normal_solve`.

    Args:
        key: one typed key.
        denoiser: the prior's, without y, on a process with scalar noise.
        measurement: linear or not; differentiable.
        y: (*measured), without a batch.
        measurement_noise: a `Noise`, or the standard deviation, more than 0, of Gaussian noise.
        times: (n + 1,), decreasing, ending in 0, as for `sample`: the last step is x_0 = D(x, times[-2]).
        event_shape: of one particle.
        n_particles: K.
        data_std: the spread of the data that x_t leaves in doubt, for the twist; see the module's text.
        threshold: particles are drawn anew where the effective number falls below this part of K.

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
        key_places, key_noise = jax.random.split(key)
        # The mean of the weights goes to the evidence, and they go on with mean 1.
        mean = jax.nn.logsumexp(log_weights) - log_n
        log_weights, log_evidence = log_weights - mean, log_evidence + mean
        uneven = 2 * log_n - jax.nn.logsumexp(2 * log_weights) < jnp.log(threshold) + log_n
        places = jnp.where(uneven, systematic(key_places, log_weights), jnp.arange(n_particles))
        log_weights = jnp.where(uneven, 0, log_weights)
        x, (x0, pull, log_twist) = x[places], jax.tree.map(lambda a: a[places], evaluated)

        scale, kernel_variance = sde.transition_coefficients(s, t)
        of_x = scale * (sde.sigma(s) / sde.sigma(t)) ** 2
        of_x0 = sde.alpha(s) * kernel_variance / sde.sigma(t) ** 2
        std, shift = jnp.sqrt(posterior_variance(sde, s, t)), of_x0 * pull
        noise = jax.random.normal(key_noise, x.shape, x.dtype)
        x = of_x * x + of_x0 * x0 + shift + std * noise
        # log p(x_s | x_t) - log q(x_s | x_t): the same Gaussian, around a mean less by the shift.
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
