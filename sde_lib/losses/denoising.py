"""Denoising score matching: a weighting, a distribution of times, and the squared error of the Denoiser.

    loss(x_0) = w(t) |D(alpha x_0 + sigma noise, t) - x_0|^2 / dimensions,     t ~ p(t), noise ~ N(0, I)

Its minimum over D is the posterior mean, whatever w > 0 and p. What w and p decide is how much each noise level counts: the
product w(t) p(t). With `importance=True` the loss is divided by p(t) relative to uniform times, so that it estimates the
average over uniform times whatever p is, and p decides on the variance alone.

Sources: Vincent (2011), https://doi.org/10.1162/NECO_a_00142, for denoising score matching; Song et al. (2021a),
https://arxiv.org/abs/2011.13456, eq. 7; Song et al. (2021b), https://arxiv.org/abs/2101.09258, for importance
sampling of t.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from sde_lib.denoiser import Denoiser
from sde_lib.losses.time_distributions import TimeDistribution, UniformTime
from sde_lib.losses.uncertainty import LogVariance
from sde_lib.losses.weightings import NoiseWeighting, Weighting
from sde_lib.randomness import split, standard_normal
from sde_lib.sde import Process


def denoising_score_matching(
    keys: Array,
    denoiser: Denoiser,
    x0: Array,
    *,
    weighting: Weighting | None = None,
    times: TimeDistribution | Callable[[Array, Process], Array] | None = None,
    importance: bool = False,
    log_variance: LogVariance | None = None,
    train: bool = False,
    return_times: bool = False,
) -> Array | tuple[Array, Array]:
    """The loss of each example, (B,): weighted squared error of the Denoiser at one random time and noise.

    The error is the mean over the event's dimensions; papers that sum them differ by the factor `dimensions`.

    Args:
        keys: (B,), one per example; example i depends on `keys[i]` alone.
        denoiser: the Denoiser to judge.
        x0: clean data, (B, *event).
        weighting: w(sde, t), the weight of the error of x_0; None is `NoiseWeighting()`.
        times: the distribution of t; None is `UniformTime()`.
        importance: divide by the density of `times` relative to uniform: an estimate of the average over uniform times.
        log_variance: u(sde, t); the loss becomes e^{-u} w |D - x_0|^2 + u. See `sde_lib.losses.uncertainty`.
        train: run the Denoiser as in training (dropout on).
        return_times: also give the times, (B,), at which the losses are.

    Raises:
        ValueError: `importance` with times that have no density.
    """
    weighting = NoiseWeighting() if weighting is None else weighting
    times = UniformTime() if times is None else times
    sde = denoiser.sde
    key_time, key_noise, key_network = split(keys, 3)
    t = times(key_time, sde)
    noise = standard_normal(key_noise, sde.clean_state(x0))
    x_t = sde.perturb(x0, noise, t)
    model = denoiser.training(key_network) if train else denoiser
    error = model(x_t, t) - x0
    loss = weighting(sde, t) * jnp.square(error).mean(tuple(range(1, x0.ndim)))
    if log_variance is not None:
        u = log_variance(sde, t)
        loss = jnp.exp(-u) * loss + u
    if importance:
        loss = loss * jnp.exp(-times.log_density(sde, t)) / (sde.t_max - sde.t_min)
    return (loss, t) if return_times else loss
