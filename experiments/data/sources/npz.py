"""`npz:PATH`: an .npz file with `images` uint8 (N, H, W[, C]) and perhaps integer `labels` (N,).

Or with its own split: `x_train`, `x_test` and perhaps `x_validation`, of the same kind, and perhaps `y_train`, `y_test` and
`y_validation`. The identity of an image is its pixels, so equal images are in one split. Nothing is ever unpickled.
"""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from experiments.data.sources.base import Images, Parts
from experiments.data.sources.decoding import Wanted
from experiments.data.sources.paths import existing
from experiments.errors import UserError


def load(text: str, wanted: Wanted) -> Parts:
    """Reads the images of an .npz file.

    Raises:
        UserError: it is no such file, is damaged, or holds something else.
    """
    path = existing(text)
    if path.is_dir():
        raise UserError(f"data.source: {path} is a folder, not an .npz file; did you mean 'folder:{path}'?")
    with opened(path) as file:
        if "images" in file.files:
            return Parts({"all": _read(path, file, "images", "labels", wanted)})
        if not {"x_train", "x_test"} <= set(file.files):
            raise UserError(
                f"data.source: {path} has the keys {', '.join(file.files) or '(none)'}; needed are 'images' (and perhaps "
                "'labels'), or 'x_train' and 'x_test' (and perhaps 'y_train' and 'y_test')"
            )
        parts = [part for part in ("train", "test", "validation") if f"x_{part}" in file.files]
        labelled = [part for part in parts if f"y_{part}" in file.files]
        if labelled and labelled != parts:
            keys = " and ".join(f"'y_{part}'" for part in parts)
            raise UserError(
                f"data.source: {path} has only {'one' if len(labelled) == 1 else 'two'} of the keys {keys}: give all or none"
            )
        return Parts({part: _read(path, file, f"x_{part}", f"y_{part}", wanted) for part in parts})


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
        raise UserError(f"{key}: {path}: {name!r} is not a plain array of numbers; store it as one") from error
    except (EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{key}: {path}: {name!r} cannot be read, the file is damaged ({error})") from error


def _read(path: Path, file: np.lib.npyio.NpzFile, image_key: str, label_key: str, wanted: Wanted) -> Images:
    images = array(path, file, image_key)
    if images.dtype != np.uint8:
        raise UserError(f"data.source: {path}: {image_key!r} is {images.dtype}; uint8 in 0..255 is needed")
    if images.ndim not in (3, 4):
        raise UserError(
            f"data.source: {path}: {image_key!r} has shape {images.shape}; (N, H, W) or (N, H, W, C) is needed"
        )
    images = images[..., None] if images.ndim == 3 else images
    wanted.check(f"{path} ({image_key!r})", *images.shape[1:])
    if label_key not in file.files:
        return Images(images)
    labels = array(path, file, label_key)
    if labels.shape != (len(images),):
        raise UserError(
            f"data.source: {path}: {label_key!r} has shape {labels.shape} but {image_key!r} has {len(images)} images; "
            f"({len(images)},) is needed"
        )
    if not np.issubdtype(labels.dtype, np.integer) or (len(labels) and labels.min() < 0):
        raise UserError(f"data.source: {path}: {label_key!r} must hold integers from 0; it is {labels.dtype}")
    return Images(images, labels.astype(np.int32))
