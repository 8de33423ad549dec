"""Results of a command, for the command line, notebooks and other commands that call it as a function."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Results:
    """Results of a command. They are empty in processes other than the first, which write nothing.

    Attributes:
        summary: text for people; empty if there are no results.
        files: paths of the written files, the most important one first.
        metrics: settings and metrics, as in the command's JSON file.
        arrays: numpy arrays by name, as in the command's .npz file.
    """

    summary: str = ""
    files: tuple[Path, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Any] = field(default_factory=dict)
