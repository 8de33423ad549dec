"""The probability flow as a map between data and noise: `encode`, `decode` and `interpolate`.

The flow dx/dt = velocity(x, t) carries p_t from t_min to t_max and back. Followed forward it gives each example its
encoding, distributed as the prior; followed backward it is a deterministic sampler. Nothing but `Denoiser.velocity` is
asked for, so that it works for every process and every guided Denoiser.

It is solved adaptively (Tsit5, fifth order), one solve per example with its own steps: no example depends on its batch
mates, and one that cannot be solved is reported and costs the others nothing but time. The solver's time is sqrt(t), in
which the noise of variance-preserving processes is close to linear near t = 0, where the flow is stiff. Over Gaussian
and mixture data under VP and VE that takes fewer evaluations, both ways together, than t, log t or the log-SNR.

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

EVALUATIONS_PER_STEP = 6  # Tsit5's stages; the last of a step is the first of the next


class Status(enum.IntEnum):
    """How the solve of one example ended."""

    SOLVED = 0
    MAX_STEPS = 1  # max_steps did not suffice
    NO_STEP = 2  # no step, however small, met the tolerance: the velocity is not finite, or too steep for the dtype


@struct.dataclass
class FlowSolution(Struct):
    """Where the flow has carried each example, and at what cost.

    Attributes:
        x: (B, *event); NaN for an example that was not solved.
        nfe: (B,), evaluations of the Denoiser for each example (the batch waits for the largest).
        status: (B,), a `Status` for each example: 0 is solved.
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
    """Carries data at t_min to noise at t_max along the probability flow.

    Args:
        denoiser: the Denoiser whose flow to follow.
        x0: (B, *event), taken as states at t_min.
        rtol, atol: relative and absolute tolerance of a step, on the root mean square over the event.
        max_steps: steps allowed for each example, rejected ones included.
        adjoint: None solves forward with the least memory and has forward-mode derivatives (`jax.jvp`, `jax.jacfwd`) but
            no reverse-mode ones. For `jax.grad` pass `diffrax.RecursiveCheckpointAdjoint()`; each example then meets
            the Denoiser alone, in a batch of one, so that conditions that differ within a batch need a `jax.vmap` around.

    Returns:
        the encodings, NaN with a `status` other than 0 for examples that were not solved. Nothing is raised for them.

    Raises:
        ValueError: x0 has no event axis, a tolerance or `max_steps` is not positive, or an end of the process has no usable
            sigma / alpha (`sde_lib.ends`).
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
    """Carries noise z (B, *event) at t_max to data at t_min: the inverse of `encode`, with its arguments and errors."""
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
    """Images between a and b: decodings of points on the great circle between their encodings.

    Spherical interpolation keeps the norm that noise in many dimensions has; the straight line would pass through norms
    that no encoding has. The norm itself is interpolated on the way from one encoding's to the other's.

    Source: Shoemake (1985), https://doi.org/10.1145/325165.325242; Song et al. (2021), https://arxiv.org/abs/2010.02502,
    section 5.3, for encodings of diffusion models.

    Args:
        denoiser: the Denoiser whose flow to follow.
        a, b: (B, *event), data at t_min.
        weights: (W,); 0 gives a, 1 gives b.
        rtol, atol, max_steps: as in `encode`.

    Returns:
        x (W, B, *event), nfe (W, B) with the encodings counted at each weight, and status (W, B), the worst of all solves.

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
    # One decoding per weight: the Denoiser may hold a condition per example, and one program serves them all.
    mixed = [jax.vmap(spherical, (0, 0, None))(start.x, end.x, weight) for weight in weights]
    decoded = [decode(denoiser, z, **solve) for z in mixed]
    return FlowSolution(
        x=jnp.stack([each.x for each in decoded]),
        nfe=jnp.stack([each.nfe for each in decoded]) + start.nfe + end.nfe,
        status=jnp.maximum(jnp.stack([each.status for each in decoded]), jnp.maximum(start.status, end.status)),
    )


def spherical(a: Array, b: Array, weight: Array) -> Array:
    """The point at `weight` () of the way from a to b (*event) along their great circle, its norm in between theirs.

    Not defined (NaN or arbitrary) where a and b are exactly opposite.
    """
    norm_a, norm_b = jnp.linalg.norm(a.ravel()), jnp.linalg.norm(b.ravel())
    a, b = a / norm_a, b / norm_b
    # Twice the half angle: unlike the arc cosine it keeps its digits for neighbours.
    angle = 2 * jnp.arctan2(jnp.linalg.norm((a - b).ravel()), jnp.linalg.norm((a + b).ravel()))
    safe = jnp.where(angle > 0, angle, 1.0)
    share_a = jnp.where(angle > 0, jnp.sin((1 - weight) * safe) / jnp.sin(safe), 1 - weight)
    share_b = jnp.where(angle > 0, jnp.sin(weight * safe) / jnp.sin(safe), weight)
    return ((1 - weight) * norm_a + weight * norm_b) * (share_a * a + share_b * b)


