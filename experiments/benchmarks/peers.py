"""diffusers' solvers on the problems of `benchmark --suite=methods`; needs the `interop` extra.

Each runs as its documentation says, on its own time grids, from the same starts, and ends at the same noise level as ours.
Three things are set so that nothing but the solver is measured. The table of noise levels, of 1,000 as published models
have, is that of the problem's process: on EDM even in log-SNR, with the state scaled to unit variance, which no solver here
depends on. The table is kept in float64. And the Denoiser is asked at the noise level that the solver computes with, where
diffusers itself rounds it to a whole number of the table on some grids.

Source: https://huggingface.co/docs/diffusers/api/schedulers/overview, version 0.42.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sde_lib import SDE, Denoiser

LEVELS = 1_000

# Options of the time grids; "table" is even in the table's index.
GRIDS = {
    "table": {},
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
}


def noise_levels(sde: SDE) -> np.ndarray:
    """sigma / alpha at the table's 1,000 levels, rising from t_min to t_max."""
    if sde.alpha(sde.t_max) < 1:
        return np.asarray(sde.noise_to_signal(jnp.linspace(sde.t_min, sde.t_max, LEVELS)))
    return np.geomspace(sde.noise_to_signal(sde.t_min), sde.noise_to_signal(sde.t_max), LEVELS)


def _scheduler(name: str, **options: Any) -> Callable[..., Any]:
    """(sde, options of the grid) -> diffusers' scheduler of that name, with `noise_levels` in float64."""

    def make(sde, **grid):
        import diffusers
        import torch

        scheduler = getattr(diffusers, name)(LEVELS, **options, **grid)
        scheduler.alphas_cumprod = torch.from_numpy(1 / (1 + noise_levels(sde) ** 2))
        return scheduler

    return make


_END = {"final_sigmas_type": "sigma_min"}  # DEIS ends there in any case

SOLVERS: dict[str, Callable[..., Any]] = {
    **{f"dpm_solver++ {n}": _scheduler("DPMSolverMultistepScheduler", solver_order=n, **_END) for n in (1, 2, 3)},
    **{f"unipc {n}": _scheduler("UniPCMultistepScheduler", solver_order=n, **_END) for n in (2, 3)},
    **{f"deis {n}": _scheduler("DEISMultistepScheduler", solver_order=n) for n in (2, 3)},
    "heun": _scheduler("HeunDiscreteScheduler"),
}


@jax.jit
def _noise(denoiser: Denoiser, y: Array, noise_to_signal: Array) -> Array:
    """The noise in y = x / alpha, of y's shape."""
    t = denoiser.sde.time_at_log_snr(-2 * jnp.log(noise_to_signal))
    return (y - denoiser(denoiser.sde.alpha(t) * y, t)) / noise_to_signal


def run(solver: str, grid: str, evaluations: int, x: Array, denoiser: Denoiser) -> Array:
    """x (N, D) carried from t_max to t_min by the solver with at most so many evaluations (at least 2 for heun)."""
    import torch

    sde = denoiser.sde
    scheduler = SOLVERS[solver](sde, **GRIDS[grid])
    steps = evaluations // scheduler.order
    # States are of unit variance, or they are y where they start from the largest sigma, as Heun's do; a last step of its
    # own takes these to zero noise. The grids other than "table" say their last level twice. Neither step is made.
    unscaled = bool(scheduler.init_noise_sigma != 1)
    spare = unscaled or grid != "table"
    scheduler.set_timesteps(steps + spare)
    scheduler.set_begin_index(0)
    calls = scheduler.order * steps
    first, last = (float(sde.noise_to_signal(t)) for t in (sde.t_max, sde.t_min))
    unit = (lambda s: 1.0) if unscaled else (lambda s: 1 / np.sqrt(1 + s**2))
    state = torch.from_numpy(np.asarray(x / sde.alpha(sde.t_max)) * unit(first))
    for i, level in enumerate(scheduler.sigmas[:calls].double().numpy()):
        noise = _noise(denoiser, jnp.asarray(state.double().numpy() / unit(level)), level)
        state = scheduler.step(torch.from_numpy(np.array(noise)), scheduler.timesteps[i], state).prev_sample
    return jnp.asarray(state.double().numpy() / unit(last)) * sde.alpha(sde.t_min)


def rows(evaluations: tuple[int, ...]) -> list[tuple[str, str, Callable[[Array, Denoiser], list[Array]]]]:
    """(solver, grid, run of all numbers of evaluations); empty where diffusers is not installed."""
    try:
        import diffusers  # noqa: F401
    except ImportError:
        return []

    def every(solver, grid, x, denoiser):
        return [run(solver, grid, n, x, denoiser) for n in evaluations]

    return [(solver, grid, partial(every, solver, grid)) for solver in SOLVERS for grid in GRIDS]
