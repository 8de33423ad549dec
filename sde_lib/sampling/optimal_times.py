"""A time grid fitted to a Denoiser: where a sampler of few steps comes closest to what it would reach with many.

The grid is a monotone map of the quadratic one with a few free numbers: log-lengths of the steps at a few knots, linear
between them. They minimize the squared distance between the ends of short runs and of one long run from the same starts,
by the Levenberg-Marquardt method. Only the Denoiser is asked: no data, no answer known beforehand. The fit costs some
hundreds of short runs and is worth it for a model that is sampled often: the error falls by two to ten times.

Related: Sabour et al. (2024), https://arxiv.org/abs/2404.14507, and Tong et al. (2024), https://arxiv.org/abs/2405.15506,
who fit grids to a teacher too, by other objectives and means.
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
    """The grid of n steps, (n + 1,), on which `sampler` comes closest to the probability flow; ends as any grid does.

    Args:
        denoiser: the Denoiser to fit to. Must be differentiable in forward mode.
        n: steps, the denoising step included.
        keys: (B,), of the starts to fit to: 64 for some 10 steps, hundreds for 50, where few starts make most of the error.
        event_shape: the shape of one sample.
        sampler: the deterministic sampler that will be used with the grid; None is `UniPC(order=3, variable="angle")`.
        x_init: (B, *event), starts at t_max; None draws from the prior.
        reference_steps: steps of the long runs, by `UniPC(3)` on the quadratic grid.
        knots: free numbers of the grid; with n steps or fewer, every step is free.
        iterations: of the minimization, at most.
        denoise: as in the other grids.
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
