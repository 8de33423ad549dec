"""A folder that keeps what was computed for each sample, so that a killed evaluation goes on where it was.

Each file holds the results of some samples, with their numbers, and is written all at once. The folder's name is the hash of
all that the results depend on, so results of another model, seed or feature network are never taken for these.
"""

import hashlib
import json
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments.files import replace_file, replace_text

NUMBERS = "numbers"  # the entry with the samples' numbers


class Journal:
    """Results of samples 0 to N - 1, in files.

    Args:
        parent: the folder of all journals.
        kind: the first part of the folder's name.
        identity: all that the results depend on; plain values, which JSON can hold.

    Attributes:
        folder: of this journal; made at the first `write`.
    """

    def __init__(self, parent: Path, kind: str, identity: dict[str, Any]):
        self._identity = json.dumps(identity, indent=2, sort_keys=True)
        self.folder = parent / f"{kind}_{hashlib.sha256(self._identity.encode()).hexdigest()[:16]}"

    def missing(self, count: int) -> np.ndarray:
        """The numbers below `count` that have no result yet. Files that cannot be read are removed."""
        present = np.zeros(count, bool)
        for path in self._files():
            try:
                numbers = _read(path)[NUMBERS]
            except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, zlib.error):
                path.unlink()
                continue
            present[numbers[numbers < count]] = True
        return np.flatnonzero(~present)

    def write(self, numbers: np.ndarray, results: dict[str, np.ndarray]) -> None:
        """Keeps the results, each with one row per sample, of the samples with these numbers."""
        if not self.folder.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_text(self.folder / "identity.json", self._identity + "\n")
        with replace_file(self.folder / f"{numbers[0]:09d}_{len(numbers)}.npz") as file:
            np.savez(file, **results, **{NUMBERS: numbers})

    def blocks(self) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """(numbers, results) of each file, in the order of their first numbers."""
        for path in self._files():
            results = _read(path)
            yield results.pop(NUMBERS), results

    def column(self, name: str, count: int) -> np.ndarray:
        """The results of one name of samples 0 to count - 1, (count, ...), all of which are there."""
        whole = None
        for numbers, results in self.blocks():
            if whole is None:
                whole = np.empty((count, *results[name].shape[1:]), results[name].dtype)
            kept = numbers < count
            whole[numbers[kept]] = results[name][kept]
        return whole

    def remove(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.npz"))


def _read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
