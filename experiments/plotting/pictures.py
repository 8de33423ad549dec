"""Grids of images as PNG files."""

import io
import math
from pathlib import Path

import numpy as np
from einops import rearrange
from PIL import Image

from experiments.files import replace_bytes

WITH_ALPHA = 4  # channels of RGBA images: three colours multiplied by alpha, and alpha
MIN_TILE = 48  # smallest displayed side of an image, in pixels


def visible(images: np.ndarray) -> np.ndarray:
    """Converts images (..., H, W, C) with any number of channels to pictures with 1 or 3 channels, of the same dtype.

    Of more than three channels, the first three become red, green and blue. Two channels become two grey pictures side
    by side, (..., H, 2 W, 1).
    """
    if images.shape[-1] == 2:
        return np.concatenate([images[..., :1], images[..., 1:]], -2)
    return images[..., :3]


def over(images: np.ndarray, background: tuple[int, int, int]) -> np.ndarray:
    """Composites images uint8 (..., 4), with colours multiplied by alpha, over an opaque colour: uint8 (..., 3)."""
    composite = images[..., :3] + (1 - images[..., 3:] / 255) * np.array(background)
    return np.rint(np.minimum(composite, 255)).astype(np.uint8)


def straight(images: np.ndarray) -> np.ndarray:
    """Converts images uint8 (..., 4) from colours multiplied by alpha to straight colours, as PNG files store them.

    Multiplying the result by alpha restores the levels exactly if colours are at most alpha. Transparent pixels are
    black.
    """
    colours, alpha = images[..., :3].astype(np.float64), images[..., 3:]
    divided = np.rint(np.minimum(255 * colours / np.maximum(alpha, 1), 255))
    return np.concatenate([np.where(alpha > 0, divided, 0).astype(np.uint8), alpha], -1)


def png(picture: np.ndarray) -> Image.Image:
    """Converts a picture uint8 (h, w, C) to a PIL image; see `visible` for C other than 1, 3 and 4."""
    if picture.shape[-1] == WITH_ALPHA:
        return Image.fromarray(straight(picture))
    picture = visible(picture)
    return Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)


def grid(images: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Lays out images uint8 (N, H, W, C) row by row with a gap of one pixel, as uint8 (height, width, 1 or 3).

    Args:
        images: the images, converted by `visible`.
        columns: number of columns; by default about the number of rows.
    """
    images = visible(images)
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    blank = np.full((rows * columns - len(images), *images.shape[1:]), 255, np.uint8)
    framed = np.pad(np.concatenate([images, blank]), ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=255)
    return rearrange(framed, "(r c) h w k -> (r h) (c w) k", r=rows)[:-1, :-1]


def save(path: Path, picture: np.ndarray, tile: int) -> None:
    """Writes a picture uint8 (height, width, C) as PNG, enlarged by an integer factor if its tiles are small.

    Args:
        path: the file.
        picture: result of `grid`, with 1 or 3 channels.
        tile: smaller side of one image in the picture, in pixels; enlarged to at least `MIN_TILE`.

    Raises:
        OSError: the file cannot be written; the old content is unchanged.
    """
    factor = max(1, math.ceil(MIN_TILE / tile))
    picture = np.repeat(np.repeat(picture, factor, 0), factor, 1)
    buffer = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(buffer, format="png")
    replace_bytes(path, buffer.getvalue())
