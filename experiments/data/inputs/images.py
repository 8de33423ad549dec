"""The user's own images and masks, as arrays that fit the model.

IMAGES is an image file, a folder of them, or `FILE.npz[:ARRAY]` with uint8 or with floats in [0, 1], (N, H, W[, C]).

Clean images of another size are made to fit as training's are with `data.resize=center_crop`: the largest centred region of
the model's aspect ratio is resized, antialiased. What was measured keeps its pixels, so its size must be right. Colours
become grey levels and the other way round. Transparency, orientation and depth are resolved as in training
(`data.background`, `data.white`), for masks and kernels too.
"""

import itertools
import os
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from experiments.data.sources import npz
from experiments.data.sources.cropping import center_crop
from experiments.data.sources.decoding import IMAGE_SUFFIXES, require_channels_last, require_several
from experiments.data.sources.folder import image_files
from experiments.data.sources.paths import existing
from experiments.data.sources.rendering import CHANNELS, Rendering, opened, with_channels
from experiments.errors import UserError, nearest

USUAL_ARRAYS = ("images", "samples")  # of data sets, and of what `sample` writes
KEYS = ("data.background", "data.white")  # of the config: how pictures are read; any command may change them
RENDERING = Rendering()
LONGEST = 200  # bytes of a name; file systems allow 255, and results add a few
FARTHEST = 10.0  # measurements with noise leave [0, 1], but grey levels up to 255 are a mistake


@dataclass(frozen=True)
class Images:
    """Images or measurements, each with a name that a file can have.

    Attributes:
        names: N, all different: of the files without their endings, or numbers within an array.
        values: float32 (N, *shape).
    """

    names: tuple[str, ...]
    values: np.ndarray


def read(
    flag: str,
    text: str,
    shape: tuple[int, int, int],
    forward: Callable[[np.ndarray], np.ndarray],
    *,
    measured: bool = False,
    limit: int | None = None,
    rendering: Rendering = RENDERING,
) -> Images:
    """The images of IMAGES.

    Args:
        flag: that the text was given to, for messages, as "--input".
        text: IMAGES.
        shape: (H, W, C) to make them.
        forward: from grey levels in [0, 255] to the model's range: that of an `ImageMedium`.
        measured: they are measurements: another size is refused, and floats may leave [0, 1] by their noise.
        limit: only the first so many.
        rendering: from stored levels to grey levels.

    Raises:
        UserError: nothing is there, or it is of another kind or size.
    """
    path, array = _split(flag, text)
    if array is not None or path.suffix.lower() == ".npz":
        names, levels = _from_array(flag, path, array, shape, measured, limit, rendering)
    else:
        names, levels = _from_files(flag, path, shape, measured, limit, rendering)
    return Images(names, np.asarray(forward(levels), np.float32))


def read_values(flag: str, text: str, shape: tuple[int, ...], *, limit: int | None = None) -> Images:
    """Measurements that are no images, of `FILE.npz[:ARRAY]`: numbers (N, *shape) as they are.

    Raises:
        UserError: it is no such file, or they have another shape.
    """
    path, array = _split(flag, text)
    if path.suffix.lower() != ".npz":
        raise UserError(f"{flag}={text}: what is measured here is no image: give numbers {shape} as FILE.npz:ARRAY")
    name, values = _array(flag, path, array)
    values = values[:limit]
    if values.shape[1:] != tuple(shape) or not np.issubdtype(values.dtype, np.floating):
        raise UserError(f"{flag}: {path}: {name!r} is {values.dtype}{values.shape}; floats (N, *{shape}) are needed")
    _require_finite(flag, path, name, values)
    return Images(_numbers(flag, path, len(values)), values.astype(np.float32))


def read_mask(
    flag: str,
    text: str,
    shape: tuple[int, int, int],
    rendering: Rendering = RENDERING,
    *,
    white: str = "",
    black: str = "",
) -> np.ndarray:
    """A mask, booleans (H, W): True where the image file is white, lighter than middle grey.

    Args:
        flag: that the text was given to, for messages.
        text: the file.
        shape: (H, W, C) of the images that it is for.
        rendering: from stored levels to grey levels.
        white, black: consequences of a mask that is all white or all black, which is refused with them; empty: it is not.

    Raises:
        UserError: it is no image, has another size, or is all white or all black.
    """
    return checked_mask(flag, text, read_grey(flag, text, shape, rendering), white=white, black=black)


