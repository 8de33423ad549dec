"""Steps whose loss or gradient is not finite, as the command line tells of them: the run stops, or counts and goes on."""

import contextlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.__main__ import main
from experiments.errors import RunError
from experiments.factory.experiment import Experiment
from experiments.logs import history as histories
from experiments.logs.history import History
from experiments.runs.checkpoint import Checkpoints
from experiments.runs.workdir import Workdir
from experiments.training.monitor import Monitor
from tests.experiments.tiny import ROOT, flags, history, restored, tiny_config

pytestmark = pytest.mark.e2e


@pytest.fixture
def watched(tmp_path):
    """(config changes) -> (monitor at step 40, rows of history)."""
    with contextlib.ExitStack() as opened:

        def watch(**changes):
            config = tiny_config(**changes)
            log = opened.enter_context(History(Workdir(tmp_path), config, 0))
            checkpoints = opened.enter_context(Checkpoints(tmp_path / "checkpoints", 1))
            monitor = opened.enter_context(Monitor(Experiment(config), 40, log, checkpoints))
            return monitor, lambda: histories.read(tmp_path / "metrics.jsonl")

        yield watch


def look(monitor, step, **metrics):
    monitor.watch(step, 4, {name: np.array(values, np.float32) for name, values in metrics.items()})
    monitor.catch_up()


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    "loss, grad_norm, what",
    [([1, 1, NAN, NAN], [1, 1, NAN, NAN], "loss"), ([1, 1, 1, NAN], [1, 1, INF, NAN], "gradient")],
)
def test_a_run_stops_at_the_first_such_step(watched, loss, grad_norm, what):
    """An update by a gradient that is not finite is in the weights, though the loss before it was finite."""
    monitor, rows = watched()
    with pytest.raises(RunError) as error:
        look(monitor, 44, loss=loss, grad_norm=grad_norm)
    assert f"the {what} is not finite at step 43 (its batch: examples 672 to 687 of the stream); there is no" in str(
        error.value
    )
    assert not rows()


def test_skipped_steps_are_counted_and_left_out_of_the_means(watched):
    monitor, rows = watched(training__on_nonfinite="skip")
    look(monitor, 44, loss=[1, NAN, 3, 9], grad_norm=[2, NAN, 4, INF], skipped=[0, 1, 1, 2])
    look(monitor, 48, loss=[NAN] * 4, grad_norm=[NAN] * 4, skipped=[3, 4, 5, 6])
    first, second = rows()
    assert (first["loss"], first["grad_norm"], first["skipped"]) == (2, 3, 2)
    assert "loss" not in second and second["skipped"] == 6


def test_too_many_skipped_steps_stop_the_run(watched):
    monitor, rows = watched(training__on_nonfinite="skip", training__max_skips=2)
    look(monitor, 44, loss=[1, NAN, NAN, 1], grad_norm=[1, NAN, NAN, 1], skipped=[0, 1, 2, 2])
    with pytest.raises(RunError) as error:
        look(monitor, 48, loss=[1, 1, 1, 1], grad_norm=[1, INF, 1, NAN], skipped=[2, 3, 3, 4])
    line = str(error.value)
    assert "the gradient is not finite at step 46 (its batch: examples 720 to 735 of the stream)" in line
    assert "which would be skip 3 of the run (training.max_skips=2); there is no checkpoint yet" in line
    assert len(rows()) == 1


def test_a_run_skips_counts_over_resumes_and_stops(tiny_run, tmp_path, capsys):
    """The first update makes the weights useless: every step after it is skipped, until there were too many."""
    workdir = tmp_path / "run"
    shutil.copytree(tiny_run, workdir)
    changes = {"optim__lr": 1e30, "optim__warmup_steps": 0, "training__on_nonfinite": "skip"}
    arguments = ["train", f"--config={ROOT}/configs/digits.py", f"--workdir={workdir}", "--resume_with_changes"]
    assert main([*arguments, *flags(training__num_steps=80, training__max_skips=12, **changes)]) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "at step 54" in line and "which would be skip 13 of the run (training.max_skips=12)" in line
    assert "the last good checkpoint is step 48" in line
    assert [row["skipped"] for row in history(workdir) if row["step"] > 40] == [3, 7, 11]
    kept = [leaf for leaf in restored(workdir) if np.asarray(leaf).dtype == np.float32]
    assert all(np.isfinite(leaf).all() for leaf in kept)
    assert main([*arguments, *flags(training__num_steps=80, training__max_skips=9, **changes)]) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "at step 51" in line and "skip 10 of the run" in line  # 7 were counted by the checkpoint


# ---- what is shown beside the rows ----


