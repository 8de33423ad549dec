"""Image sizes in a config: a number of pixels for squares, or HEIGHTxWIDTH."""

import re
from typing import Any

from experiments.errors import UserError

KEYS = ("data.image_size",)  # config keys whose values are sizes
MOST = 16384  # largest side, in pixels

Size = tuple[int, int]  # height and width in pixels


def parse(value: Any, key: str = "data.image_size") -> Size:
    """Returns (height, width) in pixels of a size in the notation of configs and the command line.

    Args:
        value: a number of pixels; a text such as "64" or "48x64"; or a pair (height, width).
        key: config key of the value, for messages.

    Raises:
        UserError: the value is not a size, or a side has less than 1 pixel or more than `MOST`.
    """
    sides = value
    if isinstance(value, str):
        match = re.fullmatch(r"(\d{1,9})(?:[xX](\d{1,9}))?", value.strip())
        sides = match and [int(side) for side in match.groups() if side is not None]
    elif isinstance(value, int) and not isinstance(value, bool):
        sides = [value]
    if isinstance(sides, list | tuple) and 1 <= len(sides) <= 2:
        height, width = (*sides, *sides)[:2]
        if all(type(side) is int and 1 <= side <= MOST for side in (height, width)):
            return height, width
    raise UserError(
        f"{key}={value}: must be a number of pixels from 1 to {MOST}, or HEIGHTxWIDTH of two such numbers, as 48x64"
    )


def written(size: Size) -> int | str:
    """Returns a size in the notation of configs: the side of a square, else "HEIGHTxWIDTH"."""
    height, width = size
    return height if height == width else f"{height}x{width}"
