"""Records at their bounds: descriptions, headers and prints, plans that are continued or begun anew, classes."""

import json
import shutil
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from experiments import data
from experiments.data import pipeline, prepare, records, sources
from experiments.data.sources import reading
from experiments.data.sources.base import Dataset, Images, Parts
from experiments.errors import RunError, UserError
from experiments.metrics.prepared import FeatureStatistics

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 4, 4), dtype=np.uint8)


def saved(path, **arrays):
    np.savez(path / "a.npz", **arrays)
    return str(path / "a.npz")


def index(labels, identities=None):
    rows = np.zeros(len(labels), records.INDEX)
    rows["label"] = labels
    rows["identity"] = np.arange(len(labels)) if identities is None else identities
    rows["digest"] = np.arange(len(labels))[:, None]
    return rows


def test_a_description_of_records_comes_back_as_it_was(tmp_path):
    shards = {"train": (records.Shard("train-00000.array_record", 3, 100), records.Shard("train-00001.array_record", 1, 9)),
              "test": (records.Shard("test-00000.array_record", 2, 50),)}  # fmt: skip
    written = records.Description(
        "npz:a", (4, 5, 3), "none", ("a", "b"), shards, {"train": "sha256:1", "test": "sha256:2"}, background="grey",
        white=4095.0, left_out=("x",), warnings=("y", "z"),
    )  # fmt: skip
    for description in (written, records.Description("digits", (8, 8, 1), "center_crop", None, shards, {})):
        description.write(tmp_path)
        assert records.Description.read(tmp_path) == description
        stored = json.loads((tmp_path / "dataset.json").read_text())
        assert stored["counts"] == {"train": 4, "test": 2} and stored["format"] == "ornstein-records-1"
    assert (description.background, description.white, description.left_out, description.warnings) == (
        "white",
        0,
        (),
        (),
    )
    assert shards["test"][0].index == "test-00000.index.npy"


def test_headers_and_indices_of_records(tmp_path):
    found = records.headers((300, 2, 255), index([-1, 7], [2**64 - 1, 5]))
    assert found[0].tobytes() == struct.pack("<4sHHB3siQ", b"OIR1", 300, 2, 255, b"\0\0\0", -1, 2**64 - 1)
    assert found[1].tobytes() == struct.pack("<4sHHB3siQ", b"OIR1", 300, 2, 255, b"\0\0\0", 7, 5)
    wide = [("label", "<i8"), ("identity", "<u8"), ("digest", "u1", 16)]
    for rows in (index([0, 1]).reshape(1, 2), index([0, 1]).astype(wide)):
        np.save(tmp_path / "i.npy", rows)
        with pytest.raises(UserError, match="is not an index of records"):
            records.read_index(tmp_path / "i.npy")
    np.save(tmp_path / "i.npy", index([3, 1]))
    np.testing.assert_array_equal(records.read_index(tmp_path / "i.npy"), index([3, 1]))


def test_prints_of_records_are_of_shape_digests_and_labels():
    shape, rows = (4, 4, 1), index([0, 1, 2])
    other = rows.copy()
    other["digest"][1, 3] ^= 1
    unlabelled, moved = index([-1, -1, -1]), index([0, 1, 2], [9, 8, 7])
    prints = [records.fingerprint(shape, of) for of in (rows, other, unlabelled, index([0, 2, 1]), rows[:2])]
    assert len({*prints, records.fingerprint((4, 4, 3), rows)}) == 6
    assert records.fingerprint(shape, moved) == prints[0]  # identities decide splits; they are no content
    assert records.fingerprint(shape, rows[:0]).startswith("sha256:")


class Planned(Exception):
    """The plan is known."""


@pytest.fixture
def plan_of(monkeypatch):
    """The plan of a call of `prepare`, which ends there."""

    def claimed(out, plan):
        raise Planned(plan)

    monkeypatch.setattr(prepare, "_claimed", claimed)

    def plan_of(*arguments, **options):
        with pytest.raises(Planned) as planned:
            prepare.prepare(*arguments, **options)
        return json.loads(str(planned.value))

    return plan_of


class Network:
    """Stands for a network of features."""

    name = "means"


