"""Opening a run for a task, and what `edit`, `translate` and `interpolate` draw and write: without weights."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

import sde_lib
from experiments import factory
from experiments.data.inputs import images
from experiments.editing import edit, edits, series, translate
from experiments.errors import UserError
from experiments.factory.experiment import Experiment
from experiments.files import Results
from experiments.generation.answers import Drawn
from experiments.inverse import results
from experiments.loading import models
from experiments.loading.models import Model
from sde_lib import editing, exact
from tests.experiments.tiny import tiny_config

SHAPE, RNG = (8, 8, 1), np.random.default_rng(0)
FOUND = images.Images(("a", "b"), RNG.uniform(-1, 1, (2, *SHAPE)).astype(np.float32))
PRIOR = exact.Gaussian(sde_lib.VPSDE(t_min=1e-3))
CLASSES = {"model__num_classes": 3, "condition__label__dropout": 0.1}


@pytest.fixture
def opened(monkeypatch):
    """What the functions that `open_model` calls are given."""
    given = {}
    stored, changed = tiny_config(), tiny_config(data__image_size=4, sampling__steps=9)
    monkeypatch.setattr(models.runs, "read_config", lambda *of: given.update(read=of) or "read")
    monkeypatch.setattr(models.runs, "by_number", lambda *of: given.update(by_number=of) or "numbered")
    monkeypatch.setattr(models.config, "apply", lambda *of, **options: given.update(apply=(of, options)) or changed)
    monkeypatch.setattr("experiments.factory.check.check", lambda *of, **options: given.update(check=(of, options)))
    return given, stored, changed


def test_a_run_is_opened_with_overrides_above_what_the_command_changes(opened, tmp_path):
    given, stored, changed = opened
    found = models.open_model(
        "--to", tmp_path, "overrides", "edit", ("sampling.eta",), uses=("model", "flow"), change=lambda of: (of, stored)
    )
    assert found == Model("--to", tmp_path, found.experiment) and found.experiment.config == changed
    assert given["read"] == (tmp_path, "--to") and given["by_number"] == (tmp_path, ("read", stored), "overrides")
    options = {"allowed": ("sampling.eta",), "command": "edit"}
    assert given["apply"] == ((("read", stored), "numbered"), options)
    assert given["check"] == ((changed, "model", "flow"), {"overrides": "numbered"})
    models.open_model("--workdir", tmp_path, [], "edit", uses=())
    assert given["apply"][1]["allowed"] == ("sampling.", "data.background", "data.white")
    assert given["by_number"][1] == "read"
    changed.data.source = "latents"
    with pytest.raises(UserError, match=rf"^--to={tmp_path}: this model makes latents; edit needs one of images"):
        models.open_model("--to", tmp_path, [], "edit", uses=())


def test_images_of_a_run_are_read_for_its_config(monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr(models.images, "read", lambda *of, **options: given.append((of, options)) or FOUND)
    config = tiny_config(data__image_size=4, data__num_channels=3, data__background="black", data__white=9.0)
    model = Model("--to", tmp_path, Experiment(config))
    assert model.read("--input", "x") is FOUND and model.read("--truth", "y", 5) is FOUND
    assert model.rendering == images.Rendering("black", 9.0)
    for (of, options), expected in zip(given, (("--input", "x", None), ("--truth", "y", 5)), strict=True):
        *first, forward = of
        assert (*first, options) == (*expected[:2], (4, 4, 3), {"limit": expected[2], "rendering": model.rendering})
        assert forward.__func__ is type(model.medium).forward and forward.__self__ == model.medium
    monkeypatch.setattr(models.runs, "load_run", lambda *of: of)
    assert model.load() == (tmp_path, model.experiment.config) and model.class_names is None


class Run:
    """Stands for a run: of weights w, a Denoiser that names them."""

    def __init__(self, name):
        self.name, self.variables, self.denoiser = name, f"weights of {name}", PRIOR
        self.step, self.average = len(name), f"average of {name}"

    def denoiser_of(self, variables):
        return f"denoiser of {variables}"


class Stub(Model):
    """A model of two images whose weights are not there."""

    class_names = None

    def read(self, flag, text, limit=None):
        return images.Images(tuple(f"{text}{i}" for i in range(2))[:limit], FOUND.values[:limit])

    def load(self, guide=None):
        return Run(str(self.workdir))


@pytest.fixture
def task(monkeypatch):
    """Runs a task on answers that are given; what it opened, drew with, shared and wrote."""
    given = SimpleNamespace(opened=[])
    config = tiny_config(sampling__sampler="ddim", sampling__steps=6, sampling__rho=3.0, **CLASSES)
    config.sampling.guidance.scale = 3.0

    def open_model(flag, workdir, overrides, command, *allowed, uses):
        given.opened.append((flag, workdir, overrides, command, *allowed, uses))
        return Stub(flag, workdir, Experiment(config))

    def draw_answers(experiment, draw, variables, inputs, names, count, seed, *, same, advice):
        given.__dict__.update(draw=draw, variables=variables, inputs=inputs, names=names, count=count, seed=seed)
        given.__dict__.update(same=same, advice=advice, config=experiment.config)
        return Drawn(given.answers, 1.5)

    def of_class(config, denoiser, batch, label):
        return ("of class", denoiser, batch, label)

    def guided(experiment, variables, labels, guide):
        assert experiment.config.to_dict() == config.to_dict()
        return ("guided", variables, np.asarray(labels).tolist(), guide)

    def wrote(out, *of, **options):
        given.__dict__.update(wrote=of, options=options)
        return Results("sheet", ("sheet",)) if out == "out" else None

    for module in (edit, translate):
        monkeypatch.setattr(module, "open_model", open_model)
        monkeypatch.setattr(module, "draw_answers", draw_answers)
        monkeypatch.setattr("experiments.factory.classes.of_class", of_class)
        monkeypatch.setattr(module, "guided", guided)
    monkeypatch.setattr(results, "write", wrote)
    monkeypatch.setattr(series, "write", wrote)
    given.expected = config
    return given


def decibels(a, b):
    return 10 * np.log10(4 / np.square(a - b).mean((-3, -2, -1)))


def test_an_edit_is_drawn_by_the_method_of_the_run_up_to_its_strength(task, monkeypatch):
    task.answers = FOUND.values[:, None] + np.float32(0.1) * np.arange(1, 4, dtype=np.float32).reshape(1, 3, 1, 1, 1)
    fields = {name: None for name in edits.Edit.__dataclass_fields__} | {
        "workdir": "run", "overrides": [("k", "v")], "input": "i", "out": "out", "strength": 0.4, "label": "2",
        "answers": 3, "seed": 8, "masked_by": "replacement", "settings": {}, "style_features": "patches",
        "style_std": 0.5,
    }  # fmt: skip
    made = edit.edit(edits.Edit(**fields))
    assert task.opened == [("--workdir", "run", [("k", "v")], "edit", ("model", "average", "sampling"))]
    assert (task.variables, task.names, task.count, task.seed) == ("weights of run", ("i0", "i1"), 3, 8)
    np.testing.assert_array_equal(task.inputs, FOUND.values)
    found, _, told = task.wrote
    kept = decibels(task.answers.clip(-1, 1), FOUND.values[:, None])
    assert made.summary == f"strength 0.4, 12 evaluations each, PSNR to the input {kept.mean():.1f} dB: sheet"
    np.testing.assert_allclose(told["psnr_to_input"], kept, atol=6e-4)
    assert told["label"] == 2 and told["guidance"] == 3.0 and told["masked_by"] is None and told["evaluations"] == 12
    assert (told["seconds"], told["seed"], told["step"], told["average"]) == (1.5, 8, 3, "average of run")
    assert told["noise_to_signal"] == pytest.approx(float(editing.level_of_strength(0.4)))
    assert found.answers is task.answers and found.names == ("i0", "i1")
    np.testing.assert_allclose(found.arrays["guide"], (FOUND.values + 1) / 2)

    drawn = {}
    monkeypatch.setattr(edit.editing, "until", lambda sde, strength: ("until", sde, strength))
    monkeypatch.setattr("experiments.factory.sampling.times", lambda config, sde: ("times", config, sde))
    monkeypatch.setattr(edit.editing, "sdedit", lambda *of: drawn.update(sdedit=of) or "answers")
    monkeypatch.setattr(
        edit.sde_lib, "EnergyGuidance", lambda *of, **options: drawn.update(style=(of, options)) or PRIOR
    )
    monkeypatch.setattr(
        edit,
        "guided",
        lambda experiment, variables, labels, guide: drawn.update(of=(variables, labels, guide)) or PRIOR,
    )
    for same in ({"strength": 0.4}, {"strength": 0.4, "mask": "mask", "style": "style"}):
        assert task.draw(["k"] * 5, None, "guides", same, "w") == "answers"
        weights, labels, guide = drawn["of"]
        assert (weights, labels.tolist(), guide) == ("w", [2] * 5, None)
        keys, denoiser, method, times, guides, mask, knows = drawn["sdedit"]
        assert (keys, guides, mask, knows) == (["k"] * 5, "guides", same.get("mask"), None) and denoiser is PRIOR
        assert times == ("times", task.expected, ("until", PRIOR.sde, 0.4)) and method == factory.sampler(task.expected)
        assert ("style" in drawn) == ("style" in same)
    assert drawn["style"] == ((PRIOR, "style"), {"data_std": 0.5, "through_denoiser": False})


@pytest.mark.parametrize("to", [None, "other"])
def test_a_translation_goes_there_and_back_by_the_same_levels(task, monkeypatch, to):
    there, back = 0.5 * FOUND.values, FOUND.values + np.float32([0.1, 0.2]).reshape(2, 1, 1, 1)
    task.answers = np.stack([there, back], 1)[:, None]
    given = [("k", "v"), ("sampling.guidance.scale", "3")]
    made = translate.translate(
        translate.Translation("run", given, to, "i", "out", from_label="0", label="2", strength=0.4, limit=None)
    )
    target = ("--to", "other") if to else ("--workdir", "run")
    assert task.opened == [
        ("--workdir", "run", given[:1], "translate", translate.KEYS, translate.USES),
        (*target, given, "translate", (*translate.KEYS, "sampling.guidance."), (*translate.USES, "label")),
    ]
    assert task.variables == ("weights of run", f"weights of {to or 'run'}") and (task.count, task.seed) == (1, 0)
    model = Model("", "run", Experiment(task.expected))
    levels = editing.shared_levels(model.sde, model.sde, 6, 0.4, 3.0)
    np.testing.assert_allclose(task.same, levels, rtol=1e-6)
    names, kinds, _, told = task.wrote
    assert list(kinds) == ["input", "translated", "back"] and names == ("i0", "i1")
    np.testing.assert_array_equal(kinds["translated"], there)
    np.testing.assert_array_equal(kinds["back"], back)
    assert task.options == {"notes": {"back": ["26.0 dB", "20.0 dB"]}}
    assert made.summary == "2 translated, there and back 23.0 dB from the input: sheet"
    assert (told["from_label"], told["label"], told["guidance"], told["evaluations"]) == (0, 2, 3.0, 2 * (1 + 2) * 6)
    assert told["steps_trained"] == [3, len(to or "run")] and told["seconds"] == 1.5
    np.testing.assert_allclose(told["noise_to_signal"], [levels[0], levels[-1]], rtol=1e-6)
    cycle = decibels(back, FOUND.values)
    assert told["average"]["cycle_psnr"] == pytest.approx(cycle.mean(), abs=1e-3)
    assert [row["cycle_psnr"] for row in told["inputs"]] == pytest.approx(cycle, abs=1e-3)
    assert [row["name"] for row in told["inputs"]] == ["i0", "i1"]

    calls = []
    monkeypatch.setattr(translate.editing, "bridge", lambda *of: calls.append(of) or jnp.full(2, len(calls)))
    np.testing.assert_array_equal(task.draw("kkk", None, "x", "levels", ("w", "v")), [[1, 2], [1, 2]])
    here, other = ("of class", "denoiser of w", 3, 0), ("guided", "v", [2] * 3, None)
    assert calls[0] == (here, other, "x", "levels") and calls[1][:2] == (other, here) and calls[1][3] == "levels"
    np.testing.assert_array_equal(calls[1][2], [1, 1])


def test_an_interpolation_has_both_ends_and_even_weights(task, monkeypatch):
    between = np.stack([FOUND.values + np.float32(0.1), FOUND.values, FOUND.values - np.float32(0.2)], 1)
    task.answers = between[:, None]
    made = translate.interpolate(
        translate.Interpolation("run", [], "i", "t", "out", label=None, images=3, strength=0.4, limit=2)
    )
    assert task.opened == [("--workdir", "run", [], "interpolate", translate.KEYS, translate.USES)]
    first, last = task.inputs
    np.testing.assert_array_equal(first, FOUND.values)
    np.testing.assert_array_equal(last, FOUND.values)
    _, kinds, _, told = task.wrote
    assert list(kinds) == ["input", "0", "0.5", "1", "to"]
    np.testing.assert_array_equal(kinds["1"], between[:, 2])
    assert made.summary == "3 images from each of 2 to its other, the ends 23.0 dB off: sheet"
    assert told["evaluations"] == 2 * 6 * (2 + 3) and told["label"] is None and told["step"] == 3
    np.testing.assert_allclose([row["psnr_of_ends"] for row in told["inputs"]], [[26.021, 20]] * 2, atol=1e-3)
    assert [(row["name"], row["to"]) for row in told["inputs"]] == [("i0", "t0"), ("i1", "t1")]

    calls = []
    monkeypatch.setattr(translate.editing, "interpolate_through", lambda *of: calls.append(of) or jnp.zeros((3, 2, 5)))
    assert task.draw("kk", None, ("x", "z"), "levels", "w").shape == (2, 3, 5)
    denoiser, x, z, weights, levels = calls[0]
    assert (denoiser, x, z, levels) == (("of class", "denoiser of w", 2, 3), "x", "z", "levels")
    assert weights.tolist() == [0, 0.5, 1] and weights.dtype == np.float32
