"""The user's own images and masks, as arrays that fit the model.

IMAGES is an image file, a folder of them, or `FILE.npz[:ARRAY]` with uint8 or with floats in [0, 1], (N, H, W[, C]).

Clean images of another size are made to fit as training's are with `data.resize=center_crop`: the shorter side becomes the
model's, antialiased, and the middle is cut out. What was measured keeps its pixels, so its size must be right. Colours
become grey levels and the other way round.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from experiments.data.sources import npz
from experiments.data.sources.decoding import IMAGE_SUFFIXES, center_crop, converted, opened
from experiments.data.sources.folder import image_files
from experiments.data.sources.paths import existing
from experiments.errors import UserError, nearest

USUAL_ARRAYS = ("images", "samples")  # of data sets, and of what `sample` writes
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's conversion
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
) -> Images:
    """The images of IMAGES.

    Args:
        flag: that the text was given to, for messages, as "--input".
        text: IMAGES.
        shape: (H, W, C) to make them.
        forward: from grey levels in [0, 255] to the model's range: a data transform's.
        measured: they are measurements: another size is refused, and floats may leave [0, 1] by their noise.
        limit: only the first so many.

    Raises:
        UserError: nothing is there, or it is of another kind or size.
    """
    path, array = _split(flag, text)
    if array is not None or path.suffix.lower() == ".npz":
        names, levels = _from_array(flag, path, array, shape, measured, limit)
    else:
        names, levels = _from_files(flag, path, shape, measured, limit)
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


def read_mask(flag: str, text: str, shape: tuple[int, int, int]) -> np.ndarray:
    """A mask, booleans (H, W): True where the image file is white, lighter than middle grey.

    Args:
        flag: that the text was given to, for messages.
        text: the file.
        shape: (H, W, C) of the images that it is for.

    Raises:
        UserError: it is no image, or has another size.
    """
    return read_grey(flag, text, shape) > 0.5


def read_grey(flag: str, text: str, shape: tuple[int, int, int] | None = None) -> np.ndarray:
    """The grey levels of an image file, float32 (H, W) from 0 to 1: a mask, or the kernel of a blur.

    Raises:
        UserError: it is no image, or has another size than the `shape` that is given.
    """
    path = existing(text, flag)
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise _unknown_type(flag, path, IMAGE_SUFFIXES)
    pixels = np.asarray(converted(opened(_content(flag, path), path, flag), 1, path, flag), np.float32) / 255
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


def _from_files(flag, path, shape, measured, limit) -> tuple[tuple[str, ...], np.ndarray]:
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
    plain = ["_".join(file.relative_to(root).with_suffix("").parts) for file in files]
    whole = ["_".join(file.relative_to(root).parts).replace(".", "_") for file in files]
    names = plain if len(set(plain)) == len(plain) else whole
    return tuple(names), np.stack([_decoded(flag, file, shape, measured) for file in files])


def _decoded(flag: str, path: Path, shape: tuple[int, int, int], measured: bool) -> np.ndarray:
    if shape[2] not in (1, 3):
        raise UserError(f"{flag}: {path} is an image file, but {shape[2]} channels are needed: give an .npz file")
    with opened(_content(flag, path), path, flag) as image:
        upright = ImageOps.exif_transpose(converted(image, shape[2], path, flag))  # as viewers show a photograph
    size = (upright.height, upright.width)
    if measured and size != tuple(shape[:2]):
        raise _wrong_size(flag, path, size, shape, "a measurement must have exactly the measured size")
    return np.asarray(upright if measured else center_crop(upright, shape[0]), np.float32).reshape(shape)


def _from_array(flag, path, array, shape, measured, limit) -> tuple[tuple[str, ...], np.ndarray]:
    """Names, and grey levels float32 (N, *shape)."""
    name, images = _array(flag, path, array)
    images = images[:limit]
    if images.ndim not in (3, 4) or not (images.dtype == np.uint8 or np.issubdtype(images.dtype, np.floating)):
        raise UserError(
            f"{flag}: {path}: {name!r} is {images.dtype}{images.shape}; uint8, or floats in [0, 1], of (N, H, W) or "
            "(N, H, W, C) are needed"
        )
    images = images[..., None] if images.ndim == 3 else images
    if images.dtype != np.uint8:
        _require_finite(flag, path, name, images)
        low, high = (-FARTHEST, FARTHEST) if measured else (0, 1)
        if images.size and not (images.min() >= low and images.max() <= high):
            raise UserError(
                f"{flag}: {path}: {name!r} has values from {images.min():g} to {images.max():g}: floats must be in [0, 1] "
                f"(x / 255 of grey levels, (x + 1) / 2 of [-1, 1]){', but for their noise' if measured else ''}"
            )
        images = images.astype(np.float32) * 255
    images = _with_channels(images, shape[2])
    if images is None:
        raise UserError(f"{flag}: {path}: {name!r} has the wrong number of channels: {shape[2]} are needed")
    if images.shape[1:3] != tuple(shape[:2]):
        if measured:
            raise _wrong_size(flag, path, images.shape[1:3], shape, "a measurement must have exactly the measured size")
        images = np.stack([_cropped(image, shape[0]) for image in images])
    return _numbers(flag, path, len(images)), images.astype(np.float32)


def _with_channels(images: np.ndarray, channels: int) -> np.ndarray | None:
    """Images (N, H, W, C) with so many channels: grey levels of colours, colours of grey levels; None for others."""
    if images.shape[-1] == channels:
        return images
    if (images.shape[-1], channels) == (1, 3):
        return np.repeat(images, 3, -1)
    return (images @ LUMA)[..., None] if (images.shape[-1], channels) == (3, 1) else None


def _cropped(image: np.ndarray, size: int) -> np.ndarray:
    """`center_crop` of an image (H, W, C), each channel by itself; float32 unless it is uint8."""
    pixels = image if image.dtype == np.uint8 else image.astype(np.float32)
    channels = [center_crop(Image.fromarray(pixels[..., c]), size) for c in range(pixels.shape[-1])]
    return np.clip(np.stack(channels, -1), 0, 255)  # the bicubic filter overshoots at edges


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


def _content(flag: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{flag}: {path} cannot be read ({error.strerror})") from error


def _unknown_type(flag: str, path: Path, allowed: tuple[str, ...]) -> UserError:
    what = path.suffix or "a file without an ending"
    return UserError(f"{flag}: {path}: unknown file type {what}: choose from {' '.join(allowed)}")


def _wrong_size(flag: str, path: Path, size: tuple[int, int], shape: tuple[int, ...], why: str) -> UserError:
    return UserError(f"{flag}: {path} has {size[0]}x{size[1]} pixels, {shape[0]}x{shape[1]} are needed: {why}")
