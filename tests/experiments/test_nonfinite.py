"""Steps whose loss or gradient is not finite, as the command line tells of them: the run stops, or counts and goes on."""

import contextlib
import shutil

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


@pytest.mark.thorough
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
