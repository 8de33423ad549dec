"""Measurements of single pixels: the noisy image itself, the image with pixels missing, the image without its colours."""

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
    """The image itself: y = x_0 + noise."""

    def singular_values(self) -> Array:
        """1."""
        return jnp.ones(self.event_shape)

    def to_spectrum(self, x: Array) -> Array:
        """x."""
        return x

    def from_spectrum(self, z: Array) -> Array:
        """z."""
        return z

    def measured_to_spectrum(self, y: Array) -> Array:
        """y."""
        return y

    def measured_from_spectrum(self, z: Array) -> Array:
        """z."""
        return z


@struct.dataclass(kw_only=True)
class Inpainting(SpectralMeasurement):
    """The pixels where the mask is 1; y has the image's shape, and is 0 at the others.

    Masks of the usual kinds, for images (H, W, C):

        Inpainting.box(event_shape, 128)                    a square is missing
        Inpainting.random(key, event_shape, 0.08)           only a share of the pixels is measured
        Inpainting.half(event_shape, "left")                a half is missing
        Inpainting.free(event_shape, mask)                  any other

    Attributes:
        mask: 1 where measured and 0 elsewhere, of the event's shape or (H, W, 1).
    """

    mask: Array | np.ndarray

    @classmethod
    def free(cls, event_shape: tuple[int, ...], mask: ArrayLike) -> "Inpainting":
        """Measures where the mask is 1 (or True): it is (H, W), (H, W, 1) or (H, W, C).

        Raises:
            ValueError: the mask has another size than the image, or values other than 0 and 1.
        """
        mask = np.asarray(mask)
        if mask.ndim == len(event_shape) - 1:
            mask = mask[..., None]
        if mask.shape not in (tuple(event_shape), (*event_shape[:-1], 1)):
            raise ValueError(f"Inpainting: a mask of {mask.shape} does not fit images of {tuple(event_shape)}")
        if not np.isin(mask, (0, 1)).all():
            raise ValueError(
                "Inpainting: a mask must hold 1 for measured pixels and 0 for missing ones, and nothing else"
            )
        return cls(event_shape=tuple(event_shape), mask=mask.astype(np.float32))

    @classmethod
    def box(
        cls, event_shape: tuple[int, int, int], size: int | tuple[int, int], corner: tuple[int, int] | None = None
    ) -> "Inpainting":
        """A box is missing.

        Args:
            event_shape: (H, W, C).
            size: the box's side, or its height and width, in pixels.
            corner: the row and column of its first pixel; None for a box in the middle.

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
        """round(share H W) pixels drawn without replacement are measured, all channels of each.

        Raises:
            ValueError: the share is not between 0 and 1.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"Inpainting.random: share={share} of the pixels must be between 0 and 1")
        height, width, _ = event_shape
        order = np.asarray(jax.random.permutation(key, height * width))
        return cls.free(event_shape, (order < round(share * height * width)).reshape(height, width))

    @classmethod
    def half(cls, event_shape: tuple[int, int, int], missing: str) -> "Inpainting":
        """The left, right, top or bottom half is missing; of an odd number of rows or columns the middle one is measured.

        Raises:
            ValueError: there is no such half.
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
        """The mask."""
        return jnp.broadcast_to(self.mask, self.event_shape)

    def to_spectrum(self, x: Array) -> Array:
        """x."""
        return x

    def from_spectrum(self, z: Array) -> Array:
        """z."""
        return z

    def measured_to_spectrum(self, y: Array) -> Array:
        """y where measured, 0 elsewhere."""
        return jnp.where(self.singular_values() > 0, y, 0)

    def measured_from_spectrum(self, z: Array) -> Array:
        """z."""
        return z


@struct.dataclass(kw_only=True)
class Colorization(SpectralMeasurement):
    """The grey image, a weighted sum of the channels: y (B, H, W, 1) of x (B, H, W, C).

    With w = |w| v, A is |w| v^T at each pixel. V is the reflection that takes the first channel to v; y is the spectrum's
    first channel.

    Attributes:
        weights: of the channels, (C,). The mean of three by default; (0.299, 0.587, 0.114) gives luma (ITU-R BT.601).
    """

    weights: ArrayLike | tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3)

    def singular_values(self) -> Array:
        """|w| for the first channel, 0 for the others."""
        weights = jnp.asarray(self.weights)
        return jnp.zeros(self.event_shape).at[..., 0].set(jnp.linalg.norm(weights))

    def to_spectrum(self, x: Array) -> Array:
        """The channels reflected: the first is v^T x."""
        return self._reflect(x)

    def from_spectrum(self, z: Array) -> Array:
        """The same: the reflection is its own inverse."""
        return self._reflect(z)

    def measured_to_spectrum(self, y: Array) -> Array:
        """y with channels of zeros."""
        return jnp.pad(y, ((0, 0), (0, 0), (0, 0), (0, self.event_shape[-1] - 1)))

    def measured_from_spectrum(self, z: Array) -> Array:
        """The first channel."""
        return z[..., :1]

    def _reflect(self, x: Array) -> Array:
        """V x = +-(I - 2 u u^T / u^T u) x with u = v +- e_1, the sign being that of v_1, so that nothing cancels in u."""
        weights = jnp.asarray(self.weights, x.dtype)
        direction = weights / jnp.linalg.norm(weights)
        sign = jnp.where(direction[0] < 0, -1, 1).astype(x.dtype)
        u = direction.at[0].add(sign)
        # A sum rather than a product of matrices, which accelerators would round to fewer digits.
        return -sign * (x - 2 / (u**2).sum() * (x * u).sum(-1, keepdims=True) * u)
