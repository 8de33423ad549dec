"""Atomic writes: at any time, also after an interruption, a file has its complete old or its complete new content."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def replace_text(path: Path, text: str) -> None:
    """Replaces the content of a file by `text`, atomically.

    Raises:
        OSError: the file, which the error names, cannot be written; the old content is unchanged.
    """
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Replaces the content of a file by `content`, atomically.

    Raises:
        OSError: the file, which the error names, cannot be written; the old content is unchanged.
    """
    with replace_file(path) as file:
        file.write(content)


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[BinaryIO]:
    """Context manager of a temporary file that replaces `path` on exit; after an exception it is deleted.

    The temporary file is flushed to disk (fsync) before it is renamed, so the write is atomic also under a power
    failure. Its name contains the process id, so that two processes can write the same path.

    Raises:
        OSError: the file, which the error names, cannot be written; the old content is unchanged.
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
    """Context manager that sets the file name of an OSError: errors of writes to an open file do not have one."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
