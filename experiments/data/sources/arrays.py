"""Arrays of numbers of any shape from `npz:PATH`: `data` (N, *event), or `x_train` and `x_test`; see `npz` for the keys.

The range of the values (`data.range`) is stated and not estimated from a file, so that runs on parts of the same data agree.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.data.sources import npz
from experiments.data.sources.base import Parts
from experiments.data.sources.paths import existing
from experiments.errors import UserError

KEYS = ("data", "images")
BEYOND, NARROW = (
    0.01,
    16,
)  # fraction of values outside the range, and ratio of the range to the spread, that are doubtful


@dataclass(frozen=True)
class Arrays:
    """The arrays that the config states.

    Attributes:
        event_shape: of each array.
        low, high: range of the values.
        class_order: of class names, one of `names.ORDERS`.
    """

    event_shape: tuple[int, ...]
    low: float
    high: float
    class_order: str = "natural"


def load(text: str, wanted: Arrays) -> Parts:
    """Reads the arrays of an .npz file, as float32.

    Raises:
        UserError: the file is missing or damaged, or its arrays have another shape or values that are not finite numbers.
    """

    def take(path, file, key, others):
        name = f"{path} ({key!r})"
        values = _numbers(path, file, key)
        if values.shape[1:] != wanted.event_shape:
            found, stated = (",".join(map(str, shape)) for shape in (values.shape[1:], wanted.event_shape))
            raise UserError(
                f"data.source: {name} holds arrays of shape {found} but data.event_shape={stated}: pass "
                f"--config.data.event_shape={found}"
            )
        return values, _doubts(name, values, wanted.low, wanted.high)

    return npz.read(text, KEYS, take, wanted.class_order)


def event_shape(source: str, stated_range: Sequence[float]) -> tuple[int, ...]:
    """Returns the shape of one array of a source.

    Args:
        source: as `data.source` names it.
        stated_range: `data.range`; where it is not stated, the error has the range of the values.

    Raises:
        UserError: the source has no arrays, or the range is not stated.
    """
    kind, _, text = source.partition(":")
    if kind != "npz" or not text:
        raise UserError(f"data.source={source!r}: arrays are read from npz:PATH")
    path = existing(text)
    with npz.opened(path) as file:
        key = next(iter(npz.keys(path, file, KEYS)[0].values()))
        values = _numbers(path, file, key)
    if not any(stated_range):
        found = f"{values.min():g},{values.max():g}"
        raise UserError(
            f"data.range={_written(stated_range)}: the values that are -1 and 1 for the model must be stated; those of "
            f"{path} ({key!r}) are from {values.min():g} to {values.max():g}: pass --config.data.range={found}"
        )
    return values.shape[1:]


def checked_range(stated: Sequence[float]) -> tuple[float, float]:
    """Returns (low, high) of `data.range`.

    Raises:
        UserError: they are not two finite numbers, rising.
    """
    if len(stated) != 2 or not all(math.isfinite(value) for value in stated) or not stated[0] < stated[1]:
        raise UserError(
            f"data.range={_written(stated)}: must be two finite numbers, low,high with low < high: the values that are -1 "
            "and 1 for the model"
        )
    return float(stated[0]), float(stated[1])


def _written(numbers: Sequence[float]) -> str:
    return ",".join(f"{number:g}" for number in numbers)


def _numbers(path: Path, file: np.lib.npyio.NpzFile, key: str) -> np.ndarray:
    """An array (N, *event) as float32."""
    values, name = npz.array(path, file, key), f"data.source: {path} ({key!r})"
    if values.dtype.kind not in "fiu" or values.ndim < 2 or not values.size:
        raise UserError(f"{name} is {values.dtype} {values.shape}; real numbers (N, *event), N >= 1, are needed")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    if bad := int((~np.isfinite(values)).sum()):
        raise UserError(f"{name}: {bad:,} of {values.size:,} values are not finite in float32")
    return values


def _doubts(name: str, values: np.ndarray, low: float, high: float) -> list[str]:
    """A warning if the range does not fit the values."""
    beyond = np.count_nonzero((values < low) | (values > high)) / values.size
    least, most = float(values.min()), float(values.max())
    if beyond > BEYOND:
        found = f"{100 * beyond:.3g} % of the values of {name} are outside of data.range={low:g},{high:g}"
    elif (most - least) * NARROW < high - low:
        found = f"the values of {name} fill little of data.range={low:g},{high:g}"
    else:
        return []
    return [f"{found}: they are from {least:g} to {most:g}"]


# By the name that a config gives, with the form of data.source.
SOURCES_OF_ARRAYS = {"npz": (load, "npz:PATH")}
