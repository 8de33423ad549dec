"""Denoising score matching: the weighted squared error of a Denoiser at random times.

    loss(x_0) = w(t) |D(alpha x_0 + sigma noise, t) - x_0|^2 / dimensions,     t ~ p(t), noise ~ N(0, I)

The minimizer is the posterior mean for all w > 0 and p. The product w(t) p(t) determines the weight of each noise level
in the loss. With `importance=True` the loss is divided by the density ratio of p(t) and uniform times. It is then an
unbiased estimate of the average over uniform times, and p(t) only changes its variance.

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
    """Returns the loss of each example, (B,): the weighted squared error of the Denoiser at one random time and noise.

    Squared errors are averaged over the dimensions of an event; papers that sum them differ by the factor `dimensions`.

    Args:
        keys: one per example, (B,); the result for example i depends only on `keys[i]`.
        denoiser: the Denoiser to train or evaluate.
        x0: clean data, (B, *event).
        weighting: w(sde, t), the weight of the squared error of x_0; None selects `NoiseWeighting()`.
        times: the distribution of t; None selects `UniformTime()`.
        importance: True divides by the density of `times` relative to uniform times (importance sampling).
        log_variance: u(sde, t); the loss becomes e^{-u} w |D - x_0|^2 + u. See `sde_lib.losses.uncertainty`.
        train: True runs the Denoiser in training mode, with dropout.
        return_times: True also returns the times of the losses, (B,).

    Returns:
        The losses, (B,); with `return_times` the pair of losses and times.

    Raises:
        ValueError: `importance` with a time distribution that has no density.
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
