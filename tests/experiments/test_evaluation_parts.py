"""The parts of an evaluation by hand: which sets are compared, what a figure can be, and where things are drawn."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from experiments import data, factory, metrics
from experiments.evaluation import evaluate, figures, likelihood, losses
from experiments.evaluation.classes import ClassMix, class_mix
from experiments.evaluation.features import FeatureSet
from experiments.evaluation.reference import RealImages
from experiments.factory.experiment import Experiment
from experiments.media import ImageMedium
from experiments.metrics import names as metric_names
from experiments.metrics.moments import Moments
from experiments.metrics.statistics import Statistics, spread
from experiments.plotting import pictures
from sde_lib import Denoiser
from tests.experiments.tiny import fake_run, tiny_config

RNG = np.random.default_rng(0)
POINTS = {
    name: RNG.normal(size=(count, 3))
    for name, count in (("samples", 50), ("real", 40), ("train", 60), ("held_out", 45))
}
NETWORK = SimpleNamespace(name="inception", description="pixels")


def statistics(features):
    return Statistics("inception", "0", "", (8, 8, 1), "", "", Moments.of(features), None, features)


REAL = RealImages(
    statistics(POINTS["held_out"]),
    "45 held-out images",
    POINTS["real"],
    "40 training images",
    POINTS["train"],
    POINTS["held_out"],
)


def test_samples_and_other_real_images_are_compared_with_the_same_reference():
    found = evaluate._compare(FeatureSet(POINTS["samples"], None, None), REAL, NETWORK, 30)
    assert (found["features"], found["reference"], found["real"]["images"]) == (
        "pixels", "45 held-out images", "40 training images",
    )  # fmt: skip
    for name, points in (("samples", POINTS["samples"]), ("real", POINTS["real"])):
        assert found[name]["fid"] == pytest.approx(metrics.frechet_distance(points, POINTS["held_out"]), rel=1e-9)
        few, kept = points[:30], POINTS["held_out"][spread(45, 30)]
        assert found[name]["recall"] == metrics.precision_and_recall(few, kept)[1]
        assert found["counts"][name]["fid"] == len(points) and found["counts"][name]["precision"] == 30
        low, high = found["intervals"][name]["fid"]
        assert low < found[name]["fid"] < high


def test_copies_among_samples_stand_beside_those_among_held_out_images():
    found = evaluate._memorisation(POINTS["samples"], REAL, 20)
    held_out = POINTS["held_out"][spread(45, 20)]
    assert found["training_images"] == 60
    for name, points in (("samples", POINTS["samples"][:20]), ("held_out", held_out)):
        expected = metrics.memorisation(points, POINTS["train"], held_out)
        assert found[name] == {
            key: pytest.approx(getattr(expected, key).mean())
            for key in ("nearer_than_held_out", "copies", "authenticity")
        }
        assert set(found["counts"][name].values()) == {20} and found["intervals"][name].keys() == found[name].keys()


@pytest.mark.parametrize("train, told", [(0, False), (1, False), (2, True)])
def test_copies_are_looked_for_among_two_training_images_or_more(monkeypatch, train, told):
    monkeypatch.setattr(evaluate, "_compare", lambda *given: {"compared": given[3]})
    monkeypatch.setattr(evaluate, "_memorisation", lambda *given: given)
    judge = object.__new__(evaluate.Judge)
    judge._metrics = ()
    judge._real, judge._network = SimpleNamespace(train=np.zeros((train, 3))), NETWORK
    found = judge._figures(FeatureSet(POINTS["samples"], None, None), 7)
    assert found["compared"] == 7 and ("memorisation" in found) == told
    if told:
        samples, real, neighbours = found["memorisation"]
        assert samples is POINTS["samples"] and real is judge._real and neighbours == 7


@pytest.mark.parametrize(
    "steps, shown", [(4, [0, 1, 2, 3, 4]), (11, range(12)), (22, range(0, 23, 2)), (33, range(0, 34, 3))]
)
def test_the_strip_is_of_eight_samples_from_noise_to_image(steps, shown):
    """Twelve times at most, evenly spread; each row is one sample, each column a time."""
    states = np.arange(steps + 1)[:, None, None, None, None] * 5 + np.arange(8)[None, :, None, None, None] * np.ones(
        (1, 1, 2, 2, 1)
    )

    class Sampler:
        def trajectory(self, variables, number, seed):
            assert (variables, number, seed) == ("weights", 8, 0)
            return states

    run = SimpleNamespace(
        variables="weights", medium=SimpleNamespace(inverse=lambda x: np.asarray(x, np.uint8), picture=pictures.grid)
    )
    strip = evaluate._strip(run, Sampler())
    tiles = [states[t, i].astype(np.uint8) for i in range(8) for t in shown]
    np.testing.assert_array_equal(strip, pictures.grid(np.stack(tiles), len(shown)))


def test_bits_per_dimension_are_of_so_many_test_images(monkeypatch):
    judge = object.__new__(evaluate.Judge)
    judge._metrics = ()
    judge._dataset = SimpleNamespace(
        test=data.Images(np.arange(40, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8))
    )
    judge._strategy = "strategy"
    monkeypatch.setattr(likelihood, "journal_of_bits", lambda run, images: ("journal", len(images)))
    asked = []
    figure = figures.Figure(3.5, 0.5, 12)
    monkeypatch.setattr(likelihood, "bits_per_dim", lambda *given: asked.append(given) or figure)
    run = fake_run(config=tiny_config(evaluation__likelihood_images=12, evaluation__likelihood_t_min=1e-4))
    assert judge._bits_per_dim(run) == {
        "value": 3.5, "standard_error": 0.5, "interval": pytest.approx([2.52, 4.48]), "images": 12, "t_min": 1e-4,
    }  # fmt: skip
    ((told, images, strategy, journal),) = asked
    assert told is run and strategy == "strategy" and journal == ("journal", 12)
    np.testing.assert_array_equal(images.images[:, 0, 0, 0], spread(40, 12))


# ---- figures ----


def test_a_figure_is_better_by_less_or_by_more():
    """Distances are better where they are less; all else where it is more."""
    for network in ("perceptron", "inception", "inception-tf1", "inception-clean", "dinov2-vitb14"):
        keys = list(metric_names.meanings(network))
        assert keys[4:] == ["precision", "recall", "density", "coverage"]
        for key in keys:
            less = key in keys[:3]
            assert metric_names.is_better(network, key, 1.0, 2.0) == less
            assert metric_names.is_better(network, key, 2.0, 1.0) != less
            assert not metric_names.is_better(network, key, 1.0, 1.0)


def test_figures_have_their_published_names():
    titles = {
        "inception": ["FID", "sFID", "KID", "Inception Score"],
        "inception-tf1": [f"{name} (TensorFlow 1)" for name in ("FID", "sFID", "KID", "Inception Score")],
        "inception-clean": [f"{name} (clean-fid)" for name in ("FID", "sFID", "KID", "Inception Score")],
    }
    keys = ["fid", "sfid", "kid", "inception_score"]
    for network, expected in titles.items():
        found = list(metric_names.meanings(network).items())[:4]
        ending = network.removeprefix("inception").replace("-", "_")
        assert [key for key, _ in found] == [key + ending for key in keys]
        assert [title for _, (title, _) in found] == expected
    assert list(metric_names.meanings("a-b"))[:4] == ["fd_a_b", "sfd_a_b", "kd_a_b", "score_a_b"]
    assert list(metric_names.meanings("perceptron"))[:4] == [
        "frechet_distance", "spatial_frechet_distance", "kernel_distance", "classifier_score",
    ]  # fmt: skip
    assert [metric_names.distances(name).scaled for name in ("perceptron", "inception", "a")] == [True, False, False]


def test_distances_reach_down_to_zero_and_kernel_distances_below():
    """Of samples at the reference itself; a density has no upper end."""
    near = POINTS["held_out"] + 1e-3 * RNG.normal(size=(45, 3))
    found = figures.compare(FeatureSet(near, None, None), REAL.reference, NETWORK, 45)
    assert (found["fid"].least, found["fid"].most) == (0, np.inf) and found["fid"].interval[0] == 0
    assert (found["kid"].least, found["kid"].most) == (-np.inf, np.inf) and found["kid"].value < 0
    assert [(found[key].least, found[key].most) for key in ("precision", "recall", "coverage")] == [(0, 1)] * 3
    assert (found["density"].least, found["density"].most) == (0, np.inf)


def test_a_reference_without_spread_leaves_no_scale():
    with pytest.raises(metrics.UserError, match="leaves no scale"):
        figures.compare(FeatureSet(POINTS["samples"], None, None), statistics(np.ones((9, 3))), NETWORK, 9)


# ---- classes ----


def labelled(labels):
    images = np.zeros((len(labels), 8, 8, 1), np.uint8)
    return data.Images(images, np.asarray(labels, np.int32))


@pytest.mark.parametrize("against", ["held_out", "training"])
def test_images_of_none_of_the_models_classes_leave_the_classes_in_turn(against):
    """Labels beyond the model's classes do not count."""
    config = tiny_config(model__num_classes=2, evaluation__reference=against)
    kind = {"held_out": "held-out", "training": "training"}[against]
    for labels, mix in (
        ([5, 7], ClassMix(f"each class in turn, since no {kind} image is of the model's classes")),
        ([5, 1, 1, 0], ClassMix(f"in the proportions of the 4 {kind} images", (1, 2))),
        ([0, 0], ClassMix(f"in the proportions of the 2 {kind} images", (2, 0))),
    ):
        images, others = labelled(labels), labelled([0, 1, 1, 1, 1])
        train, test = (images, others) if against == "training" else (others, images)
        assert class_mix(Experiment(config), data.Dataset("d", train, train.take(np.arange(0)), test, 8)) == mix


