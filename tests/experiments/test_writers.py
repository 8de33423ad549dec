"""Writers: what was written is read back from the files, by the formats' own readers."""

import io
import json
import struct
import sys

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog

from experiments.errors import UserError
from experiments.logs import writers
from experiments.logs.history import History
from experiments.logs.writers import TensorBoard, jsonl, tensorboard, tracking
from experiments.runs.workdir import Workdir
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


class Service:
    """Stands for the package of a service, and for its run: keeps what it is told."""

    def __init__(self):
        self.started, self.metrics, self.logged, self.finished = [], [], [], 0

    def init(self, **options):
        self.started.append(options)
        return self

    def define_metric(self, *names, **options):
        self.metrics.append((names, options))

    def log(self, row, **options):
        self.logged.append((row, options))

    def finish(self):
        self.finished += 1

    @staticmethod
    def Image(picture):
        return picture.tolist()


@pytest.fixture(params=["wandb", "trackio"])
def service(request, monkeypatch, tmp_path):
    """(name, its package, the folder of a run that was written twice, its config)."""
    package, workdir = Service(), Workdir(tmp_path / "my run")
    workdir.path.mkdir()
    monkeypatch.setitem(sys.modules, request.param, package)
    config = tiny_config(training__writers=f"jsonl,{request.param}", training__tracking_project="painting")
    write_a_run_that_was_killed_and_goes_on(workdir, config)
    return request.param, package, workdir, config


def test_a_service_gets_every_row_and_picture_by_its_step(service):
    """wandb's own count of steps never goes back, so that its rows hold the step; trackio's are given one."""
    name, package, _, _ = service
    rows = [({"train/loss": loss}, step) for step, loss in ((10, 1.25), (20, 2.5), (30, 3.75), (30, 7.0))]
    rows.insert(3, ({"samples": np.repeat(PICTURE, 3, -1).tolist()}, 20))
    if name == "wandb":
        assert package.logged == [({"step": step} | row, {}) for row, step in rows]
        assert package.metrics == 2 * [(("step",), {}), (("*",), {"step_metric": "step"})]
    else:
        assert package.logged == [(row, {"step": step}) for row, step in rows]
    assert package.finished == 2


def test_a_service_is_told_whose_run_it_is_and_both_times_the_same(service):
    name, package, workdir, config = service
    known = json.loads((workdir.path / "tracking.json").read_text())["id"]
    assert len(known) == 8 and set(known) <= set("0123456789abcdef")
    expected = {"project": "painting", "config": config.to_dict(), "resume": "allow"}
    if name == "wandb":
        expected |= {"id": known, "name": "my run", "dir": str(workdir.path)}
    else:
        expected |= {"name": f"my run-{known}", "embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
    assert package.started == [expected, expected]


def test_pictures_of_colours_reach_a_service_as_they_are(service):
    name, package, workdir, config = service
    colours = np.arange(2 * 5 * 3, dtype=np.uint8).reshape(2, 5, 3)
    writers.WRITERS[name](workdir, config, 0).picture(40, "samples", colours)
    assert package.logged[-1][0]["samples"] == colours.tolist()


def test_runs_of_other_folders_have_other_ids(tmp_path):
    ids = [tracking.run_id(Workdir(tmp_path / name)) for name in ("a", "b", "a")]
    assert ids[0] == ids[2] != ids[1]


def test_a_session_starts_anew_after_any_step_and_not_at_the_first(tmp_path):
    for step in (0, 1, 7):
        folder = tmp_path / str(step)
        folder.mkdir()
        TensorBoard(Workdir(folder), None, step).close()
        starts = [e.step for e in events(folder) if e.session_log.status == SessionLog.START]
        assert starts == ([step + 1] if step else [])


def test_events_reach_the_disk_after_half_a_minute(tmp_path, monkeypatch):
    """Events within 30 seconds stay in memory, the first one after them takes them all along."""
    now = [100.0]
    monkeypatch.setattr(tensorboard.time, "monotonic", lambda: now[0])
    board = TensorBoard(Workdir(tmp_path), None, 0)

    def steps_on_disk(seconds, step):
        now[0] = 100.0 + seconds
        board.scalars(step, {"loss": 0.5})
        return [event.step for event in events(tmp_path) if event.summary.value]

    assert [steps_on_disk(seconds, step) for step, seconds in enumerate((1, 30, 30.5, 40, 60.5, 61), 1)] == [
        [], [], [1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2, 3, 4, 5, 6],
    ]  # fmt: skip
    board.close()


def test_rows_are_read_up_to_the_first_that_is_no_json(tmp_path):
    """What comes after a cut line is of a start that wrote over it."""
    path = tmp_path / "metrics.jsonl"
    assert jsonl.read(path) == []
    for text, steps in (
        ('{"step": 1}\n{"step": 2}\n', [1, 2]), ('{"step": 1}\n{"st\n{"step": 3}\n', [1]), ("", []), ("\ufffd", []),
        ('{"step": 1}', [1]), ('{"step": 1}\n\n{"step": 2}', [1]),
    ):  # fmt: skip
        path.write_text(text)
        assert [row["step"] for row in jsonl.read(path)] == steps
    path.write_bytes(b'{"step": 1}\n{"step": \xff')
    assert jsonl.read(path) == [{"step": 1}]


def test_writers_are_opened_in_their_order_and_need_their_packages(monkeypatch):
    made = []
    for name in writers.WRITERS:
        monkeypatch.setitem(writers.WRITERS, name, lambda *given, name=name: made.append((name, *given)) or name)
    config = tiny_config(training__writers="trackio,jsonl,wandb")
    assert writers.open_all("folder", config, 7) == ["trackio", "jsonl", "wandb"]
    assert made == [(name, "folder", config, 7) for name in ("trackio", "jsonl", "wandb")]
    asked = []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: asked.append(name) or "there")
    writers.check(["jsonl", "trackio", "tensorboard", "wandb"])
    assert asked == ["trackio", "wandb"]


class Failing:
    """A writer whose file cannot be closed."""

    def __init__(self, *given):
        self.closed = 0

    def close(self):
        self.closed += 1
        raise OSError(28, "No space left on device", "file")


def test_a_disk_that_is_full_hides_no_other_error_and_is_one_by_itself(tmp_path, monkeypatch):
    monkeypatch.setitem(writers.WRITERS, "jsonl", Failing)
    config = tiny_config(training__writers="jsonl")
    with pytest.raises(OSError, match="No space left"), History(Workdir(tmp_path), config, 0):
        pass
    with pytest.raises(KeyError, match="first"), History(Workdir(tmp_path), config, 0):
        raise KeyError("first")


def test_a_process_that_does_not_write_reads_what_came_before(tmp_path):
    workdir, config = Workdir(tmp_path), tiny_config(training__writers="jsonl")
    write_a_run_that_was_killed_and_goes_on(workdir, config)
    before = workdir.history.read_bytes()
    for step, row in ((9, {}), (10, {"step": 10, "loss": 1.25}), (29, {"step": 20, "loss": 2.5})):
        with History(workdir, config, step, write=False) as history:
            history.append(99, {"loss": 1.0})
            history.picture(99, "samples", PICTURE)
            assert history.before == row
    assert workdir.history.read_bytes() == before
