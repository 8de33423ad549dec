"""Pixelwise forward operators: the identity (denoising), masking (inpainting) and the grey value (colorization)."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from sde_lib.checks import one_of
from sde_lib.inverse.measurement import SpectralMeasurement


@struct.dataclass(kw_only=True)
class Denoising(SpectralMeasurement):
    """The identity, for denoising: y = x_0 + noise."""

    def singular_values(self) -> Array:
        """Returns ones, of the shape of the image."""
        return jnp.ones(self.event_shape)

    def to_spectrum(self, x: Array) -> Array:
        """Returns x."""
        return x

    def from_spectrum(self, z: Array) -> Array:
        """Returns z."""
        return z

    def measured_to_spectrum(self, y: Array) -> Array:
        """Returns y."""
        return y

    def measured_from_spectrum(self, z: Array) -> Array:
        """Returns z."""
        return z


@struct.dataclass(kw_only=True)
class Inpainting(SpectralMeasurement):
    """Masking, for inpainting: y has the shape of the image, and is 0 where the mask is 0.

    Constructors for images (H, W, C):

        Inpainting.box(event_shape, 128)                    a square is missing
        Inpainting.random(key, event_shape, 0.08)           a random fraction of the pixels is measured
        Inpainting.half(event_shape, "left")                one half is missing
        Inpainting.free(event_shape, mask)                  any mask

    Attributes:
        mask: 1 where measured and 0 elsewhere, of the shape of the image or (H, W, 1).
    """

    mask: Array | np.ndarray

    @classmethod
    def free(cls, event_shape: tuple[int, ...], mask: ArrayLike) -> "Inpainting":
        """Returns inpainting with any mask.

        Args:
            event_shape: (H, W, C).
            mask: 1 or True where measured, 0 or False elsewhere; (H, W), (H, W, 1) or (H, W, C).

        Raises:
            ValueError: the mask does not have the size of the image, or has values other than 0 and 1.
        """
        mask = np.asarray(mask)
        if mask.ndim == len(event_shape) - 1:
            mask = mask[..., None]
        if mask.shape not in (tuple(event_shape), (*event_shape[:-1], 1)):
            raise ValueError(f"Inpainting: a mask of {mask.shape} does not fit images of {tuple(event_shape)}")
        if not np.isin(mask, (0, 1)).all():
            raise ValueError(
                "Inpainting: a mask must have only the values 1 for measured pixels and 0 for missing pixels"
            )
        return cls(event_shape=tuple(event_shape), mask=mask.astype(np.float32))

    @classmethod
    def box(
        cls, event_shape: tuple[int, int, int], size: int | tuple[int, int], corner: tuple[int, int] | None = None
    ) -> "Inpainting":
        """Returns inpainting of a missing box.

        Args:
            event_shape: (H, W, C).
            size: side of the box, or its height and width, in pixels.
            corner: row and column of the top left pixel of the box; None centres the box.

        Raises:
            ValueError: the box is not inside the image.
        """
        sides = tuple(np.broadcast_to(size, 2).tolist())
        extent = event_shape[:2]
        start = tuple((n - side) // 2 for n, side in zip(extent, sides, strict=True)) if corner is None else corner
        if any(first < 0 or side < 1 or first + side > n for first, side, n in zip(start, sides, extent, strict=True)):
            raise ValueError(f"Inpainting.box: a box of {sides} at {start} is not inside an image of {tuple(extent)}")
        mask = np.ones(extent)
        mask[start[0] : start[0] + sides[0], start[1] : start[1] + sides[1]] = 0
        return cls.free(event_shape, mask)

    @classmethod
    def random(cls, key: Array, event_shape: tuple[int, int, int], share: float) -> "Inpainting":
        """Returns inpainting from randomly drawn pixels, with all channels of each.

        Args:
            key: PRNG key of the draw.
            event_shape: (H, W, C).
            share: fraction of measured pixels; round(share H W) pixels are drawn without replacement.

        Raises:
            ValueError: share is not in [0, 1].
        """
        if not 0 <= share <= 1:
            raise ValueError(f"Inpainting.random: share={share} of the pixels must be between 0 and 1")
        height, width, _ = event_shape
        order = np.asarray(jax.random.permutation(key, height * width))
        return cls.free(event_shape, (order < round(share * height * width)).reshape(height, width))

    @classmethod
    def half(cls, event_shape: tuple[int, int, int], missing: str) -> "Inpainting":
        """Returns inpainting of a missing half.

        Args:
            event_shape: (H, W, C).
            missing: "left", "right", "top" or "bottom". The middle row or column of an odd size is measured.

        Raises:
            ValueError: missing is none of the four.
        """
        height, width, _ = event_shape
        halves = {
            "left": np.s_[:, : width // 2],
            "right": np.s_[:, width - width // 2 :],
            "top": np.s_[: height // 2],
            "bottom": np.s_[height - height // 2 :],
        }
        one_of("Inpainting.half", halves, missing=missing)
        mask = np.ones((height, width))
        mask[halves[missing]] = 0
        return cls.free(event_shape, mask)

    def singular_values(self) -> Array:
        """Returns the mask."""
        return jnp.broadcast_to(self.mask, self.event_shape)

    def to_spectrum(self, x: Array) -> Array:
        """Returns x."""
        return x

    def from_spectrum(self, z: Array) -> Array:
        """Returns z."""
        return z

    def measured_to_spectrum(self, y: Array) -> Array:
        """Returns y where measured, 0 elsewhere."""
        return jnp.where(self.singular_values() > 0, y, 0)

    def measured_from_spectrum(self, z: Array) -> Array:
        """Returns z."""
        return z


@struct.dataclass(kw_only=True)
class Colorization(SpectralMeasurement):
    """Weighted sum of the channels, for colorization of grey images: y (B, H, W, 1) from x (B, H, W, C).

    With w = |w| v, A is |w| v^T at each pixel. V is the reflection that maps the first unit vector to v; y is
    proportional to the first channel of the spectrum.

    Attributes:
        weights: weights w of the channels, (C,). By default, the mean of three channels; (0.299, 0.587, 0.114) gives
            luma (ITU-R BT.601).
    """

    weights: ArrayLike | tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3)

    def singular_values(self) -> Array:
        """Returns |w| for the first channel, 0 for all other channels."""
        weights = jnp.asarray(self.weights)
        return jnp.zeros(self.event_shape).at[..., 0].set(jnp.linalg.norm(weights))

    def to_spectrum(self, x: Array) -> Array:
        """Returns V^T x: the reflected channels, of which the first is v^T x."""
        return self._reflect(x)

    def from_spectrum(self, z: Array) -> Array:
        """Returns V z; the reflection is its own inverse."""
        return self._reflect(z)

    def measured_to_spectrum(self, y: Array) -> Array:
        """Returns y as the first channel, and zeros as all other channels."""
        return jnp.pad(y, ((0, 0), (0, 0), (0, 0), (0, self.event_shape[-1] - 1)))

    def measured_from_spectrum(self, z: Array) -> Array:
        """Returns the first channel."""
        return z[..., :1]

    def _reflect(self, x: Array) -> Array:
        """Returns V x = +-(I - 2 u u^T / u^T u) x with u = v +- e_1; the sign of v_1 avoids cancellation in u."""
        weights = jnp.asarray(self.weights, x.dtype)
        direction = weights / jnp.linalg.norm(weights)
        sign = jnp.where(direction[0] < 0, -1, 1).astype(x.dtype)
        u = direction.at[0].add(sign)
        # A sum instead of a matrix product, which accelerators evaluate in reduced precision.
        return -sign * (x - 2 / (u**2).sum() * (x * u).sum(-1, keepdims=True) * u)