def test_the_first_class_is_a_class_too():
    dataset = data.Dataset("d", labelled([0]), labelled([0]).take(np.arange(0)), labelled([0]), 1)
    assert class_mix(Experiment(tiny_config(model__num_classes=2, sampling__label=0)), dataset) == ClassMix(
        "class 0 alone"
    )


# ---- the loss at each noise level ----


@struct.dataclass
class Guess(Denoiser):
    """Answers with its condition, in tenths, and with nothing of x."""

    condition: Any = None

    def __call__(self, x, t):
        level = 0.0 if self.condition is None else self.condition["label"][:, None, None, None] / 10
        return jnp.zeros_like(x) + level


def test_each_image_is_denoised_with_its_own_class(monkeypatch):
    """Black images, of which the Denoiser makes its class in tenths: the error is the square of the class."""
    config = tiny_config(evaluation__noise_levels=2, model__num_classes=10)
    monkeypatch.setattr(
        "experiments.factory.model.denoiser", lambda config, variables, t_min: Guess(factory.sde(config, t_min))
    )
    labels = np.arange(9, dtype=np.int32)
    images = data.Images(np.zeros((9, 8, 8, 1), np.uint8), labels)
    run = fake_run(config=config, variables=(), medium=SimpleNamespace(forward=lambda x: np.zeros(x.shape, np.float32)))
    for row in losses.loss_per_noise_level(run, images):
        of_images = (labels / 10 / row["noise_to_signal"]) ** 2
        assert row["loss"] == pytest.approx(of_images.mean(), rel=1e-4)
        assert row["standard_error"] == pytest.approx(of_images.std() / 3, rel=1e-4)


