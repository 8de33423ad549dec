"""Thresholding: restriction of the expected data to the range of the data.

Guidance at large scales drives D out of the range of the data, on which the network was trained. Static thresholding
clips D at every step, which saturates many values. Dynamic thresholding also rescales D.
"""

import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from sde_lib.denoiser import DerivedDenoiser, shifted
from sde_lib.sde import expand


@struct.dataclass
class Thresholding(DerivedDenoiser):
    """Dynamic thresholding: clip(D, -s, s) bound / s, where s is a quantile of |D| over a sample, and at least `bound`.

    A sample within [-bound, bound] is unchanged. Noise, score and velocity are recomputed from the new D, so that
    `sde.perturb(x0, noise, t)` is still x. One evaluation.

    Source: Saharia et al. (2022), https://arxiv.org/abs/2205.11487, section 2.3, for static and dynamic thresholding.
    Quantiles of 0.95 to 0.999 are common.

    Attributes:
        denoiser: the Denoiser to threshold, such as a `Guided`.
        bound: the data lie in [-bound, bound]; () or (B,).
        quantile: in [0, 1]; None selects static thresholding, s = bound, which is clipping.
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
        """Returns thresholded x0 and the noise of x; the noise is unchanged where x0 is unchanged."""
        x0, noise = self.denoiser.x0_and_noise(x, t)
        clipped = self._threshold(x0)
        return clipped, shifted(self.sde, x, x0, noise, clipped - x0, t)[1]
