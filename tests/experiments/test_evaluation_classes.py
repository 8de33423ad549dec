"""Samples of class-conditional runs are measured in the class proportions of the images that they are compared with."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from experiments import data, metrics
from experiments.devices.parallel import Pmap
from experiments.evaluation.classes import ClassMix, class_mix, deal
from experiments.evaluation.evaluate import Judge
from experiments.evaluation.features import journal_of_samples
from experiments.factory.experiment import Experiment
from experiments.generation.sampler import Sampler
from experiments.reports import report
from experiments.runs.workdir import Workdir
from tests.experiments.tiny import fake_run, tiny_config

pytestmark = pytest.mark.devices


def conditional(**changes):
    return tiny_config(model__num_classes=10, **changes)


def unbalanced():
    """Digits of scikit-learn with 1, 2, ... 10 shares of the classes 0 to 9, half of them held out."""
    found = load_digits()
    images = (found.images * 15.9375).astype(np.uint8)[..., None]
    keep = np.concatenate([np.flatnonzero(found.target == c)[: 17 * (c + 1)] for c in range(10)])
    whole = data.Images(images[keep], found.target[keep].astype(np.int32))
    halves = np.random.default_rng(0).permutation(len(keep)) % 2
    train, test = (whole.take(np.flatnonzero(halves == half)) for half in (0, 1))
    return data.Dataset("digits", train, train.take(np.arange(0)), test, 10)


def test_shares_are_right_at_every_number_and_more_samples_begin_alike():
    counts = [700, 1, 250, 0, 49]
    classes = deal(counts, 2000)
    dealt = np.cumsum(np.eye(5)[classes], 0)
    wanted = np.outer(np.arange(1, 2001), counts) / 1000
    assert np.abs(dealt - wanted).max() < 1.0
    np.testing.assert_array_equal(dealt[[999, 1999]], [counts, 2 * np.array(counts)])
    np.testing.assert_array_equal(deal(counts, 30), classes[:30])
    assert classes.dtype == np.int32


def test_balanced_classes_come_in_turn():
    np.testing.assert_array_equal(deal([7] * 10, 35), np.arange(35) % 10)


@pytest.mark.parametrize("against, images", [("held_out", "test"), ("training", "train")])
def test_the_proportions_are_the_references(against, images):
    dataset = unbalanced()
    mix = class_mix(Experiment(conditional(evaluation__reference=against)), dataset)
    source = getattr(dataset, images)
    assert mix.counts == tuple(np.bincount(source.labels, minlength=10))
    kind = {"test": "held-out", "train": "training"}[images]
    assert mix.description == f"in the proportions of the {len(source):,} {kind} images"
    np.testing.assert_array_equal(np.sort(mix.labels(len(source))), np.sort(source.labels))


def test_other_rules_are_named():
    dataset = unbalanced()
    assert class_mix(Experiment(tiny_config()), dataset) is None
    chosen = class_mix(Experiment(conditional(sampling__label=3)), dataset)
    assert chosen == ClassMix("class 3 alone") and chosen.labels(5) is None
    named = dataclasses.replace(dataset, class_names=tuple("abcdefghij"))
    assert class_mix(Experiment(conditional(sampling__label=3)), named).description == "class 3 'd' alone"
    bare = dataclasses.replace(dataset, test=data.Images(dataset.test.images))
    assert class_mix(Experiment(conditional()), bare) == ClassMix(
        "each class in turn, since the held-out images have no classes"
    )


def test_real_images_drawn_as_samples_score_at_the_floor():
    """A perfect model of every class: training images of the class that is asked for. Only the mix can go wrong."""
    dataset = unbalanced()
    mix, reference = (
        class_mix(Experiment(conditional()), dataset),
        dataset.test.images.reshape(len(dataset.test), -1) / 255,
    )
    train = dataset.train.images.reshape(len(dataset.train), -1) / 255
    by_class = [train[dataset.train.labels == c] for c in range(10)]

    def distance(labels):
        rng = np.random.default_rng(1)
        samples = np.stack([by_class[c][rng.integers(len(by_class[c]))] for c in labels])
        return metrics.frechet_distance(samples, reference)

    floor = metrics.frechet_distance(train, reference)
    of_mix, in_turn = distance(mix.labels(2000)), distance(np.arange(2000) % 10)
    assert of_mix < 1.3 * floor
    assert in_turn > 1.8 * of_mix


class Label:
    """A network of the label: the Denoiser's mean is the class, in units of 1/10."""

    def apply(self, variables, x, noise_level, condition, **mode):
        return jnp.broadcast_to(condition["label"][:, None, None, None] / 10, x.shape)


@pytest.fixture
def drawn_class(monkeypatch):
    """Draws samples and reads the class that each one was conditioned on."""
    monkeypatch.setattr("experiments.factory.model.network", lambda config: NETWORK)
    medium = SimpleNamespace(inverse=lambda x: x, event_shape=(2, 2, 1))
    monkeypatch.setattr("experiments.factory.media.medium", lambda config: medium)

    def draw(sampler, number):
        return np.round(10 * sampler(WEIGHTS, number, 0)[:, 0, 0, 0]).astype(int)

    return draw