def checked_mask(flag: str, text: str, levels: np.ndarray, *, white: str, black: str) -> np.ndarray:
    """The booleans of a mask by its grey levels from 0 to 1; arguments and errors as of `read_mask`."""
    mask = levels > 0.5
    if white and mask.all():
        raise UserError(f"{flag}: {text} is all white{white}")
    if black and not mask.any():
        lightest = round(255 * float(levels.max(initial=0)))
        hint = (
            f" (its lightest level is {lightest} of 255: a mask of 0 and 1 must be multiplied by 255)"
            if lightest
            else ""
        )
        raise UserError(f"{flag}: {text} is all black{black}{hint}")
    return mask


def read_grey(
    flag: str, text: str, shape: tuple[int, int, int] | None = None, rendering: Rendering = RENDERING
) -> np.ndarray:
    """The grey levels of an image file, float32 (H, W) from 0 to 1: a mask, or the kernel of a blur.

    Raises:
        UserError: it is no image, or has another size than the `shape` that is given.
    """
    path = existing(text, flag)
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise _unknown_type(flag, path, IMAGE_SUFFIXES)
    pixels = _rendered(flag, path, 1, rendering)[..., 0].astype(np.float32) / 255
    if shape is not None and pixels.shape != tuple(shape[:2]):
        raise _wrong_size(flag, path, pixels.shape, shape, "a mask must fit the model's images")
    return pixels


def require_same_number(first: tuple[str, Images], second: tuple[str, Images]) -> None:
    """UserError unless two flags gave equally many images, which are taken in their order."""
    (flag, images), (other_flag, others) = first, second
    if len(images.names) != len(others.names):
        raise UserError(
            f"{flag} has {len(images.names)} images and {other_flag} {len(others.names)}: they are paired in their order"
        )


def _split(flag: str, text: str) -> tuple[Path, str | None]:
    """The path that exists, and the array's name if there is one."""
    head, colon, array = text.rpartition(":")
    if colon and head.lower().endswith(".npz"):
        return existing(head, flag), array
    return existing(text, flag), None


def _from_files(flag, path, shape, measured, limit, rendering) -> tuple[tuple[str, ...], np.ndarray]:
    """Names, and grey levels float32 (N, *shape)."""
    if path.is_dir():
        files = [path / file for file in image_files(path)][:limit]
        if not files:
            raise UserError(f"{flag}: {path} holds no image files ({' '.join(IMAGE_SUFFIXES)})")
    elif path.suffix.lower() in IMAGE_SUFFIXES:
        files = [path]
    else:
        raise _unknown_type(flag, path, (*IMAGE_SUFFIXES, ".npz"))
    root = path if path.is_dir() else path.parent
    names = file_names([file.relative_to(root) for file in files])
    return names, np.stack([_decoded(flag, file, shape, measured, rendering) for file in files])


def file_names(paths: Sequence[PurePath]) -> tuple[str, ...]:
    """Names for files of results, one for each of N different relative paths, that no file system takes for each other.

    Folders are joined by underscores. The file's ending is left out, unless names would then be equal; names that are
    equal with their endings (`a/b.png` and `a_b.png`) get numbers. Names that differ only in case or in Unicode
    composition count as equal. Of a long name the last `LONGEST` bytes are kept.
    """
    plain = [_shortened("_".join(path.with_suffix("").parts)) for path in paths]
    if len({_folded(name) for name in plain}) == len(plain):
        return tuple(plain)
    whole = [_shortened("_".join(path.parts).replace(".", "_")) for path in paths]
    taken, met, names = {_folded(name) for name in whole}, set(), []
    for name in whole:
        unique = name
        if _folded(name) in met:
            numbered = (f"{name}-{number}" for number in itertools.count(2))
            unique = next(other for other in numbered if _folded(other) not in taken)
            taken.add(_folded(unique))
        met.add(_folded(name))
        names.append(unique)
    return tuple(names)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _shortened(name: str) -> str:
    return os.fsencode(name)[-LONGEST:].decode(errors="ignore") if len(os.fsencode(name)) > LONGEST else name


def _decoded(flag: str, path: Path, shape: tuple[int, int, int], measured: bool, rendering: Rendering) -> np.ndarray:
    if shape[2] not in CHANNELS:
        raise UserError(f"{flag}: {path} is an image file, but {shape[2]} channels are needed: give an .npz file")
    pixels = _rendered(flag, path, shape[2], rendering)
    if measured and pixels.shape[:2] != tuple(shape[:2]):
        raise _wrong_size(flag, path, pixels.shape[:2], shape, "a measurement must have exactly the measured size")
    if not measured and pixels.shape[:2] != tuple(shape[:2]):
        pixels = np.clip(center_crop(pixels, shape[:2]), 0, 255)  # the bicubic filter overshoots at edges
    return pixels.astype(np.float32)


