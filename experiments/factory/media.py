"""The medium of an experiment: the type of one datum."""

from collections.abc import Callable
from typing import NamedTuple

from ml_collections import ConfigDict

from experiments.config import sizes
from experiments.config.choices import choose
from experiments.data.sources import arrays
from experiments.data.sources.rendering import Rendering
from experiments.errors import UserError
from experiments.media import LATENTS, ArrayMedium, ImageMedium, LatentMedium, Medium


def _image(config: ConfigDict) -> Medium:
    if config.data.source == LATENTS:  # models of latents need not state data.medium
        return _latent(config)
    return ImageMedium(_image_shape(config), Rendering(config.data.background).colour)


def _latent(config: ConfigDict) -> Medium:
    if config.data.source != LATENTS:
        raise UserError(f"data.medium='latent': data.source={config.data.source!r} has no latents; {LATENTS!r} has")
    return LatentMedium(_image_shape(config))


def _image_shape(config: ConfigDict) -> tuple[int, int, int]:
    return (*sizes.parse(config.data.image_size), config.data.num_channels)


def _array(config: ConfigDict) -> Medium:
    shape, (low, high) = tuple(config.data.event_shape), arrays.checked_range(config.data.range)
    if not shape:
        raise UserError("data.event_shape=(): the shape of one array is needed, as --config.data.event_shape=16,2")
    return ArrayMedium(shape, low, high)


class Kind(NamedTuple):
    """A medium by name.

    Attributes:
        medium: its class.
        keys: of `data` that it reads.
        make: config -> the medium.
    """

    medium: type[Medium]
    keys: tuple[str, ...]
    make: Callable[[ConfigDict], Medium]


MEDIA: dict[str, Kind] = {
    "image": Kind(ImageMedium, ("image_size", "num_channels", "background"), _image),
    "latent": Kind(LatentMedium, ("image_size", "num_channels"), _latent),
    "array": Kind(ArrayMedium, ("event_shape", "range"), _array),
}


def medium(config: ConfigDict) -> Medium:
    """Returns the medium that `data.medium` names.

    Raises:
        UserError: the name is unknown, or the keys of its shape and scale have no medium.
    """
    return choose("data.medium", config.data.medium, MEDIA).make(config)


def complete(config: ConfigDict) -> ConfigDict:
    """Returns the config with `data.event_shape` of its source, where the medium has such a shape and it is not stated.

    Raises:
        UserError: the source cannot be read, or the range of its values is not stated; the message has the range found.
    """
    if choose("data.medium", config.data.medium, MEDIA).medium is not ArrayMedium or tuple(config.data.event_shape):
        return config
    config = config.copy_and_resolve_references()
    config.data.event_shape = arrays.event_shape(config.data.source, config.data.range)
    return config
