"""Runs that guide another: which classes there are, what is handed to whom, and which settings have an effect."""

import dataclasses
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.errors import UserError
from experiments.evaluation.classes import class_mix
from experiments.factory.experiment import Experiment
from experiments.generation import guidance
from experiments.loading import runs
from experiments.runs.workdir import Workdir
from tests.experiments.tiny import tiny_config


def model(classes=0, *, samples=True, guided=False, label=-1):
    """Stands for an experiment, which returns what its functions are given."""
    return SimpleNamespace(
        num_classes=classes, draws_samples=samples, is_guided=guided, guidance_scale=2.5,
        sampling=SimpleNamespace(label=label, t_min=0.25), check_class=lambda *given: ("checked", classes, *given),
    )  # fmt: skip


def guide(classes, *, samples):
    return SimpleNamespace(experiment=model(classes, samples=samples), class_names=("x", "y"), variables="weights")


WEAK, CLASSIFIER = guide(7, samples=True), guide(5, samples=False)


@pytest.mark.parametrize(
    "classes, by, expected, kind",
    [
        (0, None, 0, "classifier-free guidance"), (3, None, 3, "classifier-free guidance"),
        (0, WEAK, 0, "autoguidance"), (3, WEAK, 3, "autoguidance"),
        (0, CLASSIFIER, 5, "classifier guidance"), (3, CLASSIFIER, 3, "classifier guidance"),
    ],
)  # fmt: skip
def test_classes_are_those_of_the_model_or_else_of_its_classifier(classes, by, expected, kind):
    """In turn by the number of the sample, or the one that is set; without classes all are of class 0."""
    experiment = model(classes)
    assert guidance.num_classes(experiment, by) == expected and guidance.kind(experiment, by) == kind
    numbers = jnp.arange(12)
    np.testing.assert_array_equal(guidance.labels(experiment, numbers, by), np.arange(12) % max(expected, 1))
    for label in (0, 2):
        np.testing.assert_array_equal(guidance.labels(model(classes, label=label), numbers, by), [label] * 12)
    assert guidance.with_guide("own", by) == ("own" if by is None else ("own", "weights"))


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("by", [None, WEAK, CLASSIFIER])
@pytest.mark.parametrize("label", [None, "cat", 0])
def test_a_label_is_of_the_model_or_of_the_classifier_of_one_without_classes(guided, classes, by, label):
    """Guidance to a class needs one; a weaker model guides without."""
    experiment, names = model(classes, guided=guided), ("a", "b")
    to_a_class = guided and by is not WEAK
    if to_a_class and label is None:
        with pytest.raises(
            UserError, match=r"^--guidance=2\.5: does nothing without a class to guide to: add --label$"
        ):
            guidance.chosen_class(experiment, by, label, names)
        return
    if to_a_class and by is None and not classes:
        return  # refused before: nothing guides a model without classes
    of_guide = to_a_class and by is CLASSIFIER and not classes
    expected = (
        ("checked", 5, "--label", label, ("x", "y")) if of_guide else ("checked", classes, "--label", label, names)
    )
    assert guidance.chosen_class(experiment, by, label, names) == expected


class Parts:
    """Stands for a Denoiser or a classifier; notes what replaces its fields."""

    def __init__(self, *made):
        self.made = made

    def replace(self, **changes):
        return (*self.made, changes)


def recording(name, t_min=0.25):
    return SimpleNamespace(
        denoiser=lambda *given: Parts(name, "denoiser", *given), classifier=lambda *given: Parts(name, "classifier", *given),
        condition=lambda labels: (name, "condition", labels), guided=lambda *given, **named: (*given, named),
        sampling=SimpleNamespace(t_min=t_min), draws_samples=name != "classifier", guide="",
    )  # fmt: skip


def test_each_model_has_its_own_weights_and_the_guide_the_smallest_time_of_the_model():
    """A weaker model is conditioned by its own rule; a classifier gets the labels."""
    own = recording("own")
    (plain, labels, named) = guidance.guided(own, "weights", "labels")
    assert (plain.made, labels, named) == (("own", "denoiser", "weights"), "labels", {})
    weights = ("weights", "others")
    weak = SimpleNamespace(experiment=recording("weak", t_min=0.5))
    (plain, labels, found, named) = guidance.guided(own, weights, "labels", weak)
    assert (plain.made, labels, named) == (("own", "denoiser", "weights"), "labels", {})
    assert found == ("weak", "denoiser", "others", 0.25, {"condition": ("weak", "condition", "labels")})
    classifier = SimpleNamespace(experiment=recording("classifier"))
    (plain, labels, named) = guidance.guided(own, weights, "labels", classifier)
    assert (plain.made, labels) == (("own", "denoiser", "weights"), "labels")
    assert named == {"classifier": ("classifier", "classifier", "others", {"labels": "labels"})}


