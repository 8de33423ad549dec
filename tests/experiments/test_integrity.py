"""Sums see every kind of damage to a folder's files, name the file, and do not see what is no damage."""

import errno
import json
import os
import re
import shutil
import zlib

import pytest

from experiments.runs import integrity

FILES = {"_META": b"{}", "ema/d/1": bytes(range(256)) * 40, "state/d/1": b"weights" * 999, "state/empty": b""}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "40"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    integrity.write(folder)
    assert integrity.fault(folder) is None
    return folder


def change(path, position, value):
    content = bytearray(path.read_bytes())
    content[position] = value
    path.write_bytes(content)


@pytest.mark.parametrize("name", [name for name in FILES if FILES[name]])
@pytest.mark.parametrize("position", [0, -1])
def test_one_changed_bit_is_seen(folder, name, position):
    change(folder / name, position, FILES[name][position] ^ 1)
    assert integrity.fault(folder) == f"{name} has other bytes than were written"


def test_what_is_cut_short_grown_or_gone_is_seen(folder):
    path = folder / "state/d/1"
    path.write_bytes(FILES["state/d/1"][:-1])
    assert integrity.fault(folder) == "state/d/1 has 6992 bytes instead of 6993"
    path.write_bytes(FILES["state/d/1"] + b"x")
    assert integrity.fault(folder) == "state/d/1 has 6994 bytes instead of 6993"
    path.unlink()
    assert integrity.fault(folder) == "state/d/1 is missing"
    path.mkdir()
    assert "state/d/1" in integrity.fault(folder)
    shutil.rmtree(folder / "state")
    assert integrity.fault(folder) == "state/d/1 is missing"


def test_two_files_that_changed_places_are_seen(folder):
    """Their sizes and the sum over all bytes are the same."""
    (folder / "a").write_bytes(b"one ")
    (folder / "b").write_bytes(b"two ")
    integrity.write(folder)
    (folder / "a").write_bytes(b"two ")
    (folder / "b").write_bytes(b"one ")
    assert integrity.fault(folder) == "a has other bytes than were written"


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"a": 1}', b'{"a": ["x", 2]}', b"\xff\xfe"])
def test_sums_that_are_damaged_themselves_are_seen(folder, content):
    (folder / integrity.SUMS).write_bytes(content)
    assert integrity.fault(folder) == "checksums.json is not readable"


def test_only_the_parts_asked_for_are_read(folder):
    change(folder / "state/d/1", 0, 0)
    assert integrity.fault(folder, ("ema",)) is None
    assert integrity.fault(folder, ("ema", "state")) == "state/d/1 has other bytes than were written"
    change(folder / "_META", 0, 0)
    assert integrity.fault(folder, ("ema",)) == "_META has other bytes than were written"


def test_without_sums_nothing_is_known(folder):
    (folder / integrity.SUMS).unlink()
    change(folder / "state/d/1", 0, 0)
    assert not integrity.is_summed(folder)
    assert integrity.fault(folder) is None


def test_large_files_are_read_in_pieces(folder, monkeypatch):
    monkeypatch.setattr(integrity, "CHUNK", 100)
    assert integrity.fault(folder) is None


def test_what_is_set_aside_keeps_its_content_and_replaces_nothing(folder):
    for name in ("broken-40", "broken-40-2"):
        assert integrity.set_aside(folder).name == name
        assert (folder.with_name(name) / "ema/d/1").read_bytes() == FILES["ema/d/1"]
        shutil.copytree(folder.with_name(name), folder)


@pytest.mark.parametrize("number", [errno.EIO, errno.EISDIR, errno.ENOTDIR, errno.EUCLEAN])
def test_what_a_damaged_disk_says_is_a_fault_of_the_file(folder, monkeypatch, number):
    def broken(path):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(integrity, "_sum", broken)
    assert integrity.fault(folder) == f"_META cannot be read: {os.strerror(number)}"


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE, errno.ETIMEDOUT])
def test_an_error_of_rights_or_of_the_connection_is_no_fault_of_the_file(folder, monkeypatch, number):
    def refused(path):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(integrity, "_sum", refused)
    with pytest.raises(OSError, match=re.escape(os.strerror(number))):
        integrity.fault(folder)


def test_sums_are_sizes_and_crc32s_of_all_files_but_themselves(folder):
    (folder / "checksums.json.7.tmp").write_text("left by a kill")
    integrity.write(folder)
    sums = json.loads((folder / integrity.SUMS).read_text())
    assert sums == {name: [len(content), zlib.crc32(content)] for name, content in FILES.items()}
    assert integrity.set_aside(folder).name == "broken-40"
