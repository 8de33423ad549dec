"""Between the images of the source and what the model sees of them."""

import zlib
from collections.abc import Callable

import jax
from ml_collections import ConfigDict

import sde_lib
from experiments.config.choices import choose
from experiments.data.augmentation import augment
from experiments.data.sources.rendering import Rendering
from experiments.errors import UserError
from experiments.factory.media import medium
from experiments.media import Medium
from sde_lib.randomness import fold_in

QUANTIZATION = sde_lib.Quantization.between(-1, 1)  # bins around what ImageMedium makes of the grey levels


def _uniform(data: Medium) -> Callable[[jax.Array, jax.Array], jax.Array]:
    if not data.has_pixels:
        raise UserError(f"data.dequantization='uniform': is of grey levels, which {data.noun} have not; choose none")
    return lambda keys, images: sde_lib.dequantize(fold_in(keys, DEQUANTIZATION), images, QUANTIZATION)


DEQUANTIZATIONS = {"none": lambda data: lambda keys, raw: data.forward(raw), "uniform": _uniform}

DEQUANTIZATION, AUGMENTATION = zlib.crc32(b"dequantization"), zlib.crc32(b"augmentation")  # as losses.CLASS_DROPOUT


def rendering(config: ConfigDict) -> Rendering:
    """Conversion of image files to grey levels: the background and the white level.

    Raises:
        UserError: the background is no colour, or the white level is negative.
    """
    return Rendering(config.data.background, config.data.white)


def preparation(config: ConfigDict) -> Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array | None]]:
    """(keys, raw) -> (x0, labels): the model's data of raw data (B, *event) in training, each by its own key (B,).

    x0 is float32, of the shape of the raw data; the labels (B, 9) say how it was augmented, None without augmentation.

    Raises:
        UserError: a setting is of images, and the medium has none.
    """
    data = medium(config)
    dequantize = choose("data.dequantization", config.data.dequantization, DEQUANTIZATIONS)(data)
    probability = config.data.augmentation
    if probability and not data.has_pixels:
        raise UserError(f"data.augmentation={probability}: is of images, not of {data.noun}; set 0")

    def prepare(keys, raw):
        x0 = dequantize(keys, raw)
        return augment(fold_in(keys, AUGMENTATION), x0, probability) if probability else (x0, None)

    return prepare
