"""What every network checks of its options and arguments, with one wording for all. Each raises ValueError."""

from collections.abc import Iterable, Mapping
from typing import Any


def choices(network: Any, allowed: Mapping[str, Iterable[str]]) -> None:
    """The options named in `allowed` have one of their allowed values."""
    for option, values in allowed.items():
        if (value := getattr(network, option)) not in values:
            raise ValueError(f"{_name(network)}: {option}={value!r} is unknown: choose from {', '.join(values)}")


def divisible(network: Any, shape: tuple[int, ...], divisor: int, why: str) -> None:
    """Height and width of images of the shape (B, H, W, C) are multiples of the divisor."""
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


def _name(network):
    return type(network).__name__
