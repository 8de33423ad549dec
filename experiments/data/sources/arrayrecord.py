"""`arrayrecord:PATTERN`: images that `python -m experiments prepare` wrote, for data that outgrows memory.

PATTERN is the folder, or a pattern of its record files, as `FOLDER/train-*`, for some of them. Records hold pixels as they
are wanted, so a batch is read and not decoded. The splits are those the images had when they were prepared; where there
were none, by the same identities as then, so the images are divided as they would be from where they came.
"""

import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data import records
from experiments.data.sources.base import Parts, Source
from experiments.data.sources.decoding import Rendering, Wanted
from experiments.data.sources.paths import existing
from experiments.errors import UserError


class Records(Source):
    """Images in the shards of a folder.

    Args:
        paths: of the shards, in order.
        counts: of their records.
        image_shape: (H, W, C) of all images.
        index: of all records of all shards, in order (`records.INDEX`).
        places: which of them this source has, int64 (N,).
    """

    def __init__(
        self,
        paths: list[Path],
        counts: list[int],
        image_shape: tuple[int, int, int],
        index: np.ndarray,
        places: np.ndarray,
    ):
        self.image_shape = image_shape
        self.labels = index["label"][places] if len(index) and index["label"][0] >= 0 else None
        self._paths = paths
        self._counts = counts
        self._ends = np.cumsum(counts)
        self._index = index
        self._places = places
        self._readers: dict[int, Any] = {}  # opened when needed, in each process anew

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_readers": {}}

    def __len__(self) -> int:
        return len(self._places)

    def _reader(self, shard: int) -> Any:
        if shard not in self._readers:
            # No reading ahead: the next record wanted is anywhere.
            reader = records.array_record().ArrayRecordReader(str(self._paths[shard]), "readahead_buffer_size:0")
            if not reader.ok() or reader.num_records() != self._counts[shard]:
                raise _damaged(self._paths[shard], f"{self._counts[shard]} records are missing, or some of them")
            self._readers[shard] = reader
        return self._readers[shard]

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """Reads the records at `indices`, and makes sure that they are those of the index."""
        places = self._places[indices]
        shards = np.searchsorted(self._ends, places, side="right")
        images = np.empty((len(places), *self.image_shape), np.uint8)
        for shard in np.unique(shards):
            mine = np.flatnonzero(shards == shard)
            first = self._ends[shard] - self._counts[shard]
            try:
                content = b"".join(self._reader(shard).read((places[mine] - first).tolist()))
                rows = np.frombuffer(content, np.uint8).reshape(len(mine), records.HEADER.itemsize + images[0].size)
            except (RuntimeError, ValueError) as error:
                raise _damaged(self._paths[shard], error) from error
            expected = records.headers(self.image_shape, self._index[places[mine]])
            if not np.array_equal(rows[:, : records.HEADER.itemsize], expected):
                raise _damaged(self._paths[shard], "its index is of other records")
            images[mine] = rows[:, records.HEADER.itemsize :].reshape(-1, *self.image_shape)
        return images

    def take(self, indices: np.ndarray) -> "Records":
        """The records at `indices`."""
        return Records(self._paths, self._counts, self.image_shape, self._index, self._places[indices])

    def identities(self) -> np.ndarray:
        """Those of the images that the records were made of."""
        return self._index["identity"][self._places]

    def digests(self) -> np.ndarray:
        """Those in the index."""
        return self._index["digest"][self._places]

    def fingerprint(self) -> str:
        """Of all pixels and labels, by the digests in the index."""
        return records.fingerprint(self.image_shape, self._index[self._places])


def load(text: str, wanted: Wanted) -> Parts:
    """The records of a folder that `prepare` wrote, or of its files that match a pattern; reads their indices alone.

    Raises:
        UserError: the folder is not complete, a file of it is missing or cut short, none matches, or images do not fit.
    """
    folder, pattern = Path(text).expanduser(), "*"
    if not folder.is_dir():
        folder, pattern = existing(str(folder.parent)), folder.name
    description = records.Description.read(folder)
    wanted.check(folder, *description.image_shape)
    made_with = Rendering(description.background, description.white)
    if wanted.rendering.stamp not in ("", made_with.stamp):
        raise UserError(
            f"data.source: {folder} was prepared with background={description.background} and white={description.white:g}; "
            f"data.background={wanted.background} and data.white={wanted.white:g} change nothing: prepare the images again"
        )
    parts, left_out = {}, []
    for split, shards in description.splits.items():
        chosen = [shard for shard in shards if fnmatch.fnmatch(shard.file, pattern)]
        if chosen:
            parts[split] = _open(folder, chosen, description.image_shape)
        if other := sum(shard.count for shard in shards) - sum(shard.count for shard in chosen):
            left_out.append(f"{other:,} records in files of {split} that do not match {pattern}")
    if not parts:
        files = [shard.file for shards in description.splits.values() for shard in shards]
        raise UserError(f"data.source: no records of {folder} match {pattern!r}; there are {files[0]} to {files[-1]}")
    if not {"all", "train"} & set(parts):
        raise UserError(f"data.source: {text} leaves none of the training images of {folder}")
    return Parts(parts, description.class_names, (*description.left_out, *left_out), description.warnings)


def _open(folder: Path, shards: list[records.Shard], image_shape: tuple[int, int, int]) -> Records:
    paths, indices = [folder / shard.file for shard in shards], []
    for path, shard in zip(paths, shards, strict=True):
        size = path.stat().st_size if path.is_file() else 0
        if size != shard.bytes:
            raise _damaged(path, f"it has {size} bytes, not {shard.bytes}")
        index = records.read_index(folder / shard.index)
        if len(index) != shard.count:
            raise _damaged(folder / shard.index, f"it is of {len(index)} records, not {shard.count}")
        indices.append(index)
    index = np.concatenate(indices)
    return Records(paths, [shard.count for shard in shards], image_shape, index, np.arange(len(index)))


def _damaged(path: Path, reason: object) -> UserError:
    return UserError(f"data.source: {path} is missing or damaged ({reason}): prepare the data again")


# By the name that a config gives, with the form of data.source.
SOURCES = {"arrayrecord": (load, "arrayrecord:PATTERN")}
