"""Time grids for sampling: n + 1 decreasing times, which define n steps.

The first n times run from t_max to t_min; at these the Denoiser is evaluated. The last time is 0, the time of clean
data, which is reached by the denoising step x = D(x, t_min). n includes this last step, as in EDM: 18 steps of Heun
consist of 17 steps with two evaluations and one step with one evaluation, 35 in total.

With `denoise=False` the grid consists of n + 1 times from t_max to t_min. All n steps are made by the sampler, and the
sample retains the noise of t_min.
"""

import math

import jax
import jax.core
import jax.numpy as jnp
from jax import Array

from sde_lib.checks import positive
from sde_lib.ends import check_ends
from sde_lib.processes import VPSDE
from sde_lib.sde import Process

MOST_STEPS = 2**24


def _grid(sde: Process, points: Array, denoise: bool) -> Array:
    """Sets the ends of the grid exactly and appends time 0 if `denoise`; raises ValueError as `check_ends`."""
    check_ends(sde)
    points = points.at[-1].set(sde.t_min).at[0].set(sde.t_max)
    return jnp.append(points, 0.0) if denoise else points


def _number_of_points(n: int, denoise: bool) -> int:
    if n < 1:
        raise ValueError(f"a time grid needs at least 1 step, not {n}")
    if n > MOST_STEPS:
        raise ValueError(f"a time grid has at most {MOST_STEPS} steps, not {n}: float32 resolves no more times")
    return n if denoise else n + 1


def uniform_times(sde: Process, n: int, *, denoise: bool = True) -> Array:
    """Returns a grid of n steps of equal length in t, (n + 1,).

    Raises:
        ValueError: n is less than 1 or above `MOST_STEPS`, or sigma / alpha is invalid at an end of the process
            (`sde_lib.ends`). All grids of this module raise these errors.
    """
    points = jnp.linspace(sde.t_max, sde.t_min, _number_of_points(n, denoise))
    return _grid(sde, points, denoise)


def karras_times(sde: Process, n: int, rho: float = 7.0, *, denoise: bool = True) -> Array:
    """Returns a grid of n steps of equal length in (sigma / alpha)^(1 / rho), (n + 1,): dense at low noise.

    rho = 1 is uniform in sigma / alpha. The limit of infinite rho is `log_snr_times`; infinity is a valid value of rho.

    Source: Karras et al. (2022), https://arxiv.org/abs/2206.00364, eq. 5, with sigma / alpha for their sigma.

    Raises:
        ValueError: rho is not positive, or as in `uniform_times`.
    """
    positive("karras_times", rho=rho)
    # Computed in logarithms relative to the larger end, to avoid overflow at small rho and cancellation at large rho.
    places = jnp.linspace(0, 1, _number_of_points(n, denoise))
    span = sde.log_snr(sde.t_max) - sde.log_snr(sde.t_min)
    rate = 0.5 / jnp.asarray(rho, span.dtype)
    finite = jnp.where(rate > 0, rate, 1)
    fall = jnp.where(rate > 0, jnp.log1p(places * jnp.expm1(span * finite)) / finite, places * span)
    log_snr = sde.log_snr(sde.t_max) - fall
    return _grid(sde, sde.time_at_log_snr(log_snr), denoise)


def log_snr_times(sde: Process, n: int, *, denoise: bool = True) -> Array:
    """Returns a grid of n steps of equal length in log-SNR, (n + 1,): the limit of `karras_times` for infinite rho."""
    log_snr = jnp.linspace(sde.log_snr(sde.t_max), sde.log_snr(sde.t_min), _number_of_points(n, denoise))
    return _grid(sde, sde.time_at_log_snr(log_snr), denoise)


def quadratic_times(sde: Process, n: int, power: float = 2.0, *, denoise: bool = True) -> Array:
    """Returns a grid of n steps of equal length in tau^(1 / power), (n + 1,).

    tau is the time at which `VPSDE()` has the log-SNR of the process. For `VPSDE()` and power 2 this is the quadratic
    grid of DDIM; for other processes with the same range of noise levels, the grid has the same noise levels. With
    multistep samplers it is more accurate than `karras_times` and `log_snr_times` on mixtures of narrow modes.

    Source: Song, Meng and Ermon (2021), https://arxiv.org/abs/2010.02502, appendix D.2, for VP.

    Raises:
        ValueError: the power is not positive or not finite, or as in `uniform_times`.
    """
    return times_at(sde, jnp.linspace(0, 1, _number_of_points(n, denoise)), power, denoise=denoise)


def times_at(sde: Process, places: Array, power: float = 2.0, *, denoise: bool = True) -> Array:
    """Returns the times at given positions on the scale of `quadratic_times`, from 0 (t_max) to 1 (t_min).

    Args:
        sde: the process.
        places: increasing positions, the first 0 and the last 1, (m,).
        power: as in `quadratic_times`.
        denoise: True appends time 0.

    Returns:
        The times, (m + 1,) with `denoise` and (m,) without.

    Raises:
        ValueError: the power is not positive or not finite, or as in `check_ends`.
    """
    positive("times_at", power=power)
    if not isinstance(power, jax.core.Tracer) and math.isinf(power):
        raise ValueError(f"times_at: power={power} must be finite; use log_snr_times for a logarithmic grid")
    reference = VPSDE()
    log_snr = jnp.stack([sde.log_snr(sde.t_max), sde.log_snr(sde.t_min)])
    high, low = reference.time_at_log_snr(log_snr) ** (1 / power)
    tau = (high + (low - high) * places) ** power
    return _grid(sde, sde.time_at_log_snr(reference.log_snr(tau)), denoise)
