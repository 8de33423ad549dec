"""Weights and inputs made of their names alone: a peer's code and ours get the same numbers on any machine.

The tests of networks whose code no package ships hold a few outputs that the peer's real code gave with these weights.
"""

import zlib
from collections.abc import Mapping

import numpy as np


def named_normal(name: str, *shape: int) -> np.ndarray:
    """Standard normal float32 numbers, the same for the same name and shape."""
    return np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape).astype(np.float32)


def named_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """A value for every parameter of the peer's network, from its name and shape.

    Kernels (two axes or more, the first the output's) are normal / sqrt(fan in), biases 0.1 normal, and all else (scales,
    gains) 1 + 0.1 normal.
    """

    def value(name, shape):
        normal = named_normal(name, *shape)
        if len(shape) > 1:
            return normal / np.float32(np.sqrt(np.prod(shape[1:])))
        return np.float32(0.1) * normal + np.float32(not name.endswith(("bias", "beta")))

    return {name: value(name, tuple(shape)) for name, shape in shapes.items()}


def spread(images: np.ndarray, count: int = 10) -> np.ndarray:
    """Numbers from places drawn over samples, channels, rows and columns of images (B, C, H, W)."""
    rng = np.random.default_rng(zlib.crc32(b"points"))
    places = [rng.integers(0, size, count) for size in images.shape]
    return images[tuple(places)]


def classifier_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """`named_weights` for a deep network of ReLUs and batch norms, whose activations then neither die out nor grow.

    Kernels are scaled by sqrt(2), stored means are 0.1 normal.
    """
    weights = named_weights(shapes)
    for name, value in weights.items():
        if value.ndim > 1:
            weights[name] = value * np.float32(2**0.5)
        elif name.endswith("running_mean"):
            weights[name] = value - 1
    return weights
