"""The orientation of a picture by its EXIF or XMP data, as viewers show it."""

import contextlib
import threading
import warnings
from collections.abc import Iterator

from PIL import Image

TAG = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # what makes a picture upright, by the value of the tag


_FILTERS = threading.RLock()  # Python's filters of warnings are one list for all threads


@contextlib.contextmanager
def without_warnings(category: type[Warning]) -> Iterator[None]:
    """Ignores warnings of a category, from one thread at a time."""
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield


def turn(image: Image.Image) -> Image.Transpose | None:
    """The transposition that makes a picture upright; None where it is upright, or where its EXIF data are damaged.

    Decodes PNG files whose header has no EXIF data, which can follow the pixels.
    """
    try:
        with without_warnings(UserWarning):  # "Corrupt EXIF data"
            return TURNS.get(image.getexif().get(TAG))
    except MemoryError:
        raise
    except Exception:  # each of Pillow's parsers fails differently; viewers ignore damaged EXIF data
        return None


def upright(image: Image.Image) -> Image.Image:
    """Decodes a picture and turns it upright.

    Raises:
        Exception: any error of Pillow's decoders, for a damaged file.
    """
    image.load()  # Pillow turns TIFF files here, and removes their tag
    transposition = turn(image)
    return image if transposition is None else image.transpose(transposition)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Height and width in pixels of a picture as it will be when it is upright."""
    stored = (image.height, image.width)
    if image.height == image.width or image.format == "TIFF":  # Pillow gives the upright size of TIFF files
        return stored
    is_sideways = turn(image) in [TURNS[value] for value in (5, 6, 7, 8)]
    return stored[::-1] if is_sideways else stored
