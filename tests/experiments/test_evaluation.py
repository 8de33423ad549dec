"""Evaluation without a model: what is drawn and kept, which figures are taken, what they are called, which one is best."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import data, metrics
from experiments.__main__ import main
from experiments.devices.parallel import Pmap
from experiments.errors import RunError, UserError
from experiments.evaluation import evaluate, figures, reference
from experiments.evaluation.features import FeatureSet, OnAllDevices, draw_features, journal_of_samples, weights_hash
from experiments.evaluation.journal import Journal
from experiments.metrics import names as metric_names
from experiments.metrics.moments import Moments
from experiments.metrics.statistics import Statistics, compute_statistics, spread
from experiments.runs.workdir import Workdir
from tests.experiments.tiny import fake_run, tiny_config

pytestmark = pytest.mark.devices


class Network:
    """Pixels as features: eight of them as logits, four as spatial features."""

    preprocessing, sha256, description = "x / 255", "0" * 64, "pixels"

    def __init__(self, name="inception"):
        self.name = name

    def __call__(self, images):
        pixels = images.reshape(len(images), -1) / 255
        return {"pool": pixels, "logits": 3 * pixels[:, :8], "spatial": pixels[:, 8:12]}


class Sampler:
    """Draws images that their numbers decide, four at a time, and notes which."""

    def __init__(self, stop_after=None):
        self.drawn, self.stop_after = [], stop_after

    def blocks(self, variables, indices, seed, progress):
        for start in range(0, len(indices), 4):
            if len(self.drawn) == self.stop_after:
                raise KeyboardInterrupt
            numbers = indices[start : start + 4]
            self.drawn.append(list(numbers))
            yield numbers, np.stack([self.image(i) for i in numbers])

    @staticmethod
    def image(number):
        return np.random.default_rng(number).integers(0, 256, (4, 4, 1), np.uint8)


RUN = fake_run(tiny_config(evaluation__seed=0), variables=None)


def test_an_interrupted_evaluation_draws_no_sample_twice(tmp_path, capsys):
    """Stopped after three calls, then after five more; the result is that of an evaluation that was not."""
    whole = draw_features(RUN, Sampler(), Network(), 40, Journal(tmp_path, "whole", {}))
    journal, drawn = Journal(tmp_path, "samples", {}), []
    for calls in (3, 5):
        sampler = Sampler(stop_after=calls)
        with pytest.raises(KeyboardInterrupt):
            draw_features(RUN, sampler, Network(), 40, journal)
        drawn += sampler.drawn
    sampler = Sampler()
    found = draw_features(RUN, sampler, Network(), 40, journal)
    assert sorted(np.concatenate(drawn + sampler.drawn)) == list(range(40))
    assert "32 of 40 samples were drawn before: going on with the other 8" in capsys.readouterr().out
    np.testing.assert_array_equal(found.pool, whole.pool)
    np.testing.assert_array_equal(found.logits, whole.logits)
    for blocks in (found.spatial(), whole.spatial()):
        np.testing.assert_array_equal(np.concatenate(list(blocks)), whole.pool[:, 8:12])
    np.testing.assert_array_equal(found.pool[17] * 255, Sampler.image(17).ravel())


def test_fewer_samples_than_the_journal_has(tmp_path):
    journal = Journal(tmp_path, "samples", {})
    draw_features(RUN, Sampler(), Network(), 40, journal)
    sampler = Sampler()
    found = draw_features(RUN, sampler, Network(), 10, journal)
    assert not sampler.drawn and len(found) == sum(map(len, found.spatial())) == 10


def test_features_that_are_not_finite_are_named(tmp_path):
    class Broken(Network):
        def __call__(self, images):
            return {"pool": np.full((len(images), 2), np.inf)}

    with pytest.raises(RunError, match="features of samples 0 to 3 are not finite: inception, pool"):
        draw_features(RUN, Sampler(), Broken(), 8, Journal(tmp_path, "samples", {}))


def test_what_decides_a_sample_decides_the_journal(tmp_path):
    variables = {"a": np.zeros(3)}

    def folder(network=None, step=40, weights=variables, **changes):
        config = tiny_config(**changes)
        run = fake_run(config=config, workdir=Workdir(tmp_path), step=step, variables=weights, event_shape=(8, 8, 1))
        return journal_of_samples(run, network or Network()).folder

    same = folder()
    assert folder(sampling__batch_size=3, evaluation__num_samples=5, training__num_steps=7, optim__lr=1) == same
    other = Network()
    other.sha256 = "1" * 64
    assert len(
        {
            same,
            folder(step=32),
            folder(weights={"a": np.ones(3)}),
            folder(weights={"b": np.zeros(3)}),
            folder(network=Network("dinov2")),
            folder(network=other),
            folder(evaluation__seed=1),
            folder(sampling__steps=5),
            folder(sampling__sampler="ddim"),
            folder(sde__beta_max=19),
            folder(parameterization__sigma_data=1),
        }
    ) == 11  # fmt: skip


def test_every_key_that_decides_a_sample_decides_the_journal(tmp_path):
    """All of the process, the parameterization and of sampling but its batch; and no two changes are alike."""

    def folder(config):
        run = fake_run(config=config, workdir=Workdir(tmp_path), step=40, variables={}, event_shape=(8, 8, 1))
        return journal_of_samples(run, Network()).folder

    def changed(section, key):
        config = tiny_config()
        with config.unlocked(), config.ignore_type():
            config[section][key] = "changed"
        return folder(config)

    config = tiny_config()
    keys = [(s, k) for s in ("sde", "parameterization", "sampling") for k in config[s] if k != "batch_size"]
    assert len({folder(config), *(changed(*key) for key in keys)}) == len(keys) + 1
    assert ("sampling", "label") in keys and changed("sampling", "batch_size") == folder(config)


def test_weights_differ_by_name_shape_and_value():
    trees = [{"a": np.zeros((2, 3))}, {"a": np.zeros((3, 2))}, {"b": np.zeros((2, 3))}, {"a": np.eye(2, 3)}]
    assert len({weights_hash(tree) for tree in trees}) == 4
    assert weights_hash({"a": np.zeros((2, 3))}) == weights_hash(trees[0])


class DeviceNetwork(Network):
    """Takes two images at a time on each device."""

    batch_size, variables = 2, {"scale": np.float32(2)}
    sizes = ()

    def apply(self, variables, images):
        self.sizes += (len(images),)
        pixels = images.reshape(len(images), -1).astype(np.float32)
        return {"pool": variables["scale"] * pixels, "logits": pixels[:, :1]}


@pytest.mark.parametrize("count, size", [(1, 1), (16, 2), (35, 2)])
def test_features_on_all_devices_are_those_of_the_images(count, size):
    images, network = np.stack([Sampler.image(i) for i in range(count)]), DeviceNetwork()
    found = OnAllDevices(network, Pmap())(images)
    assert set(network.sizes) == {size}
    np.testing.assert_array_equal(found["pool"], 2.0 * images.reshape(count, -1))
    np.testing.assert_array_equal(found["logits"], images.reshape(count, -1)[:, :1])


def statistics(count, seed, network=None, keep=1000):
    images = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 1), np.uint8)
    return compute_statistics([images], network or Network(), keep)


def feature_set(count, seed):
    images = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 1), np.uint8) // 2
    features = Network()(images)
    return FeatureSet(features["pool"], features["logits"], lambda: iter(np.array_split(features["spatial"], 3)))


def test_figures_are_the_metrics():
    """Of Inception's features as they come, each with the number of samples that it is of."""
    samples, real = feature_set(60, 1), statistics(50, 2)
    found = figures.compare(samples, real, Network(), neighbours=40)
    few, kept = samples.pool[:40], real.features[spread(50, 40)]
    precision, recall = metrics.precision_and_recall(few, kept)
    density, coverage = metrics.density_and_coverage(few, kept)
    assert figures.values(found) == pytest.approx(
        {
            "fid": metrics.frechet_distance(samples.pool, real.features),
            "sfid": metrics.frechet_distance_and_error(np.concatenate(list(samples.spatial())), real.spatial)[0],
            "kid": metrics.kernel_distance(few, kept),
            "inception_score": metrics.inception_score(samples.logits)[0],
            "precision": precision,
            "recall": recall,
            "density": density,
            "coverage": coverage,
        },
        rel=1e-9,
    )
    assert figures.counts(found) == {
        "fid": 60, "sfid": 60, "kid": 40, "inception_score": 60,
        "precision": 40, "recall": 40, "density": 40, "coverage": 40,
    }  # fmt: skip
    assert list(found) == [key for key in metric_names.meanings("inception") if key in found]
    spatial = np.concatenate(list(samples.spatial()))
    error = metrics.frechet_distance_and_error(spatial, real.spatial)[1]
    assert found["sfid"].standard_error == pytest.approx(error)
    for key, (low, high) in figures.intervals(found).items():
        assert low <= found[key].value <= high
    assert figures.intervals(found)["fid"] == pytest.approx(
        found["fid"].value + 1.96 * found["fid"].standard_error * np.array([-1, 1])
    )


