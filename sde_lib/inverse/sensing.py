"""Compressed sensing: random subsampling of a transform that spreads each pixel over all coefficients."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.scipy.fft import dctn, idctn

from sde_lib.inverse.measurement import SpectralMeasurement


@struct.dataclass(kw_only=True)
class CompressedSensing(SpectralMeasurement):
    """Subsampled randomized cosine transform: M random DCT coefficients of the image with random pixel signs, (B, M).

    `CompressedSensing.random(key, event_shape, share)` draws the operator. The rows of A are orthonormal, so every
    singular value is 1 or 0, and no matrix is formed. The signs spread the energy of each image over all coefficients.

    Source: Do et al. (2012), "Fast and efficient compressive sensing using structurally random matrices",
    https://arxiv.org/abs/1106.5037.

    Attributes:
        signs: 1 and -1, of the shape of the image.
        indices: row-major indices of the measured coefficients, (M,).
    """

    signs: Array
    indices: Array

    @classmethod
    def random(cls, key: Array, event_shape: tuple[int, ...], share: float) -> "CompressedSensing":
        """Draws an operator with M = round(share N) coefficients, for images of N values.

        Args:
            key: PRNG key of the signs and of the coefficients, which are drawn without replacement.
            event_shape: shape of one image.
            share: fraction of measured coefficients.

        Raises:
            ValueError: M is below 1 or above N.
        """
        size = int(np.prod(event_shape))
        count = round(share * size)
        if not 1 <= count <= size:
            raise ValueError(f"CompressedSensing: share={share} must leave from 1 to all of {size} values, not {count}")
        key_signs, key_indices = jax.random.split(key)
        return cls(
            event_shape=tuple(event_shape),
            signs=jax.random.rademacher(key_signs, tuple(event_shape)),
            indices=jax.random.permutation(key_indices, size)[:count],
        )

    def singular_values(self) -> Array:
        """Returns 1 where measured, 0 elsewhere."""
        return self.measured_to_spectrum(jnp.ones((1, len(self.indices))))[0]

    def to_spectrum(self, x: Array) -> Array:
        """Returns the orthonormal DCT of signs * x over all axes of the image."""
        return dctn(self.signs * x, norm="ortho", axes=self._axes)

    def from_spectrum(self, z: Array) -> Array:
        """Inverts `to_spectrum`."""
        return self.signs * idctn(z, norm="ortho", axes=self._axes)

    def measured_to_spectrum(self, y: Array) -> Array:
        """Returns the measured coefficients at their indices, and 0 elsewhere."""
        size = int(np.prod(self.event_shape))
        return (
            jnp.zeros((len(y), size), y.dtype)
            .at[:, self.indices]
            .set(y, unique_indices=True)
            .reshape(-1, *self.event_shape)
        )

    def measured_from_spectrum(self, z: Array) -> Array:
        """Returns the measured coefficients."""
        return z.reshape(len(z), -1)[:, self.indices]

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(1, len(self.event_shape) + 1))
