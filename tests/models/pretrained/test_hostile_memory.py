"""Hostile and damaged files take memory and time in proportion to their length, and end in a one-line error.

Each file is read in a child process that may take 192 MiB more than it has after its imports.
"""

import io
import os
import pickle
import random
import subprocess
import sys
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from tests.experiments.tiny import ROOT
from tests.models.pretrained import opcodes as op

CHILD = """
import pathlib, resource, sys, time
from models.pretrained import files
from models.pretrained.torch_file import BrokenFileError, UnsafeFileError

pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 192 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    start = time.monotonic()
    try:
        found = files.read(path)
        text = f"read {type(found).__name__}"
    except (BrokenFileError, UnsafeFileError) as error:
        text = f"{type(error).__name__} {error}"
    assert "MemoryError" not in text, (path.name, text)
    assert "\\n" not in text and len(text) < 400, (path.name, text)
    assert time.monotonic() - start < 10, path.name
    print(path.name, text)
"""

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's /proc")


def outcomes(folder):
    """What the child says of each file, by name."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def laughs(depth, push=b")"):
    """Tuples each of which holds the one before twice: 2^depth paths."""
    return push + b"2\x86" * depth


BIG, SIGNED = (10**8).to_bytes(4, "little"), (2**40).to_bytes(8, "little")
ONE = op.tensor(op.storage(1), 0, (1,), (1,))
NUMPY = op.call(op.name("numpy", "dtype"), op.value("f4"))
FRAMED = b"\x80\x04\x95" + SIGNED + b"]."
ENCODE = op.name("_codecs", "encode")
LONG_TEXT = b"X" + (2**20).to_bytes(4, "little") + b"a" * 2**20

# By name: a pickle without its protocol and stop, or whole where it begins with the protocol.
PICKLES = {
    "long_binput": b"}r" + BIG,
    "long_binput_largest": b"}r" + b"\xff\xff\xff\xff",
    "put_text": b"}p" + b"9" * 30 + b"\n",
    "long_binget": b"j" + BIG,
    "memoize_all": b"]" + b"\x94" * 10**5 + b"j" + BIG,
    "binunicode": b"X" + BIG,
    "binunicode8": b"\x8d" + SIGNED,
    "binbytes": b"B" + BIG,
    "binbytes8": b"\x8e" + SIGNED,
    "bytearray8": b"\x96" + SIGNED,
    "binstring_negative": b"T\xff\xff\xff\xff",
    "long4": b"\x8b" + b"\xff\xff\xff\x7f",
    "frame": FRAMED,
    "laughs": laughs(60),
    "laughs_of_lists": b"]" + b"q\x00]q\x01h\x00ah\x00aq\x00" * 60 + b"h\x00",
    "laughs_as_key": b"}" + laughs(60) + b"K\x01s",
    "laughs_in_set": b"\x8f(" + laughs(60) + b"\x90",
    "laughs_in_frozenset": b"(" + laughs(60) + b"\x91",
    "laughs_to_set": op.call(op.name("builtins", "set"), b"]" + laughs(60) + b"a"),
    "laughs_to_ordered_dict": op.call(op.name("collections", "OrderedDict"), b"]" + laughs(60) + b"K\x01\x86a"),
    "laughs_as_text": op.call(ENCODE, laughs(60)),
    "laughs_as_device": op.call(op.name("torch", "device"), laughs(60)),
    "laughs_as_pid": laughs(60) + b"Q",
    "laughs_as_dtype": op.call(op.name("numpy", "dtype"), laughs(60)),
    "laughs_as_class": op.call(
        op.name("torch_utils.persistence", "_reconstruct_persistent_obj"), op.dictionary(class_name=laughs(60))
    ),
    "encode_often": b"(" + LONG_TEXT + b"q\x000" + (ENCODE + b"h\x00\x85R") * 2000 + b"l",
    "tuples_often": b"(" + b"]q\x000(" + b"K\x01" * 10**5 + b"tq\x000"
    + (op.name("torch", "Size") + b"h\x00R") * 2000 + b"l",
    "bytes_of_number": op.call(
        op.name("numpy.core.numeric", "_frombuffer"), op.value(10**12), NUMPY, op.value((1,)), op.value("C")
    ),
    "holds_itself": b"]q\x00h\x00a",
    "legacy_storage": b"".join(op.whole(op.value(part)) for part in (0x1950A86A20F9469CFC6C, 1001, {}))
    + op.whole(op.tensor(op.storage(10**11, op.value(None)), 0, (10**11,), (1,))) + op.whole(op.value(["0"]))
    + np.int64(10**11).tobytes(),
}  # fmt: skip
READ = ("laughs", "laughs_of_lists")  # harmless, once no path is walked twice


def whole(body):
    return body if body[:1] == b"\x80" else op.whole(body)


def test_hostile_files_take_a_few_megabytes(tmp_path):
    for name, body in PICKLES.items():
        (tmp_path / name).write_bytes(whole(body))
        if name != "legacy_storage":
            with zipfile.ZipFile(tmp_path / f"zip_{name}", "w") as archive:
                archive.writestr("archive/data.pkl", whole(body))
    with zipfile.ZipFile(tmp_path / "zip_bomb", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", op.whole(op.tensor(op.storage(2**28), 0, (1,), (1,))))
        with archive.open("archive/data/0", "w") as entry:
            for _ in range(256):
                entry.write(bytes(2**20))
    with zipfile.ZipFile(tmp_path / "zip_strides", "w") as archive:
        repeated = op.tensor(op.storage(1), 0, (10**6, 10**6), (0, 0))
        archive.writestr("archive/data.pkl", op.whole(repeated))
        archive.writestr("archive/data/0", bytes(4))
    found = outcomes(tmp_path)
    assert found.keys() == {path.name for path in tmp_path.iterdir()}
    assert found.pop("zip_strides") == "read ndarray"  # a view
    for name, text in found.items():
        harmless = name.removeprefix("zip_") in READ
        assert text.startswith("read " if harmless else ("BrokenFileError ", "UnsafeFileError ")), (name, text)
    # The nine bytes of the report.
    assert len(whole(PICKLES["long_binput"])) == 9
    assert found["long_binput"] == "BrokenFileError it keeps value number 100,000,000, more than its 9 bytes can hold"
    assert "many times its" in found["encode_often"] and "many times its" in found["zip_bomb"]
    assert "larger than the file" in found["legacy_storage"]
    assert "holds itself" in found["holds_itself"]
    assert "a key of a dictionary or set is a tuple" in found["laughs_as_key"]


def damaged(data, generator):
    """The data with a few bytes changed, numbers that say lengths and indices among them, deleted or inserted."""
    data = bytearray(data)
    for _ in range(generator.choice([1, 1, 2, 4, 16])):
        place, kind = generator.randrange(len(data)), generator.randrange(4)
        if kind == 0:
            data[place] = generator.randrange(256)
        elif kind == 1:
            data[place : place + 4] = generator.choice([b"\xff\xff\xff\x7f", b"\xff" * 4, BIG])
        elif kind == 2:
            del data[place : place + generator.randrange(1, 20)]
        else:
            data[place:place] = bytes([generator.choice(b"rqj\x8d\x8e\x96\x95\x8b\x8a}](.tRbQ2")]) + bytes(
                generator.randrange(256) for _ in range(4)
            )
    return bytes(data)


def test_damaged_checkpoints_are_read_or_refused_in_one_line(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install -e '.[interop]'")
    base, generator = torch.arange(60.0).reshape(6, 10), random.Random(0)
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))]).state_dict()
    value = {
        "model": OrderedDict(a=base, b=base[1:3, ::2]),
        "ema": {"shadow_params": [base * 2]},
        "optimizer": optimizer,
    }
    sources = [pickle.dumps({"a": np.arange(6.0), "b": [1, {"c": "d" * 50}]}, protocol) for protocol in (2, 5)]
    for legacy in (False, True):
        file = io.BytesIO()
        torch.save(value, file, _use_new_zipfile_serialization=not legacy)
        sources.append(file.getvalue())
    for i in range(400):
        (tmp_path / f"{i:03d}").write_bytes(damaged(sources[i % len(sources)], generator))
    found = outcomes(tmp_path)
    assert len(found) == 400
    assert sum(text.startswith("read ") for text in found.values()) > 5
