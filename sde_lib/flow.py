"""The probability flow as a map between data and noise: `encode`, `decode` and `interpolate`.

The flow dx/dt = velocity(x, t) transports p_t from t_min to t_max and back. Forward in time it maps each example to its
encoding, distributed as the prior; backward in time it is a deterministic sampler. Only `Denoiser.velocity` is
evaluated, so every process and every guided Denoiser is supported.

The ODE is solved adaptively (Tsit5, fifth order), with separate steps for each example: a result does not depend on the
other examples of the batch, and a failed solve is reported in `status` without an effect on the other results. The
solver integrates over sqrt(t), in which sigma of variance-preserving processes is close to linear near t = 0, where the
flow is stiff. For Gaussian and mixture data under VP and VE, encoding and decoding need fewer evaluations in sqrt(t)
than in t, log t or the log-SNR.

Sources: Song et al. (2021), https://arxiv.org/abs/2011.13456, section 4.3 and appendix D; Tsitouras (2011),
https://doi.org/10.1016/j.camwa.2011.06.002, for the solver.
"""

import enum
from functools import partial
from typing import Any, cast

import diffrax
import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from sde_lib.checks import positive
from sde_lib.denoiser import Denoiser
from sde_lib.ends import check_ends
from sde_lib.struct import Struct

EVALUATIONS_PER_STEP = 6  # Tsit5 has 7 stages; the last stage of a step is the first stage of the next (FSAL)


class Status(enum.IntEnum):
    """Outcome of the solve of one example."""

    SOLVED = 0
    MAX_STEPS = 1  # max_steps was reached
    NO_STEP = 2  # the smallest step did not meet the tolerance: the velocity is not finite, or too stiff for the dtype


@struct.dataclass
class FlowSolution(Struct):
    """Solution of the probability flow, with its cost.

    Attributes:
        x: the states at the final time, (B, *state); NaN for examples that were not solved.
        nfe: evaluations of the Denoiser per example, (B,). The largest determines the run time of the batch.
        status: a `Status` per example, (B,): 0 if solved.
    """

    x: Array
    nfe: Array
    status: Array


def encode(
    denoiser: Denoiser,
    x0: Array,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = 4096,
    adjoint: diffrax.AbstractAdjoint | None = None,
) -> FlowSolution:
    """Encodes data at t_min as noise at t_max along the probability flow.

    Args:
        denoiser: the Denoiser that defines the flow.
        x0: (B, *event), taken as states at t_min.
        rtol, atol: relative and absolute tolerance of a step, on the root mean square over the event.
        max_steps: maximum number of steps per example, including rejected steps.
        adjoint: None uses the least memory and supports only forward-mode derivatives (`jax.jvp`, `jax.jacfwd`). For
            `jax.grad` pass `diffrax.RecursiveCheckpointAdjoint()`; the Denoiser is then evaluated on batches of one
            example, so a condition per example requires a `jax.vmap` over single examples.

    Returns:
        The encodings. Examples that were not solved are NaN, with a nonzero `status`; no error is raised for them.

    Raises:
        ValueError: x0 has no event axis or is not real, a tolerance or `max_steps` is not positive, or sigma / alpha is
            invalid at an end of the process (`sde_lib.ends`).
    """
    x0 = check_solve(x0, rtol, atol, max_steps)
    check_ends(denoiser.sde)
    return _follow(denoiser, x0, denoiser.sde.t_min, denoiser.sde.t_max, rtol, atol, max_steps, adjoint)


def decode(
    denoiser: Denoiser,
    z: Array,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = 4096,
    adjoint: diffrax.AbstractAdjoint | None = None,
) -> FlowSolution:
    """Decodes noise z (B, *event) at t_max to data at t_min: the inverse of `encode`, with its arguments and errors."""
    z = check_solve(z, rtol, atol, max_steps)
    check_ends(denoiser.sde)
    return _follow(denoiser, z, denoiser.sde.t_max, denoiser.sde.t_min, rtol, atol, max_steps, adjoint)