class Bar:
    """Stands for the progress bar: keeps what it is made with and what it is told."""

    def __init__(self, **options):
        self.options, self.told = options, []

    def set_description_str(self, text, refresh):
        self.told.append(text)

    def set_postfix_str(self, text, refresh):
        self.told.append(text)

    def update(self, n):
        self.told.append(n)

    def close(self):
        self.told.append("closed")


@pytest.fixture
def bars(monkeypatch):
    made = []
    monkeypatch.setattr("experiments.training.monitor.tqdm", lambda **options: made.append(Bar(**options)) or made[-1])
    return made


def row_of(history):
    return [row for _, row in history.rows]


class Rows:
    def __init__(self):
        self.before, self.rows = {}, []

    def append(self, step, values):
        self.rows.append((step, values))


@pytest.mark.parametrize("terminal, interval", [(True, 0.1), (False, 10.0)])
@pytest.mark.parametrize("first", [True, False])
def test_the_bar_begins_where_the_run_does_and_a_log_gets_few_lines(monkeypatch, bars, terminal, interval, first):
    """Of several processes one shows it."""
    monkeypatch.setattr("experiments.training.monitor.sys.stderr", SimpleNamespace(isatty=lambda: terminal))
    monkeypatch.setattr("experiments.devices.distributed.is_first", lambda: first)
    with Monitor(Experiment(tiny_config(training__num_steps=40)), 12, Rows(), None):
        pass
    (bar,) = bars
    assert bar.options == {
        "total": 40, "initial": 12, "unit": "step", "desc": "compiling", "mininterval": interval, "disable": not first,
    }  # fmt: skip
    assert bar.told == ["closed"]


def test_the_bar_shows_the_mean_loss_and_the_speed_of_each_call(bars, monkeypatch):
    """Of the steps that were made and moved the weights; a row has the skipped steps at its end."""
    speeds = iter([{}, {"images_per_second": 1234.5}, {}, {}])
    monkeypatch.setattr(Monitor, "_speeds", lambda self: next(speeds))
    history = Rows()
    with Monitor(Experiment(tiny_config(training__num_steps=100, training__log_every=4)), 0, history, None) as monitor:
        for step, loss, skipped in (
            (4, [1.0, 2.0, 3.0, 5.0], [0, 0, 0, 0]), (8, [np.nan, 2.0, 4.0, np.inf], [1, 1, 1, 2]),
            (12, [np.nan] * 4, [3, 4, 5, 6]), (14, [1.0, 3.0, np.nan, np.nan], [6, 6, 9, 9]),
        ):  # fmt: skip
            n = 2 if step == 14 else 4
            metrics = {"loss": loss, "grad_norm": [7.0, 7.0, 7.0, 9.0], "skipped": skipped}
            monitor.watch(step, n, {name: np.array(values) for name, values in metrics.items()})
        monitor.catch_up()
        monitor.catch_up()  # nothing is pending any more
    (bar,) = bars
    assert bar.told == [
        "training", "loss 2.7500", 4, "training", "loss 3.0000, 1,234 img/s", 4, "training", "all steps skipped", 4,
        "training", "loss 2.0000", 2, "closed",
    ]  # fmt: skip
    assert [step for step, _ in history.rows] == [4, 8, 12]
    assert [row["skipped"] for row in row_of(history)] == [0, 2, 6]
    assert [row.get("grad_norm") for row in row_of(history)] == [7.5, 7.0, None]
    assert [row.get("loss") for row in row_of(history)] == [2.75, 3.0, None]


def test_a_save_that_failed_does_not_hide_what_is_not_finite(bars):
    class Failing:
        folder = Path("nowhere")

        def wait(self):
            raise RunError("the disk is full")

    with Monitor(Experiment(tiny_config()), 0, Rows(), Failing()) as monitor:
        monitor.watch(4, 4, {"loss": np.array([1.0, 1.0, np.nan, 1.0]), "grad_norm": np.ones(4)})
        with pytest.raises(RunError, match="the loss is not finite at step 3 "):
            monitor.catch_up()


def test_a_loop_of_unknown_length_has_no_mfu(bars, monkeypatch):
    """Its operations cannot be counted; other errors are raised."""
    monkeypatch.setattr("experiments.training.utilization.peak_flops", lambda dtype: 1.0)
    asked = []

    def unknown():
        asked.append(1)
        raise ValueError("a while loop")

    with Monitor(Experiment(tiny_config()), 0, Rows(), None, unknown) as monitor:
        for step in (4, 8):
            monitor.watch(step, 4, {"loss": np.ones(4), "grad_norm": np.ones(4)})
        monitor._flops_thread.join()
        assert asked == [1] and monitor._flops is None and monitor._peak == 1.0
    with Monitor(Experiment(tiny_config()), 0, Rows(), None) as monitor:
        assert monitor._peak is None
