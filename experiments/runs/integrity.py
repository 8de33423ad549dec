"""Whether a folder's files are what was written: their sizes and CRC-32s, kept in a file beside them.

A CRC-32 sees every change within 32 bits in a row, and of other damage all but one part in four thousand million; zlib's
reads some 3 GB/s of one core. It is no protection against a person who means harm.
"""

import errno
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from experiments.files import replace_text

SUMS = "checksums.json"
CHUNK = 1 << 22  # bytes read at once
# What reading a damaged disk or a file that is gone says; other errors are of the connection or the rights, not the file.
DAMAGE = (errno.ENOENT, errno.EIO, errno.EISDIR, errno.ENOTDIR, getattr(errno, "EUCLEAN", errno.EIO))


def _files(folder: Path) -> Iterator[str]:
    """The names within the folder of all its files, but for the sums."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith(SUMS):
            yield path.relative_to(folder).as_posix()


def _sum(path: Path) -> list[int]:
    """Size and CRC-32."""
    size, value = 0, 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            size, value = size + len(chunk), zlib.crc32(chunk, value)
    return [size, value]


def write(folder: Path) -> None:
    """Writes the sums of a complete folder's files into it.

    Raises:
        OSError: they cannot be read or written.
    """
    replace_text(folder / SUMS, json.dumps({name: _sum(folder / name) for name in _files(folder)}, indent=0) + "\n")


def is_summed(folder: Path) -> bool:
    """Whether the folder has sums; one that was complete for a moment only, before a kill, has none."""
    return (folder / SUMS).exists()


def fault(folder: Path, parts: tuple[str, ...] = ()) -> str | None:
    """The first thing that is wrong with a folder's files, in words, or None; without sums nothing is known to be wrong.

    Args:
        folder: with or without sums.
        parts: where any are given, files in other sub-folders than these are not read.

    Raises:
        OSError: the folder cannot be read, for another reason than damage.
    """
    if not is_summed(folder):
        return None
    try:
        sums = json.loads((folder / SUMS).read_text())
        expected = {str(name): (int(size), int(value)) for name, (size, value) in sums.items()}
    except (ValueError, TypeError, AttributeError):
        return f"{SUMS} is not readable"
    for name, (size, value) in expected.items():
        if parts and "/" in name and name.split("/")[0] not in parts:
            continue
        try:
            found = (folder / name).stat().st_size
            if found != size:
                return f"{name} has {found} bytes instead of {size}"
            if _sum(folder / name)[1] != value:
                return f"{name} has other bytes than were written"
        except OSError as error:
            if error.errno not in DAMAGE:
                raise
            return f"{name} is missing" if error.errno == errno.ENOENT else f"{name} cannot be read: {error.strerror}"
    return None


def set_aside(folder: Path) -> Path:
    """Renames a broken folder to `broken-NAME`, or `broken-NAME-2` and so on; the new path.

    Raises:
        OSError: it cannot be renamed.
    """
    target, number = folder.with_name(f"broken-{folder.name}"), 1
    while target.exists():
        number += 1
        target = folder.with_name(f"broken-{folder.name}-{number}")
    return folder.rename(target)
