"""The likelihood of data under the probability flow: log p_{t_min}(x) = log prior(z) + integral of div v, z = encode(x).

What it is the density of:

- **t_min.** x is taken as a state at t_min, so the density is that of p_{t_min}, data with noise of sigma(t_min), not of
  clean data. For data with a smooth density the two differ by O(sigma(t_min)^2) nats; for discrete data (images) p_0 has
  no density, and a bound on the probability of the levels follows without a gap from dequantization
  (`sde_lib.dequantization`: `ModelDequantizer` includes the term of t_min exactly).
- **t_max.** The flow starts from the process's prior, not from p_{t_max}. That is the model's own density; with an exact
  Denoiser it differs from the data's by log(prior / p_{t_max}) at the encoding.

The variational bound for the reverse-time SDE of the same Denoiser is in `sde_lib.variational_bound`.

Sources: Chen et al. (2018), https://arxiv.org/abs/1806.07366, for the instantaneous change of variables; Song et al.
(2021), https://arxiv.org/abs/2011.13456, eq. 39 and appendix D.2.
"""

from functools import partial

import diffrax
import jax
from flax import struct
from jax import Array

from sde_lib.denoiser import Denoiser
from sde_lib.divergence import ExactDivergence, Hutchinson
from sde_lib.ends import check_ends
from sde_lib.flow import check_solve, integrate
from sde_lib.randomness import check_keys
from sde_lib.struct import Struct


@struct.dataclass
class LogLikelihood(Struct):
    """The log-likelihood of each example.

    Attributes:
        log_prob: (B,), nats; NaN for an example that was not solved.
        standard_error: (B,), nats, of `log_prob` as an estimate: 0 with the exact divergence, NaN with a single probe.
        z: (B, *event), the encodings.
        nfe: (B,), evaluations of the Denoiser; each step's derivatives come on top, one per probe or dimension.
        status: (B,), a `Status` for each example: 0 is solved.
    """

    log_prob: Array
    standard_error: Array
    z: Array
    nfe: Array
    status: Array


def log_likelihood(
    keys: Array | None,
    denoiser: Denoiser,
    x0: Array,
    *,
    divergence: ExactDivergence | Hutchinson | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = 4096,
    adjoint: diffrax.AbstractAdjoint | None = None,
) -> LogLikelihood:
    """log p_{t_min}(x0) under the probability flow; see the module's text for t_min and t_max.

    Args:
        keys: (B,), one per example: example i depends on `keys[i]` alone. None will do for `ExactDivergence`.
        denoiser: the Denoiser whose density to measure.
        x0: (B, *event), taken as states at t_min.
        divergence: `ExactDivergence()`, or `Hutchinson(...)`; None is `Hutchinson(num_probes=4)`.
        rtol, atol: tolerances of a step, on the larger of the root mean square of the state and of the log-density's
            change per dimension.
        max_steps, adjoint: as in `encode`; for `jax.grad` pass `adjoint=diffrax.RecursiveCheckpointAdjoint()`.

    Returns:
        log-likelihoods, NaN with a `status` other than 0 for examples that were not solved. Nothing is raised for them.

    Raises:
        ValueError: the number of keys is not that of examples, or as in `encode`.
    """
    divergence = Hutchinson() if divergence is None else divergence
    x0 = check_solve(x0, rtol, atol, max_steps)
    if keys is None and divergence.needs_keys:
        raise ValueError(f"{type(divergence).__name__} is random: pass keys of shape {x0.shape[:1]}, not None")
    if keys is not None:
        check_keys(keys, len(x0))
    check_ends(denoiser.sde)
    return _log_likelihood(keys, denoiser, x0, divergence, rtol, atol, max_steps, adjoint)


@partial(jax.jit, static_argnames=("max_steps", "adjoint"))
def _log_likelihood(keys, denoiser, x0, divergence, rtol, atol, max_steps, adjoint):
    probes = jax.vmap(divergence.probes)(keys, x0) if divergence.needs_keys else None
    solution, integrals = integrate(
        denoiser,
        x0,
        denoiser.sde.t_min,
        denoiser.sde.t_max,
        rtol=rtol,
        atol=atol,
        max_steps=max_steps,
        adjoint=adjoint,
        divergence=divergence,
        probes=probes,
    )
    return LogLikelihood(
        log_prob=denoiser.sde.prior_log_prob(solution.x) + integrals.mean(1),
        standard_error=divergence.standard_error(integrals),
        z=solution.x,
        nfe=solution.nfe,
        status=solution.status,
    )
