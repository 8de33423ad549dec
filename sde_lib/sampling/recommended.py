"""The recommended sampler and time grid for a number of evaluations of the Denoiser, without a fit to the model.

    sampler, times = recommended_sampler(10), recommended_times(denoiser.sde, 10)
    x = sample(keys, denoiser, sampler, times, event_shape)

The sampler is `Adams`. Its grid, and up to 20 evaluations small changes of its weights, are read from `recommended.json`, a
table with an entry for each number of evaluations. The table was fitted once to a family of random Gaussian mixtures with
exact Denoisers (2 to 10 modes, 1 to 128 dimensions, many spreads and ranges of noise) and is made again by

    python -m experiments.benchmarks.recommended --out=sde_lib/sampling/recommended.json

A grid is a list of places in sqrt(tau), with tau the time of `VPSDE()` at equal log-SNR, as in `quadratic_times`: so it
depends on a process by its noise levels alone. Between tabulated numbers of evaluations the log-lengths of the steps are
interpolated linearly in log n, and order and `data_std` are those of the number below.
"""

import functools
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from sde_lib.sampling.adams import Adams
from sde_lib.sampling.flows import DDIM
from sde_lib.sampling.sampler import Sampler
from sde_lib.sde import Process
from sde_lib.times import times_at

TABLE = Path(__file__).with_name("recommended.json")


@functools.cache
def _table() -> dict[int, dict[str, Any]]:
    """The entries of the file by number of evaluations."""
    return {entry["evaluations"]: entry for entry in json.loads(TABLE.read_text())["entries"]}


def _check(evaluations: int) -> None:
    if evaluations < 1:
        raise ValueError(f"evaluations={evaluations} must be at least 1")


def log_lengths(knots: np.ndarray, n: int) -> np.ndarray:
    """The log-lengths of n steps, (n,): linear between knots at even places, the first step at the first knot."""
    return np.interp(np.linspace(0, 1, n), np.linspace(0, 1, len(knots)), knots)


def _places(evaluations: int) -> np.ndarray:
    """The n + 1 places of the grid's times, rising from 0 to 1."""
    known = sorted(_table())
    n = min(max(evaluations, known[0]), known[-1])
    low, high = max(m for m in known if m <= n), min(m for m in known if m >= n)
    share = 0.0 if low == high else np.log(n / low) / np.log(high / low)
    first, last = (log_lengths(np.asarray(_table()[m]["log_lengths"]), evaluations) for m in (low, high))
    lengths = np.exp((1 - share) * (first - first.max()) + share * (last - last.max()))
    places = np.append(0.0, np.cumsum(lengths))
    return places / places[-1]


def recommended_sampler(evaluations: int) -> Sampler:
    """The deterministic sampler for this number of evaluations, for `recommended_times`.

    One evaluation is `DDIM`, whose run is the Denoiser at t_max; from two on the sampler is `Adams`.

    Raises:
        ValueError: evaluations is less than 1.
    """
    _check(evaluations)
    if evaluations == 1:
        return DDIM()
    known = sorted(_table())
    entry = _table()[max([n for n in known if n <= evaluations], default=known[0])]
    weights: dict[str, Any] = {}
    if entry["evaluations"] == evaluations:
        weights = {name: np.asarray(entry[name]) for name in ("predictor", "corrector") if name in entry}
    return Adams(entry["order"], data_std=entry["data_std"], **weights)


def recommended_times(sde: Process, evaluations: int, *, denoise: bool = True) -> Array:
    """The time grid for `recommended_sampler(evaluations)`, (evaluations + 1,), from t_max to clean data.

    Unlike the grids of `times.py` it has no time at t_min before the clean end: the last evaluation is made further from the
    data, and the last step follows the sampler's polynomial. Use it with `recommended_sampler` alone.

    Args:
        sde: the process, an `SDE`: the state must be the data with noise of one standard deviation.
        evaluations: of the Denoiser in the run, at least 1.
        denoise: False ends at t_min in place of clean data, as in the other grids.

    Raises:
        ValueError: evaluations is less than 1, or the process has no scalar alpha and sigma.
    """
    _check(evaluations)
    if not sde.has_scalar_noise:
        raise ValueError(
            f"recommended_times: the state of {type(sde).__name__} is not the data with noise of one standard deviation; "
            "choose a sampler of its kind, such as SSCS"
        )
    places = _places(evaluations)
    times = times_at(sde, jnp.asarray(places), denoise=False)
    return times.at[-1].set(0.0) if denoise else times
