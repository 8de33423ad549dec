"""The course of training: rows of figures and pictures by their step, for every writer of the run."""

import contextlib
import math
from typing import Self

import numpy as np
from ml_collections import ConfigDict

from experiments.logs import writers
from experiments.logs.writers.jsonl import read
from experiments.runs.workdir import Workdir

__all__ = ["History", "read"]


class History:
    """Gives rows and pictures to the writers that `training.writers` names.

    Args:
        workdir: the run's folder.
        config: the experiment.
        step: rows past it, of a run that went on beyond its last checkpoint, are dropped.
        write: whether to; of several processes one does.

    Attributes:
        before: the last row up to that step; empty if there is none.
    """

    def __init__(self, workdir: Workdir, config: ConfigDict, step: int, *, write: bool = True):
        self._writers = writers.open_all(workdir, config, step) if write else []
        rows = [row for row in read(workdir.history) if row["step"] <= step]
        self.before: dict[str, float] = rows[-1] if rows else {}

    def append(self, step: int, values: dict[str, float]) -> None:
        """Writes the figures of one step; those that are not finite are left out."""
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        for writer in self._writers:
            writer.scalars(step, finite)

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        """Writes a picture, uint8 (height, width, C)."""
        for writer in self._writers:
            writer.picture(step, name, picture)

    def close(self) -> None:
        """Has every writer write what is left."""
        for writer in self._writers:
            writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, *exception: object) -> None:
        with contextlib.suppress(*([OSError] if kind else [])):  # a disk that was full before is full still
            self.close()
