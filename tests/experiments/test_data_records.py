"""Prepared records give back every byte, and no interruption leaves a folder that looks complete and is not."""

import fcntl
import hashlib
import json
import pickle
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from array_record.python import array_record_module
from PIL import Image

from configs import base
from experiments.__main__ import main
from experiments.data import load, records
from experiments.data.prepare import prepare
from experiments.data.sources import Wanted, read
from experiments.errors import RunError, UserError
from experiments.metrics.prepared import FeatureStatistics
from experiments.metrics.statistics import Statistics
from tests.experiments.tiny import ROOT

N, SHARD = 100, 30  # images, and images in a shard


def random_images(n, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


@pytest.fixture
def source(tmp_path):
    """100 unsplit images of 4x4x3 with labels, as npz."""
    np.savez(tmp_path / "a.npz", images=random_images(N, 4, 4, 3), labels=np.arange(N) % 7)
    return f"npz:{tmp_path}/a.npz"


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Shards of 30 images of 4x4x3, written in blocks of 8."""
    monkeypatch.setattr("experiments.data.prepare.MB", 48 * SHARD)
    monkeypatch.setattr("experiments.data.prepare.BLOCK_BYTES", 48 * 8)


def prepared(source, out, **options):
    return prepare(source, out, shard_mb=1, **options)


def load4(source, **changes):
    defaults = {"image_size": 4, "num_channels": 3, "test_fraction": 0.3, "validation_fraction": 0.2, "memory_gb": 0}
    return load(source, **defaults | changes)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def assert_same(a, b):
    assert a.num_classes == b.num_classes and a.class_names == b.class_names
    for name in ("train", "validation", "test"):
        x, y = getattr(a, name), getattr(b, name)
        assert len(x) == len(y)
        everything = np.arange(len(x))
        np.testing.assert_array_equal(x.gather(everything)["image"], y.gather(everything)["image"])
        np.testing.assert_array_equal(x.labels, y.labels)
        np.testing.assert_array_equal(x.identities(), y.identities())
        assert x.fingerprint() == y.fingerprint()
    assert a.fingerprint() == b.fingerprint()


def test_records_give_back_every_byte_in_the_same_splits(source, tmp_path):
    prepared(source, tmp_path / "out")
    data = load4(f"arrayrecord:{tmp_path}/out")
    assert not hasattr(data.train, "images") and len(data.test) > 0 < len(data.validation)
    assert_same(data, load4(source))
    assert_same(load4(f"arrayrecord:{tmp_path}/out", memory_gb=1), load4(source))


def test_batches_come_from_all_shards_in_the_order_asked_for(source, tmp_path):
    prepared(source, tmp_path / "out")
    everything = read(f"arrayrecord:{tmp_path}/out", Wanted(4, 3)).sources["all"]
    order = np.random.default_rng(0).integers(0, N, 300)  # some more than once
    for reader in (everything, pickle.loads(pickle.dumps(everything))):
        batch = reader.gather(order)
        np.testing.assert_array_equal(batch["image"], random_images(N, 4, 4, 3)[order])
        np.testing.assert_array_equal(batch["label"], order % 7)
        batch["image"][:] = 0  # the caller's own
    taken = everything.take(order).take(np.arange(50, 60))
    np.testing.assert_array_equal(taken.gather([9, 0])["image"], random_images(N, 4, 4, 3)[order[[59, 50]]])
    assert len(pickle.dumps(everything)) < 100 * N + 10_000  # names and index, no pixels or open files


def test_the_bytes_are_those_of_the_docstring(source, tmp_path):
    """Read by struct and hashlib alone, as another program would."""
    prepared(source, tmp_path / "out")
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    names = [f"all-{i:05}.{kind}" for i in range(4) for kind in ("array_record", "index.npy")]
    assert files == [*names, "dataset.json"]
    reader = array_record_module.ArrayRecordReader(f"{tmp_path}/out/all-00001.array_record")
    index = np.load(tmp_path / "out" / "all-00001.index.npy", allow_pickle=False)
    assert reader.num_records() == len(index) == SHARD
    for place in (0, 29):
        image = random_images(N, 4, 4, 3)[SHARD + place]
        record = reader.read([place])[0]
        digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
        label, identity = (SHARD + place) % 7, int.from_bytes(digest[:8], "little")
        assert struct.unpack("<4sHHB3siQ", record[:24]) == (b"OIR1", 4, 4, 3, b"\0\0\0", label, identity)
        assert record[24:] == image.tobytes()
        assert index[place].tobytes() == struct.pack("<iQ", label, identity) + digest
    description = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert description["counts"] == {"all": N} and description["image_shape"] == [4, 4, 3]
    assert [shard["count"] for shard in description["splits"]["all"]] == [30, 30, 30, 10]
    assert description["source"] == source and description["fingerprints"]["all"].startswith("sha256:")


def test_folders_are_cropped_and_keep_their_splits_names_and_identities(tmp_path):
    for i in range(24):
        path = tmp_path / "in" / ("train", "test", "val")[i % 3] / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random_images(1, 5 + i, 30 - i, 3, seed=i)[0]).save(path)
    prepared(f"folder:{tmp_path}/in", tmp_path / "out", image_size=4, resize="center_crop")
    data, original = (load4(s, resize="center_crop") for s in (f"arrayrecord:{tmp_path}/out", f"folder:{tmp_path}/in"))
    for name in ("train", "validation", "test"):
        a, b = getattr(data, name), getattr(original, name)
        np.testing.assert_array_equal(a.gather(np.arange(8))["image"], b.gather(np.arange(8))["image"])
        np.testing.assert_array_equal(a.labels, b.labels)
        np.testing.assert_array_equal(a.identities(), b.identities())
    assert data.class_names == ("a", "b")
    train = read(f"arrayrecord:{tmp_path}/out/train-*", Wanted(4, 3)).sources
    assert list(train) == ["train"] and len(train["train"]) == 8
    # What the records hold can be cropped again.
    small = load4(f"arrayrecord:{tmp_path}/out", image_size=2, resize="center_crop")
    assert small.train.gather([0])["image"].shape == (1, 2, 2, 3)


def test_images_without_labels(tmp_path):
    np.savez(tmp_path / "a.npz", images=random_images(N, 4, 4))
    prepared(f"npz:{tmp_path}/a.npz", tmp_path / "out")
    data = load4(f"arrayrecord:{tmp_path}/out", num_channels=1)
    assert data.train.labels is None and data.num_classes == 0
    assert_same(data, load4(f"npz:{tmp_path}/a.npz", num_channels=1))


class Killed(BaseException):
    """Stands for the end of the process."""


def killed_at(monkeypatch, step):
    """Ends `prepare` at its step-th durable operation: before it is done, or half-way through a batch of records."""
    count = 0

    def counted(function):
        def wrapper(*args, **kwargs):
            nonlocal count
            count += 1
            if count > step:
                raise Killed
            return function(*args, **kwargs)

        return wrapper

    monkeypatch.setattr(Path, "replace", counted(Path.replace))
    monkeypatch.setattr(records, "flush", counted(records.flush))
    monkeypatch.setattr(records.ShardWriter, "write", counted(records.ShardWriter.write))


def test_whenever_it_is_killed_no_folder_looks_complete_and_it_goes_on_to_the_same_bytes(source, tmp_path):
    prepared(source, tmp_path / "straight")
    expected = contents(tmp_path / "straight")
    for step in range(100):
        out, partial = tmp_path / f"out{step}", tmp_path / f"out{step}.partial"
        try:
            with pytest.MonkeyPatch.context() as patch:
                killed_at(patch, step)
                prepared(source, out)
        except Killed:
            if not out.exists():
                with pytest.raises(UserError, match=r"does not exist|no complete folder"):
                    load4(f"arrayrecord:{out}")
            else:  # killed at the very last: it is complete, and so is what it holds
                assert_same(load4(f"arrayrecord:{out}"), load4(source))
                continue
            if not (partial / "dataset.json").exists():
                with pytest.raises(UserError, match="no complete folder"):
                    load4(f"arrayrecord:{partial}")
            kept = {path: path.stat().st_mtime_ns for path in partial.glob("*.index.npy")}
            kept |= {p.with_name(p.name.replace("index.npy", "array_record")): 0 for p in kept}
            kept = {path.name: path.stat().st_ino for path in kept}
            prepared(source, out)
            assert contents(out) == expected and not partial.exists()
            assert {name: (out / name).stat().st_ino for name in kept} == kept, "what was whole was written again"
        else:
            break
    assert step > 30, "the last steps were reached, and there are many"


@pytest.mark.thorough  # a process of its own takes seconds to start
def test_a_real_kill_leaves_no_complete_folder(tmp_path):
    np.savez(tmp_path / "a.npz", images=random_images(4000, 64, 64, 3))
    code = (
        "import sys; from pathlib import Path; from experiments.data import prepare as p; p.MB = 2**18; "
        "p.prepare(sys.argv[1], Path(sys.argv[2]), shard_mb=1)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, f"npz:{tmp_path}/a.npz", tmp_path / "out"], cwd=ROOT)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out.partial").glob("*-00002.index.npy")):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="no complete folder"):
        load4(f"arrayrecord:{tmp_path}/out.partial", image_size=64)


def test_another_source_begins_anew(source, tmp_path):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, 30)
        prepared(source, tmp_path / "out")
    np.savez(tmp_path / "a.npz", images=random_images(N, 4, 4, 3, seed=1))
    prepared(source, tmp_path / "out")
    assert_same(load4(f"arrayrecord:{tmp_path}/out"), load4(source))


def test_a_broken_image_ends_it_with_its_name(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(40):
        Image.fromarray(random_images(1, 4, 4, 3)[0]).save(tmp_path / "in" / f"{i:02}.png")
    (tmp_path / "in" / "35.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"35\.png cannot be read"):
        prepared(f"folder:{tmp_path}/in", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match=r"4x5.*--resize=center_crop"):
        Image.fromarray(random_images(1, 4, 5, 3)[0]).save(tmp_path / "in" / "35.png")
        prepared(f"folder:{tmp_path}/in", tmp_path / "out")


def test_a_full_disk_is_said(source, tmp_path):
    class Full:
        def __init__(self, path, options):
            Path(path).touch()

        def write(self, record):
            raise RuntimeError("write() failed: No space left on device; writing x")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RunError, match="No space left on device"):
        patch.setattr(array_record_module, "ArrayRecordWriter", Full)
        prepared(source, tmp_path / "out")
    prepared(source, tmp_path / "out")


@pytest.fixture
def out(source, tmp_path):
    prepared(source, tmp_path / "out")
    return tmp_path / "out"


def damage(folder, name, change):
    content = bytearray((folder / name).read_bytes())
    (folder / name).write_bytes(change(content))


def flip(content):
    content[len(content) // 300] ^= 1  # within the first records
    return content


def swap(folder):
    a, b = folder / "all-00000.index.npy", folder / "all-00001.index.npy"
    content = a.read_bytes()
    a.write_bytes(b.read_bytes()), b.write_bytes(content)


DAMAGES = {
    "a shard is missing": (lambda f: (f / "all-00001.array_record").unlink(), ["all-00001.array_record", "0 bytes"]),
    "a shard is cut": (lambda f: damage(f, "all-00001.array_record", lambda c: c[:-1]), ["all-00001.array_record"]),
    "a byte is wrong": (lambda f: damage(f, "all-00000.array_record", flip), ["all-00000.array_record", "hash mismatch"]),
    "an index is missing": (lambda f: (f / "all-00002.index.npy").unlink(), ["all-00002.index.npy is missing"]),
    "an index is cut": (lambda f: damage(f, "all-00002.index.npy", lambda c: c[:-1]), ["all-00002.index.npy is missing or"]),
    "indices are swapped": (swap, ["its index is of other records"]),
    "an index is a pickle": (
        lambda f: np.save(f / "all-00000.index.npy", np.array([{}], object), allow_pickle=True),
        ["all-00000.index.npy is missing or damaged"],
    ),
    "an index is of something else": (lambda f: np.save(f / "all-00000.index.npy", np.ones(3)), ["is not an index"]),
    "a shorter index": (
        lambda f: np.save(f / "all-00000.index.npy", np.load(f / "all-00000.index.npy")[:-1]),
        ["it is of 29 records, not 30"],
    ),
    "no description": (lambda f: (f / "dataset.json").unlink(), ["out has no dataset.json", "prepare"]),
    "no JSON": (lambda f: damage(f, "dataset.json", lambda c: c[:-9]), ["dataset.json is damaged"]),
    "no splits": (lambda f: (f / "dataset.json").write_text('{"format": "ornstein-records-1"}'), ["is damaged"]),
    "another format": (lambda f: (f / "dataset.json").write_text('{"format": "x"}'), ["ornstein-records-1"]),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_one_clear_line(name, out):
    make, phrases = DAMAGES[name]
    make(out)
    with pytest.raises(UserError) as error:
        load4(f"arrayrecord:{out}", memory_gb=1)
    assert "\n" not in str(error.value)
    assert all(phrase in str(error.value) for phrase in phrases), str(error.value)


def test_what_is_asked_for_must_be_there(out, tmp_path):
    for pattern, phrase in (
        (f"{out}s", "no dataset.json"),
        (f"{out}/train-*", "no records of .* match 'train-\\*'; there are all-00000.array_record to all-00003"),
        (f"{tmp_path}/oot/x", "oot does not exist; did you mean 'out'"),
    ):
        with pytest.raises(UserError, match=phrase):
            load4(f"arrayrecord:{pattern}")
    with pytest.raises(UserError, match=r"4x4x3 images but data\.image_size=8"):
        load4(f"arrayrecord:{out}", image_size=8)


def test_the_command_line(out, source, tmp_path, fails, capsys):
    assert main(["prepare", f"--source={source}", f"--out={tmp_path}/new"]) == 0
    assert f"--config.data.source=arrayrecord:{tmp_path}/new" in capsys.readouterr().out
    assert contents(tmp_path / "new").keys() == {"all-00000.array_record", "all-00000.index.npy", "dataset.json"}

    def message(*arguments):
        return fails("prepare", *arguments)

    assert "out: holds prepared images already" in message(f"--source={source}", f"--out={out}")
    (tmp_path / "file").touch()
    assert "file: exists already" in message(f"--source={source}", f"--out={tmp_path}/file")
    assert "file/x cannot be written: Not a dir" in message(f"--source={source}", f"--out={tmp_path}/file/x")
    assert "did you mean 'npz'" in message("--source=nzp:a", f"--out={tmp_path}/x")
    assert "--resize=center_crop" in message(f"--source={source}", f"--out={tmp_path}/x", "--image_size=5")
    assert "data.resize='crop' is unknown" in message(f"--source={source}", f"--out={tmp_path}/x", "--resize=crop")
    assert "prepare takes no config" in message(
        f"--source={source}", f"--out={tmp_path}/x", "--config.data.image_size=4"
    )
    assert "must be at least 1" in message(f"--source={source}", f"--out={tmp_path}/x", "--shard_mb=0")
    assert "did you mean 'inception'" in message(f"--source={source}", f"--out={tmp_path}/x", "--features=inceptoin")
    assert not list(tmp_path.glob("x*"))
    (tmp_path / "x.partial").mkdir()
    (tmp_path / "x.partial" / "mine.txt").touch()
    assert "x.partial holds other files" in message(f"--source={source}", f"--out={tmp_path}/x")
    assert (tmp_path / "x.partial" / "mine.txt").exists()
    (tmp_path / "y.partial").mkdir()
    with (tmp_path / "y.partial" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another `prepare` is writing" in message(f"--source={source}", f"--out={tmp_path}/y")


class Means:
    """A feature network: the mean of each channel."""

    name, sha256, preprocessing = "means", "0", "none"

    def __call__(self, images):
        return {"pool": images.mean((1, 2)).astype(np.float32)}


def test_statistics_are_of_the_images_that_training_and_evaluation_see(source, tmp_path):
    prepared(source, tmp_path / "out", statistics=FeatureStatistics(Means()))
    defaults = base.get_config().data
    data = load4(f"arrayrecord:{tmp_path}/out", test_fraction=defaults.test_fraction, validation_fraction=0)
    for name, part in (("training", data.train), ("held_out", data.test)):
        statistics = Statistics.load(tmp_path / "out" / f"{name}_means.npz")
        images = part.gather(np.arange(len(part)))["image"]
        statistics.check(name, Means())
        statistics.check_images(name, part.fingerprint(), ())
        statistics.check_images(name, "", [images])
        assert statistics.count == len(part)
        np.testing.assert_allclose(statistics.pool.mean, images.mean((0, 1, 2)), rtol=1e-6)


def test_the_command_line_has_the_background_and_the_white_level(tmp_path, fails):
    np.savez(tmp_path / "a.npz", images=np.arange(32, dtype=np.uint16).reshape(2, 4, 4) * 100)
    message = fails("prepare", f"--source=npz:{tmp_path}/a.npz", f"--out={tmp_path}/out")
    assert "is uint16 with values from 0 to 3100" in message and "--white=4095" in message
    assert main(["prepare", f"--source=npz:{tmp_path}/a.npz", f"--out={tmp_path}/out", "--white=3100"]) == 0
    found = read(f"arrayrecord:{tmp_path}/out", Wanted(4, 1)).sources["all"].gather([0, 1])["image"]
    np.testing.assert_array_equal(found.ravel(), np.rint(np.arange(32) * 255 / 31))
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["white"] == 3100
    message = fails("prepare", f"--source=npz:{tmp_path}/a.npz", f"--out={tmp_path}/new", "--background=blak")
    assert "--background='blak': must be the name of a colour" in message and "did you mean 'black'?" in message
