"""What the user has drawn over an image: strokes of paint, and the mask of what may change."""

import numpy as np

from experiments.data.inputs import images
from experiments.data.sources.cropping import center_crop
from experiments.data.sources.decoding import IMAGE_SUFFIXES
from experiments.data.sources.paths import existing
from experiments.data.sources.rendering import Rendering, opened
from experiments.errors import UserError


def read_strokes(
    flag: str, text: str, shape: tuple[int, int, int], rendering: Rendering = images.RENDERING
) -> tuple[np.ndarray, np.ndarray]:
    """The grey levels (H, W, C) from 0 to 255 and the opacity (H, W, 1) from 0 to 1 of strokes on a transparent picture.

    A picture of another size is made to fit as the input is, so that strokes on a large photograph fall where they were
    painted. Strokes are composited over the input, not over the background of `rendering`.

    Raises:
        UserError: it cannot be read, or has no pixel that is transparent, or none that is not.
    """
    path = existing(text, flag)
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise UserError(f"{flag}: {path}: unknown file type: strokes are a PNG with transparency")
    content = images.content(flag, path)
    with opened(content, path, flag) as picture:
        mode, layer = picture.mode, rendering.layer(picture, content, shape[2], path, flag)
    if layer is None:
        raise UserError(f"{flag}: {path} has no transparency (mode {mode}): all of the input would be covered")
    levels, alpha = layer
    # Colours count as much as they cover, so that those of transparent pixels do not leak into edges.
    opacity = np.clip(center_crop(alpha, shape[:2]), 0, 1)
    if not opacity.any():
        raise UserError(f"{flag}: {path} is transparent everywhere: nothing is painted")
    covering = center_crop(alpha * levels, shape[:2])
    return np.clip(covering / np.maximum(opacity, 1e-6), 0, 255), opacity


def painted(images: np.ndarray, levels: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Images (N, H, W, C) with paint of the same scale (H, W, C) over each, as opaque as it is."""
    return (opacity * levels + (1 - opacity) * images).astype(np.float32)


def read_mask(flag: str, text: str, shape: tuple[int, int, int], rendering: Rendering = images.RENDERING) -> np.ndarray:
    """What may change, booleans (H, W, 1): where the picture is white; of another size it is made to fit as the input is.

    Raises:
        UserError: it cannot be read, or is all white or all black.
    """
    levels = center_crop(images.read_grey(flag, text, rendering=rendering)[..., None], shape[:2])
    white, black = ", so that all may change: leave it out", ", so that nothing may change"
    return images.checked_mask(flag, text, levels, white=white, black=black)
