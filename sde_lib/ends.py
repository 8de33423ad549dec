"""Validation of the noise levels at the ends of a process and of a time grid.

Sampling, the probability flow and likelihoods run between t_min and t_max and depend on a process through its noise
level sigma / alpha. The noise level is infinite for rectified flow at t_max = 1, and reaches 1e21 for a
variance-preserving process whose beta is ten times the published one. There D = (x - sigma noise) / alpha is lost in
rounding, and a grid that is uniform in a power of sigma / alpha spends its steps where no information on the data
remains. `check_ends` therefore rejects

    sigma / alpha above 1 / (8 eps)        1.05e6 in float32: half an ulp of the noise changes D by 1 / 16
    sigma / alpha below eps                1.2e-7 in float32: the noise is below the rounding of data of size 1
    sigma / alpha that does not increase   time grids and reverse steps assume an increasing noise level
    alpha or sigma negative or not finite  the noise level is undefined

with eps the distance from 1 to the next number. In float64 the limits are 5.6e14 and 2.2e-16.
"""

from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from sde_lib.sde import Process

PLACES = 33  # number of times, ends included, at which the noise level is checked


USUAL = 152.0  # sigma / alpha of the published VP process at t_max


class Ends(NamedTuple):
    """The noise levels sigma / alpha at the smallest and the largest time."""

    smallest: float
    largest: float


def noise_level_limits() -> Ends:
    """Returns the smallest and the largest valid sigma / alpha in JAX's default float type."""
    eps = float(jnp.finfo(jnp.result_type(float)).eps)
    return Ends(eps, 1 / (8 * eps))


@jax.jit
def _levels(sde, low, high):
    times = jnp.linspace(low, high, PLACES)
    return times, sde.noise_to_signal(times), sde.log_snr(times), sde.scales(times)


def _time(t: ArrayLike) -> str:
    """Formats a time with the fewest digits that identify it in its dtype, and at least those of `:g`."""
    value, short = np.asarray(t), f"{t:g}"
    return short if value.dtype.type(short) == value or np.isnan(value) else str(value)


def _require_scales(name: str, times: np.ndarray, levels: np.ndarray, scales: dict[str, np.ndarray]) -> None:
    """Raises ValueError if alpha or sigma is not finite, or negative at an end.

    sigma / alpha does not reveal the sign where both are negative.
    """
    is_end = np.isin(np.arange(PLACES), (0, PLACES - 1))
    for scale, values in scales.items():
        faults = np.flatnonzero(~np.isfinite(values) | (is_end & (values < 0)))
        if faults.size:
            i = faults[0]
            raise ValueError(
                f"{name}: sigma / alpha is {levels[i]:.3g} at t={times[i]:g}, because {scale}={values[i]:.3g}: it must be "
                + ("positive" if np.isfinite(values[i]) else "finite")
            )


def _usual(sde: Process, low: Any, high: Any) -> str:
    """Returns the time at which the noise level is the usual maximum, for the error message; empty if there is none."""
    times = np.linspace(float(low), float(high), 1001)
    with jax.ensure_compile_time_eval():
        below = np.flatnonzero(np.asarray(sde.noise_to_signal(jnp.asarray(times))) <= USUAL)
    return f"; it is {USUAL:g} near t={times[below[-1]]:.3g}" if below.size else ""


