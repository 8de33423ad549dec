"""Learned uncertainty: u(t), trained beside the Denoiser, evens out what the noise levels contribute to the loss.

    loss = e^{-u(t)} w(t) |D - x_0|^2 + u(t)

Over u this is least at u(t) = log E[w |D - x_0|^2 | t], the logarithm of the expected weighted error, where the first term
is 1 at every t: no noise level outweighs another, whatever w. D's own minimum is the posterior mean as before. u is only
of use in training.

A u is any callable (sde, t) -> u, of the shape of t, passed to `denoising_score_matching` as `log_variance`.
`LearnedLogVariance` is one that holds its own weights, to be trained like any others.

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

    The frequencies are the K quantiles of a standard normal and the phases even in [0, 1], where EDM2 draws both: the
    same features without a seed.

    Source: Karras et al. (2024), https://arxiv.org/abs/2312.02696, for the features and their input.

    Attributes:
        weights: (K,), what is trained; `init` makes them.
    """

    weights: Array

    @classmethod
    def init(cls, channels: int = 128) -> "LearnedLogVariance":
        """u = 0 before training, with K = `channels`, at least 1 (ValueError)."""
        at_least("LearnedLogVariance", 1, channels=channels)
        return cls(jnp.zeros(channels))

    def __call__(self, sde: Process, t: Array) -> Array:
        """u at t, of its shape."""
        k = self.weights.shape[0]
        index = jnp.arange(k, dtype=self.weights.dtype)
        frequencies, phases = ndtri((index + 0.5) / k), (_GOLDEN_RATIO * index) % 1
        c = -0.125 * sde.log_snr(t)[..., None]
        return jnp.sqrt(2 / k) * (jnp.cos(2 * jnp.pi * (frequencies * c + phases)) @ self.weights)
