"""`hf:NAME`: a data set of https://huggingface.co/datasets, by Hugging Face's library `datasets` (extra `hf`).

    hf:NAME         from the hub, or where it was downloaded before; NAME:CONFIG for one of several configurations
    hf:PATH         a folder written by `save_to_disk`, or one of Parquet files or pictures that `load_dataset` knows

The column of images is the one of type Image; of several, `image` or `img`. The classes are the column `label` (or another
of `LABELS`): class labels, numbers from 0, or texts. Splits of the names train, test and validation (val, valid, dev) are
kept; one whose labels are withheld (all -1) is not used. The identity of an image is the content of its file, which takes
one reading of all files where the split is by hash.

Images are decoded from the tables on disk at each `gather`. `prepare --stream` makes records of a data set without storing
it first (`Stream`); training needs images at random, which a stream does not give. Data sets that are programs are not run:
`datasets` has no way to, from version 4 on.
"""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from experiments.data.digests import digest, identities_of, stack_digests
from experiments.data.sources.base import Parts
from experiments.data.sources.decoding import CHANNELS, Wanted
from experiments.data.sources.layout import SPLITS, looks_like_split
from experiments.data.sources.names import class_numbers, listed
from experiments.data.sources.paths import existing
from experiments.data.sources.reading import THREADS, Encoded
from experiments.errors import UserError

IMAGES = ("image", "img")
LABELS = ("label", "labels", "fine_label", "class", "target")
LABEL_LIKE = ("label", "class", "categor", "target")


class Table(Encoded):
    """Image files in a column of a table on disk.

    Args:
        rows: the column, a `datasets.Dataset` whose images are not decoded.
        places: which of its rows, int64 (N,).
        labels, wanted: see `Encoded`.
        title: for messages.
        identities: uint64 (N,), where they are known.
    """

    content_is_identity = True

    def __init__(
        self,
        rows: Any,
        places: np.ndarray,
        labels: np.ndarray | None,
        wanted: Wanted,
        title: str,
        identities: np.ndarray | None = None,
    ):
        super().__init__(wanted, labels)
        self._rows = rows
        self._places = places
        self._title = title
        self._identities = identities

    def __len__(self) -> int:
        return len(self._places)

    def name(self, index: int) -> str:
        """The row's number."""
        return f"{self._title}, row {self._places[index]}"

    def content(self, index: int) -> bytes:
        """The bytes of the row's image file."""
        return _content(self._rows[int(self._places[index])], self.name(index))

    def take(self, indices: np.ndarray) -> "Table":
        """The rows at `indices`."""
        labels = None if self.labels is None else self.labels[indices]
        identities = None if self._identities is None else self._identities[indices]
        return Table(self._rows, self._places[indices], labels, self.wanted, self._title, identities)

    def identities(self) -> np.ndarray:
        """Of the contents of the files, which are all read the first time."""
        if self._identities is None:
            rows = tqdm(range(len(self)), f"reading {self._title}", unit=" images", delay=2)
            self._identities = identities_of(stack_digests([digest(self.content(i)) for i in rows]))
        return self._identities


def load(text: str, wanted: Wanted) -> Parts:
    """The images of a data set of Hugging Face, of which this reads the first, and all labels.

    Raises:
        UserError: the extra is not installed; or there is no such data set, or it has no images or labels that can be used.
    """
    if wanted.num_channels not in (*CHANNELS, None):
        raise UserError(f"data.num_channels={wanted.num_channels} is not allowed for image files: choose 1, 3 or 4")
    opened = _open(text, streaming=False)
    found = _splits(text, opened)
    image, label = _columns(text, found)
    labels, names = _labels(text, found, label, wanted.class_order)
    left_out, warnings = _unused(text, opened, found, image, label)
    columns = {part: _undecoded(split, image).select_columns([image]) for part, split in found.items()}
    for part, rows in columns.items():
        if len(rows) == 0:
            raise UserError(f"data.source='hf:{text}': the split {part!r} has no images")
    first = next(iter(columns))
    wanted = wanted.of_first(_content(columns[first][0], f"hf:{text}"), f"hf:{text}, {first}, row 0")
    withheld = [part for part in columns if labels[part] is not None and labels[part].max() < 0]
    classes, withheld = _without_withheld(text, label, withheld, list(columns), "all rows", warnings)
    if classes is None:
        labels, names = dict.fromkeys(columns), None
    left_out += [
        f"{len(columns[part]):,} images of the split {part}, whose labels are withheld (-1)" for part in withheld
    ]
    parts = {
        part: Table(rows, np.arange(len(rows)), labels[part], wanted, f"hf:{text}, {part}")
        for part, rows in columns.items()
        if part not in withheld
    }
    return Parts(parts, names, tuple(left_out), tuple(warnings))