def interpolate(
    denoiser: Denoiser,
    a: Array,
    b: Array,
    weights: Array,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = 4096,
) -> FlowSolution:
    """Interpolates between images a and b: decodes points on the great circle between their encodings.

    Spherical interpolation preserves the norm of the encodings, which is concentrated in high dimensions; linear
    interpolation gives smaller norms that encodings do not have. If the norms of the two encodings differ, the norm is
    interpolated linearly.

    Source: Shoemake (1985), https://doi.org/10.1145/325165.325242; Song et al. (2021), https://arxiv.org/abs/2010.02502,
    section 5.3, for encodings of diffusion models.

    Args:
        denoiser: the Denoiser that defines the flow.
        a, b: (B, *event), data at t_min.
        weights: (W,); 0 gives a, 1 gives b.
        rtol, atol, max_steps: as in `encode`.

    Returns:
        x (W, B, *event); nfe (W, B), which counts both encodings at each weight; and status (W, B), the largest of the
        three solves.

    Raises:
        ValueError: the shapes of a and b differ, or weights is not a vector; or as in `encode`.
    """
    a, b = check_solve(a, rtol, atol, max_steps), check_solve(b, rtol, atol, max_steps)
    weights = jnp.asarray(weights, a.dtype)
    if a.shape != b.shape:
        raise ValueError(f"a has shape {a.shape} and b {b.shape}: they must be equal")
    if weights.ndim != 1 or not weights.size:
        raise ValueError(f"weights must be a vector (W,) with W > 0, not of shape {weights.shape}")
    solve = {"rtol": rtol, "atol": atol, "max_steps": max_steps}
    start, end = encode(denoiser, a, **solve), encode(denoiser, b, **solve)
    # Weights are not merged into the batch axis: the Denoiser may have one condition per example.
    encodings = [jax.vmap(spherical, (0, 0, None))(start.x, end.x, weight) for weight in weights]
    solutions = [decode(denoiser, z, **solve) for z in encodings]
    return FlowSolution(
        x=jnp.stack([solution.x for solution in solutions]),
        nfe=jnp.stack([solution.nfe for solution in solutions]) + start.nfe + end.nfe,
        status=jnp.maximum(
            jnp.stack([solution.status for solution in solutions]), jnp.maximum(start.status, end.status)
        ),
    )


def spherical(a: Array, b: Array, weight: Array) -> Array:
    """Spherical interpolation from a to b (*event) with `weight` () in [0, 1]; the norm is interpolated linearly.

    The result is undefined (NaN or arbitrary) if a and b point in opposite directions.
    """
    norm_a, norm_b = jnp.linalg.norm(a.ravel()), jnp.linalg.norm(b.ravel())
    a, b = a / norm_a, b / norm_b
    # Twice the half angle, which is accurate at small angles, unlike the arc cosine.
    angle = 2 * jnp.arctan2(jnp.linalg.norm((a - b).ravel()), jnp.linalg.norm((a + b).ravel()))
    safe = jnp.where(angle > 0, angle, 1.0)
    weight_a = jnp.where(angle > 0, jnp.sin((1 - weight) * safe) / jnp.sin(safe), 1 - weight)
    weight_b = jnp.where(angle > 0, jnp.sin(weight * safe) / jnp.sin(safe), weight)
    return ((1 - weight) * norm_a + weight * norm_b) * (weight_a * a + weight_b * b)


def check_batch(x: Array) -> Array:
    """Returns x as an array; raises ValueError if x has no event axis."""
    x = jnp.asarray(x)
    if x.ndim < 2:
        raise ValueError(f"a batch of examples has shape (B, *event) with at least 2 axes, not {x.shape}")
    return x


def check_solve(x: Array, rtol: float, atol: float, max_steps: int) -> Array:
    """Returns x as an array; raises ValueError for invalid arguments of a solve."""
    x = check_batch(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"examples must be real numbers, not {x.dtype}: dequantize and scale images first")
    positive("the solve", rtol=rtol, atol=atol, max_steps=max_steps)
    return x


