"""Checks of the numbers that a weighting or a time distribution is made with."""


def positive(owner: str, **numbers: float) -> None:
    """Raises ValueError for a number that is not more than 0, naming it; arrays and traced values pass."""
    for name, number in numbers.items():
        if type(number) in (int, float) and not number > 0:
            raise ValueError(f"{owner}: {name}={number} must be more than 0")


def at_least(owner: str, least: int, **numbers: int) -> None:
    """Raises ValueError for a number below `least`, naming it; arrays and traced values pass."""
    for name, number in numbers.items():
        if type(number) in (int, float) and not number >= least:
            raise ValueError(f"{owner}: {name}={number} must be at least {least}")
