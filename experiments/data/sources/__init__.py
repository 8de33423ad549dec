"""Where images come from: scikit-learn's digits, an .npz file, or a folder of image files.

All become uint8 arrays in memory, split into training and test images. What has no split of its own is split by a
permutation that depends on the number of images alone, so that training, sampling and evaluation agree on it.
"""

import os
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from experiments.data.sources.base import Dataset, Images, Source
from experiments.data.transform import LATENTS
from experiments.errors import UserError, nearest

IMAGE_SUFFIXES = (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
__all__ = ["Dataset", "Images", "Source", "load"]

PILLOW_MODES = {1: "L", 3: "RGB"}  # by number of channels


def load(source: str, *, image_size: int, num_channels: int, test_fraction: float) -> Dataset:
    """Loads the data set that config key `data.source` names.

    Args:
        source: one of

            - `digits`: 1,797 handwritten digits of 8x8x1 pixels that ship with scikit-learn.
            - `npz:PATH`: an .npz file with `images` uint8 (N, H, W[, C]) and perhaps integer `labels` (N,); or with its
              own split, `x_train`, `x_test` and perhaps `y_train`, `y_test`, of the same kinds.
            - `folder:PATH`: image files, in sub-folders too. Two or more sub-folders that hold all images are classes,
              numbered in sorted order. Two sub-folders `train` and `test` are the split, with classes inside them.

        image_size: height and width that every image must have (`data.image_size`).
        num_channels: 1 for grey levels, 3 for RGB (`data.num_channels`). Files in a folder are converted to it.
        test_fraction: fraction of the images held out, in (0, 1), where the source has no split of its own.

    Raises:
        UserError: anything wrong with the source, named with its file and, where it exists, the setting that fits.
    """
    if not 0 < test_fraction < 1:
        raise UserError(f"data.test_fraction={test_fraction} is not allowed: choose between 0 and 1, both excluded")
    expected = _Expected(image_size, num_channels)
    kind, _, path = source.partition(":")
    if source == LATENTS:
        raise UserError(
            f"data.source={source!r}: the model is of an autoencoder's latents, and no encoder is here that makes them of "
            "images: it can be sampled from, not trained or evaluated"
        )
    if source == "digits":
        train, test = _load_digits(expected), None
    elif kind == "npz" and path:
        train, test = _load_npz(Path(path).expanduser(), expected)
    elif kind == "folder" and path:
        train, test = _load_folder(Path(path).expanduser(), expected)
    else:
        hint = f"; did you mean 'npz:{source}'?" if source.endswith(".npz") and kind == source else ""
        hint = hint or nearest(kind, ["digits", "npz", "folder"])
        raise UserError(f"data.source={source!r} is unknown: choose from digits, npz:PATH, folder:PATH{hint}")
    if test is None:
        train, test = _split(train, source, test_fraction)
    for name, part in (("training", train), ("test", test)):
        if len(part) == 0:
            raise UserError(f"data.source={source!r} has no {name} images")
    num_classes = 0 if train.labels is None else 1 + int(max(train.labels.max(), test.labels.max()))
    return Dataset(source, train, test, num_classes)


@dataclass(frozen=True)
class _Expected:
    """The image shape that the config promises to the network."""

    image_size: int
    num_channels: int

    def check(self, file: str | Path, height: int, width: int, channels: int) -> None:
        """Raises a UserError that names the overrides which would fit, unless the shape of `file`'s images is right."""
        if height != width:
            raise UserError(
                f"{file} holds {height}x{width} pixel images: only square ones are supported; crop them first"
            )
        overrides = []
        if height != self.image_size:
            overrides.append(f"--config.data.image_size={height}")
        if channels != self.num_channels:
            overrides.append(f"--config.data.num_channels={channels}")
        if overrides:
            raise UserError(
                f"{file} holds {height}x{width}x{channels} images but data.image_size={self.image_size} and "
                f"data.num_channels={self.num_channels}: to train on them as they are, pass {' '.join(overrides)}"
            )


def _split(images: Images, source: str, test_fraction: float) -> tuple[Images, Images]:
    """Splits by a permutation fixed by the number of images; the first part is for training."""
    num_test = round(len(images) * test_fraction)
    num_train = len(images) - num_test
    if num_test == 0 or num_train == 0:
        raise UserError(
            f"data.source={source!r} has {len(images)} images, too few to hold out "
            f"data.test_fraction={test_fraction} of them: at least one must remain for training and one for testing"
        )
    order = np.random.default_rng(0).permutation(len(images))
    return images.take(order[:num_train]), images.take(order[num_train:])


def _existing(path: Path) -> Path:
    """Returns `path`, or raises a UserError that names its nearest sibling."""
    if not path.exists():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"data.source: {path} does not exist{nearest(path.name, siblings)}")
    return path


