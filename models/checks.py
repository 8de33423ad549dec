"""What every network checks of its options and arguments, with one wording for all. Each raises ValueError."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

OPTIONS = {"label": "num_classes", "augmentation": "augment_features"}  # 0 in a network that does not take the leaf


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


def condition(network: Any, batch: int, condition: Any, options: Mapping[str, str] = OPTIONS) -> dict[str, Any]:
    """Returns the leaves of the condition, with zeros, the null, for an `augmentation` that is left out.

    Args:
        network: the network. It takes `label` (B,) where `num_classes` is not 0 and `augmentation` (B, augment_features)
            where `augment_features` is not 0.
        batch: B, the number of examples.
        condition: the leaves by name, or None for no leaf.
        options: the option of the network that states each leaf; none for a network without conditions.

    Raises:
        ValueError: the condition is no mapping, or has a leaf that the network does not take or of another shape, or lacks
            the label.
    """
    shapes = {"label": (batch,), "augmentation": (batch, getattr(network, "augment_features", 0))}
    taken = {leaf: shapes[leaf] for leaf, option in options.items() if getattr(network, option, 0)}
    if not isinstance(condition, Mapping | None):
        raise ValueError(
            f"{_name(network)}: condition is of type {type(condition).__name__}, but must be a mapping of leaves by name; "
            f"the network takes {_described(taken)}"
        )
    leaves = dict(condition or {})
    for leaf, value in leaves.items():
        if leaf not in taken:
            reason = f", as {options[leaf]}=0" if leaf in options else ""
            raise ValueError(
                f"{_name(network)}: condition[{leaf!r}] is given, but the network takes {_described(taken)}{reason}"
            )
        if np.shape(value) != taken[leaf]:
            raise ValueError(f"{_name(network)}: condition[{leaf!r}] has shape {np.shape(value)}, not {taken[leaf]}")
    if "label" in taken and "label" not in leaves:
        raise ValueError(
            f"{_name(network)}: num_classes={network.num_classes} needs condition['label'], a label for each example"
        )
    if "augmentation" in taken and "augmentation" not in leaves:
        leaves["augmentation"] = np.zeros(taken["augmentation"], np.float32)
    return leaves


def _described(taken: Mapping[str, tuple[int, ...]]) -> str:
    """The leaves that a network takes, with their shapes, for messages."""
    shapes = {leaf: ", ".join(["B", *map(str, shape[1:])]) for leaf, shape in taken.items()}
    return " and ".join(f"{leaf} ({text}{',' * (text == 'B')})" for leaf, text in shapes.items()) or "no condition"


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
