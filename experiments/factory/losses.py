"""The loss of training: its weighting and times, and the bins in which it is watched."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import sde_lib
from experiments.config.choices import choose
from experiments.errors import UserError
from experiments.factory.conditions import dropped
from experiments.factory.media import medium
from experiments.factory.model import LOSS, denoiser, sde

WEIGHTINGS = {
    "edm": lambda c: sde_lib.EDMWeighting(sigma_data=c.parameterization.sigma_data),
    "noise": lambda c: sde_lib.NoiseWeighting(),
    "score": lambda c: sde_lib.ScoreWeighting(),
    "likelihood": lambda c: sde_lib.LikelihoodWeighting(),
    "data": lambda c: sde_lib.DataWeighting(),
    "v": lambda c: sde_lib.VWeighting(),
    "velocity": lambda c: sde_lib.VelocityWeighting(),
    "min_snr": lambda c: sde_lib.MinSNRWeighting(gamma=c.loss.snr_gamma),
    "soft_min_snr": lambda c: sde_lib.SoftMinSNRWeighting(gamma=c.loss.snr_gamma),
    "sigmoid": lambda c: sde_lib.SigmoidWeighting(bias=c.loss.sigmoid_bias),
    "hybrid": lambda c: sde_lib.HybridWeighting(),
    "hybrid_noise": lambda c: sde_lib.HybridNoiseWeighting(),
}

# What the mean over an image's values is multiplied by, from their number.
REDUCTIONS = {"mean": lambda dimensions: 1.0, "half_sum": lambda dimensions: 0.5 * dimensions}

TIME_DISTRIBUTIONS = {
    "log_normal": lambda c: sde_lib.LogNormalSigma(mean=c.log_sigma_mean, std=c.log_sigma_std),
    "uniform": lambda c: sde_lib.UniformTime(),
    "log_snr": lambda c: sde_lib.UniformLogSNR(),
    "logit_normal": lambda c: sde_lib.LogitNormalTime(mean=c.logit_mean, std=c.logit_std),
    "geometric_sigma": lambda c: sde_lib.GeometricSigma(levels=c.discrete_levels),
    "discrete": lambda c: sde_lib.DiscreteTime(steps=c.discrete_levels),
}

# Keys of the numbers of a time distribution, for messages.
TIME_KEYS = {
    "log_normal": ("log_sigma_mean", "log_sigma_std"),
    "logit_normal": ("logit_mean", "logit_std"),
    "geometric_sigma": ("discrete_levels",),
    "discrete": ("discrete_levels",),
}
LEAST_COVERAGE = 1e-4  # float32 leaves about a thousand different times in the middle of so wide a distribution
ONE_LEVEL = 1e-3  # of the process's range of log-SNR: times as near as that are one noise level

BINNED_LOSS, BIN_SHARE = "binned_loss", "bin_share"  # metrics of the training step: see `binned_loss`


def loss(config: ConfigDict) -> Callable:
    """(draws, variables, x0, condition) -> (B,), the experiment's denoising score-matching loss in training.

    The condition is a dict of leaves by name, or None; some leaves are replaced by their nulls (`conditions.dropped`).

    With `return_times=True` the function also gives the examples' times, (B,).

    Raises:
        UserError: the numbers of the weighting or the times do not fit, or the times have no density to divide by.
    """
    make_weighting = choose("loss.weighting", config.loss.weighting, WEIGHTINGS)
    process = sde(config, config.training.t_min)
    importance, drawn = config.loss.importance, training_times(config)
    scale = choose("loss.reduction", config.loss.reduction, REDUCTIONS)(medium(config).dimensions)
    try:
        weighting, times = make_weighting(config), _times(config)
        jax.eval_shape(lambda u: weighting(process, times.quantile(process, u)), jnp.zeros(1))
        if importance:
            jax.eval_shape(lambda t: times.log_density(process, t), jnp.ones(1))
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"loss: {error}") from error

    def compute(draws, variables, x0, condition, *, return_times=False):
        condition = dropped(config, draws.keys, condition)
        model = denoiser(config, variables, config.training.t_min).replace(condition=condition)
        drawn_times, log_variance = drawn(draws), None
        if config.loss.learned_uncertainty:
            log_variance = sde_lib.LearnedLogVariance(variables[LOSS]["log_variance"])
        losses, t = sde_lib.denoising_score_matching(
            draws.keys,
            model,
            x0,
            weighting=weighting,
            times=drawn_times,
            importance=importance,
            log_variance=log_variance,
            train=True,
            return_times=True,
        )
        return (scale * losses, t) if return_times else scale * losses

    return compute


def _times(config: ConfigDict) -> sde_lib.TimeDistribution:
    return choose("loss.times", config.loss.times, TIME_DISTRIBUTIONS)(config.loss)


def training_times(config: ConfigDict) -> Callable[[Any], sde_lib.TimeDistribution]:
    """draws -> the distribution of the times of a step.

    Raises:
        UserError: a number of the distribution is not allowed.
    """
    try:
        times = _times(config)
    except ValueError as error:
        raise UserError(f"loss: {error}") from error

    def of(draws):
        if config.loss.low_discrepancy:
            return sde_lib.LowDiscrepancyTimes(draws.shared, draws.places, draws.size, times)
        return times

    return of


def check_training_times(config: ConfigDict) -> None:
    """Makes sure that the times of training are finite and cover more than one noise level or the ends of the process.

    Raises:
        UserError: they do not; the message names the keys and log(sigma / alpha) at both ends.
    """
    process = sde(config, config.training.t_min)
    times = choose("loss.times", config.loss.times, TIME_DISTRIBUTIONS)(config.loss)
    places = (jnp.arange(100) + 0.5) / 100
    with np.errstate(all="ignore"):
        drawn, coverage = np.asarray(times.quantile(process, places)), float(times.coverage(process))
        ends = np.asarray(process.log_snr(jnp.asarray([process.t_min, process.t_max])), float)
        log_snr = np.asarray(process.log_snr(jnp.asarray(drawn)), float)
    margin = ONE_LEVEL * (ends[0] - ends[1])
    at_ends = np.mean((log_snr > ends[0] - margin) | (log_snr < ends[1] + margin))
    fault = None
    if not coverage >= LEAST_COVERAGE:
        fault = (
            f"only {coverage:.2g} of the distribution lies within the process; at least {LEAST_COVERAGE:g} is needed"
        )
    elif not np.isfinite(drawn).all():
        fault = "its times are not finite"
    elif not (drawn.min() >= np.float32(process.t_min) * 0.999 and drawn.max() <= np.float32(process.t_max) * 1.001):
        fault = f"its times reach from {drawn.min():g} to {drawn.max():g}, outside of the process"
    elif np.ptp(log_snr) <= margin:
        fault = f"all its times are at log(sigma / alpha) = {-log_snr.mean() / 2:.3g}"
    elif _has_density(times, process) and at_ends > 0.5:
        fault = f"{at_ends:.0%} of its times are at the ends of the process"
    if fault:
        keys = ", ".join(f"loss.{key}={config.loss[key]}" for key in TIME_KEYS.get(config.loss.times, ()))
        raise UserError(
            f"loss.times={config.loss.times!r}{keys and ', '}{keys}: {fault}, where log(sigma / alpha) is "
            f"{-ends[0] / 2:.3g} at training.t_min={config.training.t_min} and "
            f"{-ends[1] / 2:.3g} at sde.t_max={process.t_max}"
        )


def _has_density(times: sde_lib.TimeDistribution, process: sde_lib.Process) -> bool:
    """Returns False for a distribution of a few single times."""
    try:
        jax.eval_shape(lambda t: times.log_density(process, t), jnp.ones(1))
    except ValueError:
        return False
    return True


def loss_bin_edges(config: ConfigDict) -> np.ndarray:
    """The log-SNRs between the bins of noise levels in which the loss is watched, rising, (training.loss_bins + 1,).

    They are even from the process's at t_max, the first bin's end, to that at `training.t_min`.
    """
    process = sde(config, config.training.t_min)
    noisiest, cleanest = (float(process.log_snr(jnp.float32(t))) for t in (process.t_max, process.t_min))
    return np.linspace(noisiest, cleanest, config.training.loss_bins + 1)


def binned_loss(config: ConfigDict) -> Callable:
    """`loss`, and for each example in which bin its noise level lies: (B,), {BINNED_LOSS: (B, bins), BIN_SHARE: (B, bins)}.

    The first is the example's loss in its own bin and 0 in the others, the second 1 and 0: the quotient of their means over
    any examples is the mean loss in a bin. Without bins it is an empty dict.
    """
    compute, bins = loss(config), binned(config)

    def with_bins(draws, variables, x0, condition):
        losses, t = compute(draws, variables, x0, condition, return_times=True)
        return losses, bins(losses, t)

    return with_bins


def binned(config: ConfigDict) -> Callable[[jax.Array, jax.Array], dict[str, jax.Array]]:
    """(losses, times), both (B,), -> the losses by the bin of their noise level; see `binned_loss`."""
    edges, bins = loss_bin_edges(config), config.training.loss_bins
    process = sde(config, config.training.t_min)

    def of(losses, t):
        if not bins:
            return {}
        share = (process.log_snr(t) - edges[0]) / (edges[-1] - edges[0])
        hit = jnp.clip(jnp.floor(share * bins), 0, bins - 1)[:, None] == jnp.arange(bins)
        return {BINNED_LOSS: jnp.where(hit, losses[:, None], 0), BIN_SHARE: hit.astype(losses.dtype)}

    return of