def _load_digits(expected: _Expected) -> Images:
    """The 8x8 digits of https://archive.ics.uci.edu/dataset/80, whose 17 levels 0..16 are spread over 0..255."""
    from sklearn.datasets import load_digits  # takes a second to import, so only where it is used

    expected.check("data.source='digits'", 8, 8, 1)
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    return Images(images, digits.target.astype(np.int32))


def _load_npz(path: Path, expected: _Expected) -> tuple[Images, Images | None]:
    """Reads (training, test) images from an .npz file; (all, None) where the file has no split."""
    if _existing(path).is_dir():
        raise UserError(f"data.source: {path} is a folder, not an .npz file; did you mean 'folder:{path}'?")
    try:
        file = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        # numpy takes whatever it does not know for a pickle and advises to load it all the same: not repeated here.
        raise UserError(f"data.source: {path} is not an .npz file, or it is damaged") from error
    except OSError as error:
        raise UserError(f"data.source: {path} cannot be read ({error.strerror})") from error
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise UserError(f"data.source: {path} holds a single array; an .npz file with the key 'images' is needed")
    with file:
        if "images" in file.files:
            return _read_images(path, file, "images", "labels", expected), None
        if {"x_train", "x_test"} <= set(file.files):
            train = _read_images(path, file, "x_train", "y_train", expected)
            test = _read_images(path, file, "x_test", "y_test", expected)
            if (train.labels is None) != (test.labels is None):
                raise UserError(
                    f"data.source: {path} has only one of the keys 'y_train' and 'y_test': give both or none"
                )
            return train, test
        raise UserError(
            f"data.source: {path} has the keys {', '.join(file.files) or '(none)'}; needed are 'images' (and perhaps "
            "'labels'), or 'x_train' and 'x_test' (and perhaps 'y_train' and 'y_test')"
        )


def _read_array(path: Path, file: np.lib.npyio.NpzFile, key: str) -> np.ndarray:
    try:
        return file[key]
    except ValueError as error:
        # An array of Python objects: reading it would run code that the file brings along.
        raise UserError(f"data.source: {path}: {key!r} is not a plain array of numbers; store it as one") from error
    except (EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"data.source: {path}: {key!r} cannot be read, the file is damaged ({error})") from error


def _read_images(path: Path, file: np.lib.npyio.NpzFile, image_key: str, label_key: str, expected: _Expected) -> Images:
    images = _read_array(path, file, image_key)
    if images.dtype != np.uint8:
        raise UserError(f"data.source: {path}: {image_key!r} is {images.dtype}; uint8 in 0..255 is needed")
    if images.ndim not in (3, 4):
        raise UserError(
            f"data.source: {path}: {image_key!r} has shape {images.shape}; (N, H, W) or (N, H, W, C) is needed"
        )
    images = images[..., None] if images.ndim == 3 else images
    expected.check(f"{path} ({image_key!r})", *images.shape[1:])
    if label_key not in file.files:
        return Images(images)
    labels = _read_array(path, file, label_key)
    if labels.shape != (len(images),):
        raise UserError(
            f"data.source: {path}: {label_key!r} has shape {labels.shape} but {image_key!r} has {len(images)} images; "
            f"({len(images)},) is needed"
        )
    if not np.issubdtype(labels.dtype, np.integer) or (len(labels) and labels.min() < 0):
        raise UserError(f"data.source: {path}: {label_key!r} must hold integers from 0; it is {labels.dtype}")
    return Images(images, labels.astype(np.int32))