def test_what_would_make_other_records_is_another_plan(plan_of, tmp_path):
    """So that files that an interrupted call left are not continued with."""
    (tmp_path / "b").mkdir()
    one, two = f"npz:{saved(tmp_path, images=PIXELS)}", f"npz:{saved(tmp_path / 'b', images=PIXELS[::-1])}"
    base = plan_of(one, tmp_path / "out")
    assert base == plan_of(one, tmp_path / "other") == plan_of(one, tmp_path / "out", image_size=4, num_channels=1)
    assert base["records_per_shard"] == 256 * 2**20 // 16 and base["image_shape"] == [4, 4, 1]
    assert base["content"]["all"][0] == 6
    changes = [
        {"image_size": 2, "resize": "center_crop"}, {"resize": "center_crop"}, {"background": "black"}, {"white": 9.0},
        {"shard_mb": 1}, {"statistics": FeatureStatistics(Network())},
    ]  # fmt: skip
    plans = [base, plan_of(two, tmp_path / "out"), *(plan_of(one, tmp_path / "out", **change) for change in changes)]
    assert len({json.dumps(plan, sort_keys=True) for plan in plans}) == len(plans)
    assert plans[1]["content"] != base["content"]
    assert plan_of(one, tmp_path / "out", shard_mb=1)["records_per_shard"] == 2**16
    saved(tmp_path, images=PIXELS, labels=np.arange(6))
    assert plan_of(one, tmp_path / "out")["content"] != base["content"]


def test_folders_that_records_are_written_to(plan_of, tmp_path):
    source = f"npz:{saved(tmp_path, images=PIXELS)}"
    (tmp_path / "empty").mkdir()
    plan_of(source, tmp_path / "empty")
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    for name in ("file", "full"):
        with pytest.raises(UserError, match=f"{name}: exists already; choose another folder"):
            prepare.prepare(source, tmp_path / name)
    (tmp_path / "full" / "dataset.json").touch()
    with pytest.raises(UserError, match="full: holds prepared images already; choose another folder"):
        prepare.prepare(source, tmp_path / "full")


def test_sources_that_cannot_be_records(plan_of, tmp_path):
    empty = f"npz:{saved(tmp_path, x_train=PIXELS, x_test=PIXELS[:0])}"
    with pytest.raises(UserError, match=f"--source={empty} has no images in the split 'test'"):
        prepare.prepare(empty, tmp_path / "out")
    for channels, fits in ((1, True), (2, False), (3, True), (4, False)):
        source = f"npz:{saved(tmp_path, images=np.zeros((6, 4, 4, channels), np.uint8))}"
        plan_of(source, tmp_path / "out")
        if fits:
            plan_of(source, tmp_path / "out", statistics=FeatureStatistics(Network()))
            continue
        with pytest.raises(
            UserError, match=f"--features=means is of images of 1 or 3 channels; --source=.* has {channels}"
        ):
            prepare.prepare(source, tmp_path / "out", statistics=FeatureStatistics(Network()))
    source = f"npz:{saved(tmp_path, images=np.zeros((6, 2, 2, 255), np.uint8))}"
    assert plan_of(source, tmp_path / "out")["records_per_shard"] == 256 * 2**20 // (4 * 255)
    for text in ("digits", "hf", "hf:", "npz:a"):
        with pytest.raises(UserError, match=f"source='{text}' is no stream: hf:NAME is one"):
            prepare.prepare(text, tmp_path / "out", stream=True)


def test_a_partial_folder_of_another_plan_is_emptied_and_of_the_same_is_kept(tmp_path, capsys):
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    with prepare._claimed(out, "one") as found:
        assert found == partial and (partial / "plan.json").read_text() == "one"
        (partial / "shard").touch()
    with prepare._claimed(out, "one"):
        assert (partial / "shard").exists()
    assert capsys.readouterr().out == ""
    with prepare._claimed(out, "two"):
        assert not (partial / "shard").exists() and (partial / "plan.json").read_text() == "two"
    assert "is of another source or other settings: beginning anew" in capsys.readouterr().out


def test_the_plan_is_removed_after_all_that_it_is_of(tmp_path, monkeypatch):
    """What is left by an end in between is still of a plan."""
    partial, removed = tmp_path / "out.partial", []
    with prepare._claimed(tmp_path / "out", "one"):
        for name in ("a", "z"):
            (partial / name).touch()
    unlink = type(partial).unlink
    monkeypatch.setattr(type(partial), "unlink", lambda path, **of: removed.append(path.name) or unlink(path, **of))
    with prepare._claimed(tmp_path / "out", "two"):
        assert sorted(removed[:2]) == ["a", "z"] and removed[2] == "plan.json"
    (partial / "plan.json").unlink()
    (partial / ".plan.json.5.tmp").touch()
    with prepare._claimed(tmp_path / "out", "three"):  # it was ended before there was anything but a plan
        assert (partial / "plan.json").read_text() == "three"


