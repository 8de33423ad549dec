"""An evaluation as a whole, of parts that say what they are given: what is measured, kept, published and removed."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import data
from experiments.errors import RunError, UserError
from experiments.evaluation import evaluate
from experiments.evaluation.classes import ClassMix
from experiments.evaluation.figures import Figure
from experiments.factory.experiment import Experiment
from experiments.files import strict_json
from experiments.generation.sampler import Sampler
from experiments.media import ArrayMedium, ImageMedium
from experiments.metrics.statistics import spread
from experiments.reports import report
from experiments.runs.workdir import Workdir
from tests.experiments.tiny import fake_run, tiny_config

pytestmark = pytest.mark.devices


def images(count, first=0):
    levels = (first + np.arange(count)).astype(np.uint8)
    return data.Images(levels[:, None, None, None] * np.ones((1, 8, 8, 1), np.uint8), np.zeros(count, np.int32))


def dataset():
    return data.Dataset("levels", images(100), images(0), images(50, 100), 1)


@pytest.fixture
def judge(monkeypatch, tmp_path):
    """(changes of the config) -> the judge of a run, and the run; what it removes is noted in `removed`."""
    removed = []

    class Journal:
        def __init__(self, *name):
            self.name = name

        def remove(self):
            removed.append(self.name)

    monkeypatch.setattr(evaluate, "OnAllDevices", lambda network, strategy: SimpleNamespace(name="n", sha256="0"))
    monkeypatch.setattr("experiments.factory.evaluation.feature_network", lambda config, train: None)
    real = SimpleNamespace(reference=SimpleNamespace(images="hash"), train=())
    monkeypatch.setattr(evaluate, "real_images", lambda run, dataset, network: real)
    monkeypatch.setattr(evaluate, "class_mix", lambda experiment, dataset, guide=None: mixes[0])
    monkeypatch.setattr(
        evaluate, "journal_of_samples", lambda run, network, mix, guide: Journal("samples", run.step, mix)
    )
    monkeypatch.setattr(evaluate, "draw_features", lambda *given: given)
    monkeypatch.setattr(evaluate, "loss_per_noise_level", lambda run, some: [len(some), int(some.images.max())])
    monkeypatch.setattr(evaluate.likelihood, "journal_of_bits", lambda run, some: Journal("bits", len(some)))
    monkeypatch.setattr(evaluate.likelihood, "bits_per_dim", lambda *given: Figure(2.0, None, len(given[1])))
    made = []
    monkeypatch.setattr(
        evaluate, "Sampler", lambda *given: made.append(given) or SimpleNamespace(nfe=9, trajectory=None)
    )
    mixes = [None]

    def make(mix=None, step=40, variables=None, **changes):
        mixes[0] = mix
        run = fake_run(
            config=tiny_config(**changes), step=step, average="warmup", workdir=Workdir(tmp_path),
            variables={"w": np.ones(2)} if variables is None else variables,
        )  # fmt: skip
        return evaluate.Judge(run, dataset(), "strategy"), run

    make.removed, make.samplers, make.real = removed, made, real
    return make


SEEDS = {"evaluation__seed": 11, "training__seed": 22, "evaluation__num_samples": 6, "evaluation__neighbours": 5}


def test_what_is_measured_is_told_with_how_it_was(judge, monkeypatch):
    """The losses are of as many held-out and training images as there are samples."""
    monkeypatch.setattr(
        evaluate.Judge, "_figures", lambda self, samples, neighbours: {"of": samples[3], "among": neighbours}
    )
    made, run = judge(**SEEDS)
    assert made.measure(run) == {
        "step": 40,
        "sampling": {
            "sde": "vp", "average": "warmup", "sampler": "heun", "steps": 4, "evaluations": 9, "num_samples": 6, "seed": 11,
        },
        "feature_network": "n", "of": 6, "among": 5,
        "held_out_loss": [6, 100 + int(spread(50, 6)[-1])],
        "training_loss": [6, int(spread(100, 6)[-1])],
    }  # fmt: skip
    made, run = judge(ClassMix("in proportions", (1, 2)), evaluation__likelihood_images=7, **SEEDS)
    measured = made.measure(run)
    assert measured["sampling"]["classes"] == "in proportions"
    assert measured["bits_per_dim"]["images"] == 7 and measured["bits_per_dim"]["value"] == 2


@pytest.mark.parametrize("number, dealt", [(4, 8), (8, 8), (30, 30)])
def test_the_picture_of_noise_has_classes_too(judge, number, dealt):
    """Its eight samples are more than the fewest that are measured."""
    judge(ClassMix("in proportions", (1, 2)), evaluation__num_samples=number)
    _, strategy, most, labels, guide = judge.samplers[-1]
    assert strategy == "strategy" and most == number and len(labels) == dealt and guide is None
    assert Sampler.labels(SimpleNamespace(_labels=labels), np.arange(8)).shape == (8,)
    judge(ClassMix("class 1 alone"), evaluation__num_samples=number)
    judge(None, evaluation__num_samples=number)
    assert [given[3] for given in judge.samplers[-2:]] == [None, None]


def test_what_is_kept_of_a_checkpoint_is_of_all_that_decides_it(judge):
    """Config, step, weights, images and classes of the reference, and weights of the features and of the guide."""
    made, run = judge(**SEEDS)
    same = made._identity(run)
    assert judge(**SEEDS)[0]._identity(run) == same
    others = [
        judge(**SEEDS | {"evaluation__neighbours": 6}), judge(**SEEDS, step=39), judge(ClassMix("p", (1, 2)), **SEEDS),
        judge(ClassMix("p", (2, 1)), **SEEDS), judge(**SEEDS, variables={"w": np.zeros(2)}),
    ]  # fmt: skip
    found = [judge._identity(run) for judge, run in others]
    made._network.sha256 = "1"
    found.append(made._identity(run))
    made._network.sha256 = "0"
    judge.real.reference.images = "other"
    found.append(made._identity(run))
    for weights in (np.ones(2), np.zeros(2)):
        made._guide = SimpleNamespace(variables={"w": weights})
        found.append(made._identity(run))
    assert len({same, *found}) == len(found) + 1


def test_a_checkpoint_is_measured_once_until_it_is_forgotten(judge, monkeypatch):
    measured = itertools.count(1)
    monkeypatch.setattr(evaluate.Judge, "measure", lambda self, run: {"step": run.step, "count": next(measured)})
    made, run = judge(evaluation__likelihood_images=3)
    assert made.measure_once(run) == {"step": 40, "count": 1}
    assert judge.removed == [("samples", 40, None), ("bits", 3)]
    assert (
        made.measure_once(run)
        == {"step": 40, "count": 1}
        == judge(evaluation__likelihood_images=3)[0].measure_once(run)
    )
    assert len(judge.removed) == 2
    made.forget()
    assert list(run.workdir.evaluation.iterdir()) == []
    assert made.measure_once(run)["count"] == 2
    judge.removed.clear()
    other, run = judge()
    other.clean_up(run)
    assert judge.removed == [("samples", 40, None)]


class Events(list):
    """Events in order."""

    def publish(self, workdir, measured):
        """Publishes, and notes what is published of which folder."""
        self.append(("published", workdir.path, dict(measured)))
        report.publish(workdir, measured)


@pytest.fixture
def published(monkeypatch):
    """What is written, published and removed, in order; `published.publish` is the callback."""
    events = Events()
    monkeypatch.setattr(
        evaluate, "_write", lambda run, sampler, measured: events.append(("written", run.step, dict(measured)))
    )
    monkeypatch.setattr(report, "write", lambda workdir: None)
    monkeypatch.setattr(report, "summary", lambda measured: f"the summary of step {measured['step']}")
    monkeypatch.setattr(evaluate.Judge, "clean_up", lambda self, run: events.append(("removed", run.step)))
    monkeypatch.setattr(evaluate.Judge, "forget", lambda self: events.append(("forgotten",)))
    return events


def test_features_are_removed_when_the_figures_are_written(judge, published, monkeypatch):
    monkeypatch.setattr(evaluate.Judge, "measure", lambda self, run: {"step": run.step})
    _, run = judge()
    assert evaluate.evaluate_run(run, dataset(), "strategy", published.publish) == {"step": 40}
    folder = run.workdir.path
    assert published == [("written", 40, {"step": 40}), ("published", folder, {"step": 40}), ("removed", 40)]


@pytest.mark.parametrize(
    "metric, scores, best",
    [
        (None, {8: 3.0, 16: 1.0, 24: 2.0}, 16),
        ("frechet_distance", {8: 1.0, 16: 1.0}, 8),
        ("recall", {8: 0.25, 16: 0.5, 24: 0.5}, 16),
        ("recall", {8: 0.5}, 8),
    ],
)
def test_the_best_checkpoint_of_a_sweep_is_published(judge, published, monkeypatch, capsys, metric, scores, best):
    """The first of equals; each checkpoint with its own step."""
    key = metric or "frechet_distance"
    _, run = judge()

    class Kept:
        def __init__(self, folder, keep):
            assert (folder, keep) == (run.workdir.checkpoints, run.config.training.keep_checkpoints)

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            pass

        def all_steps(self):
            return list(scores)

    def load_run(path, config, *, step):
        assert path == run.workdir.path and config is run.config
        return SimpleNamespace(**vars(run) | {"step": step})

    monkeypatch.setattr(evaluate, "Checkpoints", Kept)
    monkeypatch.setattr(evaluate.runs, "load_run", load_run)
    monkeypatch.setattr(
        evaluate.Judge, "measure_once", lambda self, run: {"step": run.step, "samples": {key: scores[run.step]}}
    )
    measured = evaluate.sweep_checkpoints(run, dataset(), "strategy", published.publish, metric)
    rows = [{"step": step, key: score} for step, score in scores.items()]
    assert measured == {"step": best, "samples": {key: scores[best]}, "chosen_by": key, "checkpoints": rows}
    folder = run.workdir.path
    assert published == [("written", best, measured), ("published", folder, measured), ("forgotten",)]
    others = ", ".join(f"step {step} has {score:.3f}" for step, score in scores.items() if step != best)
    assert capsys.readouterr().out.splitlines() == [
        *(f"Checkpoint of step {step}:" for step in scores),
        f"the summary of step {best}",
        f"Samples over training: {run.workdir.samples}",
        f"Report: {run.workdir.report}",
        f"Best of {len(scores)} checkpoints by {key}: step {best} with {scores[best]:.3f}"
        + (f" ({others})" if others else ""),
    ]
    with pytest.raises(UserError, match="--metric='kernel_distance' is unknown: choose from " + key):
        evaluate.sweep_checkpoints(run, dataset(), "strategy", published.publish, "kernel_distance")


def test_figures_the_picture_and_the_page_are_written_and_told(monkeypatch, tmp_path, capsys):
    """The page is made of the figures, so that it is written last."""
    events = []
    monkeypatch.setattr(evaluate, "_strip", lambda run, sampler: "strip")
    monkeypatch.setattr(strict_json, "write", lambda path, measured: events.append((path.name, measured)))
    monkeypatch.setattr("experiments.media.base.pictures.save", lambda path, *more: events.append((path.name, *more)))
    monkeypatch.setattr(report, "write", lambda workdir: events.append(("report",)))
    monkeypatch.setattr(report, "summary", lambda measured: f"the summary of {measured}")
    workdir = Workdir(tmp_path)
    evaluate._write(SimpleNamespace(workdir=workdir, medium=ImageMedium((8, 8, 1))), None, "measured")
    report.publish(workdir, "measured")
    assert events == [("metrics.json", "measured"), ("from_noise.png", "strip", 8), ("report",)]
    assert capsys.readouterr().out == (
        f"the summary of measured\nSamples over training: {workdir.samples}\nReport: {workdir.report}\n"
    )


@pytest.mark.parametrize("bad, told", [([1], "sample 9 is not finite (of 3 from number 5 on, 1 are not)"),
                                       ([2, 0], "sample 5 is not finite (of 3 from number 5 on, 2 are not)")])  # fmt: skip
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_pixel_that_is_not_finite_is_enough(bad, told, value):
    """The first such sample is named by its number."""
    drawn = np.zeros((3, 2, 2, 1), np.float32)
    drawn[bad, 1, 0, 0] = value
    sampler = object.__new__(Sampler)
    sampler._experiment = Experiment(tiny_config())
    with pytest.raises(RunError) as error:
        sampler._require_finite(drawn, np.array([5, 9, 12]))
    assert str(error.value).startswith(f"{told}: the sampling method heun with 4 steps is unstable here")
    sampler._require_finite(np.zeros((3, 2, 2, 1)), np.array([5, 9, 12]))


@pytest.mark.parametrize("number", [6, 50, 80])
def test_an_objective_without_samples_is_measured_on_held_out_examples(tmp_path, number):
    """On as many as there are samples otherwise, evenly spread; its figures are written before they are published."""
    given, events = [], Events()

    def measure(variables, pixels, labels):
        given.append((variables, pixels[:, 0, 0, 0].tolist(), labels.tolist()))
        return {"figures": {"accuracy": np.nan}, "levels": []}

    objective = SimpleNamespace(evaluate=measure)
    experiment = SimpleNamespace(
        draws_samples=False, evaluation=SimpleNamespace(num_samples=number), objective=objective, objective_name="own",
    )  # fmt: skip
    workdir = Workdir(tmp_path)
    run = SimpleNamespace(experiment=experiment, variables="w", step=40, average="ema", workdir=workdir)

    def publish(folder, measured):
        stored = strict_json.read(folder.metrics, strict_json.RESULTS)
        assert stored.keys() == measured.keys() and np.isnan(stored["figures"]["accuracy"])
        events.append((folder, measured))

    found = evaluate.evaluate_run(run, dataset(), None, publish)
    assert events == [(workdir, found)] and list(found) == ["step", "average", "objective", "figures", "levels"]
    assert (found["step"], found["average"], found["objective"]) == (40, "ema", "own")
    places = spread(50, number)
    assert given == [("w", (100 + places).tolist(), [0] * len(places))] and len(places) == min(number, 50)


def test_data_without_pictures_have_no_picture_of_noise(tmp_path):
    workdir = Workdir(tmp_path)
    evaluate._write(SimpleNamespace(workdir=workdir, medium=ArrayMedium((3,))), None, {"step": 40})
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]
