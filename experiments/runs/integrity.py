"""Checksums of the files of a folder: sizes and CRC-32s, stored in a file in the folder.

A CRC-32 detects every error burst of up to 32 bits and misses other damage with probability 2^-32. zlib computes about
3 GB/s on one core. Checksums do not protect against deliberate changes.
"""

import errno
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from experiments.files import replace_text

SUMS = "checksums.json"
CHUNK = 1 << 22  # bytes read at once
# Errors of reading from a damaged disk or of a missing file; other errors concern the connection or permissions.
DAMAGE = (errno.ENOENT, errno.EIO, errno.EISDIR, errno.ENOTDIR, getattr(errno, "EUCLEAN", errno.EIO))


def _files(folder: Path) -> Iterator[str]:
    """Yields the relative paths of all files in the folder except the checksum file."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith(SUMS):
            yield path.relative_to(folder).as_posix()


def _sum(path: Path) -> list[int]:
    """Returns the size in bytes and the CRC-32."""
    size, value = 0, 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            size, value = size + len(chunk), zlib.crc32(chunk, value)
    return [size, value]


def write(folder: Path) -> None:
    """Writes the checksums of all files of a complete folder into the folder.

    Raises:
        OSError: a file cannot be read, or the checksums cannot be written.
    """
    replace_text(folder / SUMS, json.dumps({name: _sum(folder / name) for name in _files(folder)}, indent=0) + "\n")


def is_summed(folder: Path) -> bool:
    """Returns True if the folder has checksums; a save that was killed just after completion has none."""
    return (folder / SUMS).exists()


def fault(folder: Path, parts: tuple[str, ...] = ()) -> str | None:
    """Returns a description of the first damaged file of a folder, or None if all files match their checksums.

    Args:
        folder: folder to check; without checksums the result is None.
        parts: if not empty, only these subfolders and the files at the top level are checked.

    Raises:
        OSError: the folder cannot be read for a reason other than damage.
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
            actual = (folder / name).stat().st_size
            if actual != size:
                return f"{name} has {actual} bytes instead of {size}"
            if _sum(folder / name)[1] != value:
                return f"{name} has other bytes than were written"
        except OSError as error:
            if error.errno not in DAMAGE:
                raise
            return f"{name} is missing" if error.errno == errno.ENOENT else f"{name} cannot be read: {error.strerror}"
    return None


def set_aside(folder: Path) -> Path:
    """Quarantines a broken folder: renames it to `broken-NAME` (`broken-NAME-2`, ...) and returns the new path.

    Raises:
        OSError: the folder cannot be renamed.
    """
    target, number = folder.with_name(f"broken-{folder.name}"), 1
    while target.exists():
        number += 1
        target = folder.with_name(f"broken-{folder.name}-{number}")
    return folder.rename(target)
