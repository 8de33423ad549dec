"""The variational bound on the log-likelihood of the reverse-time SDE: no ODE to solve, no divergence.

With l for the log-SNR, eps for the noise and eps_hat for the Denoiser's, the bound has three terms:

    -log p(x_0) <= KL(q(x_T | x_0) || prior)                                                        prior
                 + 1/2 integral over l from l(t_max) to l(t_min) of E |eps - eps_hat(x_l)|^2 dl     diffusion
                 + E[-log p(x_0 | x_{t_min})]                                                       reconstruction

It holds for a model: the reverse-time SDE with the Denoiser's score, run from the prior to t_min, and the last step
p(x_0 | x_{t_min}). For the exact Denoiser that SDE and the probability flow have one and the same density at t_min;
otherwise the two densities differ, and the bound is one for the SDE's. The last step accounts for everything below t_min:

- for continuous data, p(x_0 | x) = N(x_0; x / alpha, (sigma / alpha)^2), and the term is a constant. For the exact
  Denoiser the model then is the data with noise of variance 2 (sigma / alpha)^2: at an example the bound may exceed the
  clean data's log-density by as much as that changes it; averaged over data it does not;
- for levels, P(q | x) of `sde_lib.dequantization`, and the bound is on log P(q): no dequantization is needed.

Times are drawn uniform in log-SNR, one in each of `num_times` equal strata: the importance sampling under which the
integrand is bounded, whatever the process. Two more devices leave the mean as it is and take most of the variance: each
noise comes with its negative; and where the noise cannot be seen (high SNR) the integrand is |eps|^2, whose mean is
known, so that much is subtracted and its mean added.

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
    """A lower bound on each example's log-likelihood.

    Attributes:
        log_prob: (B,), nats: -(prior + diffusion + reconstruction), an unbiased estimate of the bound.
        standard_error: (B,), nats, of `log_prob`; NaN with a single estimate.
        prior, diffusion, reconstruction: (B,), nats: the terms.
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
    """A lower bound on log p(x0) under the reverse-time SDE, from 2 * num_times * num_estimates evaluations.

    The process must be one with marginals N(alpha x_0, sigma^2 I).

    Args:
        keys: (B,), one per example: example i depends on `keys[i]` alone.
        denoiser: the Denoiser whose bound to measure.
        x0: (B, *event): clean data; or, with `quantization`, integer levels.
        quantization: where the levels lie; the bound then is on the log-probability of the levels.
        num_times: times in one estimate, each in its own stratum of log-SNR; two evaluations at each.
        num_estimates: independent estimates; their mean is returned, their spread gives the standard error.
        data_std: about the standard deviation of the data, in their units; sets the control variate, hence the
            variance, never the mean.

    Raises:
        ValueError: the number of keys is not that of examples, a count is below 1, data_std is not positive, x0 has no
            event axis, x0 is not of integers just where `quantization` is given, or an end of the process has no usable
            sigma / alpha (`sde_lib.ends`).
    """
    x0 = jnp.asarray(x0)
    is_levels = bool(jnp.issubdtype(x0.dtype, jnp.integer))
    if is_levels != (quantization is not None):
        raise ValueError(
            f"x0 of {x0.dtype} {'with' if quantization is not None else 'without'} quantization: integer levels go with "
            "a quantization, which says where they lie, and real data without one"
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
    """One draw of the three terms, each (B,)."""
    key_prior, key_diffusion, key_reconstruction = split(keys, 3)
    clean = x0 if quantization is None else quantization.centre(x0)
    sde = scalar(denoiser.sde)
    prior = _prior(key_prior, sde, clean)
    diffusion = _diffusion(key_diffusion, denoiser, clean, data_std, num_times)
    return prior, diffusion, _reconstruction(key_reconstruction, sde, x0, clean, quantization)


def _event_sum(x):
    return x.sum(tuple(range(1, x.ndim)))


def _log_normal(noise, sigma):
    """The log-density (B,) of sigma noise under N(0, sigma^2 I)."""
    return _event_sum(jax.scipy.stats.norm.logpdf(noise) - jnp.log(sigma))


def _prior(keys, sde, x0):
    """KL(q(x_T | x_0) || prior), from noise and its negative: without error where the prior is N(0, sigma^2 I)."""
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
        # For normal data of this standard deviation, the part of the error that is the noise's own square.
        share = jax.nn.sigmoid(log_snr + 2 * jnp.log(data_std)) ** 2
        return total + 0.5 * sum(errors) - share * (_event_sum(jnp.square(noise)) - x0[0].size), None

    total, _ = jax.lax.scan(stratum, jnp.zeros(x0.shape[0], x0.dtype), jnp.arange(num_times))
    return 0.5 * (highest - lowest) * total / num_times


def _reconstruction(keys, sde, x0, clean, quantization):
    if quantization is None:
        log_s = -0.5 * sde.log_snr(sde.t_min)
        constant = 0.5 + 0.5 * jnp.log(2 * jnp.pi) + log_s
        return jnp.full(x0.shape[0], x0[0].size * constant, x0.dtype)
    x = sde.perturb(clean, standard_normal(keys, clean), sde.t_min)
    return -log_prob_of_levels(sde, x, x0, quantization)
