"""From a picture file to grey levels from 0, black, to 255, white: the one place where transparency and depth are resolved.

Of 1 or 3 channels, transparent pixels are composited over the background (`data.background`). Of 4 channels, alpha (the
opacity) is the last, and colours are multiplied by alpha: two pictures have equal levels exactly if they look alike over
every background, up to rounding; colours of fully transparent pixels do not count; and averages of levels (crops, denoised
images) are averages of visible colours. Pictures are turned upright as their EXIF data say. Levels of more than 8 bits
per channel, and arrays that are not uint8, are divided by the level that is white (`data.white`), which the file does not
say: a 16-bit file may hold 12-bit data. Without it they are refused.
"""

import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor

from experiments.data.sources import deep
from experiments.data.sources.orientation import upright, without_warnings
from experiments.errors import UserError, nearest

PILLOW_MODES = {1: "L", 3: "RGB"}  # by number of channels
WITH_ALPHA = 4
CHANNELS = (*PILLOW_MODES, WITH_ALPHA)  # that image files are read as
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's conversion
USUAL_WHITES = (1, 255, 1023, 4095, 16383, 65535)
CLIPPED, DARK = 0.01, 16  # fraction of levels above white, and ratio of white to the largest level, that are doubtful
BLOCK = 2**22  # values of an array that are scaled at once


