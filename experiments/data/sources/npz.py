"""`npz:PATH`: an .npz file with `images` uint8 (N, H, W[, C]) and perhaps `labels` (N,): integers from 0, or texts.

Images of another dtype are divided by the level that is white (`data.white`): 65535 for uint16, 1 for floats in [0, 1].
Or with its own split: `x_train`, `x_test` and perhaps `x_validation`, of the same kind, and perhaps `y_train`, `y_test` and
`y_validation`. `label_names`, texts (K,), names the classes by number. The identity of an image is its pixels, so equal
images are in one split. Nothing is ever unpickled.
"""

import functools
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from experiments.data.sources.base import Images, Parts
from experiments.data.sources.decoding import Wanted, require_several
from experiments.data.sources.layout import looks_like_split
from experiments.data.sources.names import class_numbers, listed
from experiments.data.sources.paths import existing
from experiments.errors import UserError, nearest

# (path, file, key, shapes of the arrays of other splits) -> values (N, ...), and warnings
Take = Callable[[Path, np.lib.npyio.NpzFile, str, dict[str, tuple[int, ...]]], tuple[np.ndarray, list[str]]]


def load(text: str, wanted: Wanted) -> Parts:
    """Reads the images of an .npz file; of 4 channels, colours are multiplied by alpha already (`rendering`).

    Raises:
        UserError: it is no such file, is damaged, or holds something else.
    """
    return read(text, ("images",), functools.partial(_images, wanted), wanted.class_order)


def read(text: str, names: tuple[str, ...], take: Take, class_order: str) -> Parts:
    """Reads the examples and labels of an .npz file.

    Args:
        text: the path.
        names: of the array of undivided examples; the first that the file has.
        take: reads an array of examples.
        class_order: of class names.

    Raises:
        UserError: as `load`.
    """
    path = existing(text)
    if path.is_dir():
        raise UserError(f"data.source: {path} is a folder, not an .npz file; did you mean 'folder:{path}'?")
    with opened(path) as file:
        arrays, labels = keys(path, file, names)
        images, doubts = {}, []
        for part, key in arrays.items():
            images[part], found = take(path, file, key, {arrays[part]: x.shape for part, x in images.items()})
            doubts += found
        counts = {part: (arrays[part], len(values)) for part, values in images.items()}
        numbers, class_names = _labels(path, file, labels, counts, class_order)
        left_out, warnings = _unused(path, file, {*arrays.values(), *labels.values(), NAMES})
    sources = {part: Images(images[part], numbers.get(part)) for part in arrays}
    return Parts(sources, class_names, left_out, (*doubts, *warnings))


def keys(path: Path, file: np.lib.npyio.NpzFile, names: tuple[str, ...]) -> tuple[dict[str, str], dict[str, str]]:
    """The keys of examples, and of labels, by split.

    Args:
        path, file: opened.
        names: as of `read`.

    Raises:
        UserError: keys are missing.
    """
    for name in names:
        if name in file.files:
            return {"all": name}, {"all": "labels"} if "labels" in file.files else {}
    if not {"x_train", "x_test"} <= set(file.files):
        near = nearest(names[0], file.files) or nearest("x_train", file.files)
        raise UserError(
            f"data.source: {path} has the keys {listed(file.files) or '(none)'}; needed are {names[0]!r} (and perhaps "
            f"'labels'), or 'x_train' and 'x_test' (and perhaps 'y_train' and 'y_test'){near}"
        )
    parts = [part for part in ("train", "test", "validation") if f"x_{part}" in file.files]
    labelled = [part for part in parts if f"y_{part}" in file.files]
    if labelled and labelled != parts:
        keys = " and ".join(f"'y_{part}'" for part in parts)
        raise UserError(
            f"data.source: {path} has only {'one' if len(labelled) == 1 else 'two'} of the keys {keys}: give all or none"
        )
    return {part: f"x_{part}" for part in parts}, {part: f"y_{part}" for part in labelled}


def opened(path: Path, key: str = "data.source") -> np.lib.npyio.NpzFile:
    """An .npz file, opened; nothing in it is read yet, and nothing is ever unpickled.

    Args:
        path: of a file that exists.
        key: that named the file, for messages.

    Raises:
        UserError: it is no such file, or is damaged.
    """
    try:
        file = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        # numpy takes whatever it does not know for a pickle and advises to load it all the same: not repeated here.
        raise UserError(f"{key}: {path} is not an .npz file, or it is damaged") from error
    except OSError as error:
        raise UserError(f"{key}: {path} cannot be read ({error.strerror})") from error
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise UserError(f"{key}: {path} holds a single array; an .npz file with the key 'images' is needed")
    return file


