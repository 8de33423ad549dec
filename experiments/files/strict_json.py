"""JSON according to RFC 8259, which has neither NaN nor infinity. All measured numbers are written by this module.

NaN is written as null, and an infinite number as the text "inf" or "-inf", which the command line accepts too.
"""

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.files import replace_text

# Keys of a run's metrics.json and of a task's results.json below which all numbers are measured, so null is NaN.
METRICS = (
    "samples",
    "real",
    "intervals",
    "memorisation",
    "bits_per_dim",
    "held_out_loss",
    "training_loss",
    "checkpoints",
    "guidance",
)
RESULTS = ("figures", "inputs")


def dumps(value: Any, indent: int | None = 2) -> str:
    """Returns the JSON text of a value of dictionaries, sequences, numbers (numpy's too), texts, booleans and None.

    Raises:
        TypeError: the value contains another type.
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def write(path: Path, value: Any) -> None:
    """Writes the JSON text of a value to a file, atomically.

    Raises:
        OSError: the file cannot be written; the old content is unchanged.
        TypeError: as `dumps`.
    """
    replace_text(path, dumps(value) + "\n")


def read(path: Path, figures: Collection[str] = ()) -> Any:
    """Returns the value of a file of `write`, with NaN and infinity restored below the keys `figures`.

    Args:
        path: the file.
        figures: keys of the outermost dictionary whose values are measured numbers.

    Raises:
        ValueError: the file is not JSON.
    """
    stored = json.loads(path.read_text())
    if not isinstance(stored, dict):
        return stored
    return {key: _restore_nonfinite(value) if key in figures else value for key, value in stored.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _finite(value.tolist())
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _restore_nonfinite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _restore_nonfinite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_restore_nonfinite(entry) for entry in value]
    if value is None:
        return math.nan
    return float(value) if value in ("inf", "-inf") else value
