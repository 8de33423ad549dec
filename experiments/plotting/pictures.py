"""Grids of images as PNG files."""

import io
import math
from pathlib import Path

import numpy as np
from einops import rearrange
from PIL import Image

from experiments.files import replace_bytes

MIN_TILE = 48  # pixels on the page of the smaller side of one image


def visible(images: np.ndarray) -> np.ndarray:
    """Images (..., H, W, C) of any number of channels as pictures of 1 or 3, of the same dtype.

    Of more than three channels the first three are shown as red, green and blue. Two are shown as grey pictures side by
    side, (..., H, 2 W, 1).
    """
    if images.shape[-1] == 2:
        return np.concatenate([images[..., :1], images[..., 1:]], -2)
    return images[..., :3]


def grid(images: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Lays images uint8 (N, H, W, C) out row by row with a gap of one pixel, as uint8 (height, width, 1 or 3).

    Args:
        images: N of them, shown as `visible`.
        columns: by default about as many as rows.
    """
    images = visible(images)
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    blank = np.full((rows * columns - len(images), *images.shape[1:]), 255, np.uint8)
    framed = np.pad(np.concatenate([images, blank]), ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=255)
    return rearrange(framed, "(r c) h w k -> (r h) (c w) k", r=rows)[:-1, :-1]


def save(path: Path, picture: np.ndarray, tile: int) -> None:
    """Writes a picture uint8 (height, width, C) as PNG, enlarged by whole pixels where its tiles are small.

    Args:
        path: the file.
        picture: from `grid`, of 1 or 3 channels.
        tile: the height in pixels of one image in it.

    Raises:
        OSError: the file cannot be written; what was there is as it was.
    """
    factor = max(1, math.ceil(MIN_TILE / tile))
    picture = np.repeat(np.repeat(picture, factor, 0), factor, 1)
    buffer = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(buffer, format="png")
    replace_bytes(path, buffer.getvalue())
