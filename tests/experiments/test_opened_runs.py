"""How a run is opened again: which checkpoint, which average, and what the caller keeps. Nothing is restored."""

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.config import files as config
from experiments.errors import UserError
from experiments.factory.experiment import Experiment
from experiments.loading import runs
from experiments.loading.runs import Run
from experiments.runs.workdir import Workdir
from tests.experiments.tiny import tiny_config

EMAS = {"training__ema": "warmup,power:0.05,power:0.1"}


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What is restored and reconstructed of a run whose newest checkpoint is of step 40, its folder being `tmp_path`."""
    calls = []

    class Checkpoints(contextlib.nullcontext):
        def __init__(self, folder, keep, *, read_only):
            assert (folder, read_only) == (tmp_path / "checkpoints", True)
            super().__init__(self)

        def restore_ema(self, shapes, step, *, place):
            calls.append(("restored", step, place))
            return 40 if step is None else step, "restored"

        def latest_step(self):
            return 40

    def reconstruct(folder, shapes, std, *, latest):
        calls.append(("made", folder.name, std, latest))
        return SimpleNamespace(step=latest - 2, variables="made", count=6, error=0.0123)

    monkeypatch.setattr(runs, "Checkpoints", Checkpoints)
    monkeypatch.setattr(runs.posthoc, "reconstruct", reconstruct)
    workdir = Workdir(tmp_path)
    workdir.claim(tiny_config(**EMAS))
    (workdir.checkpoints / "40").mkdir(parents=True)
    return calls


@pytest.mark.parametrize(
    "given, call, found",
    [
        ({}, ("restored", None, 0), (40, "restored", "warmup")),
        ({"step": 32}, ("restored", 32, 0), (32, "restored", "warmup")),
        ({"step": 0}, ("restored", 0, 0), (0, "restored", "warmup")),
        ({"ema": "power:0.1"}, ("restored", None, 2), (40, "restored", "power:0.1")),
        ({"ema": "power:0.05", "step": 8}, ("restored", 8, 1), (8, "restored", "power:0.05")),
        ({"ema_std": 0.08}, ("made", "ema_snapshots", 0.08, 40), (38, "made", None)),
        ({"ema_std": 0.08, "step": 16}, ("made", "ema_snapshots", 0.08, 16), (14, "made", None)),
    ],
)
def test_the_newest_checkpoint_or_that_of_a_step_and_the_average_that_is_chosen(asked, tmp_path, given, call, found):
    run = runs.load_run(tmp_path, **given)
    assert asked == [call]
    name = "power:0.08, made of 6 snapshots (its profile is off by 0.012)"
    assert (run.step, run.variables, run.average) == (found[0], found[1], found[2] or name)
    assert run.workdir == Workdir(tmp_path)


def test_a_config_of_the_caller_stays_as_it_is(asked, tmp_path):
    given = tiny_config(**EMAS, sampling__steps=3)
    run = runs.load_run(tmp_path, given, ema="power:0.1")
    assert given.sampling.ema == "" and run.config.sampling.ema == "power:0.1" and run.config.sampling.steps == 3
    run.config.sampling.steps = 9
    assert given.sampling.steps == 3


def test_a_folder_without_a_checkpoint_is_named_by_its_flag(tmp_path):
    workdir = Workdir(tmp_path)
    workdir.claim(tiny_config())
    (workdir.checkpoints / "broken-8").mkdir(parents=True)
    with pytest.raises(UserError, match=f"^--to={tmp_path} has no checkpoint yet: run `train` on it first$"):
        runs.read_config(tmp_path, "--to")
    with pytest.raises(UserError, match=f"^--workdir={tmp_path} has no checkpoint yet"):
        runs.load_run(tmp_path)
    (workdir.checkpoints / "8").mkdir()
    assert config.differences(runs.read_config(str(tmp_path)), tiny_config()) == []


def test_a_run_samples_from_the_smallest_time_of_sampling(monkeypatch):
    """That of training, and of evaluation, is another."""
    times = []
    monkeypatch.setattr(
        "experiments.factory.model.denoiser", lambda config, variables, t_min: times.append((variables, t_min))
    )
    loaded = tiny_config(sampling__t_min=0.25, training__t_min=0.125, evaluation__t_min=0.5, data__num_channels=3)
    run = Run(None, Experiment(loaded), 8, "weights")
    assert run.denoiser is None and run.denoiser_of("others") is None
    assert times == [("weights", 0.25), ("others", 0.25)]
    assert run.event_shape == (8, 8, 3) and run.class_names is None and run.average == ""


def test_names_of_classes_are_those_of_the_folder(tmp_path):
    Workdir(tmp_path).data.write_text('{"class_names": ["b", "a"]}')
    assert Run(Workdir(tmp_path), Experiment(tiny_config()), 0, None).class_names == ("b", "a")


def test_a_transform_is_that_of_the_config():
    run = Run(None, Experiment(tiny_config()), 0, None)
    np.testing.assert_allclose(run.medium.forward(np.array([[[[0], [255]]]], np.uint8)).ravel(), [-1, 1])
