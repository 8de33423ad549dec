"""Atomic writes: all of the old file or all of the new one, on the disk before it has its name."""

import errno
import os
from pathlib import Path

import pytest

from experiments.files import naming, replace_bytes, replace_file, replace_text


def test_a_file_is_replaced_as_a_whole_and_its_folder_is_made(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    replace_text(path, "one\né")
    assert path.read_bytes() == "one\né".encode()
    replace_bytes(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    with replace_file(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"\x00\xff"
        (other,) = [entry for entry in path.parent.iterdir() if entry != path]
        assert other.name == f".file.txt.{os.getpid()}.tmp"  # another one in another process
    assert path.read_bytes() == b"new" and list(path.parent.iterdir()) == [path]


def test_bytes_are_on_the_disk_before_they_have_the_name(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: events.append(os.fstat(number).st_size) or fsync(number))
    monkeypatch.setattr(Path, "replace", lambda path, to: events.append(to.name) or replace(path, to))
    replace_bytes(tmp_path / "file", b"12345")
    assert events == [5, "file"]


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), ValueError("x"), OSError(errno.ENOSPC, "No space left on device")]
)
def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(type(error)) as caught, replace_file(path) as file:
        file.write(b"half")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    if isinstance(error, OSError):
        assert (caught.value.filename, caught.value.errno) == (str(path), errno.ENOSPC)
        assert str(caught.value) == f"[Errno 28] No space left on device: '{path}'"


def test_errors_of_open_files_have_the_name_of_the_file(tmp_path):
    with pytest.raises(OSError) as caught, naming(tmp_path / "a"):
        raise OSError(errno.EIO, "Input/output error")
    assert (caught.value.errno, caught.value.strerror) == (errno.EIO, "Input/output error")
    assert caught.value.filename == str(tmp_path / "a") and type(caught.value.__cause__) is OSError
    with pytest.raises(KeyError), naming(tmp_path / "a"):
        raise KeyError("other errors stay")
