"""Shared validation of network options and call arguments. Every function raises ValueError."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

# The option that sizes each leaf of the condition; where it is 0, the network does not take the leaf.
OPTIONS = {"label": "num_classes", "augmentation": "augment_features"}


def choices(network: Any, allowed: Mapping[str, Iterable[str]]) -> None:
    """Checks that each option in `allowed` has one of its allowed values."""
    for option, values in allowed.items():
        if (value := getattr(network, option)) not in values:
            raise ValueError(f"{_name(network)}: {option}={value!r} is unknown: choose from {', '.join(values)}")


def divisible(network: Any, shape: tuple[int, ...], divisor: int, why: str) -> None:
    """Checks that `shape` is (B, H, W, C) with H and W divisible by `divisor`; `why` completes the message."""
    if len(shape) != 4:
        raise ValueError(f"{_name(network)}: x has shape {shape}, but a batch of images has shape (B, H, W, C)")
    for axis, size in zip(("height", "width"), shape[1:3], strict=True):
        if size % divisor:
            raise ValueError(f"{_name(network)}: {axis} {size} is not divisible by {divisor}, as {why}")


def condition(network: Any, batch: int, condition: Any, options: Mapping[str, str] = OPTIONS) -> dict[str, Any]:
    """Returns the leaves of the condition; a missing `augmentation` is replaced by zeros, its null value.

    Args:
        network: the network. It takes `label` (B,) if `num_classes` is not 0, and `augmentation` (B, augment_features)
            if `augment_features` is not 0.
        batch: B, the number of examples.
        condition: the leaves by name, or None for no leaves.
        options: the option of the network that sizes each leaf, by leaf; empty for a network without conditions.

    Raises:
        ValueError: the condition is not a mapping, has an unexpected leaf or a leaf of a wrong shape, or lacks the
            label.
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
    """Returns the leaves that a network takes with their shapes, as text for messages."""
    shapes = {leaf: ", ".join(["B", *map(str, shape[1:])]) for leaf, shape in taken.items()}
    return " and ".join(f"{leaf} ({text}{',' * (text == 'B')})" for leaf, text in shapes.items()) or "no condition"


def dropout(network: Any, train: bool, dropout_keys: Any) -> Any:
    """Returns the dropout keys, or None if nothing is dropped. Raises ValueError if required keys are missing."""
    if not (train and network.dropout):
        return None
    if dropout_keys is None:
        raise ValueError(
            f"{_name(network)}: train=True with dropout={network.dropout} needs dropout_keys, one key for each image"
        )
    return dropout_keys


def rising(network: Any) -> None:
    """Checks that 0 < `sigma_min` < `sigma_max`."""
    low, high = network.sigma_min, network.sigma_max
    if not 0 < low < high:
        raise ValueError(f"{_name(network)}: sigma_min={low} must be more than 0 and less than sigma_max={high}")


def embedding(network: Any, option: str) -> None:
    """Checks that `option`, the width of a positional embedding of the noise level, is even and at least 4."""
    width = getattr(network, option)
    if network.embedding.startswith("positional") and (width < 4 or width % 2):
        raise ValueError(
            f"{_name(network)}: {option}={width} must be even and at least 4 for embedding={network.embedding!r}"
        )


def _name(network):
    return type(network).__name__