def test_the_error_of_a_distance_has_the_scale_of_the_distance():
    rng = np.random.default_rng(0)
    features, reference = rng.normal(size=(40, 3)), metrics.Moments.of(rng.normal(size=(50, 3)))
    distance, error = metrics.frechet_distance_and_error(features, reference)
    found = figures._frechet(features, reference, 7.0)
    assert (found.value, found.standard_error) == (7 * distance, 7 * error) and found.count == 40


def test_perceptrons_distances_are_scaled():
    samples, real = feature_set(60, 1), statistics(50, 2, Network("perceptron"))
    found = figures.values(figures.compare(samples, real, Network("perceptron"), 1000))
    expected = metrics.compare(samples.pool, real.features)
    assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-9)
    ten = dataclasses.replace(samples, pool=10 * samples.pool), statistics(50, 2, Tenfold("perceptron"))
    assert figures.values(figures.compare(*ten, Network("perceptron"), 1000))["frechet_distance"] == pytest.approx(
        found["frechet_distance"]
    )


class Tenfold(Network):
    def __call__(self, images):
        return {"pool": 10 * super().__call__(images)["pool"]}


def test_statistics_without_features_leave_out_what_needs_them():
    found = figures.compare(feature_set(60, 1), statistics(50, 2, keep=0), Network(), 1000)
    assert list(found) == ["fid", "sfid", "inception_score"]