NETWORK, WEIGHTS = Label(), {"weight": np.float32(0)}


def test_the_sampler_conditions_sample_i_on_label_i(drawn_class):
    config = conditional(parameterization__name="data", sampling__sampler="ddim", sampling__steps=2)
    labels = deal([5, 0, 1, 9, 0, 0, 0, 0, 0, 2], 40)
    strategy = Pmap(jax.devices()[:2])
    np.testing.assert_array_equal(drawn_class(Sampler(Experiment(config), strategy, 40, labels), 40), labels)
    np.testing.assert_array_equal(drawn_class(Sampler(Experiment(config), strategy, 8), 25), np.arange(25) % 10)
    resumed = Sampler(Experiment(config), strategy, 8, labels)
    missing = np.array([3, 17, 31])
    ((numbers, images),) = list(resumed.blocks(WEIGHTS, missing, 0))
    np.testing.assert_array_equal(np.round(10 * images[:, 0, 0, 0]), labels[numbers])
    config.sampling.label = 4
    np.testing.assert_array_equal(Sampler(Experiment(config), strategy, 8).labels(np.arange(3)), [4, 4, 4])


def test_evaluation_deals_the_classes_and_says_so(monkeypatch, tmp_path):
    """Up to the sampler, which is not run."""
    made = []
    monkeypatch.setattr(
        "experiments.evaluation.evaluate.Sampler", lambda *arguments: made.append(arguments) or SimpleNamespace(nfe=7)
    )
    monkeypatch.setattr("experiments.evaluation.evaluate.real_images", lambda *arguments: None)
    monkeypatch.setattr("experiments.evaluation.evaluate.OnAllDevices", lambda *arguments: SimpleNamespace(name="n"))
    monkeypatch.setattr("experiments.factory.evaluation.feature_network", lambda *arguments: None)
    monkeypatch.setattr(
        "experiments.evaluation.evaluate.journal_of_samples", lambda run, network, classes, guide: classes
    )
    monkeypatch.setattr(
        "experiments.evaluation.evaluate.draw_features", lambda run, sampler, network, limit, journal: journal
    )
    monkeypatch.setattr("experiments.evaluation.evaluate.loss_per_noise_level", lambda *arguments: [])
    monkeypatch.setattr(Judge, "_figures", lambda self, samples, neighbours: {"mix": samples})
    dataset, config = unbalanced(), conditional(evaluation__num_samples=64)
    run = fake_run(config=config, step=1, average="a", workdir=Workdir(tmp_path))
    measured = Judge(run, dataset, Pmap()).measure(run)
    mix = class_mix(Experiment(config), dataset)
    np.testing.assert_array_equal(made[0][3], deal(mix.counts, 64))
    assert measured["mix"] == mix
    assert measured["sampling"]["classes"] == mix.description


def test_other_proportions_are_another_journal(tmp_path):
    network = SimpleNamespace(name="n", preprocessing="p", sha256="0")
    run = fake_run(
        config=conditional(), workdir=Workdir(tmp_path), step=1, variables={"a": np.zeros(1)}, event_shape=(8, 8, 1)
    )
    folders = {
        journal_of_samples(run, network, mix).folder
        for mix in (None, ClassMix("alone"), ClassMix("a", (1, 2)), ClassMix("a", (2, 1)))
    }
    assert len(folders) == 3  # without counts, the config decides


MEASURED = {
    "samples": {"frechet_distance": 1234567.891, "kernel_distance": 0.5},
    "real": {"images": "898 training images", "frechet_distance": 0.45, "kernel_distance": -0.001},
    "intervals": {"samples": {"frechet_distance": [1234000.123, 1235000.456], "kernel_distance": None}},
    "counts": {"samples": {"frechet_distance": 64, "kernel_distance": 64}},
    "reference": "898 held-out images",
    "sampling": {"classes": "in the proportions of the 898 held-out images", "num_samples": 64},
    "features": "perceptron",
    "bits_per_dim": {"value": 3.25, "standard_error": None, "interval": None, "images": 1, "t_min": 1e-5},
}


def test_the_printed_table_keeps_its_columns_apart_and_names_the_classes():
    lines = report.summary(MEASURED).splitlines()
    assert lines[0].split() == ["samples", "95", "%", "real", "(against", "898", "held-out", "images)"]
    assert lines[1].split() == ["Frechet", "distance", "1234567.891", "1234000.123", "to", "1235000.456", "0.450"]
    assert lines[2].split() == ["kernel", "distance", "0.500", "-0.001"]
    assert "1234567.891  1234000.123 to 1235000.456  " in lines[1]
    assert lines[0].index("real") + len("real") == len(lines[1]) == len(lines[2])
    assert lines[3] == "classes of the samples: in the proportions of the 898 held-out images"


def test_a_standard_error_of_one_image_is_unknown():
    assert report.summary(MEASURED).splitlines()[4] == "bits per dimension: 3.250 +- unknown (1 image)"
    assert "(standard error unknown; t_min 1e-05)" in report._bits_per_dim(MEASURED)
    assert "Classes of the samples: in the proportions of the 898 held-out images." in report._figures(MEASURED)
