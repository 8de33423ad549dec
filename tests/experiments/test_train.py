"""Training: a finished run stays as it is, changes are asked for, and failures lose nothing."""

import hashlib
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import data, load_run
from experiments.__main__ import main
from experiments.devices.parallel import Fsdp, Pmap
from experiments.factory.experiment import Experiment
from experiments.learning import state
from experiments.training.train import initial_state, load_data, make_step, take_batches
from tests.experiments.tiny import ROOT, flags, history, restored, tiny_config

pytestmark = [pytest.mark.e2e, pytest.mark.devices]

DIGITS = f"{ROOT}/configs/digits.py"


def contents(workdir: Path):
    files = [p for p in sorted(workdir.rglob("*")) if p.is_file()]
    return {str(p): (p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest()) for p in files}


def test_a_complete_run_is_left_as_it_is(tiny_run, capsys):
    before = contents(tiny_run)
    assert main(["train", f"--config={DIGITS}", f"--workdir={tiny_run}", *flags()]) == 0
    assert "Training is complete (step 40); nothing to do." in capsys.readouterr().out
    assert contents(tiny_run) == before


def test_a_run_leaves_everything_it_promises(tiny_run):
    assert {"config.json", "checkpoints", "samples", "metrics.jsonl", "metrics.json", "report.html"} <= {
        p.name for p in tiny_run.iterdir()
    }
    assert list(tiny_run.glob("events.out.tfevents.*"))
    assert [row["step"] for row in history(tiny_run)] == list(range(4, 41, 4))
    assert sorted(int(p.name) for p in (tiny_run / "checkpoints").iterdir()) == [32, 40]
    for step in (20, 40):
        picture = np.asarray(Image.open(tiny_run / "samples" / f"step_{step:08d}.png"))
        assert picture.shape == ((8 * 9 - 1) * 6, (8 * 9 - 1) * 6)


def test_one_device_and_eight_train_alike(tiny_run):
    """The noise of an example comes from its place in the global batch; the same curve, to rounding."""
    config = tiny_config()
    batches = data.training_batches(load_data(Experiment(config)).train, batch_size=16, seed=0, flip=False)
    train_steps = jax.jit(state.make_train_steps(make_step(Experiment(config), None), 40))
    _, metrics = train_steps(initial_state(Experiment(config)), take_batches(batches, 40, 40), 40)
    one, eight = metrics["loss"].reshape(10, 4).mean(1), [row["loss"] for row in history(tiny_run)]
    np.testing.assert_allclose(one, eight, rtol=2e-4)
    assert one[-1] < 0.9 * one[0]


def test_resume_with_changes_goes_on(tiny_run, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(tiny_run, workdir)
    longer = ["train", f"--config={DIGITS}", f"--workdir={workdir}", *flags(training__num_steps=48)]
    assert main(longer) == 2
    assert main([*longer, "--resume_with_changes"]) == 0
    assert "Training is complete (step 48)" in capsys.readouterr().out
    assert [row["step"] for row in history(workdir)] == list(range(4, 49, 4))
    assert load_run(workdir).step == 48


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tiny_run, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(tiny_run, workdir)
    changes = flags(training__num_steps=80, optim__lr=1e30, optim__warmup_steps=0)
    arguments = ["train", f"--config={DIGITS}", f"--workdir={workdir}", "--resume_with_changes", *changes]
    assert main(arguments) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    # The first update makes the weights useless, so the second step's loss is the first that shows it.
    assert "the loss is not finite at step 42 (its batch: examples 656 to 671 of the stream)" in line
    assert "the last good checkpoint is step 40" in line
    for mine, theirs in zip(restored(workdir), restored(tiny_run), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_full_disk_stops_and_keeps_the_last_checkpoint(tiny_run, tmp_path, capsys, monkeypatch):
    """The disk fills up under Orbax while it writes step 48: the message names the folder and step 40 can be read."""
    import errno

    import orbax.checkpoint as ocp

    workdir = tmp_path / "run"
    shutil.copytree(tiny_run, workdir)

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ocp.CheckpointManager, "save", full)
    arguments = ["train", f"--config={DIGITS}", f"--workdir={workdir}", "--resume_with_changes"]
    assert main([*arguments, *flags(training__num_steps=48)]) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "checkpoints: No space left on device. The last good checkpoint is step 40" in line
    monkeypatch.undo()
    assert load_run(workdir).step == 40


def test_a_checkpoint_of_another_optimizer_is_refused_in_one_line(tiny_run, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(tiny_run, workdir)
    changes = flags(training__num_steps=48, optim__grad_clip=0)
    arguments = ["train", f"--config={DIGITS}", f"--workdir={workdir}", "--resume_with_changes", *changes]
    assert main(arguments) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the checkpoint of step 40 in" in line and "does not fit the config" in line


@pytest.mark.parametrize("strategy", [Pmap, Fsdp])
def test_a_run_begins_with_the_same_weights_however_they_lie(strategy):
    config = tiny_config()
    placed = strategy().whole(initial_state(Experiment(config), None, strategy()))
    for mine, theirs in zip(jax.tree.leaves(placed), jax.tree.leaves(initial_state(Experiment(config))), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-7)
