"""Checks of what a weighting, a time distribution or a sampler is made with. Arrays and traced values pass."""

from collections.abc import Collection
from typing import Any


def positive(owner: str, **numbers: Any) -> None:
    """Raises ValueError for a number that is not more than 0, naming it."""
    for name, number in numbers.items():
        if type(number) in (int, float) and not number > 0:
            raise ValueError(f"{owner}: {name}={number} must be more than 0")


def at_least(owner: str, least: int, **numbers: Any) -> None:
    """Raises ValueError for a number below `least`, naming it."""
    for name, number in numbers.items():
        if type(number) in (int, float) and not number >= least:
            raise ValueError(f"{owner}: {name}={number} must be at least {least}")


def one_of(owner: str, allowed: Collection[Any], **choices: Any) -> None:
    """Raises ValueError for a choice that is not among the allowed ones, naming it and them."""
    for name, choice in choices.items():
        if choice not in allowed:
            raise ValueError(f"{owner}: {name}={choice!r} must be one of {', '.join(map(str, allowed))}")
