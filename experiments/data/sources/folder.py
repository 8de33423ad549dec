"""`folder:PATH`: image files of any of Pillow's common formats, in sub-folders too.

What the classes and splits are, in this order:

- a file `metadata.csv` in the folder (Hugging Face's "imagefolder"): a row for each image, with the columns `file_name`
  (path within the folder) and perhaps `label` (numbers from 0, or names) and `split` (train, validation, test). Files
  without a row are not used. Without the column `split` the split is by hash.
- sub-folders `train` and `test`, or `train` and `validation`, or all three, that hold all images: the splits, with classes
  inside them.
- two or more sub-folders that hold all images: classes, numbered in sorted order.

The identity of an image is its path within the folder, by which it stays in its split when others come and go.
"""

import csv
import os
from pathlib import Path, PurePosixPath

import numpy as np

from experiments.data.digests import digest, identities_of, stack_digests
from experiments.data.sources.base import Parts
from experiments.data.sources.decoding import IMAGE_SUFFIXES, PILLOW_MODES, Wanted
from experiments.data.sources.paths import existing
from experiments.data.sources.reading import Encoded
from experiments.errors import UserError, nearest

METADATA = "metadata.csv"
SPLITS = {"train": "train", "test": "test", "validation": "validation", "valid": "validation", "val": "validation"}


class Files(Encoded):
    """Image files in a folder.

    Args:
        folder: that the paths begin at.
        files: N paths within it.
        labels, wanted: see `Encoded`.
    """

    def __init__(self, folder: Path, files: np.ndarray, labels: np.ndarray | None, wanted: Wanted):
        super().__init__(wanted, labels)
        self.folder = folder
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        """The file's path."""
        return str(self.folder / self.files[index])

    def content(self, index: int) -> bytes:
        """The file's bytes."""
        return _content(self.folder / self.files[index])

    def take(self, indices: np.ndarray) -> "Files":
        """The files at `indices`."""
        labels = None if self.labels is None else self.labels[indices]
        return Files(self.folder, self.files[indices], labels, self.wanted)

    def identities(self) -> np.ndarray:
        """Of the paths within the folder."""
        return identities_of(stack_digests([digest(os.fsencode(file)) for file in self.files]))


def load(text: str, wanted: Wanted) -> Parts:
    """The images of a folder, of which this reads the first alone.

    Raises:
        UserError: there are none, the first is not an image, or the table is wrong.
    """
    folder = existing(text)
    if not folder.is_dir():
        raise UserError(f"data.source: {folder} is a file, not a folder; did you mean 'npz:{folder}'?")
    if wanted.num_channels not in (*PILLOW_MODES, None):
        raise UserError(f"data.num_channels={wanted.num_channels} is not allowed for image files: choose 1 or 3")
    if (folder / METADATA).is_file():
        files, labels, names, parts = _read_metadata(folder)
    else:
        files, labels, names, parts = _read_tree(folder)
    wanted = wanted.of_first(_content(folder / files[0]), folder / files[0])
    everything = Files(folder, np.array(files, object), labels, wanted)
    if parts is None:
        return Parts({"all": everything}, names)
    parts = np.array(parts)
    return Parts({part: everything.take(parts == part) for part in dict.fromkeys(parts.tolist())}, names)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"data.source: {path} cannot be read as an image ({error.strerror})") from error


def _read_tree(folder: Path) -> tuple[list[str], np.ndarray | None, tuple[str, ...] | None, list[str] | None]:
    """Files, labels, class names and the split of each, from the names of the sub-folders."""
    files = image_files(folder)
    if not files:
        raise UserError(f"data.source: {folder} holds no image files ({' '.join(IMAGE_SUFFIXES)})")
    tops = {file.parts[0] for file in files if len(file.parts) > 1}
    has_splits = len(tops) > 1 and "train" in tops and tops <= set(SPLITS) and all(len(f.parts) > 1 for f in files)
    parts = [SPLITS[file.parts[0]] for file in files] if has_splits else None
    labels, names = _classes([file.relative_to(file.parts[0]) for file in files] if has_splits else files)
    return [str(file) for file in files], labels, names, parts


def image_files(folder: Path) -> list[PurePosixPath]:
    """Paths of the image files, relative to `folder` and sorted, without hidden files and folders."""
    files = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")]
        within = PurePosixPath(Path(parent).relative_to(folder).as_posix())
        files += [within / name for name in names]
    return sorted(files, key=lambda file: file.parts)


def _classes(files: list[PurePosixPath]) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    """Class numbers int32 (N,) and names, by the first sub-folder of each path; None unless two or more hold all files."""
    names = sorted({file.parts[0] for file in files})
    if len(names) < 2 or any(len(file.parts) == 1 for file in files):
        return None, None
    number = {name: i for i, name in enumerate(names)}
    return np.array([number[file.parts[0]] for file in files], np.int32), tuple(names)


def _read_metadata(folder: Path) -> tuple[list[str], np.ndarray | None, tuple[str, ...] | None, list[str] | None]:
    """Files, labels, class names and the split of each, from `metadata.csv`, in the order of its rows."""
    path = folder / METADATA
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            columns = reader.fieldnames or []
            if "file_name" not in columns:
                given = ", ".join(columns) or "(none)"
                raise UserError(f"data.source: {path} has the columns {given}; 'file_name' is needed")
            rows = list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"data.source: {path} is not a table of comma-separated values in UTF-8 ({error})") from error
    if not rows:
        raise UserError(f"data.source: {path} names no images")
    files, seen = [], set()
    for number, row in enumerate(rows, 2):
        name = str(PurePosixPath((row["file_name"] or "").strip()))
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise UserError(f"data.source: {path}, row {number}: file_name={name!r} must be a path within the folder")
        if name in seen:
            raise UserError(f"data.source: {path}, row {number}: {name} has a row already")
        if not (folder / name).is_file():
            there = [entry.name for entry in (folder / name).parent.glob("*")]
            raise UserError(
                f"data.source: {path}, row {number}: {name} does not exist{nearest(Path(name).name, there)}"
            )
        seen.add(name)
        files.append(name)
    labels, names = _labels(path, rows) if "label" in columns else (None, None)
    return files, labels, names, _own_splits(path, rows) if "split" in columns else None


def _labels(path: Path, rows: list[dict]) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Class numbers int32 (N,), as written or of the names in sorted order; and those names."""
    texts = [(row["label"] or "").strip() for row in rows]
    if "" in texts:
        raise UserError(f"data.source: {path}, row {texts.index('') + 2} has no label: give all rows one, or none")
    if all(text.isascii() and text.isdecimal() for text in texts):
        return np.array([int(text) for text in texts], np.int32), None
    names = sorted(set(texts))
    number = {name: i for i, name in enumerate(names)}
    return np.array([number[text] for text in texts], np.int32), tuple(names)


def _own_splits(path: Path, rows: list[dict]) -> list[str]:
    texts = [(row["split"] or "").strip() for row in rows]
    for number, text in enumerate(texts, 2):
        if text not in SPLITS:
            allowed = ", ".join(dict.fromkeys(SPLITS.values()))
            raise UserError(
                f"data.source: {path}, row {number}: split={text!r} is unknown: choose from {allowed}{nearest(text, SPLITS)}"
            )
    if "train" not in texts:
        raise UserError(f"data.source: {path} gives no image to the split 'train'")
    return [SPLITS[text] for text in texts]