def _rendered(flag: str, path: Path, channels: int, rendering: Rendering) -> np.ndarray:
    """The levels of an image file, (h, w, channels), uint8 or float32 in [0, 255]; see `Rendering.picture`."""
    data = content(flag, path)
    with opened(data, path, flag) as image:
        picture = np.asarray(rendering.picture(image, data, channels, path, flag))
    return picture.reshape(*picture.shape[:2], channels)


def _from_array(flag, path, array, shape, measured, limit, rendering) -> tuple[tuple[str, ...], np.ndarray]:
    """Names, and grey levels float32 (N, *shape)."""
    name, images = _array(flag, path, array)
    images = images[:limit]
    if images.ndim not in (3, 4) or images.dtype.kind not in ("buif" if rendering.white else "uf"):
        raise UserError(
            f"{flag}: {path}: {name!r} is {images.dtype}{images.shape}; uint8, or floats in [0, 1], of (N, H, W) or "
            f"(N, H, W, C) are needed; of other integers the level that is white: {rendering.flags}white=65535"
        )
    what = f"{path}: {name!r}"
    if images.ndim == 3:
        require_several(f"{flag}: {what}", images.shape)
        images = images[..., None]
    if images.shape[-1] != shape[2]:
        require_channels_last(f"{flag}: {what}", images.shape)
    if not np.issubdtype(images.dtype, np.floating):
        images = rendering.array(images, what, flag, dtype=np.float32)
    else:
        _require_finite(flag, path, name, images)
        low, high = (-FARTHEST, FARTHEST) if measured else (0, 1)
        if images.size and not (images.min() >= low and images.max() <= high):
            raise UserError(
                f"{flag}: {path}: {name!r} has values from {images.min():g} to {images.max():g}: floats must be in [0, 1] "
                f"(x / 255 of grey levels, (x + 1) / 2 of [-1, 1]){', but for their noise' if measured else ''}"
            )
        images = images.astype(np.float32) * 255
    given = images.shape[-1]
    images = with_channels(images, shape[2])
    if images is None:
        raise UserError(f"{flag}: {what} has the wrong number of channels: {shape[2]} are needed, it has {given}")
    if images.shape[1:3] != tuple(shape[:2]):
        if measured:
            raise _wrong_size(flag, path, images.shape[1:3], shape, "a measurement must have exactly the measured size")
        images = np.clip(np.stack([center_crop(image, shape[:2]) for image in images]), 0, 255)
    return _numbers(flag, path, len(images)), images.astype(np.float32)


def _array(flag: str, path: Path, name: str | None) -> tuple[str, np.ndarray]:
    """The array of that name in an .npz file, or the one that is meant without a name; and its name."""
    if not path.is_file():
        raise UserError(f"{flag}: {path} is a folder, not an .npz file")
    with npz.opened(path, flag) as file:
        usual = [key for key in USUAL_ARRAYS if key in file.files] or (file.files if len(file.files) == 1 else [])
        if name is None and not usual:
            raise UserError(
                f"{flag}: {path} has the arrays {', '.join(file.files) or '(none)'}: say which, as {path}:NAME"
            )
        name = name if name is not None else usual[0]
        if name not in file.files:
            known = ", ".join(file.files) or "(none)"
            raise UserError(f"{flag}: {path} has no array {name!r}: choose from {known}{nearest(name, file.files)}")
        values = npz.array(path, file, name, flag)
    if not values.ndim:
        raise UserError(f"{flag}: {path}: {name!r} is a single number; an array of images is needed")
    return name, values


def _numbers(flag: str, path: Path, count: int) -> tuple[str, ...]:
    """Names of the entries of an array."""
    if not count:
        raise UserError(f"{flag}: {path} holds no images")
    return tuple(f"{i:0{max(4, len(str(count - 1)))}d}" for i in range(count))


def _require_finite(flag: str, path: Path, name: str, values: np.ndarray) -> None:
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise UserError(f"{flag}: {path}: {bad} of the {values.size} values of {name!r} are not finite")


def content(flag: str, path: Path) -> bytes:
    """The bytes of a file; UserError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{flag}: {path} cannot be read ({error.strerror})") from error


def _unknown_type(flag: str, path: Path, allowed: tuple[str, ...]) -> UserError:
    what = path.suffix or "a file without an ending"
    return UserError(f"{flag}: {path}: unknown file type {what}: choose from {' '.join(allowed)}")


def _wrong_size(flag: str, path: Path, size: tuple[int, int], shape: tuple[int, ...], why: str) -> UserError:
    return UserError(f"{flag}: {path} has {size[0]}x{size[1]} pixels, {shape[0]}x{shape[1]} are needed: {why}")
