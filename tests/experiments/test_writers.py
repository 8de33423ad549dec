"""Writers: what was written is read back from the files, by the formats' own readers."""

import io
import json
import struct

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog

from experiments import writers
from experiments.errors import UserError
from experiments.history import History
from experiments.workdir import Workdir
from tests.experiments.tiny import tiny_config

PICTURE = np.arange(24, dtype=np.uint8).reshape(4, 6, 1) * 10


def write_a_run_that_was_killed_and_goes_on(workdir, config):
    """Rows 10, 20, 30, of which 30 was past the checkpoint; it comes again, other."""
    with History(workdir, config, 0) as history:
        for step in (10, 20, 30):
            history.append(step, {"loss": step / 8, "grad_norm": float("nan")})
        history.picture(20, "samples", PICTURE)
    with History(workdir, config, 20) as history:
        history.append(30, {"loss": 7.0})


def events(folder):
    """All events of TensorBoard's files, in the order of the files: records of length, checksum, bytes, checksum."""
    for path in sorted(folder.glob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime_ns):
        data = io.BytesIO(path.read_bytes())
        while header := data.read(12):
            (length,) = struct.unpack("<Q", header[:8])
            yield Event.FromString(data.read(length))
            data.read(4)


def test_jsonl_drops_what_is_past_the_checkpoint_and_a_line_that_was_cut(tmp_path):
    workdir, config = Workdir(tmp_path), tiny_config(training__writers="jsonl")
    write_a_run_that_was_killed_and_goes_on(workdir, config)
    rows = [json.loads(line) for line in workdir.history.read_text().splitlines()]
    assert rows == [{"step": 10, "loss": 1.25}, {"step": 20, "loss": 2.5}, {"step": 30, "loss": 7.0}]
    with workdir.history.open("a") as file:
        file.write('{"step": 40, "lo')
    with History(workdir, config, 30) as history:
        assert history.before == {"step": 30, "loss": 7.0}
        history.append(40, {"loss": 6.0})
    assert [json.loads(line)["step"] for line in workdir.history.read_text().splitlines()] == [10, 20, 30, 40]
    assert not list(tmp_path.glob("events*"))


def test_tensorboard_has_rows_and_pictures_and_purges_what_is_past_the_checkpoint(tmp_path):
    workdir = Workdir(tmp_path)
    write_a_run_that_was_killed_and_goes_on(workdir, tiny_config(training__writers="tensorboard"))
    found = list(events(tmp_path))
    values = [(e.step, v) for e in found for v in e.summary.value]
    scalars = [(step, v.tag, v.simple_value) for step, v in values if v.HasField("simple_value")]
    assert scalars == [(s, "train/loss", v) for s, v in ((10, 1.25), (20, 2.5), (30, 3.75), (30, 7.0))]
    (picture,) = [v for step, v in values if v.HasField("image")]
    assert picture.tag == "samples"
    shown = np.asarray(Image.open(io.BytesIO(picture.image.encoded_image_string)))
    np.testing.assert_array_equal(shown, np.repeat(PICTURE, 3, -1))
    starts = [e.step for e in found if e.session_log.status == SessionLog.START]
    assert starts == [21]  # TensorBoard hides what earlier files have from this step on
    assert [e.step for e in found].index(21) < len(found) - 1


@pytest.mark.parametrize(
    "names, message",
    [
        (
            "jsonl,tensorbord",
            "training.writers='tensorbord' is unknown: choose from jsonl, tensorboard, trackio, wandb; did",
        ),
        (
            "jsonl,jsonl",
            "training.writers=jsonl,jsonl: must be one or more names, each once, of jsonl, tensorboard, wandb",
        ),
        ("()", "training.writers=: must be one or more names"),
    ],
)
def test_a_writer_that_cannot_be_is_named(names, message):
    with pytest.raises(UserError, match="^" + message.replace("(", "\\(")):
        writers.check(tiny_config(training__writers=names).training.writers)


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_package_that_is_missing_is_named_with_how_to_get_it(name, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=f'^training.writers: {name} is not installed; pip install "ornstein\\[{name}\\]"$'
    ):
        writers.check(("jsonl", name))


def test_wandb_offline_is_one_run_though_it_was_stopped(tmp_path, monkeypatch):
    """Its files are written by wandb's own process; the name of each has the run's id."""
    pytest.importorskip("wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)
    workdir = Workdir(tmp_path / "run")
    workdir.path.mkdir()
    write_a_run_that_was_killed_and_goes_on(workdir, tiny_config(training__writers="jsonl,wandb"))
    (name,) = {path.stem for path in workdir.path.glob("wandb/offline-run-*/run-*.wandb")}
    assert name == f"run-{json.loads((workdir.path / 'tracking.json').read_text())['id']}"
    written = b"".join(path.read_bytes() for path in workdir.path.glob("wandb/offline-run-*/*.wandb"))
    assert b"train/loss" in written and b"samples" in written
    (picture,) = workdir.path.glob("wandb/offline-run-*/files/media/images/samples_*.png")
    np.testing.assert_array_equal(np.asarray(Image.open(picture))[..., 0], PICTURE[..., 0])


def test_trackio_is_one_run_though_it_was_stopped(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # which it reads when it is imported
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    workdir = Workdir(tmp_path / "run")
    workdir.path.mkdir()
    project = f"test-{tmp_path.parent.name}"
    config = tiny_config(training__writers="jsonl,trackio", training__tracking_project=project)
    write_a_run_that_was_killed_and_goes_on(workdir, config)
    (run,) = SQLiteStorage.get_runs(project)
    logs = SQLiteStorage.get_logs(project, run)
    assert [(row["step"], row["train/loss"]) for row in logs if "train/loss" in row] == [
        (10, 1.25), (20, 2.5), (30, 3.75), (30, 7.0),
    ]  # fmt: skip
    assert [row["step"] for row in logs if "samples" in row] == [20]
