"""Class names and class numbers: the natural order of names, and labels of any kind as int32 numbers from 0.

In natural order, numbers within names are compared as numbers: `class2` < `class10`, and folders `0` to `11` are the classes
0 to 11. Runs that were trained before names were stored numbered their classes in the order of texts (`10` < `2`); they keep
it (`ORDERS`).
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.errors import UserError, nearest

LARGEST = 2**31 - 2  # so that the number of classes fits int32 too
SHOWN = 10  # names in a message; the rest are counted


def _value(name: str) -> float | None:
    """The number that a whole name spells in decimal notation, or None."""
    return float(name) if re.fullmatch(r"[+-]?\d{1,300}(\.\d{1,300})?", name, re.ASCII) else None


def _pieces(name: str) -> list[tuple[int, int, str]]:
    """A name cut into texts and numbers; a number is compared by its length without leading zeros, then by its digits."""
    cut = re.split(r"([0-9]+)", name)
    return [
        (0, len(piece.lstrip("0")), piece.lstrip("0")) if i % 2 else (1, 0, piece)
        for i, piece in enumerate(cut)
        if piece
    ]


def natural_order(names: Iterable[str]) -> list[str]:
    """Distinct names in natural order; by value where all are decimal numbers (`-1`, `0.25`, `0.5`)."""
    names = sorted(set(names))  # equal keys (`1`, `01`) stay in the order of texts
    if all(_value(name) is not None for name in names):
        return sorted(names, key=_value)
    return sorted(names, key=_pieces)


# How distinct names are ordered; the second is that of runs without stored names.
ORDERS: Mapping[str, Callable[[Iterable[str]], list[str]]] = {
    "natural": natural_order,
    "text": lambda names: sorted(set(names)),
}


def shown(text: Any) -> str:
    """A name from a file system or file as one line of printable text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def quoted(name: Any) -> str:
    """A name as `shown`, in quotation marks."""
    return f"'{shown(name)}'"


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number with its noun: `1 image`, `1,000 images`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def listed(names: Sequence[Any], limit: int = SHOWN) -> str:
    """Names with commas between, the first ones if there are many."""
    first = ", ".join(shown(name) for name in names[:limit])
    return first + (f" and {len(names) - limit:,} more" if len(names) > limit else "")


def class_title(number: int, name: str | None) -> str:
    """A class in messages: `3 'cat'`, or its number alone where it has no other name."""
    return str(number) if name is None or name == str(number) else f"{number} {quoted(name)}"


def class_numbers(
    values: Mapping[str, np.ndarray], *, names: Sequence[str] | None = None, order: str = "natural"
) -> tuple[list[np.ndarray], tuple[str, ...] | None]:
    """Labels as class numbers.

    Args:
        values: labels (N,) of each split, integers or texts, by their title for messages.
        names: of the classes, by number, where the source has them; None numbers texts in their order.
        order: of texts, one of `ORDERS`.

    Returns:
        the class numbers int32 (N,) of each split, and the names by number; None without names.

    Raises:
        UserError: labels are of another kind or shape, missing, negative, too large, or have no name.
    """
    texts = {title: value for title, value in values.items() if _is_text(value)}
    if texts and len(texts) == len(values):
        found = {title: _texts(title, value) for title, value in texts.items()}
        for title, value in found.items():
            if empty := sum(not name.strip() for name in value):
                raise UserError(f"{title}: {empty} of {len(value)} are empty: leave images without a class out")
        names = ORDERS[order](name for value in found.values() for name in value) if names is None else names
        number = {name: i for i, name in enumerate(names)}
        for title, value in found.items():
            for name in value:
                if name not in number:
                    raise UserError(f"{title} has {quoted(name)}, which is not among the names{nearest(name, names)}")
        return [np.array([number[name] for name in value], np.int32) for value in found.values()], tuple(names)
    numbers = [_integers(title, value) for title, value in values.items()]
    for title, value in zip(values, numbers, strict=True):
        if names is not None and value.max(initial=-1) >= len(names):
            raise UserError(f"{title} has class {value.max()}, but there are {len(names)} names: 0 to {len(names) - 1}")
    return numbers, None if names is None else tuple(names)


def _is_text(values: np.ndarray) -> bool:
    return values.dtype.kind in "US" or (
        values.dtype.kind == "O" and len(values) > 0 and all(isinstance(v, str) for v in values)
    )


def _texts(title: str, values: np.ndarray) -> list[str]:
    if values.dtype.kind != "S":
        return [str(value) for value in values]
    try:
        return [bytes(value).decode() for value in values]
    except UnicodeDecodeError as error:
        raise UserError(f"{title} holds texts that are not UTF-8") from error


def _integers(title: str, values: np.ndarray) -> np.ndarray:
    """int32 (N,) of whole numbers from 0.

    Raises:
        UserError: they are others; the message says what would make them class numbers.
    """
    kind, needed = values.dtype.kind, f"{title} must hold whole numbers or texts, none missing (integers from 0)"
    if kind == "f":
        missing = int((~np.isfinite(values)).sum())
        if missing:
            raise UserError(f"{needed}; {missing} of {len(values)} are not finite: leave images without a class out")
        whole = bool((values == np.rint(values)).all())
        advice = (
            "store them as labels.astype(np.int64)" if whole else "number the classes, as np.unique or np.digitize do"
        )
        raise UserError(f"{needed}; it is {values.dtype}: {advice}")
    if kind not in "iub":
        raise UserError(f"{needed}; it is {values.dtype if kind != 'O' else 'a mixture, or some are missing'}")
    lowest, largest = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    if lowest < 0:
        where, _, what = title.rpartition(": ")
        negative = f"{int((values < 0).sum())} of {len(values)}, the smallest is {lowest}"
        raise UserError(
            f"{where}: some of {what} are less than 0 ({negative}): leave images without a class out, or number the classes "
            "by integers from 0"
        )
    if largest > LARGEST:
        raise too_large(title, largest)
    return values.astype(np.int32)


def too_large(title: str, label: int) -> UserError:
    """The error for a label that is no class number of 32 bits."""
    return UserError(
        f"{title} has the label {label}, and class numbers go up to {LARGEST}: number the classes from 0, as "
        "np.unique(labels, return_inverse=True)[1] does"
    )
