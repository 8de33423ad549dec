"""The course of training: one JSON line per logged step, and the same for TensorBoard."""

import contextlib
import json
from pathlib import Path
from typing import Self

from experiments.tensorboard import TensorBoard
from experiments.workdir import Workdir, naming, replace_text


def read(path: Path) -> list[dict[str, float]]:
    """The rows of a `metrics.jsonl`; a last line cut short by an interruption is left out."""
    rows = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


class History:
    """Appends rows to `metrics.jsonl` and to TensorBoard's events.

    Args:
        workdir: the run's folder.
        step: rows past it, of a run that went on beyond its last checkpoint, are dropped.
        write: whether to; of several processes one does.
    """

    def __init__(self, workdir: Workdir, step: int, *, write: bool = True):
        self._write = write
        if not write:
            return
        rows = [row for row in read(workdir.history) if row["step"] <= step]
        replace_text(workdir.history, "".join(json.dumps(row) + "\n" for row in rows))
        self._path = workdir.history
        self._file = workdir.history.open("a")
        self._events = TensorBoard(workdir.path, purge_step=step + 1 if step else None)

    def append(self, step: int, values: dict[str, float]) -> None:
        """Writes the values of one step.

        Raises:
            OSError: a file, which the error names, cannot be written.
        """
        if not self._write:
            return
        with naming(self._path):
            self._file.write(json.dumps({"step": step, **values}) + "\n")
            self._file.flush()
        self._events.add(step, {f"train/{name}": value for name, value in values.items()})

    def close(self) -> None:
        """Flushes both files."""
        if not self._write:
            return
        try:
            with naming(self._path):
                self._file.close()
        finally:
            self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, *exception: object) -> None:
        with contextlib.suppress(*([OSError] if kind else [])):  # a disk that was full before is full still
            self.close()
