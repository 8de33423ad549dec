"""History of a run: metrics and pictures by step, passed to every writer of the run."""

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
    """Passes rows and pictures to the writers of `training.writers`.

    Args:
        workdir: folder of the run.
        config: config of the experiment.
        step: step at which training starts; rows of later steps, written after the last checkpoint, are dropped.
        write: whether this process writes; only one process should.

    Attributes:
        before: the last row up to `step`; empty if there is none.
    """

    def __init__(self, workdir: Workdir, config: ConfigDict, step: int, *, write: bool = True):
        self._writers = writers.open_all(workdir, config, step) if write else []
        rows = [row for row in read(workdir.history) if row["step"] <= step]
        self.before: dict[str, float] = rows[-1] if rows else {}

    def append(self, step: int, values: dict[str, float]) -> None:
        """Writes the metrics of one step; values that are not finite are left out."""
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        for writer in self._writers:
            writer.scalars(step, finite)

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        """Writes a picture, uint8 (height, width, C)."""
        for writer in self._writers:
            writer.picture(step, name, picture)

    def close(self) -> None:
        """Closes every writer, which writes buffered data."""
        for writer in self._writers:
            writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, *exception: object) -> None:
        with contextlib.suppress(*([OSError] if kind else [])):  # after an exception, a full disk is not reported again
            self.close()
