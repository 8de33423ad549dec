"""Paths that a user typed."""

from pathlib import Path

from experiments.errors import UserError, nearest


def existing(text: str, key: str = "data.source") -> Path:
    """The path that exists, with `~` for the home folder.

    Args:
        text: the path.
        key: that it was given to, for messages.

    Raises:
        UserError: it does not exist; its nearest sibling is named.
    """
    path = Path(text).expanduser()
    if not path.exists():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"{key}: {path} does not exist{nearest(path.name, siblings)}")
    return path
