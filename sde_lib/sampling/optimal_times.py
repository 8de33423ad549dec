"""Time grids fitted to a Denoiser: minimal discretization error of a sampler with few steps.

The grid is a monotone map of the quadratic grid with few parameters: the log-lengths of the steps at a few knots,
linearly interpolated. The Levenberg-Marquardt method minimizes the squared distance between the results of runs with
few steps and a reference run with many steps from the same initial noise. No data are needed. The fit costs a few
hundred runs and reduces the error by a factor of two to ten, which pays off for models that are sampled often.

Related work: Sabour et al. (2024), https://arxiv.org/abs/2404.14507, and Tong et al. (2024),
https://arxiv.org/abs/2405.15506, who fit grids to a teacher with other objectives and methods.
"""

from functools import partial

import jax
import jax.numpy as jnp
import optimistix
from jax import Array

from sde_lib.denoiser import Denoiser
from sde_lib.sampling.multistep import UniPC
from sde_lib.sampling.sample import sample
from sde_lib.sampling.sampler import Sampler
from sde_lib.times import quadratic_times, times_at


def optimal_times(
    denoiser: Denoiser,
    n: int,
    keys: Array,
    event_shape: tuple[int, ...],
    *,
    sampler: Sampler | None = None,
    x_init: Array | None = None,
    reference_steps: int = 200,
    knots: int = 8,
    iterations: int = 60,
    denoise: bool = True,
) -> Array:
    """Returns the grid of n steps, (n + 1,), that minimizes the error of `sampler` against the probability flow.

    Args:
        denoiser: the Denoiser to fit to; must support forward-mode derivatives.
        n: number of steps, including the denoising step.
        keys: one per initial state of the fit, (B,): 64 suffice for about 10 steps; 50 steps need hundreds, because a
            few initial states cause most of the error.
        event_shape: the shape of one sample.
        sampler: the deterministic sampler for which the grid is fitted; None selects
            `UniPC(order=3, variable="angle")`.
        x_init: initial states at t_max, (B, *event); None samples from the prior.
        reference_steps: number of steps of the reference run, by `UniPC(3)` on the quadratic grid.
        knots: number of parameters; values above the number of steps have no further effect.
        iterations: maximum number of iterations of the minimization.
        denoise: True ends at time 0, False at t_min, as in `sde_lib.times`.
    """
    sampler = UniPC(order=3, variable="angle") if sampler is None else sampler
    fine = quadratic_times(denoiser.sde, reference_steps, denoise=denoise)
    run = partial(sample, keys, denoiser, event_shape=event_shape, x_init=x_init, denoise=denoise)
    target = run(UniPC(order=3), fine)
    steps = n - 1 if denoise else n
    if steps < 2:
        return quadratic_times(denoiser.sde, n, denoise=denoise)
    places = jnp.linspace(0, 1, min(knots, steps))

    def grid(parameters):
        log_lengths = jnp.interp(jnp.linspace(0, 1, steps), places, parameters)
        place = jnp.cumsum(jax.nn.softmax(log_lengths))
        return times_at(denoiser.sde, jnp.concatenate([jnp.zeros(1), place]), denoise=denoise)

    def residual(parameters, _):
        return (run(sampler, grid(parameters)) - target).ravel()

    solver = optimistix.LevenbergMarquardt(rtol=1e-3, atol=1e-6)
    solution = optimistix.least_squares(
        residual, solver, jnp.zeros(len(places)), options={"jac": "fwd"}, max_steps=iterations, throw=False
    )
    return grid(solution.value)