def _load_folder(folder: Path, expected: _Expected) -> tuple[Images, Images | None]:
    """Reads (training, test) images from a folder; (all, None) where it has no sub-folders `train` and `test`."""
    if not _existing(folder).is_dir():
        raise UserError(f"data.source: {folder} is a file, not a folder; did you mean 'npz:{folder}'?")
    if expected.num_channels not in PILLOW_MODES:
        raise UserError(f"data.num_channels={expected.num_channels} is not allowed for image files: choose 1 or 3")
    files = _image_files(folder)
    if not files:
        raise UserError(f"data.source: {folder} holds no image files ({' '.join(IMAGE_SUFFIXES)})")
    if {file.parts[0] for file in files} == {"train", "test"} and all(len(file.parts) > 1 for file in files):
        classes = _classes([file.relative_to(file.parts[0]) for file in files])
        images = Images(_decode(folder, files, expected), classes)
        is_train = np.array([file.parts[0] == "train" for file in files])
        return images.take(is_train), images.take(~is_train)
    return Images(_decode(folder, files, expected), _classes(files)), None


def _image_files(folder: Path) -> list[Path]:
    """Paths of the image files, relative to `folder` and sorted, without hidden files and folders."""
    files = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")]
        files += [Path(parent, name).relative_to(folder) for name in names]
    return sorted(files, key=lambda file: file.parts)


def _classes(files: list[Path]) -> np.ndarray | None:
    """Class numbers int32 (N,) from the first sub-folder of each path; None unless two or more hold all the files."""
    names = sorted({file.parts[0] for file in files})
    if len(names) < 2 or any(len(file.parts) == 1 for file in files):
        return None
    number = {name: i for i, name in enumerate(names)}
    return np.array([number[file.parts[0]] for file in files], np.int32)


def _decode(folder: Path, files: list[Path], expected: _Expected) -> np.ndarray:
    """Decodes all files into one uint8 array (N, H, W, C); the first bad one, in order, ends it with its name."""

    def decode(file: Path) -> np.ndarray:
        path = folder / file
        try:
            with Image.open(path) as image:
                mode, (width, height) = image.mode, image.size
                # The size is known before the pixels are: a wrong one is refused without decoding.
                expected.check(path, height, width, expected.num_channels)
                pixels = np.asarray(image.convert(PILLOW_MODES[expected.num_channels]))
        except UserError:
            raise
        except Exception as error:  # each of Pillow's decoders has its own way to fail
            raise UserError(f"data.source: {path} cannot be read as an image ({error})") from error
        if mode.startswith(("I", "F")):
            raise UserError(
                f"data.source: {path} has more than 8 bits per channel (mode {mode}): convert it to 8 bits first"
            )
        return pixels.reshape(height, width, expected.num_channels)

    first = decode(files[0])  # before the threads and the memory: most faults are every file's
    images = np.empty((len(files), *first.shape), np.uint8)
    # Pillow lets go of the interpreter lock while it decodes and reads.
    with ThreadPoolExecutor(max_workers=2 * (os.cpu_count() or 1)) as threads:
        decoded = threads.map(decode, files)
        try:
            for i, pixels in enumerate(tqdm(decoded, "decoding images", len(files), unit=" images", delay=2)):
                images[i] = pixels
        except UserError:
            threads.shutdown(cancel_futures=True)
            raise
    return images