@pytest.mark.parametrize(
    "network, key",
    [
        ("inception", "fid"),
        ("inception-tf1", "fid_tf1"),
        ("inception-clean", "fid_clean"),
        ("dinov2-vitl14", "fd_dinov2_vitl14"),
        ("efficientnet-lite0", "fd_efficientnet_lite0"),
        ("perceptron", "frechet_distance"),
    ],
)
def test_only_inceptions_distance_is_a_fid(network, key):
    main_key = next(iter(metric_names.meanings(network)))
    assert main_key == key
    title = metric_names.meanings(network)[key][0]
    assert ("FID" in title) == network.startswith("inception")


def test_an_interval_stays_where_the_figure_can_be():
    figure = figures.Figure.of_mean(np.array([True] * 9 + [False]))
    assert figure.value == 0.9 and figure.standard_error == pytest.approx(np.sqrt(0.09 / 10))
    assert figure.interval == [pytest.approx(0.9 - 1.96 * np.sqrt(0.009)), 1.0]
    assert figures.Figure(0.1, 1.0, 5, 0.0).interval == [0.0, pytest.approx(2.06)]


def test_an_inception_score_is_between_1_and_the_number_of_classes():
    """Of logits that say nothing, and of ones that are sure: both ends are the figure's own."""
    rng = np.random.default_rng(0)
    pool = rng.normal(size=(40, 6))
    reference = Statistics(
        "inception", "0" * 64, "", (8, 8, 3), "", "", Moments.of(pool), None, rng.normal(size=(40, 6))
    )
    for logits, score in ((np.zeros((40, 5)), 1.0), (1e3 * np.eye(5)[np.arange(40) % 5], 5.0)):
        found = figures.compare(FeatureSet(pool, logits, None), reference, Network(), 40)["inception_score"]
        assert found.value == pytest.approx(score) and found.interval == [pytest.approx(score)] * 2
        assert (found.least, found.most, found.count) == (1.0, 5, 40)


def test_the_error_of_one_value_is_unknown():
    figure = figures.Figure.of_mean(np.array([0.25]))
    assert (figure.value, figure.standard_error, figure.interval) == (0.25, None, None)
    assert figures.standard_error_of_mean(np.array([1.0, 3.0])) == pytest.approx(1 / np.sqrt(2))


def dataset():
    rng = np.random.default_rng(0)
    train, test = (data.Images(rng.integers(0, 256, (n, 4, 4, 1), np.uint8)) for n in (30, 20))
    return data.Dataset("random", train, train.take(np.arange(0)), test, 0)


def run_in(folder, **changes):
    return fake_run(config=tiny_config(**changes), workdir=Workdir(folder))


def test_the_reference_is_the_held_out_images_and_the_floor_others(tmp_path):
    images, some = dataset(), spread(20, 15)
    real = reference.real_images(run_in(tmp_path, evaluation__num_samples=15), images, Network())
    np.testing.assert_array_equal(real.reference.features, Network()(images.test.images[some])["pool"])
    np.testing.assert_array_equal(real.real, Network()(images.train.images[spread(30, 15)])["pool"])
    np.testing.assert_array_equal(real.train, Network()(images.train.images)["pool"])
    assert (real.reference_name, real.real_name) == ("15 held-out images", "15 training images")


def test_the_reference_can_be_all_training_images(tmp_path):
    images, some = dataset(), spread(20, 15)
    changes = {"evaluation__num_samples": 15, "evaluation__reference": "training", "evaluation__training_images": 4}
    real = reference.real_images(run_in(tmp_path, **changes), images, Network())
    assert (real.reference_name, real.real_name) == ("30 training images", "15 held-out images")
    np.testing.assert_allclose(real.reference.pool.mean, Network()(images.train.images)["pool"].mean(0))
    np.testing.assert_array_equal(real.real, Network()(images.test.images[some])["pool"])
    assert len(real.train) == 4


