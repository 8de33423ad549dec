"""Time grids for sampling: n + 1 decreasing times that make n steps.

The first n run from t_max to t_min, where the Denoiser is asked; the last is 0, which stands for clean data and is
reached by the denoising step x = D(x, t_min). So n counts every step, the last included, as in EDM: 18 steps of Heun are
17 of two evaluations and one of one, 35 in all.

With `denoise=False` the grid has no clean end: n + 1 times from t_max to t_min, n steps, all of them the sampler's, and
the sample keeps the noise of t_min.
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
    """The grid with exact ends, and with the clean end where `denoise` holds; ValueError as `check_ends`."""
    check_ends(sde)
    points = points.at[-1].set(sde.t_min).at[0].set(sde.t_max)
    return jnp.append(points, 0.0) if denoise else points


def _number_of_points(n: int, denoise: bool) -> int:
    if n < 1:
        raise ValueError(f"a time grid needs at least 1 step, not {n}")
    if n > MOST_STEPS:
        raise ValueError(f"a time grid has at most {MOST_STEPS} steps, not {n}: float32 has no more times")
    return n if denoise else n + 1


def uniform_times(sde: Process, n: int, *, denoise: bool = True) -> Array:
    """n steps of equal length in t, (n + 1,)."""
    points = jnp.linspace(sde.t_max, sde.t_min, _number_of_points(n, denoise))
    return _grid(sde, points, denoise)


def karras_times(sde: Process, n: int, rho: float = 7.0, *, denoise: bool = True) -> Array:
    """n steps of equal length in (sigma / alpha)^(1 / rho), (n + 1,): dense where the noise is low.

    rho = 1 is uniform in sigma / alpha; rho = infinity is its limit, `log_snr_times`.

    Source: Karras et al. (2022), https://arxiv.org/abs/2206.00364, eq. 5, with sigma / alpha for their sigma.

    Raises:
        ValueError: rho is not positive; or as every grid of this file, for fewer than 1 step or an end of the process
            without a usable sigma / alpha (`sde_lib.ends`).
    """
    positive("karras_times", rho=rho)
    # In logarithms relative to the larger end: neither a small rho overflows nor a large one cancels.
    places = jnp.linspace(0, 1, _number_of_points(n, denoise))
    span = sde.log_snr(sde.t_max) - sde.log_snr(sde.t_min)
    rate = 0.5 / jnp.asarray(rho, span.dtype)
    finite = jnp.where(rate > 0, rate, 1)
    fall = jnp.where(rate > 0, jnp.log1p(places * jnp.expm1(span * finite)) / finite, places * span)
    log_snr = sde.log_snr(sde.t_max) - fall
    return _grid(sde, sde.time_at_log_snr(log_snr), denoise)


def log_snr_times(sde: Process, n: int, *, denoise: bool = True) -> Array:
    """n steps of equal length in log-SNR, (n + 1,): the limit of `karras_times` for rho to infinity."""
    log_snr = jnp.linspace(sde.log_snr(sde.t_max), sde.log_snr(sde.t_min), _number_of_points(n, denoise))
    return _grid(sde, sde.time_at_log_snr(log_snr), denoise)


def quadratic_times(sde: Process, n: int, power: float = 2.0, *, denoise: bool = True) -> Array:
    """n steps of equal length in tau^(1 / power), (n + 1,), where tau is the time at which `VPSDE()` has the same log-SNR.

    For `VPSDE()` itself that is the quadratic grid of DDIM; every other process gets the same noise levels. With the
    multistep methods it is more accurate than `karras_times` and `log_snr_times` on mixtures of narrow modes.

    Source: Song, Meng and Ermon (2021), https://arxiv.org/abs/2010.02502, appendix D.2, for VP.
    """
    return times_at(sde, jnp.linspace(0, 1, _number_of_points(n, denoise)), power, denoise=denoise)


def times_at(sde: Process, places: Array, power: float = 2.0, *, denoise: bool = True) -> Array:
    """The times at the given places of `quadratic_times`, which rise from 0 (at t_max) to 1 (at t_min).

    Raises:
        ValueError: the power is not positive or not finite; or as `check_ends`.
    """
    positive("times_at", power=power)
    if not isinstance(power, jax.core.Tracer) and math.isinf(power):
        raise ValueError(f"times_at: power={power} must be finite; log_snr_times is even in the logarithm")
    reference = VPSDE()
    log_snr = jnp.stack([sde.log_snr(sde.t_max), sde.log_snr(sde.t_min)])
    high, low = reference.time_at_log_snr(log_snr) ** (1 / power)
    tau = (high + (low - high) * places) ** power
    return _grid(sde, sde.time_at_log_snr(reference.log_snr(tau)), denoise)
