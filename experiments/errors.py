"""Errors that a user can mend: one line each, no traceback, and what would have been right."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """The user's input is wrong. The message is one line: the key or file, its value and what is allowed.

    The command line prints it and exits with code 2; in a notebook it is an ordinary exception.
    """


class RunError(Exception):
    """A run cannot go on (a loss that is not finite, a disk that is full). The message is one line; the exit code is 1."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Returns `"; did you mean 'x'?"` for the allowed name closest to `name`, or an empty string where none is close.

    Numbers have none: 12 is not a misspelt 2.
    """
    try:
        float(name)
    except ValueError:
        pass
    else:
        return ""
    matches = difflib.get_close_matches(str(name), [str(a) for a in allowed], n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def unknown_name(key: str, name: str, allowed: Iterable[str]) -> UserError:
    """The error for a `name` given to config key `key` that is none of `allowed`."""
    allowed = sorted(allowed)
    return UserError(f"{key}={name!r} is unknown: choose from {', '.join(allowed)}{nearest(name, allowed)}")


def counted(number: int, noun: str) -> str:
    """A number and a noun, in the plural with an s if the number is not 1: "1 device", "2 devices"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
