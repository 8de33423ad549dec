"""What a run makes of broken checkpoints, dead data, and of another process in its folder; nothing is compiled to train."""

import json
import shutil
from pathlib import Path

import grain
import pytest

from experiments import load_run
from experiments.__main__ import main
from experiments.config import files as config
from experiments.data.pipeline import Batches
from experiments.runs.lock import Lock
from experiments.runs.workdir import Workdir
from tests.experiments.test_checkpoint import arrays, garble
from tests.experiments.tiny import ROOT, flags

pytestmark = pytest.mark.e2e

DIGITS = f"{ROOT}/configs/digits.py"


@pytest.fixture
def run(tiny_run, tmp_path):
    """A copy of a complete run, to do harm to."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def dead(*arguments, **options):
    """Data whose worker has died."""

    def raises(index):
        raise TimeoutError("worker 3 gave no batch for 60 s")

    return Batches(iter(grain.MapDataset.range(1000).map(raises).to_iter_dataset()), None)


def train(run, **changes):
    return ["train", f"--config={DIGITS}", f"--workdir={run}", "--resume_with_changes", *flags(**changes)]


def test_dead_data_are_one_line_with_the_step_and_lose_nothing(run, monkeypatch, capsys):
    monkeypatch.setattr("experiments.data.training_batches", dead)
    before = sorted((run / "checkpoints").rglob("*"))
    assert main(train(run, training__num_steps=48)) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: the data after step 40 cannot be read: TimeoutError: ")
    assert "worker 3 gave no batch for 60 s" in message and "(test_survival.py:" in message
    assert message.endswith(
        f"The last good checkpoint is step 40 in {run}/checkpoints; the same command goes on from there"
    )
    assert sorted((run / "checkpoints").rglob("*")) == before


def test_training_goes_on_from_the_checkpoint_before_a_broken_one(run, monkeypatch, capsys):
    """Also where the run was complete: it is not any more."""
    garble(arrays(run / "checkpoints" / "40"))
    monkeypatch.setattr("experiments.data.training_batches", dead)
    capsys.readouterr()
    assert main(train(run)) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("warning:", "error:"))]
    assert len(lines) == 2
    assert lines[0].startswith(f"warning: the checkpoint of step 40 in {run}/checkpoints is broken (state/d/")
    assert lines[0].endswith("has other bytes than were written): set aside as broken-40, going back to step 32")
    assert "the data after step 32 cannot be read" in lines[1]


def test_a_run_with_a_broken_newest_checkpoint_is_opened_at_the_one_before(run, capsys):
    garble(arrays(run / "checkpoints" / "40", "ema"))
    assert load_run(run).step == 32
    assert capsys.readouterr().err.strip().endswith("skipped, going back to step 32")
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["32", "40"]


def test_without_a_good_checkpoint_sampling_and_training_stop_in_one_line(run, fails, tmp_path, capsys):
    for step in (32, 40):
        shutil.rmtree(run / "checkpoints" / str(step))
        (run / "checkpoints" / str(step)).mkdir()
    capsys.readouterr()
    for command in (["sample", f"--workdir={run}", f"--out={tmp_path}/s.npz"], train(run), train(run)):
        assert main(command) == 1
        assert (
            capsys.readouterr()
            .err.strip()
            .splitlines()[-1]
            .startswith(f"error: no checkpoint in {run}/checkpoints is good: remove the broken ones")
        )
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["broken-32", "broken-40"]
    assert not (tmp_path / "s.npz").exists()


def test_a_second_training_in_a_folder_is_refused(run, fails):
    with Lock(run / "train.lock", "it"):
        message = fails(*train(run))
        assert message.startswith(f"--workdir={run} is in use by process ")
        assert load_run(run).step == 40  # reading is free


def test_a_run_counts_as_evaluated_if_the_report_came_after_the_figures_of_its_step(run):
    """A kill between the two, an older evaluation, or a part of a file."""
    workdir = Workdir(run)
    assert workdir.is_evaluated(40) and not workdir.is_evaluated(48)
    figures = workdir.metrics.read_text()
    workdir.metrics.write_text(figures)
    assert not workdir.is_evaluated(40)
    workdir.report.write_text("new")
    assert workdir.is_evaluated(40)
    for text in ("{", "[]", "{}", json.dumps({"step": 32})):
        workdir.metrics.write_text(text)
        workdir.report.write_text("newer")
        assert not workdir.is_evaluated(40)
    workdir.report.unlink()
    assert not workdir.is_evaluated(40)


def test_what_killed_processes_left_half_written_is_removed(run):
    (run / "metrics.json.77.tmp").write_text("{")
    (run / "samples" / "step_00000040.png.77.tmp").write_text("x")
    workdir = Workdir(run)
    workdir.claim(config.from_json(workdir.config.read_text()))
    assert not list(run.rglob("*.tmp"))


@pytest.mark.parametrize("deadline", ["0", "-3", "soon"])
def test_a_deadline_is_a_time(fails, tmp_path, deadline):
    message = fails("train", f"--config={DIGITS}", f"--workdir={tmp_path}/run", f"--deadline={deadline}")
    assert "--deadline" in message and deadline in message
    assert not (tmp_path / "run").exists()
