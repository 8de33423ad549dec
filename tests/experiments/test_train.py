"""Training: what was killed and resumed equals what never stopped; a finished run stays as it is; failures lose nothing."""

import hashlib
import json
import random
import shutil
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import build, data, load_run, state
from experiments.__main__ import main
from experiments.checkpoint import Checkpoints
from experiments.train import abstract_state, initial_state, load_data, make_step, take_batches
from tests.experiments.tiny import ROOT, flags, tiny_config, train_command

DIGITS = f"{ROOT}/configs/digits.py"


def restored(workdir: Path):
    """Everything in the newest checkpoint: step, weights, optimizer, EMA, and the next batch of data."""
    config = tiny_config()
    dataset = data.load("digits", image_size=8, num_channels=1, test_fraction=0.5)
    iterator = data.training_batches(dataset.train, batch_size=16, seed=0, flip=False)
    with Checkpoints(workdir / "checkpoints", keep=2) as checkpoints:
        state = checkpoints.restore(abstract_state(config), iterator)
    return [*jax.tree.leaves(state), next(iterator)["image"]]


def history(workdir: Path):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]


def wait_for(process, path: Path, pattern: str):
    deadline = time.monotonic() + 240
    while not any(path.glob(pattern)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, f"no {pattern} in {path}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run on one device that nothing stopped."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    process = train_command(workdir)
    assert process.wait(400) == 0, process.communicate()[1]
    return workdir


def test_killed_and_interrupted_runs_end_as_if_never_stopped(undisturbed, tmp_path):
    """SIGKILL at a random moment after the first checkpoint, then SIGTERM, then Ctrl-C, then to the end."""
    workdir, rng = tmp_path / "run", random.Random(0)
    for number, pattern in ((signal.SIGKILL, "8"), (signal.SIGTERM, "16"), (signal.SIGINT, "24")):
        process = train_command(workdir, training__num_steps=40)
        wait_for(process, workdir / "checkpoints", pattern)
        time.sleep(rng.uniform(0, 0.2))
        process.send_signal(number)
        out, error = process.communicate(timeout=240)
        if number == signal.SIGKILL:
            assert process.returncode == -signal.SIGKILL
        elif "Training is complete" not in out:  # it may have been faster than the signal
            assert f"Interrupted by {number.name} at step" in out, error
            assert process.returncode == 128 + number
    process = train_command(workdir)
    out, error = process.communicate(timeout=400)
    assert process.returncode == 0, error
    assert "Training is complete (step 40)" in out
    for mine, theirs in zip(restored(workdir), restored(undisturbed), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert history(workdir) == history(undisturbed)


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


def test_one_device_and_eight_train_alike(tiny_run, undisturbed):
    """The noise of an example comes from its place in the global batch; the same curve, to rounding."""
    one, eight = ([row["loss"] for row in history(run)] for run in (undisturbed, tiny_run))
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
    assert "checkpoints: No space left on device. The last good one is step 40" in line
    monkeypatch.undo()
    assert load_run(workdir).step == 40


CHOICES = [
    {"parameterization__name": "noise", "loss__weighting": "noise", "loss__times": "uniform"},
    {"parameterization__name": "score", "loss__weighting": "noise", "model__embedding": "fourier"},
    {
        "parameterization__name": "data",
        "loss__weighting": "data",
        "model__num_classes": 10,
        "data__random_flip": "true",
    },
    {"model__dtype": "bfloat16", "model__remat": "true", "optim__schedule": "constant", "optim__weight_decay": 0.1},
]


@pytest.mark.parametrize("changes", CHOICES, ids=lambda c: c.get("parameterization__name", "edm"))
def test_every_choice_of_the_config_learns(changes):
    """After 150 steps the Denoiser's error at log-SNR 0 is below that of the best constant, the mean image."""
    config = tiny_config("subvp", optim__lr=5e-3, training__num_steps=150, training__steps_per_call=150, **changes)
    dataset = load_data(config)
    batches = data.training_batches(dataset.train, batch_size=16, seed=0, flip=config.data.random_flip)
    train_steps = jax.jit(state.make_train_steps(make_step(config, None), 150))
    trained, _ = train_steps(initial_state(config), take_batches(batches, 150, 150), 150)
    transform = data.DataTransform()
    x0, labels = transform.forward(dataset.test.images[:256]), dataset.test.labels[:256]
    denoiser = build.denoiser(config, trained.ema, 1e-2).replace(condition=build.condition(config, labels))
    t = denoiser.sde.time_at_log_snr(0.0)
    noise = np.random.default_rng(0).normal(size=x0.shape).astype(np.float32)
    error = np.square(denoiser(denoiser.sde.perturb(x0, noise, t), t) - x0).mean()
    assert error < 0.9 * np.square(x0 - x0.mean(0)).mean()


@pytest.mark.parametrize("weighting", ["score", "likelihood"])
def test_weightings_of_the_score_do_not_overflow_at_the_smallest_times(weighting):
    """Their weights reach 1e12 at training's t_min; Adam does not mind, an overflow would stop it."""
    config = tiny_config(loss__weighting=weighting, loss__times="uniform")
    batch = next(data.training_batches(load_data(config).train, batch_size=16, seed=0, flip=False))
    before = initial_state(config)
    after, metrics = jax.jit(make_step(config, None))(before, batch)
    assert 0 < metrics["grad_norm"] < 1e12
    after, _ = jax.jit(make_step(config, None))(after, batch)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), after.params, before.params)
    assert 0 < max(jax.tree.leaves(moved)) < 0.01


def test_a_checkpoint_of_another_optimizer_is_refused_in_one_line(tiny_run, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(tiny_run, workdir)
    changes = flags(training__num_steps=48, optim__grad_clip=0)
    arguments = ["train", f"--config={DIGITS}", f"--workdir={workdir}", "--resume_with_changes", *changes]
    assert main(arguments) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the checkpoint of step 40 in" in line and "does not fit the config" in line


def test_mnist_trains_by_one_override(tmp_path):
    source = ROOT.parent / "shared" / "data" / "mnist.npz"
    if not source.exists():
        pytest.skip("needs mnist.npz, which is not part of the project")
    arguments = flags(training__num_steps=4, training__sample_every=4, data__source=f"npz:{source}")
    assert main(["train", f"--config={ROOT}/configs/mnist.py", f"--workdir={tmp_path}/run", *arguments]) == 0
    picture = np.asarray(Image.open(tmp_path / "run" / "samples" / "step_00000004.png"))
    assert picture.shape == (2 * (8 * 29 - 1), 2 * (8 * 29 - 1))
