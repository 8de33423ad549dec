"""What `restore` and `reconstruct` hand to their methods, compare and tell: the answers are given."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import nibabel
import numpy as np
import pytest

from experiments.data.inputs import volumes
from experiments.data.inputs.images import RENDERING, Images
from experiments.errors import UserError
from experiments.factory.experiment import Experiment
from experiments.files import Results
from experiments.generation.answers import measurement_keys
from experiments.inverse import build as inverse
from experiments.inverse import problems, reconstruct, restore
from experiments.inverse import scanners as reconstruction
from experiments.inverse.solving import Solved
from experiments.media import ImageMedium
from sde_lib.inverse import Decomposed, GaussianNoise, PoissonNoise, Scaled
from tests.experiments.tiny import tiny_config

SHAPE, RNG = (8, 8, 1), np.random.default_rng(0)
TRUTH = Images(("a", "b"), RNG.uniform(-1, 1, (2, *SHAPE)).astype(np.float32))
ANSWERS = RNG.uniform(-1, 1, (2, 3, *SHAPE)).astype(np.float32)
MEDIUM = ImageMedium((8, 8, 1))


class Model:
    """Stands for a run."""

    experiment, shape, rendering, medium = Experiment(tiny_config()), SHAPE, RENDERING, MEDIUM

    def read(self, flag, text, limit=None):
        assert (flag, text) == ("--truth", "t")
        return Images(TRUTH.names[:limit], TRUTH.values[:limit])


@pytest.fixture
def given(monkeypatch):
    """What the command opens, checks, solves and writes."""
    found = SimpleNamespace(model=Model(), checked=[])

    def solve(model, request, of, names, y):
        found.__dict__.update(solved=of, names=names, y=np.asarray(y))
        return Solved(ANSWERS, {"evaluations": 7, "method": request.method})

    def wrote(out, results, medium, told):
        found.__dict__.update(out=out, results=results, told=told)
        return Results("sheet", metrics={"modality": "", "figures": {"psnr": {}}})

    for module in (restore, reconstruct):
        monkeypatch.setattr(
            module, "open_for", lambda request, command: found.__dict__.update(command=command) or found.model
        )
        monkeypatch.setattr(module, "check_method", lambda *of: found.checked.append(of))
        monkeypatch.setattr(module, "solve", solve)
        monkeypatch.setattr(module.results, "write", wrote)
    for name, task in problems.TASKS.items():  # the baselines are held to in test_baselines.py
        plain = dict.fromkeys(task.baselines, lambda a, y, std: y)
        monkeypatch.setitem(problems.TASKS, name, dataclasses.replace(task, baselines=plain))
    monkeypatch.setattr(reconstruction, "PLAIN", {"ct": ("back", lambda a, y: y)})
    monkeypatch.setattr(reconstruction.baselines, "total_variation", lambda a, y, std: y)
    monkeypatch.setattr(reconstruct, "replace_text", lambda path, text: found.__dict__.update(report=path))
    return found


def request(**changes):
    fields = {"input": None, "truth": "t", "limit": None, "seed": 3, "answers": 3, "out": Path("out"), "method": "dps",
              "settings": {"zeta": 2.0}, "noise": 0.1, "peak": None, "workdir": "run"}  # fmt: skip
    return SimpleNamespace(**fields | changes)


@pytest.mark.parametrize(
    "task, options, peak", [("inpaint", {"mask": "half-left"}, None), ("hdr", {"contrast": 3.0}, 50.0),
                            ("phase", {"oversampling": 1.5}, None)],
)  # fmt: skip
def test_a_restoration_compares_what_was_measured_the_answers_and_the_truth(given, task, options, peak):
    asked = request(task=task, options=options, peak=peak)
    assert restore.restore(asked).summary == f"{task} by dps, 7 evaluations each: sheet"
    noise = GaussianNoise(0.1) if peak is None else PoissonNoise(peak)
    of = inverse.problem(task, SHAPE, options, noise)
    y = of.measure(measurement_keys(3, 2), jnp.asarray(TRUTH.values))
    np.testing.assert_allclose(given.y, y, atol=1e-5)
    assert given.solved.noise == noise and given.command == "restore" and given.names == ("a", "b")
    ((experiment, method, settings, checked, shape),) = given.checked
    assert experiment is Model.experiment and checked is given.solved
    assert (method, settings, shape) == ("dps", {"zeta": 2.0}, SHAPE)
    assert given.told == {
        "task": task, "options": options, "noise": 0.1 if peak is None else {"peak": peak}, "evaluations": 7,
        "method": "dps",
    }  # fmt: skip
    results = given.results
    assert (given.out, results.names, list(results.shown), list(results.arrays)) == (
        Path("out"),
        ("a", "b"),
        *[["measured"]] * 2,
    )
    assert results.answers is ANSWERS
    np.testing.assert_array_equal(results.truth, TRUTH.values)
    np.testing.assert_array_equal(results.shown["measured"], MEDIUM.inverse(of.view(given.y)))
    expected = given.y if task == "phase" else (given.y + 1) / 2
    np.testing.assert_allclose(results.arrays["measured"], expected, rtol=1e-6)
    assert list(results.beside) == list(problems.TASKS[task].baselines)
    misfit = np.stack([of.misfit(ANSWERS[:, k], given.y) for k in range(3)], 1)
    np.testing.assert_allclose(results.misfit, misfit, rtol=1e-4)


@pytest.mark.parametrize("method, kind", [("dps", Scaled), ("ddrm", Decomposed)])
def test_a_reconstruction_is_solved_in_units_of_the_norm_and_compared_in_its_own(given, method, kind):
    options = {"angles": 3, "arc": 180.0, "metal": None}
    asked = request(modality="ct", options=options, method=method)
    assert reconstruct.reconstruct(asked).summary == "ct by " + method + ": sheet"
    measurement = reconstruction.simulated("ct", SHAPE, options)
    of = reconstruction.scan_problem("ct", measurement, 0.1)
    y = np.asarray(of.measure(measurement_keys(3, 2), jnp.asarray(TRUTH.values)))
    solved, unit = reconstruction.for_methods(of, problems.METHODS[method].asks)
    assert unit > 2 and type(given.solved.measurement) is type(solved.measurement) is kind
    np.testing.assert_allclose(given.y, y / unit, atol=1e-4)
    assert float(given.solved.noise.std) == pytest.approx(0.1 / unit)
    ((_, name, _, checked, _),) = given.checked
    assert name == method and type(checked.measurement) is Decomposed and checked.noise == GaussianNoise(0.1)
    assert given.told == {
        "modality": "ct", "options": options, "noise": 0.1, "evaluations": 7, "method": method,
        "intensities": {"black": 0.0, "white": 1.0, "by": "the images' own"},
    }  # fmt: skip
    np.testing.assert_allclose(given.results.arrays["measured"], y, atol=1e-4)
    misfit = np.stack([of.misfit(ANSWERS[:, k], y) for k in range(3)], 1)
    np.testing.assert_allclose(given.results.misfit, misfit, rtol=1e-3)
    assert list(given.results.beside) == ["back", "total variation"]
    assert given.command == "reconstruct" and given.report == Path("out/report.md")


def test_slices_are_of_one_channel(given):
    given.model.shape = (8, 8, 3)
    with pytest.raises(
        UserError, match=r"^--workdir=run: a model of images of 3 channels; slices are images of 1 channel$"
    ):
        reconstruct.reconstruct(request(modality="ct", options={}))


def test_slices_of_a_truth_are_fitted_to_the_model_in_its_window(tmp_path):
    data = RNG.uniform(0, 100, (5, 3, 4)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(data, np.diag([1.0, 1.0, 2.0, 1.0])), tmp_path / "v.nii")
    text = str(tmp_path / "v.nii")
    asked = request(truth=text, axis="coronal", window=(20.0, 80.0), chosen=slice(1, None), limit=1)
    found = reconstruct._truth(asked, Model())
    volume = volumes.read("--truth", text, "coronal", (20.0, 80.0), slice(1, None), 1).fitted((8, 8))
    assert (found.names, found.y, found.low, found.high, found.window) == (
        ("coronal_0001",),
        None,
        20.0,
        80.0,
        "--window",
    )
    np.testing.assert_allclose(found.truth, 2 * volume.slices[..., None] - 1, atol=1e-6)
    np.testing.assert_allclose(found.affine, volume.affine)
    plain = reconstruct._truth(request(limit=1), Model())
    assert (plain.names, plain.low, plain.high, plain.window, plain.affine) == (
        ("a",),
        0.0,
        1.0,
        "the images' own",
        None,
    )
    np.testing.assert_array_equal(plain.truth, TRUTH.values[:1])


def test_measurements_without_noise_are_told_as_such(given):
    restore.restore(request(task="hdr", options={"contrast": 3.0}, noise=0.0))
    assert given.told["noise"] == 0.0 and given.solved.noise == GaussianNoise(0.0)
    reconstruct.reconstruct(request(modality="ct", options={"angles": 3, "arc": 180.0, "metal": None}, noise=0.0))
    assert given.told["noise"] == 0.0 and float(given.solved.noise.std) == 0
