"""What every network checks of its options and arguments, with one wording for all. Each raises ValueError."""

from collections.abc import Iterable, Mapping
from typing import Any


def choices(network: Any, allowed: Mapping[str, Iterable[str]]) -> None:
    """The options named in `allowed` have one of their allowed values."""
    for option, values in allowed.items():
        if (value := getattr(network, option)) not in values:
            raise ValueError(f"{_name(network)}: {option}={value!r} is unknown: choose from {', '.join(values)}")


def divisible(network: Any, shape: tuple[int, ...], divisor: int, why: str) -> None:
    """x is a batch of images (B, H, W, C), whose height and width are multiples of the divisor."""
    if len(shape) != 4:
        raise ValueError(f"{_name(network)}: x has shape {shape}, but a batch of images has shape (B, H, W, C)")
    for axis, size in zip(("height", "width"), shape[1:3], strict=True):
        if size % divisor:
            raise ValueError(f"{_name(network)}: {axis} {size} is not divisible by {divisor}, as {why}")


def condition(network: Any, condition: Any) -> None:
    """There is a condition where, and only where, `num_classes` is not 0."""
    if network.num_classes and condition is None:
        raise ValueError(f"{_name(network)}: num_classes={network.num_classes} needs condition, a label for each image")
    if not network.num_classes and condition is not None:
        raise ValueError(f"{_name(network)}: condition is given, but num_classes=0 makes the network unconditional")


def augmentation(network: Any, images: int, augmentation: Any) -> None:
    """The labels of the augmentation, where there are any, are as many as the network takes, for each of the images."""
    expected = (images, network.augment_features)
    if augmentation is not None and augmentation.shape != expected:
        raise ValueError(f"{_name(network)}: augmentation has shape {augmentation.shape}, not {expected}")


def dropout(network: Any, train: bool, dropout_keys: Any) -> Any:
    """The keys to use, None where nothing is dropped; they are there where they are needed."""
    if not (train and network.dropout):
        return None
    if dropout_keys is None:
        raise ValueError(
            f"{_name(network)}: train=True with dropout={network.dropout} needs dropout_keys, one key for each image"
        )
    return dropout_keys


def rising(network: Any) -> None:
    """The noise levels of the network run from `sigma_min` up to a larger `sigma_max`."""
    low, high = network.sigma_min, network.sigma_max
    if not 0 < low < high:
        raise ValueError(f"{_name(network)}: sigma_min={low} must be more than 0 and less than sigma_max={high}")


def embedding(network: Any, option: str) -> None:
    """The option that is the width of a positional embedding of the noise level is even and at least 4."""
    width = getattr(network, option)
    if network.embedding.startswith("positional") and (width < 4 or width % 2):
        raise ValueError(
            f"{_name(network)}: {option}={width} must be even and at least 4 for embedding={network.embedding!r}"
        )


def _name(network):
    return type(network).__name__
