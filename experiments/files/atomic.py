"""Atomic writes: a reader, or an interruption, sees either all of the old file or all of the new one."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def replace_text(path: Path, text: str) -> None:
    """Writes a file so that a reader, or an interruption, sees either all of the old text or all of the new."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """As `replace_text`.

    Raises:
        OSError: the file, which the error names, cannot be written; what was there is as it was.
    """
    with replace_file(path) as file:
        file.write(content)


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` once it is complete; else nothing is left of it.

    It is on the disk before it gets the name, so that a power failure sees the same. Each process writes to a file of its
    own, so that two that make the same file do not meet.

    Raises:
        OSError: the file, which the error names, cannot be written; what was there is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with naming(path):
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Gives an OSError within it the name of the file: what writes to an open file does not know it."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
