"""Paths that a user typed."""

from pathlib import Path

from experiments.errors import UserError, nearest


def existing(text: str) -> Path:
    """The path that exists, with `~` for the home folder.

    Raises:
        UserError: it does not exist; its nearest sibling is named.
    """
    path = Path(text).expanduser()
    if not path.exists():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"data.source: {path} does not exist{nearest(path.name, siblings)}")
    return path