def array(path: Path, file: np.lib.npyio.NpzFile, name: str, key: str = "data.source") -> np.ndarray:
    """The array of that name in the file.

    Raises:
        UserError: it is of Python objects, or damaged.
    """
    try:
        return file[name]
    except ValueError as error:
        # An array of Python objects: reading it would run code that the file brings along.
        raise UserError(f"{key}: {path}: {name!r} is not a plain array of numbers or texts; store it as one") from error
    except (EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{key}: {path}: {name!r} cannot be read, the file is damaged ({error})") from error


def _images(
    wanted: Wanted, path: Path, file: np.lib.npyio.NpzFile, key: str, others: dict[str, tuple[int, ...]]
) -> tuple[np.ndarray, list[str]]:
    """The images uint8 (N, H, W, C) of an array, and warnings about its levels.

    Args:
        wanted: see `Wanted`.
        path, file: of the array.
        key: of the array.
        others: shapes (N, H, W, C) of the arrays of other splits, which are read already.

    Raises:
        UserError: it is no array of images, or its images do not fit the config or those of another split.
    """
    images = array(path, file, key)
    if images.ndim not in (3, 4):
        raise UserError(f"data.source: {path}: {key!r} has shape {images.shape}; (N, H, W) or (N, H, W, C) is needed")
    if images.ndim == 3:
        require_several(f"data.source: {path}: {key!r}", images.shape)
        images = images[..., None]
    for other, shape in others.items():
        if images.shape[3] != shape[3] or (images.shape[1:3] != shape[1:3] and not wanted.crops):
            raise UserError(
                f"data.source: {path}: the splits differ: {key!r} holds {'x'.join(map(str, images.shape[1:]))} images and "
                f"{other!r} {'x'.join(map(str, shape[1:]))}; store all with one size and number of channels"
            )
    wanted.check_arrays(f"{path} ({key!r})", images.shape)
    name = f"{path}: {key!r}"
    return wanted.rendering.array(images, name), wanted.rendering.warnings(images, name)


def _labels(
    path: Path, file: np.lib.npyio.NpzFile, keys: dict[str, str], examples: dict[str, tuple[str, int]], order: str
) -> tuple[dict[str, np.ndarray], tuple[str, ...] | None]:
    """Class numbers int32 (N,) by split, and the names of the classes; `examples` has the key and the number by split.

    Raises:
        UserError: they are not labels of these images, or the names do not fit them.
    """
    names = None
    if NAMES in file.files:
        stored = array(path, file, NAMES)
        if stored.dtype.kind not in "US" or stored.ndim != 1:
            raise UserError(
                f"data.source: {path}: {NAMES!r} is {stored.dtype} {stored.shape}; texts (K,) are needed, one a class"
            )
        names = [name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in stored.tolist()]
        if len(set(names)) < len(names):
            raise UserError(f"data.source: {path}: {NAMES!r} has a name twice: {listed(names)}")
    values = {}
    for part, key in keys.items():
        labels, (of, count) = array(path, file, key), examples[part]
        if labels.shape != (count,):
            advice = ""
            if labels.ndim == 2 and len(labels) == count:
                advice = f": store {key}[:, 0]" if labels.shape[1] == 1 else f": of one-hot rows, store {key}.argmax(1)"
            raise UserError(
                f"data.source: {path}: {key!r} has shape {labels.shape} but {of!r} has {count} images; "
                f"({count},) is needed{advice}"
            )
        values[f"data.source: {path}: {key!r}"] = labels
    if not values:
        return {}, None
    numbers, names = class_numbers(values, names=names, order=order)
    return dict(zip(keys, numbers, strict=True)), names


def _unused(path: Path, file: np.lib.npyio.NpzFile, used: set[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Arrays that are not used, in words, and warnings for those whose names look like labels or splits."""
    unused = [key for key in file.files if key not in used]
    if not unused:
        return (), ()
    labelled = any(key == "labels" or key.startswith("y_") for key in used)
    warnings = []
    alike = [key for key in unused if _LIKE_LABELS.search(key)]
    if alike and not labelled:
        meant = "labels" if "images" in used else "y_train and y_test"
        warnings.append(f"{path}: {listed(alike)} looks like labels and is not used: name the key {meant}")
    elif alike:
        warnings.append(f"{path}: {listed(alike)} looks like labels or their names and is not used")
    others = [key for key in unused if key not in alike and looks_like_split(key.removeprefix("x_"))]
    others += [key for key in unused if key not in alike + others and key.lower().startswith("x")]
    others += [key for key in unused if key not in alike + others and "image" in key.lower()]
    if others:
        warnings.append(
            f"{path}: {listed(others)} looks like images of a split and is not used: the keys are images, or "
            "x_train, x_test and x_validation"
        )
    return (f"arrays {listed(unused)} (keys that are not read)",), tuple(warnings)


NAMES = "label_names"
_LIKE_LABELS = re.compile(r"label|class|target|categor|names|^y$|^y_|^ys$|attr|cond", re.IGNORECASE)


# By the name that a config gives, with the form of data.source.
SOURCES = {"npz": (load, "npz:PATH")}
