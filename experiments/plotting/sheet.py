"""Contact sheets: one row per input, one column per kind of picture, with captions and metrics."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from experiments.files import replace_bytes
from experiments.plotting.pictures import png, visible

TILE = 96  # minimum length of the longer side of a picture on the sheet, in pixels
MARGIN, LINE, FONT_SIZE = 6, 16, 12
ROWS = 32  # maximum number of inputs on the sheet


@dataclass(frozen=True)
class Column:
    """Pictures of one kind.

    Attributes:
        caption: text above the column.
        pictures: uint8 (N, h, w, C); columns of smaller pictures are enlarged to the size of the largest pictures.
        notes: N texts below the pictures; none by default.
    """

    caption: str
    pictures: np.ndarray
    notes: Sequence[str] = ()


def draw(columns: Sequence[Column], names: Sequence[str]) -> Image.Image:
    """Draws the sheet of N inputs with the given names; only the first `ROWS` inputs are shown."""
    font = ImageFont.load_default(FONT_SIZE)
    rows = min(len(names), ROWS)
    columns = [replace(column, pictures=visible(column.pictures)) for column in columns]
    largest = max(max(column.pictures.shape[1:3]) for column in columns)
    side = largest * math.ceil(TILE / largest)
    foot = LINE if any(column.notes for column in columns) else 0
    label = math.ceil(max(font.getlength(name) for name in names[:rows])) + 2 * MARGIN
    label = min(label, 2 * side)
    widths = [max(side + MARGIN, math.ceil(_widest(font, column, rows)) + 2 * MARGIN) for column in columns]
    lefts = [label + sum(widths[:i]) for i in range(len(columns))]
    tops = [LINE + 2 * MARGIN + row * (side + foot + MARGIN) for row in range(rows)]
    more = LINE if len(names) > rows else 0
    page = Image.new("RGB", (label + sum(widths) + MARGIN, tops[-1] + side + foot + MARGIN + more), "white")
    pen = ImageDraw.Draw(page)
    for x, column in zip(lefts, columns, strict=True):
        pen.text((x, MARGIN), column.caption, "black", font)
        for row, y in enumerate(tops):
            page.paste(_enlarged(column.pictures[row], side), (x, y))
            if column.notes:
                pen.text((x, y + side + 2), column.notes[row], "black", font)
    for y, name in zip(tops, names, strict=False):
        pen.text((MARGIN, y + side // 2 - LINE // 2), _shortened(name, font, label - 2 * MARGIN), "black", font)
    if more:
        pen.text((MARGIN, page.height - more - 2), f"and {len(names) - rows} more, not shown", "black", font)
    return page


def save(path: Path, columns: Sequence[Column], names: Sequence[str]) -> None:
    """Writes the sheet as PNG.

    Raises:
        OSError: the file cannot be written; the old content is unchanged.
    """
    buffer = io.BytesIO()
    draw(columns, names).save(buffer, format="png")
    replace_bytes(path, buffer.getvalue())


def save_picture(path: Path, picture: np.ndarray) -> None:
    """Writes one picture uint8 (h, w, C) as PNG, without scaling; see `pictures.png`.

    Raises:
        OSError: the file cannot be written; the old content is unchanged.
    """
    buffer = io.BytesIO()
    png(picture).save(buffer, format="png")
    replace_bytes(path, buffer.getvalue())


def spread(deviations: np.ndarray, white: float) -> np.ndarray:
    """Converts standard deviations (N, h, w, C) to grey pictures uint8 (N, h, w, 1), from 0 (black) to `white` (white).

    A pixel shows the root mean square over the channels.
    """
    total = np.sqrt(np.square(deviations).mean(-1, keepdims=True))
    return np.clip(np.rint(255 * total / white), 0, 255).astype(np.uint8)


def _widest(font: ImageFont.ImageFont, column: Column, rows: int) -> float:
    return max(font.getlength(text) for text in (column.caption, *column.notes[:rows]))


def _enlarged(picture: np.ndarray, side: int) -> Image.Image:
    """Returns the picture scaled to a longer side of `side` pixels, by nearest neighbour."""
    scale = side / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    return png(picture).resize(size, Image.Resampling.NEAREST)


def _shortened(text: str, font: ImageFont.ImageFont, width: int) -> str:
    """Returns the text if it fits in `width` pixels, else "..." and the end of the text."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength("..." + text) > width:
        text = text[1:]
    return "..." + text
