"""Implicit and sliced score matching: scores learned from samples of p_t, for processes with unknown kernel.

Denoising score matching requires the kernel p(x_t | x_0). If only samples of p_t are available (a nonlinear drift, a
simulator, noisy data), integration by parts eliminates the unknown score from |s - grad log p_t|^2 / 2:

    E |s - grad log p|^2 / 2 = E[ |s|^2 / 2 + tr(grad s) ] + E |grad log p|^2 / 2

`implicit_score_matching` evaluates the bracket with the exact trace, by one directional derivative per dimension. For
high dimensions `sliced_score_matching` estimates the trace with random probes v, E[v v^T] = I, by one derivative per
probe:

    SSM      v^T (grad s) v + (v^T s)^2 / 2
    SSM-VR   v^T (grad s) v + |s|^2 / 2           equal expectation, lower variance

All losses are sums over dimensions, in nats. The minimizer is the score, and the minimum is -E |grad log p|^2 / 2.

The score is a function (x, t) -> s, for example that of a Denoiser: `implicit_score_matching(denoiser.score, x_t, t)`.
s[i] must depend only on x[i], as for a network. A time weighting multiplies the result.

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
    """Returns random signs of the shape and dtype of x (B, *event), from keys (B,): the probes of least variance."""
    return jax.vmap(lambda key: jax.random.rademacher(key, x.shape[1:], x.dtype))(keys)


def _event_sum(x: Array) -> Array:
    return x.sum(tuple(range(1, x.ndim)))


def implicit_score_matching(score: Score, x: Array, t: ArrayLike) -> Array:
    """Returns |s|^2 / 2 + tr(grad s) for each sample, (B,), with the exact trace.

    Memory and time scale with the number of dimensions.

    Args:
        score: (x, t) -> s, of the shape of x.
        x: samples of p_t, (B, *event).
        t: times of the samples, () or (B,).
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
    """Returns an unbiased estimate of `implicit_score_matching` for each sample, (B,), from random probes.

    Args:
        keys: one per sample, (B,); the result for sample i depends only on `keys[i]`.
        score: (x, t) -> s, of the shape of x.
        x: samples of p_t, (B, *event).
        t: times of the samples, () or (B,).
        probes: number of probes per sample, at least 1, over which the estimate is averaged.
        probe: distribution of the probes, (keys, x) -> v of the shape of x, with mean 0 and covariance I: `rademacher`,
            or `sde_lib.randomness.standard_normal`.
        variance_reduced: True uses the exact |s|^2 (SSM-VR), False its estimate (v^T s)^2 (SSM).

    Raises:
        ValueError: `probes` is less than 1.
    """
    at_least("sliced_score_matching", 1, probes=probes)
    s, derivative = jax.linearize(lambda x: score(x, t), x)

    def along(i):
        v = probe(fold_in(keys, i), x)
        trace = _event_sum(v * derivative(v))
        square = s**2 if variance_reduced else _event_sum(v * s) ** 2
        return trace + 0.5 * (_event_sum(square) if variance_reduced else square)

    return jax.vmap(along)(jnp.arange(probes)).mean(0)
