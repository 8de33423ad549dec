"""JSON as RFC 8259 has it, which knows neither NaN nor infinity: the one writer of what the program measures.

NaN is written as null, and an infinite number as the text "inf" or "-inf", as the command line takes it.
"""

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.files import replace_text

# The keys of a run's metrics.json, and of a task's results.json, below which all numbers are measured.
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
    """The text of a value of dictionaries, sequences, numbers (numpy's too), texts, booleans and None.

    Raises:
        TypeError: the value holds anything else.
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def write(path: Path, value: Any) -> None:
    """Writes a file, at once and whole.

    Raises:
        OSError: the file cannot be written; what was there is as it was.
        TypeError: as `dumps`.
    """
    replace_text(path, dumps(value) + "\n")


def read(path: Path, figures: Collection[str] = ()) -> Any:
    """Returns the value of a file of `write`, with NaN and infinity restored below some keys.

    Args:
        path: the file.
        figures: keys of the outermost dictionary whose values are measured numbers.

    Raises:
        ValueError: the file is not JSON.
    """
    stored = json.loads(path.read_text())
    if not isinstance(stored, dict):
        return stored
    return {key: _figures(value) if key in figures else value for key, value in stored.items()}


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


def _figures(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _figures(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_figures(entry) for entry in value]
    if value is None:
        return math.nan
    return float(value) if value in ("inf", "-inf") else value
