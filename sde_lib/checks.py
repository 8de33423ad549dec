"""Validation of arguments of weightings, time distributions and samplers. Arrays and traced values are not checked."""

from collections.abc import Collection
from typing import Any


def positive(owner: str, **numbers: Any) -> None:
    """Raises ValueError, with the name and the value, if a Python number is not greater than 0."""
    for name, number in numbers.items():
        if type(number) in (int, float) and not number > 0:
            raise ValueError(f"{owner}: {name}={number} must be more than 0")


def at_least(owner: str, least: int, **numbers: Any) -> None:
    """Raises ValueError, with the name and the value, if a Python number is less than `least`."""
    for name, number in numbers.items():
        if type(number) in (int, float) and not number >= least:
            raise ValueError(f"{owner}: {name}={number} must be at least {least}")


def one_of(owner: str, allowed: Collection[Any], **choices: Any) -> None:
    """Raises ValueError, with the name, the value and the allowed values, if a choice is not in `allowed`."""
    for name, choice in choices.items():
        if choice not in allowed:
            raise ValueError(f"{owner}: {name}={choice!r} must be one of {', '.join(map(str, allowed))}")
