"""From an image file's bytes to the pixels that the config promises the network: channels, size, centre crop."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.config import sizes
from experiments.data.sources.cropping import center_crop
from experiments.data.sources.orientation import turn, upright_size
from experiments.data.sources.rendering import CHANNELS, PILLOW_MODES, Rendering, has_transparency, opened, unreadable
from experiments.errors import UserError, unknown_name

__all__ = ["CHANNELS", "IMAGE_SUFFIXES", "PILLOW_MODES", "RESIZES", "Rendering", "Wanted", "center_crop", "opened"]

IMAGE_SUFFIXES = (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
GREY_MODES = ("1", "L", "LA", "La", "I", "F")  # and I;16
RESIZES = ("none", "center_crop")
MOST_FIRST, LEAST_SIDE = 4, 8  # channels that come first, and sides of images, as they usually are


@dataclass(frozen=True)
class Wanted:
    """What the config says of the images of a source.

    Attributes:
        image_size: (height, width) in pixels, of every image, also given as `sizes.parse` takes it; None: that of the first
            image, or with "center_crop" the square of its shorter side.
        num_channels: 1 for grey levels, 3 for RGB, 4 with alpha; None: those that the first image has.
        resize: "none" (images that do not fit are refused) or "center_crop" (see `center_crop`).
        test_fraction: for the source whose split is by it alone (`digits`); None: undivided.
        class_order: of class names that the source does not number itself, one of `names.ORDERS`.
        flags: what the flags that set these begin with, for messages.
        background, white: see `Rendering`.
    """

    image_size: sizes.Size | None
    num_channels: int | None
    resize: str = "none"
    test_fraction: float | None = None
    flags: str = "--config.data."
    class_order: str = "natural"
    background: str = "white"
    white: float = 0.0

    def __post_init__(self):
        if self.resize not in RESIZES:
            raise unknown_name("data.resize", self.resize, RESIZES)
        if self.image_size is not None:
            object.__setattr__(self, "image_size", sizes.parse(self.image_size, f"{self._key}image_size"))
        _ = self.rendering  # refuses unknown colours

    @property
    def _key(self) -> str:
        return self.flags.removeprefix("--config.")

    @property
    def rendering(self) -> Rendering:
        """Conversion of stored levels to grey levels."""
        return Rendering(self.background, self.white, self.flags)

    @property
    def crops(self) -> bool:
        """Whether images of other sizes are made to fit."""
        return self.resize == "center_crop"

    def check(self, file: str | Path, height: int, width: int, channels: int) -> None:
        """Raises a UserError that names the overrides which would fit, unless images of `file` fit as they are."""
        size, num_channels = (height, width), self.num_channels or channels
        image_size, overrides = self.image_size or size, []
        if size != image_size and not self.crops:
            overrides.append(f"{self.flags}image_size={sizes.written(size)}")
        if channels != num_channels:
            overrides.append(f"{self.flags}num_channels={channels}")
        if overrides:
            crop = f"; or, to crop and resize them, {self.flags}resize=center_crop" if size != image_size else ""
            raise UserError(
                f"{file} holds {height}x{width}x{channels} images but data.image_size={sizes.written(image_size)} and "
                f"data.num_channels={num_channels}: to train on them as they are, pass {' '.join(overrides)}{crop}"
            )

    def check_arrays(self, name: str, shape: tuple[int, ...]) -> None:
        """`check` of an array of images.

        Args:
            name: of the file and the array, for messages.
            shape: (N, H, W, C).

        Raises:
            UserError: as `check`; or the channels seem to come first.
        """
        require_channels_last(f"data.source: {name}", shape)
        self.check(name, *shape[1:])

    def of_first(self, content: bytes, name: str | Path) -> "Wanted":
        """The same with what was left open filled in from the first image file.

        Raises:
            UserError: it is not an image.
        """
        with opened(content, name) as image:
            channels = 1 if image.mode in GREY_MODES or image.mode.startswith("I;16") else 3
            size = self.image_size or upright_size(image)
            if self.crops and self.image_size is None:
                size = min(size), min(size)
        return dataclasses.replace(self, image_size=size, num_channels=self.num_channels or channels)

    def decode(self, content: bytes, name: str | Path) -> np.ndarray:
        """The pixels uint8 (*image_size, num_channels) of an image file, upright; see `Rendering.picture`.

        Args:
            content: of the file.
            name: of the file, for messages.

        Raises:
            UserError: it is not an image, is damaged, has another size than wanted, or more than 8 bits per channel where
                the white level is not set.
        """
        with opened(content, name) as image:
            if not self.crops:  # a size is allowed or not without decoding; to name it upright can take decoding
                self.check(name, *upright_size(image), self.num_channels)
            picture = self.rendering.picture(image, content, self.num_channels, name)
        try:
            pixels = as_bytes(center_crop(picture, self.image_size) if self.crops else np.asarray(picture))
        except MemoryError as error:
            raise unreadable(name, "data.source", error) from error
        return pixels.reshape(*self.image_size, self.num_channels)

    def is_rendered(self, content: bytes, name: str | Path) -> bool:
        """Returns True if pixels of an image file differ from those stored: turned upright, or over the background.

        Raises:
            UserError: it is not an image.
        """
        with opened(content, name) as image:
            may_be_turned = image.format != "PNG" or "exif" in image.info  # PNG files are decoded to find it elsewhere
            return has_transparency(image) or (may_be_turned and turn(image) is not None)


def as_bytes(levels: np.ndarray) -> np.ndarray:
    """Levels in [0, 255] as uint8, floats rounded; those beyond, by which a filter overshoots at edges, are clipped."""
    return levels if levels.dtype == np.uint8 else np.rint(np.clip(levels, 0, 255)).astype(np.uint8)


def _require_pixels(name: str, shape: tuple[int, ...]) -> None:
    """Raises a UserError if images (N, H, W[, C]) of this shape have an axis without entries."""
    if 0 in shape[1:]:
        axis = ("height", "width", "channels")[shape.index(0, 1) - 1]
        raise UserError(f"{name} has the shape {shape}: the axis of {axis} is empty; images (N, H, W[, C]) are needed")


def require_channels_last(name: str, shape: tuple[int, ...]) -> None:
    """Raises a UserError if images (N, H, W, C) of this shape seem to have their channels before height and width."""
    _require_pixels(name, shape)
    height, width, channels = shape[1:]
    if height < width == channels or height <= MOST_FIRST < LEAST_SIDE <= min(width, channels):
        raise UserError(f"{name} has the shape {shape}, which looks channels-first: transpose to (N, H, W, C)")


def require_several(name: str, shape: tuple[int, ...]) -> None:
    """Raises a UserError if an array of this shape, to be read as (N, H, W), seems to be one image (H, W, C).

    That is so for few columns, as of channels, if the images would be as many as they are high, or of usual height.
    """
    _require_pixels(name, shape)
    count, height, width = shape
    if width <= MOST_FIRST < count and (count == height or height >= LEAST_SIDE):
        raise UserError(
            f"{name} has the shape {shape}, which looks like one image (H, W, C): reshape to (1, H, W, C), or grey images "
            "to (N, H, W, 1)"
        )
