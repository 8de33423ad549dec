"""What the user has drawn over an image: strokes of paint, and the mask of what may change."""

import numpy as np
from PIL import Image

from experiments.data.sources.decoding import IMAGE_SUFFIXES, center_crop, converted, opened
from experiments.data.sources.paths import existing
from experiments.errors import UserError
from experiments.tasks import images


def read_strokes(flag: str, text: str, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The grey levels (H, W, C) from 0 to 255 and the opacity (H, W, 1) from 0 to 1 of strokes on a transparent picture.

    A picture of another size is made to fit as the input is, so that strokes on a large photograph fall where they were
    painted.

    Raises:
        UserError: it cannot be read, or has no pixel that is transparent, or none that is not.
    """
    path = existing(text, flag)
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise UserError(f"{flag}: {path}: unknown file type: strokes are a PNG with transparency")
    with opened(path.read_bytes(), path, flag) as picture:
        if not picture.has_transparency_data:
            raise UserError(
                f"{flag}: {path} has no transparency (mode {picture.mode}): all of the input would be covered"
            )
        layers = picture.convert("RGBA")
    colours = np.asarray(converted(layers.convert("RGB"), shape[2], path, flag), np.float32)
    alpha = np.asarray(layers.getchannel("A"), np.float32)[..., None] / 255
    # Colours count as much as they cover, so that those of transparent pixels do not leak into edges.
    opacity = np.clip(_fitted(alpha, shape), 0, 1)
    if not opacity.any():
        raise UserError(f"{flag}: {path} is transparent everywhere: nothing is painted")
    covering = _fitted(alpha * colours.reshape(*alpha.shape[:2], shape[2]), shape)
    return np.clip(covering / np.maximum(opacity, 1e-6), 0, 255), opacity


def painted(images: np.ndarray, levels: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Images (N, H, W, C) with paint of the same scale (H, W, C) over each, as opaque as it is."""
    return (opacity * levels + (1 - opacity) * images).astype(np.float32)


def read_mask(flag: str, text: str, shape: tuple[int, int, int]) -> np.ndarray:
    """What may change, booleans (H, W, 1): where the picture is white; of another size it is made to fit as the input is.

    Raises:
        UserError: it cannot be read, or is all white or all black.
    """
    mask = _fitted(images.read_grey(flag, text)[..., None], shape) > 0.5
    if mask.all() or not mask.any():
        what = "white, so that all may change: leave it out" if mask.all() else "black, so that nothing may change"
        raise UserError(f"{flag}: {text} is all {what}")
    return mask


def _fitted(channels: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Channels float32 (h, w, C) cropped and resized to (H, W, C), as the input is."""
    return np.stack([center_crop(Image.fromarray(channel), shape[0]) for channel in np.moveaxis(channels, -1, 0)], -1)