def check_ends(sde: Process, t_min: ArrayLike | None = None, t_max: ArrayLike | None = None) -> Ends | None:
    """Checks that the noise levels of a process are valid between two times.

    Args:
        sde: the process.
        t_min, t_max: the two times; None uses those of the process.

    Returns:
        sigma / alpha at both times; None, without a check, if the process or a time is traced.

    Raises:
        ValueError: the times are in the wrong order; alpha or sigma is negative or not finite; or sigma / alpha exceeds
            the limits of the float type or does not increase with time.
    """
    whole = t_min is None and t_max is None
    low: Any
    high: Any
    low, high = (sde.t_min if t_min is None else t_min), (sde.t_max if t_max is None else t_max)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((sde, low, high))):
        return None
    name, limits = type(sde).__name__, noise_level_limits()
    if low > high or (whole and low == high):
        raise ValueError(f"{name}: t_min={_time(low)} must be less than t_max={_time(high)}")
    with jax.ensure_compile_time_eval():
        evaluated = jax.tree.map(lambda values: np.asarray(values, np.float64), _levels(sde, low, high))
    times, levels, log_snr, scales = evaluated
    _require_scales(name, times, levels, scales)
    ends = Ends(float(levels[0]), float(levels[-1]))
    if not limits.smallest <= ends.smallest < np.inf:
        raise ValueError(
            f"{name}: sigma / alpha is {ends.smallest:.3g} at t={_time(low)}, its smallest time: it must be finite and at "
            f"least {limits.smallest:.2g}, or rounding exceeds the noise: choose a larger t_min"
        )
    if not ends.largest <= limits.largest:
        raise ValueError(
            f"{name}: sigma / alpha is {ends.largest:.3g} at t={_time(high)}, its largest time: it must be finite and at "
            f"most {limits.largest:.3g}, or rounding exceeds the data: choose less noise or a smaller t_max"
            + _usual(sde, low, high)
        )
    # The tolerance allows for rounding where the noise level hardly changes.
    falls = np.flatnonzero(~(log_snr[1:] <= log_snr[:-1] + 1e-4 * np.maximum(np.abs(log_snr[:-1]), 1)))
    if falls.size or not (low == high or ends.smallest < ends.largest):
        i, j = (falls[0], falls[0] + 1) if falls.size else (0, -1)
        raise ValueError(
            f"{name}: sigma / alpha must rise with t, but is {levels[i]:.3g} at t={times[i]:g} and {levels[j]:.3g} at "
            f"t={times[j]:g}"
        )
    return ends


def check_times(times: Array | np.ndarray, sde: Process, *, denoise: bool = True) -> None:
    """Checks that a time grid is valid for a process. For traced times only the shape is checked.

    Args:
        times: the time grid, (n + 1,).
        sde: the process.
        denoise: True if the grid ends in clean data, at time 0.

    Raises:
        ValueError: the grid is not a vector of at least 2 finite, decreasing times, exceeds t_max, does not end at 0
            with `denoise`, or ends at 0 without; or as in `check_ends` between its first and its last noisy time.
    """
    traced = isinstance(times, jax.core.Tracer)
    if not traced:
        times = np.asarray(times)
        times = times.astype(jax.dtypes.canonicalize_dtype(times.dtype))
    if times.ndim != 1 or times.shape[0] < 2:
        raise ValueError(f"times must be a vector of at least 2 times, not of shape {times.shape}")
    if traced:
        return
    infinite = np.flatnonzero(~np.isfinite(times))
    if infinite.size:
        raise ValueError(
            f"times must be finite, but times[{infinite[0]}] is {times[infinite[0]]:g} (of {len(times)} times, "
            f"{infinite.size} are not finite)"
        )
    rises = np.flatnonzero(~(times[:-1] > times[1:]))
    if rises.size:
        i = rises[0]
        following = f"times[{i + 1}]={times[i + 1]:g}"
        if times[i] == times[i + 1]:
            following = f"the same number in {times.dtype}: take fewer steps, or another grid"
        raise ValueError(f"times must decrease, but times[{i}]={times[i]:g} is followed by {following}")
    if not isinstance(sde.t_max, jax.core.Tracer) and times[0] > sde.t_max * (1 + 1e-5):
        raise ValueError(f"times start at {_time(times[0])}, beyond the process's t_max={_time(sde.t_max)}")
    if denoise and times[-1] != 0:
        raise ValueError(
            f"the denoising step ends at clean data, time 0, but times end at {times[-1]:g}: "
            "append a 0, or pass denoise=False to keep the noise of the last time"
        )
    if not denoise and times[-1] <= 0:
        raise ValueError(
            "with denoise=False the last time must be positive: make the grid with denoise=False too, "
            "as in uniform_times(sde, n, denoise=False)"
        )
    check_ends(sde, times[-2] if denoise else times[-1], times[0])
