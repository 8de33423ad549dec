"""Prepared images on disk: sharded ArrayRecord files that are read at random, a batch at a time, without decoding.

A folder of them holds

    dataset.json                what they are: `Description`; written last, so a folder with it is complete
    SPLIT-00000.array_record    records, one for each image; SPLIT is train, validation, test, or all (split when loaded)
    SPLIT-00000.index.npy       for each record, in their order, what is to be known of it without reading it (`INDEX`)

A record is a header of 24 bytes (`HEADER`) and the pixels, uint8, row by row, the channels of a pixel side by side. Numbers
are little-endian. Nothing in these files is code, and nothing is unpickled. Each record is a chunk of its own
(`group_size:1`), compressed by zstd and checked by ArrayRecord's own hash when it is read.

The container: https://github.com/google/array_record.
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data.digests import content_fingerprint
from experiments.errors import RunError, UserError
from experiments.files import strict_json

DESCRIPTION = "dataset.json"
FORMAT = "ornstein-records-1"
MAGIC = b"OIR1"
HEADER = np.dtype(
    [("magic", "S4"), ("height", "<u2"), ("width", "<u2"), ("channels", "u1"), ("zeros", "u1", 3), ("label", "<i4"),
     ("identity", "<u8")]
)  # fmt: skip  # label: -1 without classes; identity: decides the split, see `splits`
INDEX = np.dtype([("label", "<i4"), ("identity", "<u8"), ("digest", "u1", 16)])  # digest: of the pixels, BLAKE2b
MOST_CHANNELS = 255  # that a header holds
OPTIONS = "group_size:1,zstd:1"  # a higher level gains nothing on photographs


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file of records: its name, how many they are, and its size in bytes."""

    file: str
    count: int
    bytes: int

    @property
    def index(self) -> str:
        """The name of its index."""
        return Path(self.file).with_suffix(".index.npy").name


@dataclasses.dataclass(frozen=True)
class Description:
    """What `dataset.json` says.

    Attributes:
        source: what the records were made of, as `data.source` names it.
        image_shape: (H, W, C).
        resize: what was done to images of another size; see `data.resize`.
        class_names: by number; None without classes or names.
        splits: by name, their shards in order.
        fingerprints: by name of the split, the hash of its content (`Source.fingerprint`).
        format: of these files.
        left_out, warnings: of the source, as in `base.Parts`.
        background, white: what was behind transparent pixels, and the level that was white; see `data.background`.
    """

    source: str
    image_shape: tuple[int, int, int]
    resize: str
    class_names: tuple[str, ...] | None
    splits: dict[str, tuple[Shard, ...]]
    fingerprints: dict[str, str]
    format: str = FORMAT
    background: str = "white"
    white: float = 0.0
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Writes it, at once and whole."""
        counts = {name: sum(shard.count for shard in shards) for name, shards in self.splits.items()}
        strict_json.write(folder / DESCRIPTION, {"counts": counts} | dataclasses.asdict(self))

    @staticmethod
    def read(folder: Path) -> "Description":
        """The description in a folder.

        Raises:
            UserError: there is none, for the folder is not complete; or it is not one of these.
        """
        path = folder / DESCRIPTION
        if not path.is_file():
            raise UserError(
                f"data.source: {folder} has no {DESCRIPTION}: it is no complete folder of records; make one with "
                "python -m experiments prepare --source=... --out=..."
            )
        try:
            stored = json.loads(path.read_text())
            if stored.pop("format") != FORMAT:
                raise UserError(f"data.source: {path} is not of the format {FORMAT}: prepare the data again")
            del stored["counts"]
            splits = {name: tuple(Shard(**shard) for shard in shards) for name, shards in stored.pop("splits").items()}
            names, shape = stored.pop("class_names"), tuple(map(int, stored.pop("image_shape")))
            found = {key: tuple(map(str, stored.pop(key, ()))) for key in ("left_out", "warnings")}
            names = None if names is None else tuple(names)
            return Description(image_shape=shape, class_names=names, splits=splits, **found, **stored)
        except (json.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"data.source: {path} is damaged ({error!r})") from error


def headers(image_shape: tuple[int, int, int], index: np.ndarray) -> np.ndarray:
    """The headers uint8 (B, 24) of records from rows of the index (B,)."""
    rows = np.zeros(len(index), HEADER)
    rows["magic"] = MAGIC
    rows["height"], rows["width"], rows["channels"] = image_shape
    rows["label"], rows["identity"] = index["label"], index["identity"]
    return rows.view(np.uint8).reshape(len(index), HEADER.itemsize)


def array_record() -> Any:
    """The module of ArrayRecord's reader and writer.

    Raises:
        UserError: it is not installed (grain brings it along, except on Windows).
    """
    try:
        from array_record.python import array_record_module
    except ImportError as error:
        raise UserError("records need the package array_record, which is not installed here") from error
    return array_record_module


class ShardWriter:
    """Writes one shard under a temporary name; only a shard that is whole gets its name, and then its index.

    Args:
        folder, file: where.
        image_shape: (H, W, C) of all images.
    """

    def __init__(self, folder: Path, file: str, image_shape: tuple[int, int, int]):
        self._path = folder / file
        self._temporary = folder / f"{file}.tmp"
        self._shape = image_shape
        self._index: list[np.ndarray] = []
        self._writer = array_record().ArrayRecordWriter(str(self._temporary), OPTIONS)

    def write(self, index: np.ndarray, pixels: np.ndarray) -> None:
        """Writes the images uint8 (B, H, W, C) whose rows of the index (B,) are given.

        Raises:
            RunError: the disk is full.
        """
        rows = np.concatenate([headers(self._shape, index), pixels.reshape(len(pixels), -1)], axis=1)
        try:
            for row in rows:
                self._writer.write(row.tobytes())
        except RuntimeError as error:
            raise RunError(f"{self._temporary} cannot be written ({error})") from error
        self._index.append(index)

    def close(self) -> Shard:
        """Ends the shard, gives it its name and writes its index.

        Raises:
            RunError: the disk is full.
        """
        try:
            self._writer.close()
        except RuntimeError as error:
            raise RunError(f"{self._temporary} cannot be written ({error})") from error
        index = np.concatenate(self._index)
        shard = Shard(self._path.name, len(index), self._temporary.stat().st_size)
        flush(self._temporary)
        self._temporary.replace(self._path)
        temporary = self._path.with_name(f"{shard.index}.tmp")
        with temporary.open("wb") as file:
            np.save(file, index)
        flush(temporary)
        temporary.replace(self._path.with_name(shard.index))
        return shard


def flush(path: Path) -> None:
    """Has the file or folder written to the disk itself, so that a power cut cannot undo what comes after."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_index(path: Path) -> np.ndarray:
    """The index (N,) of a shard.

    Raises:
        UserError: it cannot be read.
    """
    try:
        index = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"data.source: {path} is missing or damaged: prepare the data again") from error
    if index.dtype != INDEX or index.ndim != 1:
        raise UserError(f"data.source: {path} is not an index of records: prepare the data again")
    return index


def fingerprint(image_shape: tuple[int, int, int], index: np.ndarray) -> str:
    """The hash of the content of records (`Source.fingerprint`) by their index (N,)."""
    labels = index["label"] if len(index) and index["label"][0] >= 0 else None
    return content_fingerprint(image_shape, index["digest"], labels)
