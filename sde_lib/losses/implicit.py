"""Implicit and sliced score matching: scores learned from samples alone, for processes whose kernel is unknown.

Denoising score matching needs p(x_t | x_0). Where only samples of p_t can be had (a nonlinear drift, a simulator, data whose
noise is already in them), integration by parts rids |s - grad log p_t|^2 / 2 of the unknown score:

    E |s - grad log p|^2 / 2 = E[ |s|^2 / 2 + tr(grad s) ] + E |grad log p|^2 / 2

The bracket is `implicit_score_matching`, its trace exact: one directional derivative per dimension. For large dimensions
`sliced_score_matching` takes the trace along random probes v with E[v v^T] = I, at one directional derivative a probe:

    SSM      v^T (grad s) v + (v^T s)^2 / 2
    SSM-VR   v^T (grad s) v + |s|^2 / 2           the same expectation, less variance

All are sums over dimensions, in nats; their minimum is the score, where they equal -E |grad log p|^2 / 2.

The score is a function (x, t) -> s, such as a Denoiser's: `implicit_score_matching(denoiser.score, x_t, t)`. s of example i
must depend on example i of x alone, as a network's does. A weight of t multiplies the result.

Sources: Hyvarinen (2005), https://jmlr.org/papers/v6/hyvarinen05a.html, theorem 1; Song et al. (2019),
https://arxiv.org/abs/1905.07088, section 3.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from sde_lib.checks import at_least
from sde_lib.randomness import fold_in

Score = Callable[[Array, ArrayLike], Array]
Probe = Callable[[Array, Array], Array]


def rademacher(keys: Array, x: Array) -> Array:
    """Independent random signs of the shape and dtype of x (B, *event): the probe of least variance."""
    return jax.vmap(lambda key: jax.random.rademacher(key, x.shape[1:], x.dtype))(keys)


def _event_sum(x: Array) -> Array:
    return x.sum(tuple(range(1, x.ndim)))


def implicit_score_matching(score: Score, x: Array, t: ArrayLike) -> Array:
    """|s|^2 / 2 + tr(grad s) at each sample, (B,), with the exact trace.

    The memory of one evaluation times the number of dimensions.

    Args:
        score: (x, t) -> s, of the shape of x.
        x: samples of p_t, (B, *event).
        t: their times, () or (B,).
    """
    s, derivative = jax.linearize(lambda x: score(x, t), x)
    dimensions = x[0].size
    basis = jnp.eye(dimensions, dtype=x.dtype).reshape(dimensions, 1, *x.shape[1:])
    along = jax.vmap(lambda e: _event_sum(e * derivative(jnp.broadcast_to(e, x.shape))))(basis)
    return 0.5 * _event_sum(s**2) + along.sum(0)


def sliced_score_matching(
    keys: Array,
    score: Score,
    x: Array,
    t: ArrayLike,
    *,
    probes: int = 1,
    probe: Probe = rademacher,
    variance_reduced: bool = True,
) -> Array:
    """An unbiased estimate of `implicit_score_matching` at each sample, (B,), along random probes.

    Args:
        keys: (B,), one per sample; estimate i depends on `keys[i]` alone.
        score: (x, t) -> s, of the shape of x.
        x: samples of p_t, (B, *event).
        t: their times, () or (B,).
        probes: random directions for each sample, over which the estimate is averaged.
        probe: (keys, x) -> v of the shape of x, with mean 0 and covariance I: `rademacher`, or `standard_normal` of
            `sde_lib.randomness`.
        variance_reduced: |s|^2 itself (SSM-VR), not its estimate (v^T s)^2 (SSM).

    Raises:
        ValueError: fewer than one probe.
    """
    at_least("sliced_score_matching", 1, probes=probes)
    s, derivative = jax.linearize(lambda x: score(x, t), x)

    def along(i):
        v = probe(fold_in(keys, i), x)
        trace = _event_sum(v * derivative(v))
        square = s**2 if variance_reduced else _event_sum(v * s) ** 2
        return trace + 0.5 * (_event_sum(square) if variance_reduced else square)

    return jax.vmap(along)(jnp.arange(probes)).mean(0)
