"""Likelihood of data under the probability flow: log p_{t_min}(x) = log prior(z) + integral of div v, z = encode(x).

The density at the two ends of the flow:

- **t_min.** x is taken as a state at t_min, so the result is the density of p_{t_min}, of data with noise sigma(t_min),
  and not of clean data. For data with a smooth density the two differ by O(sigma(t_min)^2) nats. Discrete data (images)
  have no density p_0; `sde_lib.dequantization` gives bounds on the probability of the levels, and its
  `ModelDequantizer` accounts for the noise at t_min exactly.
- **t_max.** The flow starts from the prior of the process, not from p_{t_max}, so the result is the density of the
  model. With an exact Denoiser it differs from the density of the data by log(prior / p_{t_max}) at the encoding.

`sde_lib.variational_bound` has the variational bound for the reverse-time SDE.

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
    """Log-likelihoods of a batch of examples.

    Attributes:
        log_prob: the log-likelihoods, (B,), nats; NaN for examples that were not solved.
        standard_error: standard error of `log_prob`, (B,), nats: 0 with the exact divergence, NaN with a single probe.
        z: the encodings, (B, *event).
        nfe: evaluations of the Denoiser, (B,). Each also costs one derivative per probe or dimension, not counted here.
        status: a `Status` per example, (B,): 0 if solved.
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
    """Returns log p_{t_min}(x0) under the probability flow; see the module docstring for t_min and t_max.

    Args:
        keys: one per example, (B,): the result for example i depends only on `keys[i]`. None is valid with
            `ExactDivergence`.
        denoiser: the Denoiser that defines the density.
        x0: (B, *event), taken as states at t_min.
        divergence: `ExactDivergence()` or `Hutchinson(...)`; None selects `Hutchinson(num_probes=4)`.
        rtol, atol: relative and absolute tolerance of a step, on the larger of the root mean squares of the state and
            of the change in log-density per dimension.
        max_steps, adjoint: as in `encode`; for `jax.grad` pass `adjoint=diffrax.RecursiveCheckpointAdjoint()`.

    Returns:
        The log-likelihoods. Examples that were not solved are NaN, with a nonzero `status`; no error is raised for
        them.

    Raises:
        ValueError: the number of keys differs from the number of examples, keys are missing for a random estimator, or
            as in `encode`.
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
