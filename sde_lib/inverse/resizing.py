"""Downsampling operators, for super-resolution."""

from collections.abc import Callable

import numpy as np
from flax import struct

from sde_lib.inverse.separable import SeparableMeasurement


@struct.dataclass(kw_only=True)
class SuperResolution(SeparableMeasurement):
    """Downsampling to y (B, H', W', C) with H' = round(H / factor), W' = round(W / factor).

        SuperResolution.average(event_shape, 4)             the mean of each block
        SuperResolution.bicubic(event_shape, 4)             bicubic with antialiasing, as in image libraries

    The factor does not have to be an integer or to divide the size. One small matrix per axis is decomposed.
    """

    @classmethod
    def average(cls, event_shape: tuple[int, int, int], factor: float, **settings) -> "SuperResolution":
        """Returns area averaging: each value is the mean over factor x factor pixels, including fractions of pixels.

        Args:
            event_shape: (H, W, C).
            factor: size of the image divided by the size of y, at least 1.
            **settings: fields of `SeparableMeasurement`, such as `rcond`.

        Raises:
            ValueError: the factor is below 1, or so large that y would have no pixels.
        """
        return cls.of(event_shape, *(_matrix(n, factor, _overlap) for n in event_shape[:2]), **settings)

    @classmethod
    def bicubic(cls, event_shape: tuple[int, int, int], factor: float, **settings) -> "SuperResolution":
        """Returns bicubic downsampling with antialiasing: the kernel is widened by the factor.

        The kernel is Keys's with a = -0.5; at the borders, the weights inside the image are normalized to sum to 1.
        Pillow's `resize(..., BICUBIC)` and `jax.image.resize(..., "cubic")` do the same; MATLAB's imresize differs at
        the borders.

        Source: Keys (1981), https://doi.org/10.1109/TASSP.1981.1163711, eq. 15.

        Args:
            event_shape: (H, W, C).
            factor: size of the image divided by the size of y, at least 1.
            **settings: fields of `SeparableMeasurement`, such as `rcond`.

        Raises:
            ValueError: the factor is below 1, or so large that y would have no pixels.
        """
        return cls.of(event_shape, *(_matrix(n, factor, _keys) for n in event_shape[:2]), **settings)


def _matrix(n: int, factor: float, weight: Callable[[np.ndarray, float], np.ndarray]) -> np.ndarray:
    """Returns the matrix (m, n) of one axis; each row holds the weights of the input pixels, which sum to 1."""
    m = round(n / factor) if factor >= 1 else 0
    if m < 1:
        raise ValueError(f"SuperResolution: factor={factor} must be between 1 and the image's size, which is {n}")
    scale = n / m
    centres = (np.arange(m) + 0.5) * scale
    weights = weight(centres[:, None] - (np.arange(n) + 0.5), scale)
    return weights / weights.sum(1, keepdims=True)


def _overlap(distance: np.ndarray, scale: float) -> np.ndarray:
    """Returns the length of the overlap of a pixel of side 1 and a pixel of side `scale`."""
    return np.clip(0.5 * (scale + 1) - np.abs(distance), 0, 1)


def _keys(distance: np.ndarray, scale: float) -> np.ndarray:
    """Returns Keys's cubic kernel, widened by `scale`."""
    x = np.abs(distance) / scale
    near, far = (1.5 * x - 2.5) * x**2 + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))
