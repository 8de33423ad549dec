"""`sample`, `evaluate`, `import` and `export` around their work: what they open, pass on and say. No model is made."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.__main__ import main
from experiments.cli import arguments
from experiments.devices import distributed
from experiments.factory.experiment import Experiment
from experiments.files import Results
from experiments.generation import samples
from experiments.media import ImageMedium, LatentMedium
from experiments.plotting import pictures
from experiments.reports import report
from tests.experiments.tiny import ROOT, fake_run, tiny_config

LATENTS, IMAGES = LatentMedium((8, 8, 1)), ImageMedium((8, 8, 1))


@pytest.fixture
def opened(monkeypatch):
    """What runs are opened with; the run has these settings."""
    made = []

    def prepare(medium=IMAGES, names=None, **changes):
        def open_run(options, *allowed, uses):
            made.append((options.workdir, list(options.overrides), allowed, uses))
            return fake_run(
                config=tiny_config(**changes), medium=medium, event_shape=medium.event_shape, class_names=names,
                variables="weights", step=40,
                average="warmup", workdir=options.workdir,
            )  # fmt: skip

        monkeypatch.setattr(arguments, "open_run", open_run)
        return made

    return prepare


class Sampler:
    """Draws images that their numbers decide; `nfe` is what the test says."""

    nfe = 7

    def __init__(self, experiment, strategy, most, guide=None):
        self.size, self.most = experiment.event_shape[0], most

    def __call__(self, variables, number, seed, *, progress):
        assert (variables, self.most, progress) == ("weights", number, True)
        levels = (np.arange(number) + seed) % 251
        return (levels[:, None, None, None] * np.ones((1, self.size, self.size, 1))).astype(np.uint8)


@pytest.mark.parametrize("number, shown", [(1, 1), (99, 99), (100, 100), (101, 100), (130, 100)])
def test_sample_writes_all_samples_and_a_picture_of_the_first_hundred(
    monkeypatch, opened, tmp_path, capsys, number, shown
):
    asked = opened()
    monkeypatch.setattr("experiments.generation.samples.Sampler", Sampler)
    out = tmp_path / "new" / "s.npz"
    flags = [f"--num_samples={number}", "--seed=3", f"--out={out}", "--config.sampling.rho=5"]
    assert main(["sample", "--workdir=run", *flags]) == 0
    assert asked == [(Path("run"), [("sampling.rho", "5")], ("sampling.",), ("model", "average", "sampling"))]
    expected = Sampler(Experiment(tiny_config()), None, number)("weights", number, 3, progress=True)
    with np.load(out) as file:
        assert file.files == ["samples"]
        np.testing.assert_array_equal(file["samples"], expected)
    picture = np.asarray(Image.open(out.with_name("grid.png")))
    np.testing.assert_array_equal(picture[::6, ::6], pictures.grid(expected[:shown])[..., 0])
    assert capsys.readouterr().out == (
        f"{number} samples by heun, 4 steps, 7 evaluations each, from step 40, average warmup: {out}, "
        f"{out.with_name('grid.png')}\n"
    )


@pytest.mark.parametrize("name", ["s.png", "s", "s.npz.gz", "s.npy", ".npz", "s.NPZ"])
def test_sample_refuses_files_of_another_ending_before_the_run_is_opened(opened, tmp_path, fails, name):
    asked = opened()
    assert fails("sample", "--workdir=run", f"--out={tmp_path / name}") == f"--out={tmp_path / name}: must end in .npz"
    assert asked == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flags, expected", [([], []), (["--label=0"], [("sampling.label", "0")])])
def test_the_label_of_samples_is_that_of_the_run_where_none_is_given(monkeypatch, opened, tmp_path, flags, expected):
    asked = opened()
    monkeypatch.setattr("experiments.generation.samples.Sampler", Sampler)
    assert main(["sample", "--workdir=run", "--num_samples=1", f"--out={tmp_path / 's.npz'}", *flags]) == 0
    assert asked[0][1] == expected


def test_sample_says_of_which_class_and_what_is_no_image(monkeypatch, opened, tmp_path, capsys):
    asked = opened(LATENTS, ("cat", "dog"), model__num_classes=2, sampling__label=1)
    monkeypatch.setattr("experiments.generation.samples.Sampler", Sampler)
    monkeypatch.setattr(Sampler, "nfe", None)
    out = tmp_path / "s.npz"
    assert main(["sample", "--workdir=run", "--label=dog", "--num_samples=2", f"--out={out}"]) == 0
    assert asked[0][1] == [("sampling.label", "dog")]
    assert capsys.readouterr().out == (
        "2 samples (class 1 'dog') by heun, 4 steps, its own number of evaluations each, from step 40, average warmup: "
        f"{out}, float32 latents, which need the decoder of the model's publisher\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["s.npz"]


@pytest.mark.parametrize(
    "flags, called",
    [
        ([], ("evaluate",)),
        (["--sweep-checkpoints"], ("sweep", None)),
        (["--sweep-checkpoints", "--metric=recall"], ("sweep", "recall")),
        (["--label=dog"], ("evaluate",)),
    ],
)
def test_evaluate_measures_one_checkpoint_or_all(monkeypatch, opened, flags, called):
    asked, order = opened(), []
    monkeypatch.setattr("experiments.loading.runs.draws_samples", lambda workdir: True)
    monkeypatch.setattr(
        "experiments.loading.dataset.load_data", lambda config, workdir: order.append(("load", workdir)) or "data"
    )
    for name in ("check_names", "announce", "check_evaluation"):
        monkeypatch.setattr(
            f"experiments.loading.dataset.{name}",
            lambda config, dataset, *more, name=name: order.append((name, dataset, *more)),
        )
    monkeypatch.setattr("experiments.factory.devices.parallel", lambda config: "strategy")
    monkeypatch.setattr(
        "experiments.evaluation.evaluate.evaluate_run",
        lambda run, data, strategy, publish: order.append(("evaluate", data, strategy, publish)),
    )
    monkeypatch.setattr(
        "experiments.evaluation.evaluate.sweep_checkpoints",
        lambda run, data, strategy, publish, metric: order.append(("sweep", data, strategy, publish, metric)),
    )
    assert main(["evaluate", "--workdir=run", *flags]) == 0
    assert asked[0][1] == [("sampling.label", flag.partition("=")[2]) for flag in flags if flag.startswith("--label")]
    assert asked[0][2:] == (
        ("sampling.", "evaluation.", "data.source", "data.background", "data.white"),
        ("model", "average", "sampling", "data", "evaluation"),
    )
    run = Path("run")
    before = [("load", run), ("check_names", "data", run), ("announce", "data"), ("check_evaluation", "data")]
    assert order == [*before, (called[0], "data", "strategy", report.publish, *called[1:])]


@pytest.mark.parametrize(
    "scales, opened_with, swept",
    [("1,2", "2.0", [1, 2]), ("3,1,2", "2.0", [1, 2, 3]), ("0,1", "0.0", [0, 1]), ("1", "1", [1])],
)
def test_a_sweep_over_scales_opens_the_run_guided(monkeypatch, opened, scales, opened_with, swept):
    """With the smallest scale that guides, so that the guide is loaded and the settings of guidance have an effect."""
    asked, found = opened(), []
    monkeypatch.setattr("experiments.loading.runs.draws_samples", lambda workdir: True)
    monkeypatch.setattr("experiments.loading.dataset.load_data", lambda config, workdir: "data")
    for name in ("check_names", "announce", "check_evaluation"):
        monkeypatch.setattr(f"experiments.loading.dataset.{name}", lambda *given: None)
    monkeypatch.setattr("experiments.evaluation.evaluate.sweep_guidance", lambda *given: found.append(given[4:]))
    assert main(["evaluate", "--workdir=run", f"--sweep-guidance={scales}", "--metric=recall"]) == 0
    assert asked[0][1] == [("sampling.guidance.scale", opened_with)] and found == [(swept, "recall")]


def test_export_writes_the_average_that_is_chosen(monkeypatch, opened, tmp_path, capsys, fails):
    asked, exported = opened(), []
    monkeypatch.setattr("experiments.loading.pretrained.export_run", lambda *given: exported.append(given[1:]))
    out = tmp_path / "model"
    flags = ["--format=diffusers", f"--out={out}", "--config.sampling.ema_std=0.1"]
    assert main(["export", "--workdir=run", *flags]) == 0
    assert asked == [(Path("run"), [("sampling.ema_std", "0.1")], ("sampling.ema",), ("model", "average"))]
    assert exported == [(out, "diffusers")]
    assert capsys.readouterr().out == f"Exported step 40 of run, average warmup, to {out}\n"
    out.mkdir()
    assert fails("export", "--workdir=run", f"--out={out}") == f"--out={out}: exists already; choose another name"
    assert len(exported) == 1


@pytest.mark.parametrize("given", [True, False])
def test_import_says_what_has_come(monkeypatch, tmp_path, capsys, fails, given):
    imported = []

    def import_run(*said):
        imported.append(said)
        return fake_run(config=tiny_config("ve"), medium=IMAGES)

    monkeypatch.setattr("experiments.loading.pretrained.import_run", import_run)
    flags = [f"--config={ROOT}/configs/digits.py:edm", "--config.model.channels=16"] if given else []
    assert main(["import", "--from=a.pth", "--format=edm", "--workdir=run", *flags]) == 0
    ((source, kind, workdir, loaded),) = imported
    assert (source, kind, workdir) == (Path("a.pth"), "edm", Path("run"))
    assert (loaded.sde.name, loaded.model.channels) == ("edm", 16) if given else loaded is None
    assert capsys.readouterr().out == (
        "Imported a.pth to run: model unet, process ve, images of 8x8x1. Next: python -m experiments sample --workdir=run\n"
    )
    message = fails("import", "--from=a.pth", "--format=edm", "--workdir=run", "--config.model.channels=0")
    assert message == "--config.model.channels=0: overrides need --config=FILE, which they change"
    if given:
        assert "must be more than 0" in fails(
            "import", "--from=a", "--format=edm", "--workdir=run", flags[0], "--config.model.channels=0"
        )
    assert len(imported) == 1


def test_samples_are_results_of_a_function_with_the_figures_and_arrays_of_the_file(monkeypatch, tmp_path, capsys):
    """Nothing is printed; a process other than the first writes nothing and has no results."""
    monkeypatch.setattr("experiments.generation.samples.Sampler", Sampler)
    trained = fake_run(
        config=tiny_config(), medium=IMAGES, event_shape=(8, 8, 1), class_names=None, variables="weights", step=40,
        average="warmup", workdir=tmp_path,
    )  # fmt: skip
    made = samples.draw(trained, 3, 5, tmp_path / "s.npz", progress=True)
    assert made.files == (tmp_path / "s.npz", tmp_path / "grid.png") and all(path.is_file() for path in made.files)
    assert made.metrics == {"step": 40, "average": "warmup", "sampler": "heun", "steps": 4, "evaluations": 7}
    with np.load(tmp_path / "s.npz") as file:
        np.testing.assert_array_equal(made.arrays["samples"], file["samples"])
    monkeypatch.setattr(distributed, "is_first", lambda: False)
    assert samples.draw(trained, 3, 5, tmp_path / "other" / "s.npz", progress=True) == Results()
    assert capsys.readouterr().out == "" and not (tmp_path / "other").exists()
