"""From an image file's bytes to the pixels that the config promises the network: mode, size, centre crop."""

import dataclasses
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.errors import UserError, unknown_name

IMAGE_SUFFIXES = (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
PILLOW_MODES = {1: "L", 3: "RGB"}  # by number of channels
RESIZES = ("none", "center_crop")


@dataclass(frozen=True)
class Wanted:
    """What the config says of the images of a source.

    Attributes:
        image_size: height and width in pixels, of every image; None: those that the first image has.
        num_channels: 1 for grey levels, 3 for RGB; None: those that the first image has.
        resize: "none" (images that do not fit are refused) or "center_crop" (see `center_crop`).
        test_fraction: for the source whose split is by it alone (`digits`); None: undivided.
        class_order: of class names that the source does not number itself, one of `names.ORDERS`.
        flags: what the flags that set these begin with, for messages.
    """

    image_size: int | None
    num_channels: int | None
    resize: str = "none"
    test_fraction: float | None = None
    flags: str = "--config.data."
    class_order: str = "natural"

    def __post_init__(self):
        if self.resize not in RESIZES:
            raise unknown_name("data.resize", self.resize, RESIZES)

    @property
    def crops(self) -> bool:
        """Whether images of other sizes are made to fit."""
        return self.resize == "center_crop"

    def check(self, file: str | Path, height: int, width: int, channels: int) -> None:
        """Raises a UserError that names the overrides which would fit, unless images of `file` fit as they are."""
        image_size, num_channels = self.image_size or height, self.num_channels or channels
        if height != width and not self.crops:
            raise UserError(
                f"{file} holds {height}x{width} pixel images: only square ones are supported; crop them: "
                f"{self.flags}resize=center_crop"
            )
        overrides = []
        if height != image_size and not self.crops:
            overrides.append(f"{self.flags}image_size={height}")
        if channels != num_channels:
            overrides.append(f"{self.flags}num_channels={channels}")
        if overrides:
            crop = f"; or, to crop and resize them, {self.flags}resize=center_crop" if height != image_size else ""
            raise UserError(
                f"{file} holds {height}x{width}x{channels} images but data.image_size={image_size} and "
                f"data.num_channels={num_channels}: to train on them as they are, pass {' '.join(overrides)}{crop}"
            )

    def of_first(self, content: bytes, name: str | Path) -> "Wanted":
        """The same with what was left open filled in from the first image file.

        Raises:
            UserError: it is not an image.
        """
        with opened(content, name) as image:
            channels = 1 if image.mode in ("1", "L", "LA") else 3
            size = self.image_size or (min(image.size) if self.crops else image.height)
        return dataclasses.replace(self, image_size=size, num_channels=self.num_channels or channels)

    def decode(self, content: bytes, name: str | Path) -> np.ndarray:
        """The pixels uint8 (image_size, image_size, num_channels) of an image file, as it stores them (no EXIF rotation).

        Args:
            content: of the file.
            name: of the file, for messages.

        Raises:
            UserError: it is not an image, is damaged, has more than 8 bits per channel or another size than wanted.
        """
        with opened(content, name) as image:
            # The size is known before the pixels are: a wrong one is refused without decoding.
            self.check(name, image.height, image.width, self.num_channels)
            image = converted(image, self.num_channels, name)
        pixels = center_crop(image, self.image_size) if self.crops else np.asarray(image)
        return pixels.reshape(self.image_size, self.image_size, self.num_channels)


def opened(content: bytes, name: str | Path, key: str = "data.source") -> Image.Image:
    """The image file with these bytes, not yet decoded.

    Args:
        content: of the file.
        name: of the file, for messages.
        key: that named the file, for messages.

    Raises:
        UserError: it is not an image.
    """
    try:
        return Image.open(io.BytesIO(content))
    except Exception as error:
        raise _unreadable(name, key, error) from error


def converted(image: Image.Image, num_channels: int, name: str | Path, key: str = "data.source") -> Image.Image:
    """The decoded image, in grey levels (1 channel) or RGB (3).

    Raises:
        UserError: it is damaged or has more than 8 bits per channel.
    """
    mode = image.mode
    try:
        image = image.convert(PILLOW_MODES[num_channels])
    except Exception as error:  # each of Pillow's decoders has its own way to fail
        raise _unreadable(name, key, error) from error
    if mode.startswith(("I", "F")):
        raise UserError(f"{key}: {name} has more than 8 bits per channel (mode {mode}): convert it to 8 bits first")
    return image


def _unreadable(name: str | Path, key: str, error: Exception) -> UserError:
    reason = "not of a known format" if isinstance(error, Image.UnidentifiedImageError) else error
    return UserError(f"{key}: {name} cannot be read as an image ({reason})")


def center_crop(image: Image.Image, size: int) -> np.ndarray:
    """The middle of an image at `size` x `size` pixels, uint8 (size, size[, 3]), as ADM's data have it.

    The shorter side becomes `size`: halved by box averages while it is at least 2 `size`, then resized with the bicubic
    filter, which Pillow widens when it shrinks an image (so there is no aliasing); then the middle is cut out. An image
    that has the size is left as it is.

    Source: Dhariwal and Nichol (2021), https://arxiv.org/abs/2105.05233; `center_crop_arr` of
    https://github.com/openai/guided-diffusion/blob/22e0df8183507e13a7813f8d38d51b072ca1e67c/guided_diffusion/image_datasets.py,
    whose result for the same image is the same, bit for bit. (EDM's dataset_tool crops first and resizes by Lanczos.)
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image)[top : top + size, left : left + size]
