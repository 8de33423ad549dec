"""Learned log-variance u(t), trained jointly with the Denoiser, which balances the noise levels in the loss.

    loss = e^{-u(t)} w(t) |D - x_0|^2 + u(t)

The minimizer over u is u(t) = log E[w |D - x_0|^2 | t], for which the expectation of the first term is 1 at every t, so
all noise levels contribute equally for every w. The minimizer over D is still the posterior mean. u is used only in
training.

u is any callable (sde, t) -> u, of the shape of t, passed to `denoising_score_matching` as `log_variance`.
`LearnedLogVariance` is such a callable, a pytree with trainable weights.

Sources: Kendall et al. (2018), https://arxiv.org/abs/1705.07115, for the principle; Karras et al. (2024),
https://arxiv.org/abs/2312.02696, for diffusion (EDM2).
"""

from collections.abc import Callable

import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.scipy.special import ndtri

from sde_lib.checks import at_least
from sde_lib.sde import Process
from sde_lib.struct import Struct

LogVariance = Callable[[Process, Array], Array]

_GOLDEN_RATIO = 0.6180339887498949


@struct.dataclass
class LearnedLogVariance(Struct):
    """u(t) = sqrt(2) sum_k weights_k cos(2 pi (f_k c + phase_k)) / sqrt(K), c = log(sigma / alpha) / 4.

    The frequencies f_k are K quantiles of the standard normal distribution, the phases a low-discrepancy sequence on
    [0, 1]. EDM2 samples both randomly; here they are deterministic.

    Source: Karras et al. (2024), https://arxiv.org/abs/2312.02696, for the features and their input.

    Attributes:
        weights: the trainable weights, (K,), initialized by `init`.
    """

    weights: Array

    @classmethod
    def init(cls, channels: int = 128) -> "LearnedLogVariance":
        """Returns u = 0 with K = `channels` features, at least 1 (ValueError)."""
        at_least("LearnedLogVariance", 1, channels=channels)
        return cls(jnp.zeros(channels))

    def __call__(self, sde: Process, t: Array) -> Array:
        """Returns u at t, of the shape of t."""
        k = self.weights.shape[0]
        index = jnp.arange(k, dtype=self.weights.dtype)
        frequencies, phases = ndtri((index + 0.5) / k), (_GOLDEN_RATIO * index) % 1
        c = -0.125 * sde.log_snr(t)[..., None]
        return jnp.sqrt(2 / k) * (jnp.cos(2 * jnp.pi * (frequencies * c + phases)) @ self.weights)
