"""From examples of the source to examples of the model: scale, dequantization and augmentation."""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

import sde_lib
from experiments.config.choices import choose
from experiments.data.augmentation import augment
from experiments.data.sources.rendering import Rendering
from experiments.errors import UserError
from experiments.factory.conditions import conditions
from experiments.factory.media import medium
from experiments.media import Medium
from sde_lib.randomness import fold_in

QUANTIZATION = sde_lib.Quantization.between(-1, 1)  # bins around what ImageMedium makes of the grey levels


def _uniform(data: Medium) -> Callable[[jax.Array, jax.Array], jax.Array]:
    if not data.has_pixels:
        raise UserError(f"data.dequantization='uniform': is of grey levels, which {data.noun} have not; choose none")
    return lambda keys, images: sde_lib.dequantize(fold_in(keys, DEQUANTIZATION), images, QUANTIZATION)


DEQUANTIZATIONS = {"none": lambda data: lambda keys, raw: data.forward(raw), "uniform": _uniform}

DEQUANTIZATION, AUGMENTATION = (
    zlib.crc32(b"dequantization"),
    zlib.crc32(b"augmentation"),
)  # folded into an example's key


def rendering(config: ConfigDict) -> Rendering:
    """Conversion of image files to grey levels: the background and the white level.

    Raises:
        UserError: the background is no colour, or the white level is negative.
    """
    return Rendering(config.data.background, config.data.white)


def preparation(config: ConfigDict) -> Callable[[jax.Array, Mapping[str, Any]], dict[str, Any]]:
    """(keys, batch) -> examples: the model's data of a batch of the source in training, each example by its own key (B,).

    The batch has the raw data (B, *event) as `image`. The examples have x0 as `data`, float32 of the same shape, the other
    fields of the batch and, where they are augmented, `augmentation` (B, 9), the labels of the augmentation.

    Raises:
        UserError: a setting is of images, and the medium has none.
    """
    data = medium(config)
    dequantize = choose("data.dequantization", config.data.dequantization, DEQUANTIZATIONS)(data)
    probability = config.data.augmentation
    if probability and not data.has_pixels:
        raise UserError(f"data.augmentation={probability}: is of images, not of {data.noun}; set 0")

    in_plane = ["data", *(name for name, condition in conditions(config).items() if condition.in_plane)]

    def prepare(keys, batch):
        examples = {name: value for name, value in batch.items() if name != "image"}
        examples["data"] = dequantize(keys, batch["image"])
        return augment(fold_in(keys, AUGMENTATION), examples, probability, in_plane) if probability else examples

    return prepare
