"""Variational bound (ELBO) on the log-likelihood under the reverse-time SDE, without an ODE solve or a divergence.

With the log-SNR l, the noise eps and the Denoiser's estimate eps_hat of it, the bound has three terms:

    -log p(x_0) <= KL(q(x_T | x_0) || prior)                                                        prior
                 + 1/2 integral over l from l(t_max) to l(t_min) of E |eps - eps_hat(x_l)|^2 dl     diffusion
                 + E[-log p(x_0 | x_{t_min})]                                                       reconstruction

The model is the reverse-time SDE with the Denoiser's score, from the prior to t_min, followed by the last step
p(x_0 | x_{t_min}). For the exact Denoiser, the SDE and the probability flow have equal densities at t_min; otherwise
the densities differ, and the bound is on the density of the SDE. The last step covers the times below t_min:

- for continuous data, p(x_0 | x) = N(x_0; x / alpha, (sigma / alpha)^2), and the reconstruction term is a constant. For
  the exact Denoiser, the model density is then that of data with noise of variance 2 (sigma / alpha)^2. The bound for a
  single example may exceed the log-density of the clean data by the effect of this noise; the average over data does
  not;
- for discrete levels, P(q | x) of `sde_lib.dequantization`. The bound is on log P(q), and no dequantization is needed.

Times are sampled uniformly in log-SNR, one in each of `num_times` equal strata; with this importance sampling the
integrand is bounded for every process. Two unbiased methods of variance reduction are applied: antithetic noise (eps
and -eps), and a control variate. At high SNR the noise cannot be estimated and the integrand is about |eps|^2, whose
mean is known; this part is subtracted and its mean added.

Sources: Kingma et al. (2021), https://arxiv.org/abs/2107.00630, sections 3.5 and 5; Song et al. (2021),
https://arxiv.org/abs/2101.09258, theorem 3, for the bound and the importance sampling of its times.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from sde_lib.checks import at_least, positive
from sde_lib.denoiser import Denoiser
from sde_lib.dequantization import Quantization, log_prob_of_levels
from sde_lib.ends import check_ends
from sde_lib.flow import check_batch
from sde_lib.randomness import check_keys, fold_in, split, standard_normal
from sde_lib.sde import scalar
from sde_lib.struct import Struct


@struct.dataclass
class Elbo(Struct):
    """Lower bounds on the log-likelihoods of a batch of examples.

    Attributes:
        log_prob: an unbiased estimate of the bound, -(prior + diffusion + reconstruction), (B,), nats.
        standard_error: standard error of `log_prob`, (B,), nats; NaN with a single estimate.
        prior, diffusion, reconstruction: the three terms, (B,), nats.
    """

    log_prob: Array
    standard_error: Array
    prior: Array
    diffusion: Array
    reconstruction: Array


def elbo(
    keys: Array,
    denoiser: Denoiser,
    x0: Array,
    *,
    quantization: Quantization | None = None,
    num_times: int = 8,
    num_estimates: int = 4,
    data_std: float = 0.5,
) -> Elbo:
    """Estimates a lower bound on log p(x0) under the reverse-time SDE, by 2 * num_times * num_estimates evaluations.

    The process must be an `SDE`, with marginals N(alpha x_0, sigma^2 I).

    Args:
        keys: one per example, (B,): the result for example i depends only on `keys[i]`.
        denoiser: the Denoiser that defines the model.
        x0: (B, *event): clean data or, with `quantization`, integer levels.
        quantization: the bins of the levels; the bound is then on the log-probability of the levels.
        num_times: number of times per estimate, one in each stratum of log-SNR, with two evaluations each.
        num_estimates: number of independent estimates, whose mean is returned and whose spread gives the standard
            error.
        data_std: approximate standard deviation of the data, in their units. It sets the control variate and changes
            the variance, not the mean.

    Returns:
        The bounds, their standard errors and terms.

    Raises:
        ValueError: the number of keys differs from the number of examples, a count is less than 1, data_std is not
            positive, x0 has no event axis, x0 is integer without `quantization` or real with `quantization`, the
            process has no scalar alpha and sigma, or sigma / alpha is invalid at an end of the process
            (`sde_lib.ends`).
    """
    x0 = jnp.asarray(x0)
    is_levels = bool(jnp.issubdtype(x0.dtype, jnp.integer))
    if is_levels != (quantization is not None):
        raise ValueError(
            f"x0 of {x0.dtype} {'with' if quantization is not None else 'without'} quantization: integer levels "
            "require a quantization, real data require None"
        )
    at_least("elbo", 1, num_times=num_times, num_estimates=num_estimates)
    positive("elbo", data_std=data_std)
    check_keys(keys, len(check_batch(x0)))
    check_ends(scalar(denoiser.sde))
    return _elbo(keys, denoiser, x0, quantization, data_std, num_times, num_estimates)


@partial(jax.jit, static_argnames=("num_times", "num_estimates"))
def _elbo(keys, denoiser, x0, quantization, data_std, num_times, num_estimates):
    def estimate(index):
        return _estimate(fold_in(keys, index), denoiser, x0, quantization, data_std, num_times)

    prior, diffusion, reconstruction = jax.lax.map(estimate, jnp.arange(num_estimates))
    totals = -(prior + diffusion + reconstruction)
    spread = totals.std(0, ddof=1) if num_estimates > 1 else jnp.full_like(totals[0], jnp.nan)
    means = (term.mean(0) for term in (prior, diffusion, reconstruction))
    return Elbo(totals.mean(0), spread / num_estimates**0.5, *means)


def _estimate(keys, denoiser, x0, quantization, data_std, num_times):
    """Returns one estimate of each of the three terms, (B,)."""
    key_prior, key_diffusion, key_reconstruction = split(keys, 3)
    clean = x0 if quantization is None else quantization.centre(x0)
    sde = scalar(denoiser.sde)
    prior = _prior(key_prior, sde, clean)
    diffusion = _diffusion(key_diffusion, denoiser, clean, data_std, num_times)
    return prior, diffusion, _reconstruction(key_reconstruction, sde, x0, clean, quantization)


def _event_sum(x):
    return x.sum(tuple(range(1, x.ndim)))


def _log_normal(noise, sigma):
    """Returns the log-density (B,) of sigma * noise under N(0, sigma^2 I)."""
    return _event_sum(jax.scipy.stats.norm.logpdf(noise) - jnp.log(sigma))


def _prior(keys, sde, x0):
    """Estimates KL(q(x_T | x_0) || prior) from antithetic noise; exact if the prior is N(0, sigma^2 I)."""
    noise = standard_normal(keys, x0)
    log_ratios = [
        _log_normal(noise, sde.sigma(sde.t_max)) - sde.prior_log_prob(sde.perturb(x0, sign * noise, sde.t_max))
        for sign in (1, -1)
    ]
    return 0.5 * sum(log_ratios)


def _diffusion(keys, denoiser, x0, data_std, num_times):
    sde = denoiser.sde
    lowest, highest = sde.log_snr(sde.t_max), sde.log_snr(sde.t_min)

    def stratum(total, index):
        key_time, key_noise = split(fold_in(keys, index), 2)
        place = (index + jax.vmap(jax.random.uniform)(key_time)) / num_times
        log_snr = (lowest + (highest - lowest) * place).astype(x0.dtype)
        t = jnp.clip(sde.time_at_log_snr(log_snr), sde.t_min, sde.t_max)
        noise = standard_normal(key_noise, x0)
        errors = [
            _event_sum(jnp.square(denoiser.noise(sde.perturb(x0, signed, t), t) - signed)) for signed in (noise, -noise)
        ]
        # The coefficient of |eps|^2 in the error, for Gaussian data of this standard deviation.
        coefficient = jax.nn.sigmoid(log_snr + 2 * jnp.log(data_std)) ** 2
        return total + 0.5 * sum(errors) - coefficient * (_event_sum(jnp.square(noise)) - x0[0].size), None

    total, _ = jax.lax.scan(stratum, jnp.zeros(x0.shape[0], x0.dtype), jnp.arange(num_times))
    return 0.5 * (highest - lowest) * total / num_times


def _reconstruction(keys, sde, x0, clean, quantization):
    if quantization is None:
        log_s = -0.5 * sde.log_snr(sde.t_min)
        constant = 0.5 + 0.5 * jnp.log(2 * jnp.pi) + log_s
        return jnp.full(x0.shape[0], x0[0].size * constant, x0.dtype)
    x = sde.perturb(clean, standard_normal(keys, clean), sde.t_min)
    return -log_prob_of_levels(sde, x, x0, quantization)
