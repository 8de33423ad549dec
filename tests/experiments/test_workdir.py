"""A run's folder: where its files lie, whose it is, and what is left behind by none of its writers."""

import json
import os
import re

import pytest

from experiments.errors import UserError
from experiments.files import replace_file, replace_text
from experiments.runs.workdir import Workdir
from tests.experiments.tiny import tiny_config


def test_files_lie_where_the_text_says(tmp_path):
    workdir = Workdir(tmp_path)
    places = {
        "config": "config.json", "data": "data.json", "checkpoints": "checkpoints", "ema_snapshots": "ema_snapshots",
        "samples": "samples", "strip": "samples/from_noise.png", "history": "metrics.jsonl", "metrics": "metrics.json",
        "evaluation": "evaluation", "report": "report.html", "lock": "train.lock",
    }  # fmt: skip
    assert {name: getattr(workdir, name).relative_to(tmp_path).as_posix() for name in places} == places
    assert workdir.grid(40) == tmp_path / "samples" / "step_00000040.png"
    assert workdir.grid(123_456_789).name == "step_123456789.png"


def test_a_folder_with_checkpoints_but_no_config_is_somebody_elses(tmp_path):
    workdir = Workdir(tmp_path)
    workdir.samples.mkdir()
    workdir.claim(tiny_config())
    workdir.config.unlink()
    workdir.checkpoints.mkdir()
    with pytest.raises(UserError, match=r"has checkpoints but no config\.json: choose another workdir"):
        workdir.claim(tiny_config())
    assert not workdir.config.exists()


def test_a_config_is_stored_where_it_is_new_or_may_change(tmp_path):
    workdir, one, two = Workdir(tmp_path), tiny_config(), tiny_config(optim__lr=0.5)
    with pytest.raises(UserError, match="must be on a file system that all processes share; here it is empty"):
        workdir.require_same(one)
    workdir.claim(one)
    written = workdir.config.stat().st_mtime_ns
    workdir.claim(one)
    workdir.claim(one, resume_with_changes=True)
    assert workdir.config.stat().st_mtime_ns == written
    workdir.require_same(one)
    with pytest.raises(
        UserError, match=r"the first process runs another config; these differ: optim\.lr: 0\.002 -> 0\.5"
    ):
        workdir.require_same(two)
    with pytest.raises(UserError, match=r"holds another experiment; these keys differ: optim\.lr: 0\.002 -> 0\.5\. "):
        workdir.claim(two)
    workdir.require_same(one)
    workdir.claim(two, resume_with_changes=True)
    workdir.require_same(two)


def test_files_of_killed_writers_are_removed_and_no_others(tmp_path):
    workdir = Workdir(tmp_path)
    left = [tmp_path / "a.tmp", tmp_path / ".config.json.7.tmp", workdir.samples / ".grid.png.8.tmp"]
    kept = [tmp_path / "a.tmp.txt", workdir.samples / "tmp.png", tmp_path / "evaluation" / "b.tmp"]
    for path in (*left, *kept):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    workdir.claim(tiny_config())
    assert not any(path.exists() for path in left) and all(path.exists() for path in kept)


@pytest.mark.parametrize(
    "names, found", [([], False), (["8"], True), (["8.orbax-checkpoint-tmp"], False), (["broken-8"], False)]
)
def test_a_checkpoint_is_a_step(tmp_path, names, found):
    workdir = Workdir(tmp_path)
    assert not workdir.has_checkpoint()
    for name in names:
        (workdir.checkpoints / name).mkdir(parents=True)
    assert workdir.has_checkpoint() == found


@pytest.mark.parametrize(
    "text, stored, names",
    [
        (None, {}, None),
        ("[1, 2]", {}, None),
        ('"text"', {}, None),
        ('{"class_names": null, "a": 1}', {"class_names": None, "a": 1}, None),
        ('{"class_names": ["b", "a", "10", "9"]}', {"class_names": ["b", "a", "10", "9"]}, ("b", "a", "10", "9")),
    ],
)
def test_names_of_classes_are_in_their_stored_order(tmp_path, text, stored, names):
    workdir = Workdir(tmp_path)
    if text is not None:
        workdir.data.write_text(text)
    assert workdir.read_data() == stored and workdir.class_names() == names


def test_a_description_that_is_no_json_is_named(tmp_path):
    Workdir(tmp_path).data.write_text("{")
    with pytest.raises(UserError, match=f"^{re.escape(str(tmp_path))}/data.json is not valid JSON"):
        Workdir(tmp_path).read_data()


def test_a_folder_without_a_run_names_its_flag_and_a_neighbour(tmp_path):
    workdir = Workdir(tmp_path / "digits")
    workdir.claim(tiny_config())
    other = Workdir(tmp_path / "digit")
    for flags in ((), ("--to",)):
        with pytest.raises(UserError) as error:
            other.read_config(*flags)
        assert str(error.value) == (
            f"{(*flags, '--workdir')[0]}={other.path} holds no run (no config.json); `train` makes one; "
            f"did you mean '{workdir.path}'?"
        )
    assert workdir.read_config().to_dict() == tiny_config().to_dict()


def test_two_writers_of_one_file_do_not_meet(tmp_path, monkeypatch):
    """Each writes to a file of its own process; the last to end wins whole, and what fails leaves what was there."""
    path = tmp_path / "new" / "a.json"
    with replace_file(path) as first:
        first.write(b"first")
        monkeypatch.setattr(os, "getpid", lambda: 77)
        replace_text(path, "second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    with pytest.raises(RuntimeError), replace_file(path) as third:
        third.write(b"third")
        raise RuntimeError
    assert path.read_text() == "first" and [p.name for p in path.parent.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    "measured, evaluated", [({"step": 8}, True), ({"step": 9}, False), ({"step": 7}, False), ({}, False)]
)
def test_a_run_is_evaluated_at_its_step_alone(tmp_path, measured, evaluated):
    workdir = Workdir(tmp_path)
    workdir.metrics.write_text(json.dumps(measured))
    assert not workdir.is_evaluated(8)
    workdir.report.touch()
    at = workdir.metrics.stat().st_mtime_ns
    for shift, newer in ((0, True), (1, True), (-1, False)):
        os.utime(workdir.report, ns=(at + shift, at + shift))
        assert workdir.is_evaluated(8) == (evaluated and newer)


def test_a_file_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    """A power failure sees all of the old content or all of the new."""
    path, synced = tmp_path / "a.json", []
    path.write_text("old")

    def fsync(file):
        (temporary,) = tmp_path.glob(".a.json.*.tmp")
        synced.append((os.fstat(file).st_ino == temporary.stat().st_ino, temporary.read_text(), path.read_text()))

    monkeypatch.setattr(os, "fsync", fsync)
    replace_text(path, "new ä")
    assert synced == [(True, "new ä", "old")] and path.read_text(encoding="utf-8") == "new ä"


def test_an_error_of_a_file_names_it(tmp_path):
    """Also where the failing call knows no name; what was there stays."""
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(OSError, match="full") as error, replace_file(path):
        raise OSError(28, "full")
    assert (error.value.errno, error.value.filename, path.read_text()) == (28, str(path), "old")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("text", ['{"optim": 3}', '{"optim": {"lr": "fast"}}', "[1]", "[" * 5000])
def test_a_stored_text_that_is_no_config_is_named(tmp_path, text):
    workdir = Workdir(tmp_path)
    workdir.config.write_text(text)
    with pytest.raises(UserError, match=f"^{re.escape(str(workdir.config))} is not (a valid config|valid JSON): "):
        workdir.read_config()
