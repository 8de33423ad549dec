"""User-facing errors: one-line messages that name the key, its value and the allowed values."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Invalid user input. The message is one line with the key or file, its value and the allowed values.

    The command line prints the message without a traceback and exits with code 2; in a notebook it is an ordinary
    exception.
    """


class RunError(Exception):
    """A failure that stops a run (a non-finite loss, a full disk). The message is one line; the exit code is 1."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Returns `"; did you mean 'x'?"` for the allowed name closest to `name`, or an empty string if none is close.

    Numbers get no suggestion: 12 is not a misspelling of 2.
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
    """Returns the error for a value `name` of config key `key` that is not in `allowed`."""
    allowed = sorted(allowed)
    return UserError(f"{key}={name!r} is unknown: choose from {', '.join(allowed)}{nearest(name, allowed)}")


def counted(number: int, noun: str) -> str:
    """Returns a number and a noun, with a plural s if the number is not 1: "1 device", "2 devices"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
