"""Smaller images: super-resolution wants the large one back."""

from collections.abc import Callable

import numpy as np
from flax import struct

from sde_lib.inverse.separable import SeparableMeasurement


@struct.dataclass(kw_only=True)
class SuperResolution(SeparableMeasurement):
    """The image at a lower resolution: y (B, H', W', C) with H' = round(H / factor), W' = round(W / factor).

        SuperResolution.average(event_shape, 4)             the mean of each block
        SuperResolution.bicubic(event_shape, 4)             the resizing of image libraries

    The factor need not be whole, nor divide the size. The singular value decomposition is that of one matrix for each axis.
    """

    @classmethod
    def average(cls, event_shape: tuple[int, int, int], factor: float, **settings) -> "SuperResolution":
        """Each value is the mean over the area that it covers: over factor x factor pixels, or parts of them.

        Raises:
            ValueError: the factor is below 1, or nothing would be left of the image.
        """
        return cls.of(event_shape, *(_matrix(n, factor, _overlap) for n in event_shape[:2]), **settings)

    @classmethod
    def bicubic(cls, event_shape: tuple[int, int, int], factor: float, **settings) -> "SuperResolution":
        """Cubic interpolation with antialiasing: the kernel is as many times wider as the image becomes smaller.

        It is Keys's kernel with a = -0.5; at the borders the weights inside the image are scaled to sum to 1. So do
        Pillow's `resize(..., BICUBIC)` and `jax.image.resize(..., "cubic")`; MATLAB's imresize differs at the borders.

        Source: Keys (1981), https://doi.org/10.1109/TASSP.1981.1163711, eq. 15.

        Raises:
            ValueError: the factor is below 1, or nothing would be left of the image.
        """
        return cls.of(event_shape, *(_matrix(n, factor, _keys) for n in event_shape[:2]), **settings)


def _matrix(n: int, factor: float, weight: Callable[[np.ndarray, float], np.ndarray]) -> np.ndarray:
    """(m, n): rows of weights that sum to 1, of input pixels at a distance from the output pixel's centre."""
    m = round(n / factor) if factor >= 1 else 0
    if m < 1:
        raise ValueError(f"SuperResolution: factor={factor} must be between 1 and the image's size, which is {n}")
    scale = n / m
    centres = (np.arange(m) + 0.5) * scale
    weights = weight(centres[:, None] - (np.arange(n) + 0.5), scale)
    return weights / weights.sum(1, keepdims=True)


def _overlap(distance: np.ndarray, scale: float) -> np.ndarray:
    """The length that a pixel of side 1 and one of side `scale` have in common."""
    return np.clip(0.5 * (scale + 1) - np.abs(distance), 0, 1)


def _keys(distance: np.ndarray, scale: float) -> np.ndarray:
    """Keys's cubic kernel, `scale` times as wide."""
    x = np.abs(distance) / scale
    near, far = (1.5 * x - 2.5) * x**2 + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))
