"""Between the images of the source and what the model sees of them."""

import zlib
from collections.abc import Callable

import jax
from ml_collections import ConfigDict

import sde_lib
from experiments.config.choices import choose
from experiments.data.augmentation import augment
from experiments.data.sources.rendering import Rendering
from experiments.media import ImageMedium
from sde_lib.randomness import fold_in

QUANTIZATION = sde_lib.Quantization.between(-1, 1)  # bins around what ImageMedium makes of the grey levels

DEQUANTIZATIONS = {
    "none": lambda keys, images: ImageMedium(images.shape[1:]).forward(images),
    "uniform": lambda keys, images: sde_lib.dequantize(fold_in(keys, DEQUANTIZATION), images, QUANTIZATION),
}

DEQUANTIZATION, AUGMENTATION = zlib.crc32(b"dequantization"), zlib.crc32(b"augmentation")  # as losses.CLASS_DROPOUT


def rendering(config: ConfigDict) -> Rendering:
    """Conversion of image files to grey levels: the background and the white level.

    Raises:
        UserError: the background is no colour, or the white level is negative.
    """
    return Rendering(config.data.background, config.data.white)


def preparation(config: ConfigDict) -> Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array | None]]:
    """(keys, images) -> (x0, labels): what training makes of uint8 images (B, H, W, C), each by its own key (B,).

    x0 is float32, of the images' shape; the labels (B, 9) say how it was augmented, None without augmentation.
    """
    dequantize = choose("data.dequantization", config.data.dequantization, DEQUANTIZATIONS)
    probability = config.data.augmentation

    def prepare(keys, images):
        x0 = dequantize(keys, images)
        return augment(fold_in(keys, AUGMENTATION), x0, probability) if probability else (x0, None)

    return prepare
