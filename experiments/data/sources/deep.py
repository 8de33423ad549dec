"""Levels of pictures with more than 8 bits per channel, at full depth: Pillow keeps 8 bits of their colours.

| file                                   | levels                                                                    |
|----------------------------------------|---------------------------------------------------------------------------|
| PNG and TIFF, 16 bits, RGB with alpha  | upper and lower bytes, decoded by Pillow one after the other              |
| PNG, 16 bits, grey with alpha          | the four bytes of each pixel, decoded by Pillow as four channels          |
| PNG and TIFF, grey                     | Pillow's 16-bit and 32-bit integers and 32-bit floats                     |
| PPM and PGM                            | the file's own numbers                                                    |
| others                                 | refused                                                                   |
"""

import io
import math
import re
import sys
from dataclasses import dataclass

import numpy as np
from PIL import Image

from experiments.data.sources.orientation import upright

SWAPPED = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}  # orders of bytes in Pillow's raw modes
BITS_PER_SAMPLE, PHOTOMETRIC, PLANAR, SAMPLE_FORMAT = 258, 262, 284, 339  # tags of TIFF
WHITE_IS_ZERO, SEPARATE_PLANES, SIGNED = 0, 2, 2  # values of the last three
DEEP_MODES = ("I", "F")  # and those that begin with them: I;16, I;16B


@dataclass(frozen=True)
class Levels:
    """Levels as the file stores them.

    Attributes:
        values: float32 (H, W, 1 or 3), 0 being black; premultiplied by alpha where `premultiplied`.
        alpha: opacity in [0, 1], float32 (H, W, 1); None where all pixels are opaque.
        bits: per channel; 32 for floats.
        inverted: whether 0 is white and the white level black.
        premultiplied: whether the values are multiplied by alpha.
    """

    values: np.ndarray
    alpha: np.ndarray | None
    bits: int
    inverted: bool = False
    premultiplied: bool = False


def is_deep(image: Image.Image, content: bytes) -> bool:
    """Returns True for a picture with levels that Pillow's 8 bits per channel do not hold.

    Args:
        image: opened, not yet decoded.
        content: of its file.
    """
    if image.mode.startswith(DEEP_MODES) or any(";16" in mode for mode in _raw_modes(image)):
        return True
    if image.format == "TIFF":
        return max(image.tag_v2.get(BITS_PER_SAMPLE, (1,))) > 8 or SIGNED in image.tag_v2.get(SAMPLE_FORMAT, ())
    if image.format == "PPM":
        return _largest_level(image) > 255
    return image.format == "JPEG2000" and _jpeg2000_bits(content) > 8


def read(image: Image.Image, content: bytes) -> Levels:
    """The levels of a picture with more than 8 bits per channel, turned upright.

    Args:
        image: opened, not yet decoded.
        content: of its file.

    Raises:
        ValueError: files of this kind cannot be read at full depth.
        Exception: any error of Pillow's decoders, for a damaged file.
    """
    tags = image.tag_v2 if image.format == "TIFF" else {}
    if image.format == "PPM" and image.tile[0].codec_name != "raw":
        return _of_ppm(image, content)
    if image.mode.startswith(DEEP_MODES):
        return _of_grey(image, inverted=tags.get(PHOTOMETRIC) == WHITE_IS_ZERO)
    raw = _raw_modes(image)
    known = image.format in ("PNG", "TIFF") and image.mode in ("RGB", "RGBA")
    if not known or tags.get(PLANAR) == SEPARATE_PLANES or not all(re.search(";16[LBN]$", mode) for mode in raw):
        raise ValueError(
            f"{image.format} of mode {image.mode} with signed numbers, separate planes or more than 8 bits per channel: "
            "convert it to PNG"
        )
    if raw[0].startswith("LA;"):
        return _of_grey_with_alpha(image)
    high, low = (_bytes(content, swap) for swap in (False, True))
    transparent = high.info.get("transparency")
    values = np.asarray(high, np.float32) * 256 + np.asarray(low, np.float32)
    if values.shape[2] == 4:
        return Levels(values[..., :3], values[..., 3:] / 65535, 16, premultiplied=raw[0].startswith("RGBa"))
    return Levels(values, _opaque_but(values, transparent), 16)