# ---- folders of runs ----


def made(**changes):
    """A config; keys of `sampling.guidance` by their names."""
    known = tiny_config().sampling.guidance
    settings = {name: changes.pop(name) for name in list(changes) if name in known}
    config = tiny_config(**changes)
    config.sampling.guidance.update(settings)
    return config


CLASSES = {"model__num_classes": 3, "condition__label__dropout": 0.1}
OF_CLASSES = {"objective__name": "classification", "model__num_classes": 3}


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Makes the folder of a run with a checkpoint of step 8, whose weights are not read, and names of its classes."""

    def make(name, names=None, **changes):
        workdir = Workdir(tmp_path / name)
        workdir.claim(made(**changes))
        (workdir.checkpoints / "8").mkdir(parents=True)
        if names:
            workdir.data.write_text('{"class_names": ["' + '", "'.join(names) + '"]}')
        return workdir

    def load(path, step=None):
        workdir = Workdir(tmp_path / path)
        return runs.Run(workdir, Experiment(workdir.read_config()), step or 8, "weights")

    monkeypatch.setattr(runs, "load_run", load)
    monkeypatch.chdir(tmp_path)
    return make


@pytest.mark.parametrize(
    "run, overrides, number",
    [
        ("classes", [("sampling.label", "dog")], "1"),
        ("classes", [("sampling.label", "2")], "2"),
        ("classes", [("sampling.label", "-1")], "-1"),
        ("classes", [("sampling.guidance.guide", "classifier"), ("sampling.label", "dog")], "1"),
        ("plain", [("sampling.guidance.guide", "classifier"), ("sampling.label", "seven")], "2"),
        ("plain", [("sampling.label", "seven"), ("sampling.guidance.guide", "classifier@8")], "2"),
        ("guided", [("sampling.label", "nine")], "1"),
        ("guided", [("sampling.guidance.guide", "other"), ("sampling.label", "nine")], "0"),
        ("plain", [("sampling.guidance.guide", "nowhere"), ("sampling.label", "-1")], "-1"),
    ],
)
def test_a_class_by_name_is_one_of_the_model_or_of_the_classifier_that_guides_it(stored, run, overrides, number):
    """The guide of the command line replaces that of the config; all other overrides stay as they are."""
    stored("classes", ("cat", "dog", "cow"), **CLASSES)
    stored("classifier", ("eight", "nine", "seven"), **OF_CLASSES)
    stored("other", ("nine", "ten", "dog"), **OF_CLASSES)
    stored("plain")
    stored("guided", guide="classifier")
    config = runs.read_config(run)
    given = [("sampling.steps", "dog"), *overrides]
    expected = [(key, number if key == "sampling.label" else text) for key, text in given]
    assert runs.by_number(run, config, given) == expected


@pytest.mark.parametrize(
    "text, step, same", [("own", 8, True), ("./own", 8, True), ("own@16", 16, False), ("copy", 8, False)]
)
def test_a_model_does_not_guide_itself(stored, text, step, same):
    """Another step, folder or average of the weights does."""
    for name in ("own", "copy"):
        workdir = stored(name)
        (workdir.checkpoints / "16").mkdir()
    experiment = Experiment(made(guide=text, scale=2.0))
    model = dataclasses.replace(runs.load_run("own"), experiment=experiment)
    assert runs.load_guide(experiment).step == step
    assert runs.load_guide(experiment, dataclasses.replace(model, average="power:0.1")).step == step
    if same:
        with pytest.raises(UserError, match=rf"^--guide={text}: has the weights of the model \(step 8, "):
            runs.load_guide(experiment, model)
        return
    assert runs.load_guide(experiment, model).step == step


def test_classes_in_words_are_those_of_the_classifier_where_the_model_has_none(stored):
    stored("classifier", ("eight", "nine", "seven"), **OF_CLASSES)
    stored("weak", ("cat", "dog", "cow"), **CLASSES)
    classifier, weak = runs.load_run("classifier"), runs.load_run("weak")
    plain, one = (Experiment(made(sampling__label=label)) for label in (-1, 2))
    assert guidance.sampled_classes(plain, classifier, None) == "each class in turn: 0 'eight', 1 'nine', 2 'seven'"
    assert guidance.sampled_classes(one, classifier, None) == "class 2 'seven'"
    assert guidance.sampled_classes(plain, weak, None) == guidance.sampled_classes(plain, None, None) == ""
    own = Experiment(made(sampling__label=1, **CLASSES))
    for guide in (None, weak, classifier):
        assert guidance.sampled_classes(own, guide, ("cat", "dog", "cow")) == "class 1 'dog'"
    dataset = SimpleNamespace(class_names=None)
    assert class_mix(one, dataset, classifier).description == "class 2 'seven' alone"


@pytest.mark.parametrize(
    "run, label, said",
    [
        ("classes", "cot", "sampling.label=cot: the classes are "),
        ("guided", "dog", "sampling.label=dog: the classes are "),
    ],
)
def test_a_class_that_neither_has_is_refused(stored, run, label, said):
    stored("classes", ("cat", "dog", "cow"), **CLASSES)
    stored("classifier", ("eight", "nine", "seven"), **OF_CLASSES)
    stored("guided", guide="classifier")
    with pytest.raises(UserError) as error:
        runs.by_number(run, runs.read_config(run), [("sampling.label", label)])
    assert str(error.value).startswith(said)


@pytest.mark.parametrize(
    "changes, of_guide, said",
    [
        ({"scale": 2.0}, OF_CLASSES, ""),
        ({"scale": 1.0}, OF_CLASSES, ""),  # to the classes of the classifier
        ({"scale": 2.0, "sampling__label": 2}, OF_CLASSES, ""),
        ({"scale": 2.0, "sampling__label": 3}, OF_CLASSES, "sampling.label=3: the classes of --guide=guide are 0 to 2"),
        (
            {"scale": 2.0, "rescale": 0.7},
            OF_CLASSES,
            "sampling.guidance.rescale=0.7 has no effect with --guide=guide, a cl",
        ),
        (
            {"scale": 2.0, "name": "a:B"},
            OF_CLASSES,
            "sampling.guidance.name=a:B has no effect with --guide=guide, a class",
        ),
        ({"scale": 2.0, **CLASSES}, OF_CLASSES, ""),
        (
            {"scale": 2.0, **CLASSES, "model__num_classes": 4, "sampling__label": 3},
            OF_CLASSES,
            "--guide=guide: it has 3 c",
        ),
        ({"scale": 2.0}, {}, ""),
        ({"scale": 0.5}, {}, ""),
        ({"scale": 2.0, "rescale": 0.7, "name": "a:B"}, {}, ""),
        (
            {"scale": 1.0},
            {},
            "--guide=guide: a weaker model has no effect at sampling.guidance.scale=1; set --guidance=SC",
        ),
        (
            {"scale": 2.0, "sampling__label": 0},
            {},
            "sampling.label=0: this model has no classes (model.num_classes=0), and",
        ),
        ({"scale": 2.0, **CLASSES, "sampling__label": 0}, {}, ""),  # guided by a model without classes
        ({"scale": 2.0, **CLASSES, "sampling__label": 0}, CLASSES, ""),
        (
            {"scale": 2.0, **CLASSES},
            CLASSES | {"model__num_classes": 4},
            "--guide=guide: it has 4 classes, and the model 3",
        ),
        ({"scale": 2.0}, CLASSES, ""),
    ],
)
def test_settings_have_an_effect_with_the_kind_of_guide(stored, changes, of_guide, said):
    stored("guide", **of_guide)
    experiment = Experiment(made(guide="guide", **changes))
    if not said:
        assert runs.load_guide(experiment).step == 8
        return
    with pytest.raises(UserError) as error:
        runs.load_guide(experiment)
    assert str(error.value).startswith(said)


def test_an_option_of_the_process_that_the_guide_lacks_differs(stored, monkeypatch):
    """All that differ are named, and no option that the model lacks."""
    stored("guide")
    records = {
        "guide": {"name": "vp", "beta_min": 0.1, "extra": 1},
        "own": {"name": "vp", "beta_min": 0.2, "t_max": 1.0},
    }
    monkeypatch.setattr(
        Experiment, "record", lambda self, *sections: {"sde": records["own" if self.guide else "guide"]}, raising=False
    )
    with pytest.raises(UserError, match=r"^--guide=guide: its process differs in sde\.beta_min, sde\.t_max; both must"):
        runs.load_guide(Experiment(made(guide="guide", scale=2.0)))