def dataset(labels, class_names=None, **more):
    labels = None if labels is None else np.array(labels, np.int32)
    count = 3 if labels is None else len(labels)
    train = Images(np.zeros((count, 2, 2, 1), np.uint8), labels)
    known = Parts({"all": train}, class_names).num_classes
    return Dataset("x", train, train.take(np.zeros(count, bool)), train, known, class_names, **more)


def test_classes_without_training_images_are_counted_and_the_first_thousand_named():
    assert dataset([0, 1, 1]).untrained_classes() == ([], 0)
    assert dataset([1, 4]).untrained_classes() == ([0, 2, 3], 3)
    missing, count = dataset([1500]).untrained_classes()
    assert missing == list(range(1000)) and count == 1500
    assert dataset([1, 1, 4]).class_counts() == {1: 2, 4: 1} and dataset([1], ()).class_counts("validation") == {}
    assert dataset(None).class_counts() == {} and dataset(None).untrained_classes() == ([], 0)
    assert dataset([0, 1], ("a", "1")).class_name(1) == "1" and dataset([0, 1], ("a", "1")).class_name(0) == "0 'a'"
    assert dataset([0, 1]).class_name(1) == "1"


def test_a_print_of_a_data_set_is_of_each_split():
    parts = [Images(RNG.integers(0, 256, (2, 2, 2, 1), dtype=np.uint8)) for _ in range(4)]
    prints = {
        Dataset("x", *of, 0).fingerprint()
        for of in (parts[:3], parts[1:], (parts[0], parts[3], parts[2]), (parts[0], parts[1], parts[3]), parts[2::-1])
    }
    assert len(prints) == 5 and all(text.startswith("sha256:") for text in prints)


def pixels_of(*numbers):
    return np.stack([np.full((2, 2, 1), number, np.uint8) for number in numbers])


def test_images_in_memory_are_those_of_where_they_were_read_from():
    """Their splits and their print do not depend on whether they are kept in memory."""
    origin = Images(pixels_of(1, 2, 3), np.arange(3, dtype=np.int32))
    kept = Images(pixels_of(4, 5, 6), origin.labels, origin)
    taken = kept.take(np.array([2, 0]))
    np.testing.assert_array_equal(taken.identities(), origin.identities()[[2, 0]])
    assert taken.fingerprint() == origin.take(np.array([2, 0])).fingerprint() != taken.images.tobytes()
    assert taken.labels.tolist() == [2, 0] and taken.images[:, 0, 0, 0].tolist() == [6, 4]
    assert Images(kept.images).fingerprint() != origin.fingerprint() and kept.in_memory() is kept
    read = reading.CenterCropped(origin, (1, 1)).in_memory()
    assert read.origin.fingerprint() == read.fingerprint() != origin.fingerprint()
    assert read.images.shape == (3, 1, 1, 1) and read.labels.tolist() == [0, 1, 2]


def test_images_of_training_that_are_held_out_too_are_counted_in_each_split():
    numbers = {"train": (1, 2, 3), "validation": (3, 4), "test": (1, 2, 9, 1)}
    parts = {name: Images(pixels_of(*of)) for name, of in numbers.items()}
    said = [" ".join(text.split()[:7]) for text in sources.shared_images(parts)]
    assert said == ["1 of 2 validation images are training", "3 of 4 test images are training"]
    assert sources.shared_images(parts | {"train": Images(pixels_of(7))}) == []
    unread = reading.CenterCropped(parts["test"], (1, 1))  # its pixels would have to be made
    assert unread.digests() is None and sources.shared_images(parts | {"test": unread}) == []


