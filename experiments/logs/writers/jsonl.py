"""`metrics.jsonl`: one line of strict JSON per row, which the report and `compare` read."""

import json
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from experiments.files import naming, replace_text, strict_json
from experiments.runs.workdir import Workdir


def read(path: Path) -> list[dict[str, float]]:
    """Returns the rows of a `metrics.jsonl`, up to the first line that was truncated by an interruption."""
    rows = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


class Jsonl:
    """Appends rows to `metrics.jsonl`; pictures are ignored, since the training loop writes them to `samples/`."""

    def __init__(self, workdir: Workdir, config: ConfigDict, step: int):
        rows = [row for row in read(workdir.history) if row["step"] <= step]
        replace_text(workdir.history, "".join(strict_json.dumps(row, None) + "\n" for row in rows))
        self._path = workdir.history
        self._file = workdir.history.open("a")

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes and flushes one line.

        Raises:
            OSError: the file, which the error names, cannot be written.
        """
        with naming(self._path):
            self._file.write(strict_json.dumps({"step": step, **values}, None) + "\n")
            self._file.flush()

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        """Does nothing: the JSON lines contain no pictures."""

    def close(self) -> None:
        """Closes the file."""
        with naming(self._path):
            self._file.close()