def _raw_modes(image: Image.Image) -> list[str]:
    """The names of the formats that Pillow's decoders unpack pixels from, for each tile."""
    modes = (tile.args if isinstance(tile.args, str) else next(iter(tile.args or ()), "") for tile in image.tile)
    return [mode if isinstance(mode, str) else "" for mode in modes]


def _of_grey(image: Image.Image, *, inverted: bool) -> Levels:
    image = upright(image)
    transparent = image.info.get("transparency")
    values = np.asarray(image).astype(np.float32)[..., None]
    bits = 16 if image.mode.startswith("I;16") else 32
    return Levels(values, _opaque_but(values, transparent), bits, inverted)


def _of_grey_with_alpha(image: Image.Image) -> Levels:
    """The 4 bytes of a pixel, as the red, green, blue and alpha of 8 bits that they are not."""
    image.tile = [tile._replace(args="RGBA") for tile in image.tile]
    pairs = np.asarray(upright(image)).astype(np.float32)
    values = pairs[..., ::2] * 256 + pairs[..., 1::2]
    return Levels(values[..., :1], values[..., 1:] / 65535, 16)


def _bytes(content: bytes, swap: bool) -> Image.Image:
    """The upper bytes of 16-bit channels, upright: Pillow keeps these. The lower ones with the order of bytes swapped."""
    image = Image.open(io.BytesIO(content))
    tiles = []
    for tile, raw in zip(image.tile, _raw_modes(image), strict=True):
        order = SWAPPED[raw[-1]] if swap else raw[-1]
        mode = f"{raw[:-1].replace('RGBa', 'RGBA')}{order}"  # premultiplied channels are left as they are
        tiles.append(tile._replace(args=mode if isinstance(tile.args, str) else (mode, *tile.args[1:])))
    image.tile = tiles
    return upright(image)


def _opaque_but(values: np.ndarray, transparent: int | tuple[int, ...] | None) -> np.ndarray | None:
    """The opacity where pixels of one level are transparent (PNG's tRNS)."""
    if transparent is None:
        return None
    return (values != np.atleast_1d(transparent)).any(-1, keepdims=True).astype(np.float32)


def _largest_level(image: Image.Image) -> int:
    """The largest level of a PPM or PGM file, by its header; 1 of a bitmap."""
    args = image.tile[0].args
    if isinstance(args, tuple) and len(args) > 1 and image.tile[0].codec_name != "raw":
        return int(args[1])
    return 65535 if image.mode.startswith(DEEP_MODES) else 255


def _of_ppm(image: Image.Image, content: bytes) -> Levels:
    """The numbers of a PPM or PGM file, binary (two bytes each, the upper first) or in text."""
    channels = {"L": 1, "I": 1, "RGB": 3}[image.mode]
    count, body = image.width * image.height * channels, content[image.tile[0].offset :]
    if image.tile[0].codec_name == "ppm_plain":
        values = np.array(re.sub(rb"#[^\r\n]*", b"", body).split()[:count], np.float32)
    else:
        values = np.frombuffer(body, ">u2", count).astype(np.float32)
    bits = math.ceil(math.log2(_largest_level(image) + 1))
    return Levels(values.reshape(image.height, image.width, channels), None, bits)


def _jpeg2000_bits(content: bytes) -> int:
    """Bits per channel by the marker SIZ (ISO/IEC 15444-1, A.5.1); 8 where there is none."""
    start = content.find(b"\xff\x4f\xff\x51") + 4
    return (content[start + 38] & 0x7F) + 1 if 4 <= start < len(content) - 38 else 8