@partial(jax.jit, static_argnames=("max_steps", "adjoint"))
def _follow(denoiser, x, start, end, rtol, atol, max_steps, adjoint):
    return integrate(denoiser, x, start, end, rtol=rtol, atol=atol, max_steps=max_steps, adjoint=adjoint)[0]


def integrate(denoiser, x, start, end, *, rtol, atol, max_steps, adjoint, divergence=None, probes=None):
    """Solves the flow of x (B, *state) from time `start` to time `end`, with the integral of its divergence.

    Args:
        denoiser, x, rtol, atol, max_steps, adjoint: as in `encode`.
        start, end: times, ().
        divergence, probes: an estimator of `sde_lib.divergence` and its probes (B, ...), or None.

    Returns:
        The solution, and one integral of the divergence per estimate, (B, k), in nats (k = 0 without `divergence`).
    """
    start, end = (jnp.sqrt(jnp.asarray(time, x.dtype)) for time in (start, end))
    example_velocity = _batched_velocity if adjoint is None else _single_velocity
    size = x[0].size

    def solve(x, probes):
        def slope(root, state, _):
            t = jnp.clip(root**2, denoiser.sde.t_min, denoiser.sde.t_max).astype(x.dtype)
            velocity = partial(example_velocity, denoiser, t)
            if divergence is None:
                return 2 * root * velocity(state[0]), state[1]
            value, derivative = jax.linearize(velocity, state[0])
            # Per dimension, so that the tolerances apply to state and log-density on comparable scales.
            return 2 * root * value, 2 * root * divergence(derivative, state[0], probes) / size

        estimates = 0
        if divergence is not None:
            estimates = jax.eval_shape(partial(divergence, lambda u: u), x, probes).size
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(slope),
            diffrax.Tsit5(),
            start,
            end,
            0.01 * (end - start),
            (x, jnp.zeros(estimates, x.dtype)),
            stepsize_controller=_controller(rtol, atol, x.dtype),
            adjoint=diffrax.ForwardMode() if adjoint is None else adjoint,
            max_steps=max_steps,
            throw=False,
        )
        final, integral = (values[0] for values in cast(tuple, solution.ys))
        solved = (
            (solution.result == diffrax.RESULTS.successful) & jnp.isfinite(final).all() & jnp.isfinite(integral).all()
        )
        exhausted = solution.result == diffrax.RESULTS.max_steps_reached
        status = jnp.where(solved, Status.SOLVED, jnp.where(exhausted, Status.MAX_STEPS, Status.NO_STEP))
        nfe = 1 + EVALUATIONS_PER_STEP * solution.stats["num_steps"]
        final, integral = (jnp.where(solved, value, jnp.nan) for value in (final, size * integral))
        return FlowSolution(final, nfe.astype(jnp.int32), status.astype(jnp.int32)), integral

    return jax.vmap(solve, axis_name="example")(x, probes)


def _batched_velocity(denoiser, t, x):
    """Returns the velocity of one example from one call of the Denoiser on the whole batch.

    The Denoiser may then have one condition per example, and the network is called once per batch.
    """
    batch, times = jax.lax.all_gather((x, t), "example")
    return denoiser.velocity(batch, times)[jax.lax.axis_index("example")]


def _single_velocity(denoiser, t, x):
    """Returns the velocity of one example from a batch of one, which supports reverse-mode derivatives of the solve."""
    return denoiser.velocity(x[None], t)[0]


def _controller(rtol, atol, dtype):
    """Proportional-integral step size control: about as many steps as integral control, and more accurate.

    The smallest step is set by the resolution of `dtype` on an interval of length about 1.
    """
    smallest: Any = 16 * jnp.finfo(dtype).eps
    return diffrax.PIDController(
        rtol, atol, pcoeff=0.3, icoeff=0.4, norm=_largest_rms, dtmin=smallest, force_dtmin=False
    )


def _largest_rms(state) -> Array:
    """Returns the larger of the root mean squares of the state and of the integrals of the divergence."""
    return jnp.stack([jnp.sqrt(jnp.square(part).mean()) for part in state if part.size]).max()