class Stream:
    """The images of one split, in order, as they come over the network; nothing is stored.

    Args:
        rows: a `datasets.IterableDataset` whose images are not decoded.
        image, label: its columns; label is None without classes.
        wanted: the pixels to make; nothing is left open in it.
        title: for messages.
    """

    def __init__(self, rows: Any, image: str, label: str | None, wanted: Wanted, title: str):
        self.image_shape = (*wanted.image_size, wanted.num_channels)
        self._rows = rows
        self._image, self._label = image, label
        self._wanted = wanted
        self._title = title

    def blocks(self, start: int, sizes: Iterator[int]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Pixels uint8 (B, H, W, C), labels int32 (B,) (-1 without classes) and identities uint64 (B,), from `start` on.

        Args:
            start: how many images to leave out.
            sizes: B of each block; the last may be smaller.

        Raises:
            UserError: an image or a label cannot be used; the message names its row.
        """
        rows, place = iter(self._rows.skip(start)), start
        with ThreadPoolExecutor(THREADS) as threads:
            for size in sizes:
                block = list(itertools.islice(rows, size))
                if not block:
                    return
                titles = [f"{self._title}, row {place + i}" for i in range(len(block))]
                contents = [_content({"": row[self._image]}, t) for row, t in zip(block, titles, strict=True)]
                labels = [-1 if self._label is None else row[self._label] for row in block]
                if self._label and not all(isinstance(label, int) and label >= 0 for label in labels):
                    raise UserError(
                        f"data.source: {self._title}, rows {place} to {place + len(block) - 1}: the column {self._label!r} "
                        "does not hold whole numbers from 0, which a stream needs: prepare without --stream"
                    )
                pixels = np.stack(list(threads.map(self._wanted.decode, contents, titles)))
                identities = identities_of(stack_digests([digest(content) for content in contents]))
                yield pixels, np.array(labels, np.int32), identities
                place += len(block)


def stream(text: str, wanted: Wanted) -> tuple[dict[str, Stream], tuple[str, ...] | None, list[str], list[str]]:
    """The splits of a data set as streams, the names of the classes, and what is left out and warned of as in `Parts`.

    Raises:
        UserError: as `load`; or the text is a folder of `save_to_disk`, which lies on the disk already.
    """
    opened = _open(text, streaming=True)
    found = _splits(text, opened)
    image, label = _columns(text, found)
    if any(hasattr(split, "save_to_disk") for split in found.values()):
        raise UserError(f"--stream: hf:{text} lies on the disk as it is: leave --stream out")
    left_out, warnings = _unused(text, opened, found, image, label)
    rows = {part: _undecoded(split, image) for part, split in found.items()}
    firsts = {part: next(iter(split), None) for part, split in rows.items()}
    if empty := [part for part, first in firsts.items() if first is None]:
        raise UserError(f"data.source: hf:{text}, {empty[0]} has no images")
    withheld = [part for part, first in firsts.items() if label and first[label] == -1]
    label, withheld = _without_withheld(text, label, withheld, list(found), "the first row of each split", warnings)
    left_out += [f"the split {part}, whose labels are withheld (-1)" for part in withheld]
    streams, names = {}, None
    for part in (part for part in found if part not in withheld):
        title = f"hf:{text}, {part}"
        names = names or getattr(found[part].features[label] if label else None, "names", None)
        if not streams:
            wanted = wanted.of_first(_content({"": firsts[part][image]}, title), f"{title}, row 0")
        streams[part] = Stream(rows[part], image, label, wanted, title)
    return streams, None if names is None else tuple(names), left_out, warnings


def _without_withheld(
    text: str, label: str | None, withheld: list[str], parts: list[str], rows: str, warnings: list[str]
) -> tuple[str | None, list[str]]:
    """The column of classes, None where all splits withhold them, and the splits to leave out; may add a warning.

    Args:
        text: as of `load`.
        label: the column, or None.
        withheld: the splits whose labels are -1.
        parts: all splits.
        rows: those that were looked at, in words.
        warnings: of the source.

    Raises:
        UserError: the training images withhold their labels, and others do not.
    """
    if withheld and len(withheld) == len(parts):
        warnings.append(f"the column {label!r} is -1 in {rows}, which withholds the labels: there are no classes")
        return None, []
    if "train" in withheld:
        raise UserError(f"data.source='hf:{text}': the column {label!r} of the split 'train' withholds all labels (-1)")
    return label, withheld


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise UserError("data.source='hf:...' needs the extra hf: pip install -e '.[hf]'") from error
    return datasets


def _open(text: str, *, streaming: bool) -> Any:
    """What `datasets` gives for a name or path: one split, or a dictionary of them."""
    datasets = _library()
    path = Path(text).expanduser()
    try:
        if path.is_dir():
            if any((path / file).is_file() for file in ("dataset_dict.json", "state.json")):
                return datasets.load_from_disk(str(path))
            return datasets.load_dataset(str(path), streaming=streaming)
    except Exception as error:  # each of the library's readers has its own way to fail
        raise UserError(f"data.source: {path} cannot be read as a data set ({_one_line(error)})") from error
    if text.startswith(("/", ".", "~")):
        existing(text)
        raise UserError(f"data.source: {path} is a file; hf:PATH is a folder that `save_to_disk` wrote")
    name, _, config = text.partition(":")
    try:
        return datasets.load_dataset(name, config or None, streaming=streaming)
    except Exception as error:
        raise UserError(
            f"data.source='hf:{text}' cannot be loaded, neither as a folder nor from the hub ({_one_line(error)}); one of "
            "several configurations is hf:NAME:CONFIG"
        ) from error


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _splits(text: str, opened: Any) -> dict[str, Any]:
    """The splits that are used, by the names that they have here."""
    if not isinstance(opened, dict):
        return {"all": opened}
    found = {SPLITS[name]: split for name, split in opened.items() if name in SPLITS}
    if len(opened) == 1:
        return {"all": next(iter(opened.values()))}
    if "train" not in found:
        raise UserError(f"data.source='hf:{text}' has the splits {', '.join(opened)}; 'train' is needed")
    return found


def _columns(text: str, splits: dict[str, Any]) -> tuple[str, str | None]:
    """The names of the columns of images and of classes."""
    datasets = _library()
    features = next(iter(splits.values())).features or {}
    images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    chosen = images if len(images) == 1 else [name for name in IMAGES if name in images]
    if not chosen:
        kinds = ", ".join(f"{name} ({type(kind).__name__})" for name, kind in features.items()) or "(unknown)"
        problem = (
            f"several columns of images, none named {' or '.join(IMAGES)}" if images else "no column of type Image"
        )
        raise UserError(f"data.source='hf:{text}' has {problem}; its columns: {kinds}")
    scalars = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel | datasets.Value)]
    return chosen[0], next((name for name in LABELS if name in scalars), None)


def _undecoded(split: Any, image: str) -> Any:
    return split.cast_column(image, _library().Image(decode=False))


def _content(row: dict, title: str) -> bytes:
    """The bytes of the one image file in a row."""
    (file,) = row.values()
    if file is None:
        raise UserError(f"data.source: {title} has no image")
    if file["bytes"] is not None:
        return file["bytes"]
    try:
        return Path(file["path"]).read_bytes()
    except (OSError, TypeError) as error:
        raise UserError(f"data.source: {title} cannot be read ({error})") from error


def _labels(
    text: str, splits: dict[str, Any], column: str | None, order: str
) -> tuple[dict[str, np.ndarray | None], tuple[str, ...] | None]:
    """The classes int32 (N,) of each split, -1 in all of one whose labels are withheld; and their names."""
    if column is None:
        return dict.fromkeys(splits), None
    names = getattr(next(iter(splits.values())).features[column], "names", None)
    labels, values = {}, {}
    for part, split in splits.items():
        value = np.asarray(split.with_format("numpy")[column][:])
        if value.dtype.kind == "i" and len(value) and (value == -1).all():
            labels[part] = value.astype(np.int32)
        else:
            values[part] = value
    titles = {f"data.source='hf:{text}', {part}: the column {column!r}": value for part, value in values.items()}
    numbers, names = class_numbers(titles, names=names, order=order)
    return labels | dict(zip(values, numbers, strict=True)), names


def _unused(
    text: str, opened: Any, found: dict[str, Any], image: str, label: str | None
) -> tuple[list[str], list[str]]:
    """Splits and columns that are not used, in words, and warnings for those that look like splits or labels."""
    datasets, left_out, warnings = _library(), [], []
    if isinstance(opened, dict) and "all" not in found:
        unused = {name: rows for name, rows in opened.items() if not any(rows is used for used in found.values())}
        counts = {
            name: f"{len(rows):,} images" if hasattr(rows, "__len__") else "images" for name, rows in unused.items()
        }
        left_out += [f"{count} of the split {name}" for name, count in counts.items()]
        if alike := [name for name in unused if looks_like_split(name)]:
            warnings.append(f"splits that are not used: {listed(alike)}; those of the names {listed(list(SPLITS))} are")
    features = next(iter(found.values())).features or {}
    columns = [name for name in features if name not in (image, label)]
    if columns:
        left_out.append(f"columns {listed(columns)} (not read)")
    alike = [
        name
        for name in columns
        if isinstance(features[name], datasets.ClassLabel) or any(word in name.lower() for word in LABEL_LIKE)
    ]
    if alike:
        used = f"the classes are the column {label!r}" if label else f"classes are a column named {listed(LABELS)}"
        warnings.append(f"columns that look like labels are not used: {listed(alike)}; {used}")
    return left_out, warnings


# By the name that a config gives, with the form of data.source.
SOURCES = {"hf": (load, "hf:NAME")}
