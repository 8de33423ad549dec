"""Each writer on a full disk: the error names the file, what was there is as it was, and the same command goes on.

/dev/full is the kernel's own full disk. Checkpoints have their tests in test_checkpoint.py.
"""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from experiments.__main__ import main
from experiments.files import replace_text
from experiments.logs import history
from experiments.logs.writers import Jsonl, TensorBoard
from experiments.plotting import pictures
from experiments.runs.workdir import Workdir
from tests.experiments.tiny import ROOT, flags

FULL = Path("/dev/full")
needs_dev_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


@pytest.fixture
def full(monkeypatch):
    """No file can be written: each is pushed to the disk before it gets its name, and that fails."""

    def fsync(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize(
    "name, write",
    [
        ("config.json", lambda path: replace_text(path, "{}")),
        ("report.html", lambda path: replace_text(path, "<p>")),
        ("grid.png", lambda path: pictures.save(path, np.zeros((8, 8, 1), np.uint8), 8)),
    ],
)
def test_a_file_is_replaced_or_as_it_was(tmp_path, full, name, write):
    path = tmp_path / name
    path.write_text("before")
    with pytest.raises(OSError, match="No space left on device") as told:
        write(path)
    assert told.value.filename == str(path) and told.value.errno == errno.ENOSPC
    assert [p.name for p in tmp_path.iterdir()] == [name] and path.read_text() == "before"


def test_a_file_that_is_replaced_has_what_was_written(tmp_path):
    path = tmp_path / "a.json"
    for text in ("one", "two, longer", "\u00e9"):
        replace_text(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def row(step):
    return {"step": step, "loss": 1.0 / step}


@needs_dev_full
def test_the_history_names_its_file_and_goes_on_after_the_last_checkpoint(tmp_path):
    workdir = Workdir(tmp_path)
    rows = Jsonl(workdir, None, 0)
    rows.scalars(4, {"loss": 0.25})
    rows.scalars(8, {"loss": 0.125})
    rows._file = FULL.open("w")
    with pytest.raises(OSError, match="No space left on device") as told:
        rows.scalars(12, {"loss": 1 / 12})
    assert told.value.filename == str(workdir.history)
    with workdir.history.open("a") as file:
        file.write('{"step": 12, "lo')  # as much as there was room for
    rows = Jsonl(workdir, None, 4)
    rows.scalars(8, {"loss": 0.125})
    rows.close()
    assert history.read(workdir.history) == [row(4), row(8)]


@pytest.mark.parametrize("end", [b'{"step": 8', b'{"step": 8, "loss": 0.125', b"\x00\x00\x00\x00", b"\xff\xfe"])
def test_a_last_line_cut_short_by_a_kill_is_left_out(tmp_path, end):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(json.dumps(row(4)).encode() + b"\n" + end)
    assert history.read(path) == [row(4)]


def events(folder):
    """What the newest file of events holds."""
    content = max(folder.glob("events.*"), key=lambda path: path.stat().st_mtime_ns).read_bytes()
    found, start = [], 0
    while start < len(content):
        size = int.from_bytes(content[start : start + 8], "little")  # TFRecord: size, its sum, the bytes, their sum
        found.append(Event.FromString(content[start + 12 : start + 12 + size]))
        start += 16 + size
    return found


def test_tensorboard_gets_each_scalar_once_and_hides_what_comes_again(tmp_path):
    board = TensorBoard(Workdir(tmp_path), None, 4)
    board.scalars(8, {"loss": 0.5, "grad_norm": 2.0})
    board.close()
    version, start, row = events(tmp_path)
    assert version.file_version == "brain.Event:2"
    assert start.session_log.status == SessionLog.START and start.step == 5
    assert row.step == 8
    assert [(v.tag, v.simple_value) for v in row.summary.value] == [("train/loss", 0.5), ("train/grad_norm", 2.0)]


@needs_dev_full
def test_tensorboard_raises_and_never_waits(tmp_path):
    """tensorboardX's own thread would die, and the training wait for it for ever after ten rows."""
    board = TensorBoard(Workdir(tmp_path), None, 0)
    board._writer._py_recordio_writer._writer = FULL.open("wb")
    with pytest.raises(OSError, match="No space left on device") as told:
        for step in range(10_000):
            board.scalars(step, {"loss": 0.5})
    assert told.value.filename == str(tmp_path / "events")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_training_tells_of_the_file_and_the_last_good_checkpoint(fails, tmp_path, monkeypatch, number):
    def full(config, workdir, *rest):
        (workdir.checkpoints / "16").mkdir(parents=True)
        raise OSError(number, os.strerror(number), str(workdir.history))

    monkeypatch.setattr("experiments.training.train._continue_run", full)
    message = fails("train", f"--config={ROOT}/configs/digits.py", f"--workdir={tmp_path}/run", *flags(), code=1)
    assert message == (
        f"{tmp_path}/run/metrics.jsonl cannot be written: {os.strerror(number)}. The last good checkpoint is step 16; "
        "make room, or grant write permission, and run the same command again"
    )
    assert not (tmp_path / "run" / "train.lock").exists()


def test_an_error_that_is_not_the_disks_is_shown_whole(tmp_path, monkeypatch):
    def wrong(*arguments):
        raise FileNotFoundError(errno.ENOENT, "No such file", "x")

    monkeypatch.setattr("experiments.training.train._continue_run", wrong)
    with pytest.raises(FileNotFoundError):
        main(["train", f"--config={ROOT}/configs/digits.py", f"--workdir={tmp_path}/run", *flags()])
