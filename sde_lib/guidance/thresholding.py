"""Thresholding: the expected data, held within the data's range.

Guidance at large scales drives D beyond the range of the data, where no network was trained. Clipping D at every step
keeps the samples inside of it, but saturates many values; dynamic thresholding scales an excess down instead.
"""

import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from sde_lib.denoiser import DerivedDenoiser, shifted
from sde_lib.sde import expand


@struct.dataclass
class Thresholding(DerivedDenoiser):
    """clip(D, -s, s) bound / s, where s is a quantile of |D| over the values of a sample, and at least `bound`.

    What is within the range stays as it is, and noise, score and velocity follow the new D (so DDIM and all other samplers
    step with the noise that x holds beside it). One evaluation.

    Source: Saharia et al. (2022), https://arxiv.org/abs/2205.11487, section 2.3, for both; quantiles of 0.95 to 0.999 are
    in use.

    Attributes:
        denoiser: the one to threshold, such as a `Guided`.
        bound: the data lie in [-bound, bound]; () or (B,).
        quantile: from 0 to 1; None for static thresholding, s = bound, which is plain clipping.
    """

    bound: ArrayLike = 1.0
    quantile: ArrayLike | None = 0.995

    def _threshold(self, x0: Array) -> Array:
        bound = expand(self.bound, x0)
        if self.quantile is None:
            return jnp.clip(x0, -bound, bound)
        size = jnp.quantile(jnp.abs(x0), self.quantile, axis=tuple(range(1, x0.ndim)), keepdims=True)
        size = jnp.maximum(size, bound)
        return jnp.clip(x0, -size, size) * (bound / size)

    def x0_and_noise(self, x: Array, t: ArrayLike) -> tuple[Array, Array]:
        """Both views; the noise is the Denoiser's own, with its digits, wherever nothing was clipped or scaled."""
        x0, noise = self.denoiser.x0_and_noise(x, t)
        within = self._threshold(x0)
        return within, shifted(self.sde, x, x0, noise, within - x0, t)[1]