def check_batch(x: Array) -> Array:
    """x as an array; ValueError if it is no batch of examples."""
    x = jnp.asarray(x)
    if x.ndim < 2:
        raise ValueError(f"a batch of examples has shape (B, *event) with at least 2 axes, not {x.shape}")
    return x


def check_solve(x: Array, rtol: float, atol: float, max_steps: int) -> Array:
    """x as an array; ValueError for what no solve can take."""
    x = check_batch(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"examples must be real numbers, not {x.dtype}: images are dequantized and scaled first")
    positive("the solve", rtol=rtol, atol=atol, max_steps=max_steps)
    return x


@partial(jax.jit, static_argnames=("max_steps", "adjoint"))
def _follow(denoiser, x, start, end, rtol, atol, max_steps, adjoint):
    return integrate(denoiser, x, start, end, rtol=rtol, atol=atol, max_steps=max_steps, adjoint=adjoint)[0]


def integrate(denoiser, x, start, end, *, rtol, atol, max_steps, adjoint, divergence=None, probes=None):
    """The flow of x (B, *event) from time `start` to time `end`, and the integral of its divergence on the way.

    Args:
        denoiser, x, rtol, atol, max_steps, adjoint: as in `encode`.
        start, end: times, ().
        divergence, probes: an estimator of `sde_lib.divergence` and its probes (B, ...), or None.

    Returns:
        the solution, and one integral of the divergence per estimate, (B, k) in nats (k = 0 without `divergence`).
    """
    start, end = (jnp.sqrt(jnp.asarray(time, x.dtype)) for time in (start, end))
    velocity_of_one = _gathered_velocity if adjoint is None else _lone_velocity
    size = x[0].size

    def solve(x, probes):
        def slope(root, state, _):
            t = jnp.clip(root**2, denoiser.sde.t_min, denoiser.sde.t_max).astype(x.dtype)
            velocity = partial(velocity_of_one, denoiser, t)
            if divergence is None:
                return 2 * root * velocity(state[0]), state[1]
            value, derivative = jax.linearize(velocity, state[0])
            # Per dimension, so that the tolerance means the same for a pixel's log-density as for its value.
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
        ended, integral = (values[0] for values in cast(tuple, solution.ys))
        solved = (
            (solution.result == diffrax.RESULTS.successful) & jnp.isfinite(ended).all() & jnp.isfinite(integral).all()
        )
        exhausted = solution.result == diffrax.RESULTS.max_steps_reached
        status = jnp.where(solved, Status.SOLVED, jnp.where(exhausted, Status.MAX_STEPS, Status.NO_STEP))
        nfe = 1 + EVALUATIONS_PER_STEP * solution.stats["num_steps"]
        ended, integral = (jnp.where(solved, value, jnp.nan) for value in (ended, size * integral))
        return FlowSolution(ended, nfe.astype(jnp.int32), status.astype(jnp.int32)), integral

    return jax.vmap(solve, axis_name="example")(x, probes)


def _gathered_velocity(denoiser, t, x):
    """The velocity of one example of the batch, from one call of the Denoiser on all of it.

    So a Denoiser that holds a condition per example meets the batch that it was made for, and a network runs once.
    """
    batch, times = jax.lax.all_gather((x, t), "example")
    return denoiser.velocity(batch, times)[jax.lax.axis_index("example")]


def _lone_velocity(denoiser, t, x):
    """The velocity of one example from a batch of one: what reverse-mode derivatives of the solve can pass through."""
    return denoiser.velocity(x[None], t)[0]


def _controller(rtol, atol, dtype):
    """Proportional-integral control: hardly more steps than the integral kind, and less error for want of wild growth.

    The smallest step is what `dtype` resolves of an interval of about 1.
    """
    smallest: Any = 16 * jnp.finfo(dtype).eps
    return diffrax.PIDController(
        rtol, atol, pcoeff=0.3, icoeff=0.4, norm=_largest_rms, dtmin=smallest, force_dtmin=False
    )


def _largest_rms(state) -> Array:
    """The larger root mean square of the state and of the divergence's integrals."""
    return jnp.stack([jnp.sqrt(jnp.square(part).mean()) for part in state if part.size]).max()