@dataclass(frozen=True)
class Rendering:
    """Conversion of stored levels to grey levels.

    Attributes:
        background: colour behind transparent pixels: a name of CSS or #rrggbb.
        white: level that is white in files of more than 8 bits per channel and in arrays that are not uint8; 0 refuses
            these.
        flags: beginning of the flags that set both, for messages.
    """

    background: str = "white"
    white: float = 0.0
    flags: str = "--config.data."

    def __post_init__(self):
        _ = self.colour  # refuses unknown names
        if not 0 <= self.white < math.inf:
            raise UserError(f"{self._key}white={self.white}: must be a level above 0, such as 65535; 0 leaves it open")

    @property
    def _key(self) -> str:
        return self.flags.removeprefix("--config.")

    @property
    def colour(self) -> tuple[int, int, int]:
        """The background, red, green and blue from 0 to 255."""
        try:
            colour = ImageColor.getrgb(self.background)
        except ValueError as error:
            raise UserError(
                f"{self._key}background={self.background!r}: must be the name of a colour, such as white, or #rrggbb"
                f"{nearest(self.background, ImageColor.colormap)}"
            ) from error
        if len(colour) > 3:
            raise UserError(f"{self._key}background={self.background!r}: must be opaque, as #rrggbb")
        return colour

    @property
    def stamp(self) -> str:
        """A text that differs between renderings that give other pixels; empty for the default."""
        return "" if (self.colour, self.white) == ((255, 255, 255), 0) else f" over {self.colour}, white {self.white:g}"

    def picture(
        self, image: Image.Image, content: bytes, num_channels: int, name: str | Path, key: str = "data.source"
    ) -> Image.Image | np.ndarray:
        """The levels of a picture, upright: over the background, or with alpha.

        Args:
            image: of `opened`, not yet decoded.
            content: of its file.
            num_channels: 1 for grey levels, 3 for RGB, 4 for RGB multiplied by alpha and alpha.
            name: of the file, for messages.
            key: that named the file, for messages.

        Returns:
            an image of 8 bits, in mode L or RGB, or uint8 (H, W, 4); of more than 8 bits per channel, float32
            (H, W, num_channels) in [0, 255].

        Raises:
            UserError: the file is damaged, or has more than 8 bits per channel and the white level is not set.
        """
        if deep.is_deep(image, content):
            levels, alpha = self._deep(image, content, name, key)
            if num_channels == WITH_ALPHA:
                levels = with_channels(levels, num_channels)
                return levels if alpha is None else alpha * levels
            if alpha is not None:
                levels = alpha * levels + (1 - alpha) * np.array(self.colour, np.float32)
            return with_channels(levels, num_channels)
        try:
            image = upright(image)
            if num_channels == WITH_ALPHA:
                transparent = has_transparency(image)
                return premultiplied(np.asarray((image if transparent else image.convert("RGB")).convert("RGBA")))
            if has_transparency(image):
                layer = image.convert("RGBA")
                image = Image.new("RGB", layer.size, self.colour)
                image.paste(layer, mask=layer.getchannel("A"))
            mode = PILLOW_MODES[num_channels]
            return image if image.mode == mode else image.convert(mode)
        except Exception as error:  # each of Pillow's decoders has its own way to fail
            raise unreadable(name, key, error) from error

    def layer(
        self, image: Image.Image, content: bytes, num_channels: int, name: str | Path, key: str
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Levels (H, W, num_channels) in [0, 255] of opaque paint and its opacity (H, W, 1) in [0, 1], float32.

        None of an opaque picture.

        The arguments and errors are those of `picture`.
        """
        if deep.is_deep(image, content):
            levels, alpha = self._deep(image, content, name, key)
            return None if alpha is None else (with_channels(levels, num_channels), alpha)
        try:
            image = upright(image)
            if not has_transparency(image):
                return None
            image = image.convert("RGBA")
            colours = image.convert("RGB").convert(PILLOW_MODES[min(num_channels, 3)])
        except Exception as error:
            raise unreadable(name, key, error) from error
        alpha = np.asarray(image.getchannel("A"), np.float32)[..., None] / 255
        colours = np.asarray(colours, np.float32).reshape(*alpha.shape[:2], -1)
        return with_channels(colours, num_channels), alpha

    def array(
        self, values: np.ndarray, name: str, key: str = "data.source", dtype: type[np.generic] = np.uint8
    ) -> np.ndarray:
        """Grey levels from 0 to 255 of an array of any real dtype; uint8 is left as it is.

        Args:
            values: levels, 0 being black.
            name: of the file and the array, for messages.
            key: that named the file, for messages.
            dtype: of the result: uint8, to which levels are rounded, or float32.

        Raises:
            UserError: the values are no real numbers, are negative or not finite, or the white level is not set.
        """
        if values.dtype == np.uint8:
            return values
        if values.dtype.kind not in "buif":
            raise UserError(f"{key}: {name} is {values.dtype}; uint8 in 0..255 is needed")
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
        what = f"{key}: {name} is {values.dtype} with values from {low:g} to {high:g}; uint8 in 0..255 is needed"
        if not (low >= 0 and high < math.inf):
            raise UserError(f"{what}, or numbers from 0 with the level that is white: {self.flags}white=LEVEL")
        if not self.white:
            raise UserError(f"{what}, or the level that is white, {self._advice(high)}")
        levels = np.empty(values.shape, dtype)
        flat, scaled = values.reshape(-1), levels.reshape(-1)
        for start in range(0, flat.size, BLOCK):
            block = flat[start : start + BLOCK].astype(np.float64) * (255 / self.white)
            block = np.minimum(block, 255)
            scaled[start : start + BLOCK] = np.rint(block) if dtype == np.uint8 else block
        return levels

    def warnings(self, values: np.ndarray, name: str) -> list[str]:
        """Returns a warning if the white level does not fit the levels of a whole array that `array` takes.

        That is, if more than `CLIPPED` of the levels are above it, or if it is more than `DARK` times the largest level.
        """
        if values.dtype == np.uint8 or not values.size or not self.white:
            return []
        high, clipped = float(values.max()), np.count_nonzero(values > self.white) / values.size
        if clipped > CLIPPED:
            share = f"{100 * clipped:.3g} % of the levels of {name}"
            found = f"{share} are above {self._key}white={self.white:g} and become white"
        elif 0 < high * DARK < self.white:
            found = (
                f"the largest level of {name} is {high:g}, so that {self._key}white={self.white:g} makes dark images"
            )
        else:
            return []
        return [f"{found}; the white level of such data is usually another, {self._advice(high)}"]

    def _deep(
        self, image: Image.Image, content: bytes, name: str | Path, key: str
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Levels float32 (H, W, 1 or 3) in [0, 255], those beyond white clipped, and opacity (H, W, 1) or None."""
        try:
            stored = deep.read(image, content)
        except ValueError as error:
            raise UserError(f"{key}: {name}: {error}") from error
        except Exception as error:
            raise unreadable(name, key, error) from error
        low, high = float(stored.values.min()), float(stored.values.max())
        if not (low >= 0 and high < math.inf):
            raise UserError(f"{key}: {name} has levels from {low:g} to {high:g}: finite ones from 0, black, are needed")
        if not self.white:
            raise UserError(
                f"{key}: {name} has more than 8 bits per channel ({stored.bits}) and levels up to {high:g}: set the level "
                f"that is white, {self._advice(high)}"
            )
        levels = stored.values * np.float32(255 / self.white)
        if stored.premultiplied:
            levels = levels / np.maximum(stored.alpha, np.float32(1e-6))
        levels = np.minimum(levels, 255)
        return 255 - levels if stored.inverted else levels, stored.alpha

    def _advice(self, high: float) -> str:
        """The flag with the white levels that are usual for data up to `high`."""
        likely = next((white for white in USUAL_WHITES if white >= high), math.ceil(high))
        full = "" if likely in (1, 65535) or likely > 65535 else " (65535 for the whole range of 16 bits)"
        return f"such as {self.flags}white={likely}{full}"


def has_transparency(image: Image.Image) -> bool:
    """Returns True for a picture with an alpha channel, or with a transparent colour."""
    if image.mode == "P" and image.palette is None:  # some formats have none before they are decoded
        return "transparency" in image.info
    return image.has_transparency_data


def with_channels(levels: np.ndarray, num_channels: int) -> np.ndarray | None:
    """Levels (..., C) in [0, 255] with so many channels: grey levels of colours, colours of grey levels, either as opaque.

    None for other numbers.
    """
    if levels.shape[-1] == num_channels:
        return levels
    if num_channels == WITH_ALPHA and levels.shape[-1] in PILLOW_MODES:
        return np.concatenate([with_channels(levels, 3), np.full_like(levels[..., :1], 255)], -1)
    if (levels.shape[-1], num_channels) == (1, 3):
        return np.repeat(levels, 3, -1)
    return (levels @ LUMA)[..., None] if (levels.shape[-1], num_channels) == (3, 1) else None


def premultiplied(pixels: np.ndarray) -> np.ndarray:
    """Red, green, blue and alpha uint8 (..., 4) with the colours multiplied by alpha, rounded to the nearest level."""
    product = pixels[..., :3].astype(np.uint16) * pixels[..., 3:]
    return np.concatenate([((product + 127) // 255).astype(np.uint8), pixels[..., 3:]], -1)


def opened(content: bytes, name: str | Path, key: str = "data.source") -> Image.Image:
    """The image file with these bytes, not yet decoded.

    Args:
        content: of the file.
        name: of the file, for messages.
        key: that named the file, for messages.

    Raises:
        UserError: it is not an image, or has more pixels than Pillow decodes (178 million).
    """
    try:
        with without_warnings(Image.DecompressionBombWarning):  # at half the number of pixels that Pillow refuses
            return Image.open(io.BytesIO(content))
    except Exception as error:
        raise unreadable(name, key, error) from error


def unreadable(name: str | Path, key: str, error: Exception) -> UserError:
    """The error for a file that Pillow cannot open or decode."""
    reason = "not of a known format" if isinstance(error, Image.UnidentifiedImageError) else error
    return UserError(f"{key}: {name} cannot be read as an image ({str(reason) or type(error).__name__})")