def test_statistics_are_computed_once_and_again_for_other_images(tmp_path):
    class Once(Network):
        calls = 0

        def __call__(self, images):
            type(self).calls += 1
            return super().__call__(images)

    images, run = dataset(), run_in(tmp_path)
    first = reference.real_images(run, images, Once())
    assert Once.calls == 2
    again = reference.real_images(run, images, Once())
    assert Once.calls == 2
    np.testing.assert_array_equal(first.reference.features, again.reference.features)
    images.test.images[0, 0, 0, 0] ^= 1
    reference.real_images(run, images, Once())
    assert Once.calls == 3
    for path in tmp_path.rglob("held_out*.npz"):
        path.write_bytes(b"damaged")
    reference.real_images(run, images, Once())
    assert Once.calls == 4


def test_a_shared_file_is_the_reference_if_it_is_of_the_same_images(tmp_path):
    images, path = dataset(), tmp_path / "shared.npz"
    compute_statistics([images.train.images[10:], images.train.images[:10]], Network(), keep=5).save(path)
    changes = {"evaluation__statistics": path, "evaluation__reference": "training"}
    real = reference.real_images(run_in(tmp_path, **changes), images, Network())
    assert real.reference.count == 30 and len(real.reference.features) == 5
    with pytest.raises(UserError, match=f"evaluation.statistics={path}: it is of other images"):
        reference.real_images(run_in(tmp_path, evaluation__statistics=path), images, Network())
    with pytest.raises(UserError, match=r"shared\.npz: its feature network is 'inception', not 'dinov2'"):
        reference.real_images(run_in(tmp_path, **changes), images, Network("dinov2"))


@pytest.fixture
def swept(tiny_run, tmp_path, monkeypatch):
    """The tiny run, whose two checkpoints get figures without a model; `measured` notes which were looked at."""
    workdir = tmp_path / "run"
    shutil.copytree(tiny_run, workdir)
    measured = []

    def measure(self, run):
        measured.append(run.step)
        whole = json.loads((tiny_run / "metrics.json").read_text())
        whole["samples"] |= {
            "frechet_distance": {32: 1.5, 40: 2.5}[run.step],
            "precision": {32: 0.5, 40: 0.75}[run.step],
        }
        return whole | {"step": run.step}

    monkeypatch.setattr(evaluate.Judge, "measure", measure)
    monkeypatch.setattr(evaluate, "_strip", lambda run, sampler: np.zeros((9, 9, 1), np.uint8))
    return SimpleNamespace(
        workdir=workdir, measured=measured, arguments=["evaluate", f"--workdir={workdir}", "--sweep-checkpoints"]
    )


@pytest.mark.parametrize("metric, best, value", [(None, 32, "1.500"), ("precision", 40, "0.750")])
def test_the_best_checkpoint_is_found(swept, capsys, metric, best, value):
    assert main(swept.arguments + ([f"--metric={metric}"] if metric else [])) == 0
    metric = metric or "frechet_distance"
    assert (
        f"Best of 2 checkpoints by {metric}: step {best} with {value} (step {72 - best} has" in capsys.readouterr().out
    )
    written = json.loads((swept.workdir / "metrics.json").read_text())
    assert (written["step"], written["chosen_by"]) == (best, metric)
    assert [row["step"] for row in written["checkpoints"]] == [32, 40] == swept.measured
    page = (swept.workdir / "report.html").read_text()
    assert f"The figures are those of step {best}, the best of these by {metric}." in page
    assert not list((swept.workdir / "evaluation").glob("measured_*"))


def test_an_interrupted_sweep_measures_no_checkpoint_twice(swept, monkeypatch):
    measure = evaluate.Judge.measure

    def interrupted(self, run):
        if run.step == 40:
            raise KeyboardInterrupt
        return measure(self, run)

    with monkeypatch.context() as patch:
        patch.setattr(evaluate.Judge, "measure", interrupted)
        assert main(swept.arguments) == 130
    assert main(swept.arguments) == 0
    assert swept.measured == [32, 40]


def test_metrics_that_there_are_not(swept, fails):
    assert "--metric='fid' is unknown: choose from " in fails(*swept.arguments, "--metric=fid")
    assert "frechet_distance" in fails(*swept.arguments, "--metric=frechet_distnce").split("did you mean")[1]
    assert "needs --sweep-checkpoints" in fails("evaluate", f"--workdir={swept.workdir}", "--metric=recall")
    assert not swept.measured
