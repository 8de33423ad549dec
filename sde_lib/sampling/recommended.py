"""Recommended sampler and time grid for a given number of evaluations of the Denoiser, without a fit to the model.

    sampler, times = recommended_sampler(10), recommended_times(denoiser.sde, 10)
    x = sample(keys, denoiser, sampler, times, event_shape)

The sampler is `Adams`. Its grids and, at tabulated numbers up to 20, small corrections of its weights are stored in
`recommended.json`, with one entry for each tabulated number of evaluations. The table was fitted to a family of random
Gaussian mixtures with exact Denoisers (2 to 10 modes, 1 to 128 dimensions, various standard deviations and noise
ranges). To regenerate it, run

    python -m experiments.benchmarks.recommended --out=sde_lib/sampling/recommended.json

A grid is a list of positions in sqrt(tau), with tau the time of `VPSDE()` at equal log-SNR, as in `quadratic_times`, so
it depends on a process only through its noise levels. Between tabulated numbers of evaluations n, the log-lengths of
the steps are interpolated linearly in log n; order and `data_std` are those of the next lower tabulated number.
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
    """Returns the entries of the table by number of evaluations."""
    return {entry["evaluations"]: entry for entry in json.loads(TABLE.read_text())["entries"]}


def _check(evaluations: int) -> None:
    if evaluations < 1:
        raise ValueError(f"evaluations={evaluations} must be at least 1")


def log_lengths(knots: np.ndarray, n: int) -> np.ndarray:
    """Returns the log-lengths of n steps, (n,), interpolated linearly between evenly spaced knots (K,)."""
    return np.interp(np.linspace(0, 1, n), np.linspace(0, 1, len(knots)), knots)


def _places(evaluations: int) -> np.ndarray:
    """Returns the evaluations + 1 positions of the grid, increasing from 0 to 1."""
    tabulated = sorted(_table())
    n = min(max(evaluations, tabulated[0]), tabulated[-1])
    low, high = max(m for m in tabulated if m <= n), min(m for m in tabulated if m >= n)
    weight = 0.0 if low == high else np.log(n / low) / np.log(high / low)
    first, last = (log_lengths(np.asarray(_table()[m]["log_lengths"]), evaluations) for m in (low, high))
    lengths = np.exp((1 - weight) * (first - first.max()) + weight * (last - last.max()))
    places = np.append(0.0, np.cumsum(lengths))
    return places / places[-1]


def recommended_sampler(evaluations: int) -> Sampler:
    """Returns the deterministic sampler for a number of evaluations, for use with `recommended_times`.

    For one evaluation the sampler is `DDIM`, whose result is the Denoiser at t_max; otherwise it is `Adams`.

    Raises:
        ValueError: evaluations is less than 1.
    """
    _check(evaluations)
    if evaluations == 1:
        return DDIM()
    tabulated = sorted(_table())
    entry = _table()[max([n for n in tabulated if n <= evaluations], default=tabulated[0])]
    weights: dict[str, Any] = {}
    if entry["evaluations"] == evaluations:
        weights = {name: np.asarray(entry[name]) for name in ("predictor", "corrector") if name in entry}
    return Adams(entry["order"], data_std=entry["data_std"], **weights)


def recommended_times(sde: Process, evaluations: int, *, denoise: bool = True) -> Array:
    """Returns the time grid for `recommended_sampler(evaluations)`, (evaluations + 1,), from t_max to time 0.

    Unlike the grids of `times.py`, this grid does not contain t_min: the last evaluation is at a higher noise level,
    and the last step to time 0 integrates the polynomial of the sampler. Use it only with `recommended_sampler`.

    Args:
        sde: the process, an `SDE`.
        evaluations: number of evaluations of the Denoiser in the run, at least 1.
        denoise: False replaces time 0 by t_min, as in the other grids.

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