@struct.dataclass
class Copy(Denoiser):
    """Answers with the noisy image itself: the error is the noise."""

    condition: Any = None

    def __call__(self, x, t):
        return self.sde.to_data_scale(x, t)


def test_the_noise_of_an_image_is_its_own_and_the_seeds(monkeypatch):
    """Image i has the noise of key fold_in(key(seed), i), at every level and in every batch."""
    monkeypatch.setattr(losses, "BATCH", 8)
    monkeypatch.setattr(
        "experiments.factory.model.denoiser", lambda config, variables, t_min: Copy(factory.sde(config, t_min))
    )
    images = data.Images(np.zeros((11, 8, 8, 1), np.uint8))
    for seed in (0, 5):
        run = fake_run(
            config=tiny_config(evaluation__noise_levels=3, evaluation__seed=seed),
            variables=(),
            medium=ImageMedium((8, 8, 1)),
        )
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), np.arange(11))
        noise = np.asarray(jax.vmap(lambda key: jax.random.normal(key, (8, 8, 1)))(keys), float)
        power = np.square(noise).mean((1, 2, 3))
        rows = losses.loss_per_noise_level(run, images)
        assert [row["loss"] for row in rows[:2]] == pytest.approx([power.mean()] * 2, rel=1e-3)
        assert rows[1]["standard_error"] == pytest.approx(power.std() / np.sqrt(11), rel=1e-2)
