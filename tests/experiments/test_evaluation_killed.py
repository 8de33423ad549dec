"""Evaluations that are killed, with real processes: what was drawn stays drawn, and the figures are the same in the end."""

import json
import shutil
import signal
import time

import numpy as np
import pytest

from experiments.__main__ import main
from tests.experiments.tiny import command

pytestmark = pytest.mark.e2e
SLOW = ("--steps=40", "--config.sampling.batch_size=2")  # 32 calls, each long enough to be killed in


def blocks(workdir):
    """Name, time and content of each file of features."""
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in workdir.glob("evaluation/samples_*/[0-9]*.npz")}


def start(workdir):
    return command("evaluate", f"--workdir={workdir}", *SLOW)


def kill_once_there_are(process, workdir, count):
    deadline = time.monotonic() + 400
    while len(blocks(workdir)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_killed_twice_it_ends_as_if_never_killed(tiny_run, tmp_path):
    undisturbed, workdir = tmp_path / "undisturbed", tmp_path / "killed"
    shutil.copytree(tiny_run, undisturbed)
    shutil.copytree(tiny_run, workdir)
    (workdir / "metrics.json").unlink()
    kept = {}
    for count in (3, 9):
        kill_once_there_are(start(workdir), workdir, count)
        now = blocks(workdir)
        assert {name: now[name] for name in kept} == kept, "what was drawn is not drawn again"
        kept = now
    assert not (workdir / "metrics.json").exists()
    numbers = [np.load(path)["numbers"] for path in workdir.glob("evaluation/samples_*/[0-9]*.npz")]
    assert len(np.unique(np.concatenate(numbers))) == sum(map(len, numbers)), "no sample is in two files"
    last, other = start(workdir), start(undisturbed)
    printed, error = last.communicate(timeout=500)
    assert last.returncode == 0, error
    assert f"{2 * len(kept)} of 64 samples were drawn before: going on with the other {64 - 2 * len(kept)}" in printed
    assert other.communicate(timeout=500)[1] is not None and other.returncode == 0
    assert json.loads((workdir / "metrics.json").read_text()) == json.loads((undisturbed / "metrics.json").read_text())
    assert not list(workdir.glob("evaluation/samples_*")), "features are let go of once the figures are there"


def test_a_sweep_measures_each_checkpoint_as_evaluate_does(tiny_run, tmp_path, capsys):
    """The newest one's figures are those of `evaluate`; those of the other differ."""
    workdir = tmp_path / "run"
    shutil.copytree(tiny_run, workdir)
    alone = json.loads((tiny_run / "metrics.json").read_text())["samples"]
    assert main(["evaluate", f"--workdir={workdir}", "--sweep-checkpoints", "--metric=kernel_distance"]) == 0
    measured = json.loads((workdir / "metrics.json").read_text())
    found = {row.pop("step"): row for row in measured["checkpoints"]}
    assert found[40] == pytest.approx(alone, rel=1e-6)
    assert found[32]["frechet_distance"] != pytest.approx(alone["frechet_distance"], rel=1e-3)
    best = min(found, key=lambda step: found[step]["kernel_distance"])
    assert measured["step"] == best
    assert f"Best of 2 checkpoints by kernel_distance: step {best}" in capsys.readouterr().out


def test_evaluate_with_a_published_network_and_bits_per_dimension(tiny_run, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(tiny_run, workdir)
    changes = ["--config.evaluation.features=efficientnet-lite0", "--config.evaluation.num_samples=16"]
    changes += ["--config.evaluation.likelihood_images=8", "--config.evaluation.likelihood_tolerance=1e-2"]
    changes += ["--config.evaluation.training_images=16", "--config.evaluation.likelihood_t_min=1e-3"]
    assert main(["evaluate", f"--workdir={workdir}", *changes]) == 0
    printed, page = capsys.readouterr().out, (workdir / "report.html").read_text()
    measured = json.loads((workdir / "metrics.json").read_text())
    assert measured["samples"]["fd_efficientnet_lite0"] > measured["real"]["fd_efficientnet_lite0"]
    for text in (printed, page):
        assert "Frechet distance in efficientnet-lite0" in text and "FID" not in text
        assert f"{measured['samples']['fd_efficientnet_lite0']:.3f}" in text
        assert f"{measured['bits_per_dim']['value']:.3f}" in text
    assert measured["bits_per_dim"]["images"] == 8 and 0 < measured["bits_per_dim"]["value"] < 12