def test_a_source_in_memory_is_within_the_budget_of_all_its_splits(tmp_path):
    """Of decoded pixels, in 10^9 bytes; a source of arrays lies in memory in any case."""
    folder = tmp_path / "p"
    folder.mkdir()
    for i in range(8):
        Image.fromarray(PIXELS[i % 6] + np.uint8(i)).save(folder / f"{i}.png")
    options = {"image_size": 4, "num_channels": 1, "test_fraction": 0.4, "validation_fraction": 0.2}
    for memory_gb, kept in ((8 * 16e-9, True), (7.9 * 16e-9, False)):
        found = sources.load(f"folder:{folder}", memory_gb=memory_gb, **options)
        assert [isinstance(part, Images) for part in found.splits.values()] == [kept] * 3
    for memory_gb in (-1e-9, -1.0):
        with pytest.raises(UserError, match=r"data\.memory_gb=.* is not allowed: choose 0"):
            sources.load(f"folder:{folder}", memory_gb=memory_gb, **options)


def test_files_of_a_process_that_was_killed_are_removed(tmp_path):
    """Those of the plan before the folder has one, and any once it has; what others put there stays and is refused."""
    source = f"npz:{saved(tmp_path, images=PIXELS)}"
    expected = prepare.prepare(source, tmp_path / "whole")
    for name in (".plan.json.123.tmp", ".dataset.json.7.tmp"):
        partial = tmp_path / "out.partial"
        partial.mkdir()
        (partial / name).write_text("half")
        if name.startswith(".dataset"):
            with pytest.raises(UserError, match=r"out\.partial holds other files"):
                prepare.prepare(source, tmp_path / "out")
            assert (partial / name).exists()
            (partial / "plan.json").write_text("{}")
        assert prepare.prepare(source, tmp_path / "out") == expected
        files = sorted(path.name for path in (tmp_path / "out").iterdir())
        assert files == sorted(path.name for path in (tmp_path / "whole").iterdir())
        shutil.rmtree(tmp_path / "out")


def test_a_disk_that_is_full_at_the_end_of_a_shard_leaves_it_without_a_name(tmp_path, monkeypatch):
    class Full:
        def __init__(self, path, options):
            assert options == "group_size:1,zstd:1"
            Path(path).touch()

        def write(self, record):
            written.append(record)

        def close(self):
            raise RuntimeError("No space left on device")

    written = []
    monkeypatch.setattr(records, "array_record", lambda: SimpleNamespace(ArrayRecordWriter=Full))
    writer = records.ShardWriter(tmp_path, "all-00000.array_record", (4, 4, 1))
    rows = index([0, 1])
    writer.write(rows, PIXELS[:2, ..., None])
    headers = records.headers((4, 4, 1), rows)
    assert written == [headers[i].tobytes() + PIXELS[i].tobytes() for i in range(2)]
    with pytest.raises(RunError, match=r"all-00000\.array_record\.tmp cannot be written \(No space left on device\)$"):
        writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["all-00000.array_record.tmp"]


def test_a_shard_is_whole_before_its_index_and_both_are_on_the_disk(tmp_path, monkeypatch):
    events, flush, replace = [], records.flush, Path.replace
    monkeypatch.setattr(records, "flush", lambda path: events.append(("flush", path.name)) or flush(path))
    monkeypatch.setattr(Path, "replace", lambda path, to: events.append(("replace", to.name)) or replace(path, to))
    writer = records.ShardWriter(tmp_path, "t-00003.array_record", (4, 4, 1))
    for part in (slice(0, 2), slice(2, 5)):
        writer.write(index([3, 2, 1, 0, 7])[part], PIXELS[:5, ..., None][part])
    shard = writer.close()
    assert shard == records.Shard("t-00003.array_record", 5, (tmp_path / "t-00003.array_record").stat().st_size)
    np.testing.assert_array_equal(
        records.read_index(tmp_path / shard.index), np.concatenate([index([3, 2]), index([3, 2, 1, 0, 7])[2:]])
    )
    assert events == [
        ("flush", "t-00003.array_record.tmp"), ("replace", "t-00003.array_record"),
        ("flush", "t-00003.index.npy.tmp"), ("replace", "t-00003.index.npy"),
    ]  # fmt: skip


def test_names_of_the_package_of_data_are_loaded_when_they_are_first_wanted():
    assert data.training_batches is pipeline.training_batches and data.load is sources.load
    assert {name: getattr(data, name).__name__ for name in data.__all__} == {name: name for name in data.__all__}
    with pytest.raises(AttributeError, match=r"^module 'experiments\.data' has no attribute 'batch'$"):
        data.batch  # noqa: B018
