"""What a command has made, for the command line, notebooks and commands that call it as a function."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Results:
    """Results of a command. Those of a process other than the first, which writes nothing, are empty.

    Attributes:
        summary: text for people; empty where nothing was made.
        files: that were written, the one to look at first.
        metrics: settings and figures, as the command's JSON file has them.
        arrays: numpy arrays by name, as the command's .npz file has them.
    """

    summary: str = ""
    files: tuple[Path, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Any] = field(default_factory=dict)
