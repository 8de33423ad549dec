"""Judging a run: distances between samples and real images, copies of training images, and the loss at each noise level.

    samples -> features, kept as they are made -> figures -> metrics.json

Each figure stands beside its floor: other real images, compared with the same reference in the same way. Samples cannot be
expected to come closer to the reference than these do. An evaluation that was stopped goes on where it was.

Of several processes all draw samples and compute features and bits per dimension on their devices, and all measure the loss;
the first alone reads and writes what is kept, compares, and tells the others.
"""

import copy
import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from experiments import data
from experiments.devices import distributed
from experiments.devices.parallel import Strategy
from experiments.errors import unknown_name
from experiments.evaluation import figures, likelihood
from experiments.evaluation.classes import class_mix
from experiments.evaluation.features import FeatureSet, OnAllDevices, draw_features, journal_of_samples, weights_hash
from experiments.evaluation.losses import loss_per_noise_level
from experiments.evaluation.reference import RealImages, real_images
from experiments.files import strict_json
from experiments.generation import guidance
from experiments.generation.sampler import Sampler
from experiments.loading import runs
from experiments.loading.runs import Run
from experiments.metrics import names
from experiments.metrics.records import Metric
from experiments.metrics.statistics import spread
from experiments.runs.checkpoint import Checkpoints
from experiments.runs.workdir import Workdir

Publish = Callable[[Workdir, dict[str, Any]], None]

STRIP = (8, 12)  # images and times in the picture of noise becoming images


def evaluate_run(run: Run, dataset: data.Dataset, strategy: Strategy, publish: Publish) -> dict[str, Any]:
    """Measures the EMA model and writes `metrics.json` and the strip.

    Args:
        run: the checkpoint, with the config to measure by.
        dataset: its images.
        strategy: the mapping over devices.
        publish: called with the run's folder and what `metrics.json` holds, before what serves a repetition is removed.

    Returns:
        what `metrics.json` holds.

    Raises:
        UserError: the feature network or the statistics of the reference cannot be had, or are of other images.
        RunError: a sample is not finite.
    """
    if not run.experiment.draws_samples:
        return _evaluate_objective(run, dataset, publish)
    judge = Judge(run, dataset, strategy)
    measured = judge.measure(run)
    _write(run, judge.sampler, measured)
    publish(run.workdir, measured)
    judge.clean_up(run)
    return measured


def _evaluate_objective(run: Run, dataset: data.Dataset, publish: Publish) -> dict[str, Any]:
    """Writes the figures of an objective without samples to `metrics.json`; they are of held-out examples."""
    experiment = run.experiment
    examples = _some(dataset.test, experiment.evaluation.num_samples)
    found = experiment.objective.evaluate(run.variables, examples.images, examples.labels)
    measured = {"step": run.step, "average": run.average, "objective": experiment.objective_name, **found}
    if distributed.is_first():
        strict_json.write(run.workdir.metrics, measured)
    publish(run.workdir, measured)
    return measured


def sweep_checkpoints(
    run: Run, dataset: data.Dataset, strategy: Strategy, publish: Publish, metric: str | None = None
) -> dict[str, Any]:
    """Measures every kept checkpoint; `metrics.json` and the strip are of the best one.

    Args:
        run: the newest checkpoint, with the config to measure by.
        dataset, strategy, publish: as of `evaluate_run`.
        metric: the key of a figure of the samples; None is the first, the Frechet distance.

    Returns:
        what `metrics.json` holds; `checkpoints` has the figures of all.

    Raises:
        UserError: there is no such metric; or as `evaluate_run`.
    """
    better = _Better(run, metric)
    judge = Judge(run, dataset, strategy)
    with Checkpoints(run.workdir.checkpoints, run.experiment.training.keep_checkpoints) as checkpoints:
        steps = distributed.first_tells(checkpoints.all_steps)
    found = []
    for step in steps:
        candidate = runs.load_run(run.workdir.path, run.config, step=step)
        print(f"Checkpoint of step {step}:")
        measured = judge.measure_once(candidate)
        better.consider(measured, (candidate, judge))
        found.append({"step": step, **measured["samples"]})
    return _publish_best(better, publish, {"checkpoints": found})


def sweep_guidance(
    run: Run,
    dataset: data.Dataset,
    strategy: Strategy,
    publish: Publish,
    scales: Sequence[float],
    metric: str | None = None,
) -> dict[str, Any]:
    """Measures a run at several scales of guidance; `metrics.json` and the strip are of the best one.

    Args:
        run: the checkpoint, with the config to measure by.
        dataset, strategy, publish, metric: as of `sweep_checkpoints`.
        scales: of guidance.

    Returns:
        what `metrics.json` holds; `guidance` has the figures of all, with the scale and the evaluations of networks.

    Raises:
        UserError: the model cannot be guided so; or as `sweep_checkpoints`.
    """
    better = _Better(run, metric)
    candidates = [dataclasses.replace(run, experiment=run.experiment.with_guidance(scale)) for scale in scales]
    judge, found = Judge(candidates[0], dataset, strategy), []
    for scale, candidate in zip(scales, candidates, strict=True):
        print(f"Guidance of scale {scale:g}:")
        judge = judge.of(candidate)
        measured = judge.measure_once(candidate)
        better.consider(measured, (candidate, judge))
        found.append({"scale": scale, "evaluations": judge.sampler.nfe, **measured["samples"]})
    return _publish_best(better, publish, {"guidance": found})


class _Better:
    """The best of several measurements of a run by a metric, the Frechet distance by default.

    Raises:
        UserError: there is no such metric.
    """

    def __init__(self, run: Run, metric: str | None):
        self._network = run.experiment.evaluation.features
        self._described = {other.key: other.described for other in run.experiment.metrics}
        known = names.meanings(self._network, self._described)
        self.metric = next(iter(known)) if metric is None else metric
        if self.metric not in known:
            raise unknown_name("--metric", self.metric, known)
        self.measured: dict[str, Any] = {}
        self.of: Any = None

    def consider(self, measured: dict[str, Any], of: Any) -> None:
        """Keeps a measurement, and what it is of, if it is better than those before."""
        if self.metric not in measured["samples"]:
            raise unknown_name("--metric", self.metric, measured["samples"])
        value = measured["samples"][self.metric]
        if not self.measured or names.is_better(
            self._network, self.metric, value, self.measured["samples"][self.metric], self._described
        ):
            self.measured, self.of = measured, of


def _publish_best(better: _Better, publish: Publish, found: dict[str, Any]) -> dict[str, Any]:
    run, judge = better.of
    measured = better.measured | {"chosen_by": better.metric, **found}
    _write(run, judge.sampler, measured)
    publish(run.workdir, measured)
    judge.forget()
    return measured


class Judge:
    """Measures models of one experiment: what does not depend on the weights is made once.

    Args:
        run: a run of the experiment.
        dataset: its images.
        strategy: the mapping over devices.
    """

    def __init__(self, run: Run, dataset: data.Dataset, strategy: Strategy):
        limit = run.experiment.evaluation.num_samples
        self._dataset, self._strategy, self._metrics = dataset, strategy, run.experiment.metrics
        self._remembered: list[Path] = []
        self._test, self._train = _some(dataset.test, limit), _some(dataset.train, limit)
        self._network = OnAllDevices(run.experiment.feature_network(dataset.train), strategy)
        self._real = real_images(run, dataset, self._network)
        self._guide = runs.load_guide(run.experiment, run)
        self._classes = class_mix(run.experiment, dataset, self._guide)
        labels = self._labels = self._classes.labels(max(limit, STRIP[0])) if self._classes else None
        self.sampler = Sampler(run.experiment, strategy, limit, labels, self._guide)

    def of(self, run: Run) -> Self:
        """Returns the judge of a run that differs in how it is sampled; all but the sampler is shared."""
        other = copy.copy(self)
        other._guide = runs.load_guide(run.experiment, run)
        limit = run.experiment.evaluation.num_samples
        other.sampler = Sampler(run.experiment, self._strategy, limit, self._labels, other._guide)
        return other

    def measure(self, run: Run) -> dict[str, Any]:
        """All that `metrics.json` holds.

        Raises:
            RunError: a sample is not finite.
        """
        experiment, limit = run.experiment, run.experiment.evaluation.num_samples
        sampler, steps = experiment.sampler_and_steps
        journal = journal_of_samples(run, self._network, self._classes, self._guide)
        samples = draw_features(run, self.sampler, self._network, limit, journal)
        measured = {
            "step": run.step,
            "sampling": {
                "sde": experiment.sde_name,
                "average": run.average,
                "sampler": sampler,
                "steps": steps,
                "evaluations": self.sampler.nfe,
                "num_samples": limit,
                "seed": experiment.evaluation.seed,
            }
            | ({"classes": self._classes.description} if self._classes else {})
            | experiment.guidance_record
            | ({"guided_by": guidance.kind(experiment, self._guide)} if experiment.guidance_record else {}),
            "feature_network": self._network.name,
        }
        if self._metrics:
            measured["metrics"] = {metric.key: metric.described for metric in self._metrics}
        measured |= distributed.first_tells(lambda: self._figures(samples, experiment.evaluation.neighbours))
        if experiment.evaluation.likelihood_images:
            measured["bits_per_dim"] = self._bits_per_dim(run)
        measured["held_out_loss"] = loss_per_noise_level(run, self._test)
        measured["training_loss"] = loss_per_noise_level(run, self._train)
        return measured

    def _figures(self, samples: FeatureSet, neighbours: int) -> dict[str, Any]:
        found = _compare(samples, self._real, self._network, neighbours, self._metrics)
        if len(self._real.train) > 1:
            found["memorisation"] = _memorisation(samples.pool, self._real, neighbours)
        return found

    def measure_once(self, run: Run) -> dict[str, Any]:
        """As `measure`, or what it said before: it is kept until `forget`."""
        path = run.workdir.evaluation / f"measured_{self._identity(run)}.json"
        self._remembered.append(path)
        before = distributed.first_tells(
            lambda: strict_json.read(path, strict_json.METRICS) if path.is_file() else None
        )
        if before is not None:
            return before
        measured = self.measure(run)
        if distributed.is_first():
            strict_json.write(path, measured)
        self.clean_up(run)
        return measured

    def _identity(self, run: Run) -> str:
        real = self._real.reference
        identity = [run.experiment.to_json(), run.step, weights_hash(run.variables), real.images]
        identity += [self._classes.counts] if self._classes else []
        identity += [weights_hash(self._guide.variables)] if self._guide else []
        return hashlib.sha256(json.dumps([*identity, self._network.sha256]).encode()).hexdigest()[:16]

    def _bits_per_dim(self, run: Run) -> dict[str, Any]:
        evaluation = run.experiment.evaluation
        images = _some(self._dataset.test, evaluation.likelihood_images)
        figure = likelihood.bits_per_dim(run, images, self._strategy, likelihood.journal_of_bits(run, images))
        return {
            "value": figure.value,
            "standard_error": figure.standard_error,
            "interval": figure.interval,
            "images": figure.count,
            "t_min": evaluation.likelihood_t_min,
        }

    def clean_up(self, run: Run) -> None:
        """Removes the features of the run's samples, which were kept for the case of an interruption."""
        if not distributed.is_first():
            return
        journal_of_samples(run, self._network, self._classes, self._guide).remove()
        number = run.experiment.evaluation.likelihood_images
        if number:
            likelihood.journal_of_bits(run, _some(self._dataset.test, number)).remove()

    def forget(self) -> None:
        """Removes what `measure_once` keeps."""
        for path in self._remembered if distributed.is_first() else ():
            path.unlink(missing_ok=True)


def _some(images: data.Source, limit: int) -> data.Images:
    return images.take(spread(len(images), limit)).in_memory()


def _compare(
    samples: FeatureSet, real: RealImages, network: Any, neighbours: int, metrics: tuple[Metric, ...] = ()
) -> dict[str, Any]:
    found = figures.compare(samples, real.reference, network, neighbours, metrics)
    floor = figures.compare(FeatureSet(real.real, None, None), real.reference, network, neighbours, metrics)
    return {
        "features": network.description,
        "reference": real.reference_name,
        "samples": figures.values(found),
        "real": {"images": real.real_name} | figures.values(floor),
        "intervals": _both(figures.intervals, samples=found, real=floor),
        "counts": _both(figures.counts, samples=found, real=floor),
    }


def _memorisation(samples: np.ndarray, real: RealImages, neighbours: int) -> dict[str, Any]:
    held_out = figures.some(real.held_out, neighbours)
    found = figures.find_copies(samples[:neighbours], real.train, held_out)
    floor = figures.find_copies(held_out, real.train, held_out)
    return {
        "training_images": len(real.train),
        "samples": figures.values(found),
        "held_out": figures.values(floor),
        "intervals": _both(figures.intervals, samples=found, held_out=floor),
        "counts": _both(figures.counts, samples=found, held_out=floor),
    }


def _both(view: Callable, **sets: dict[str, figures.Figure]) -> dict[str, Any]:
    return {name: view(found) for name, found in sets.items()}


def _write(run: Run, sampler: Sampler, measured: dict[str, Any]) -> None:
    """Writes `metrics.json` and the strip."""
    strip = _strip(run, sampler) if run.medium.has_pixels else None
    if distributed.is_first():
        strict_json.write(run.workdir.metrics, measured)
        if strip is not None:
            run.medium.save_picture(run.workdir.strip, strip)


def _strip(run: Run, sampler: Sampler) -> np.ndarray:
    """Rows of samples, columns of times: noise on the left, images on the right, each scaled to the width of the data."""
    num_images, num_times = STRIP
    states = sampler.trajectory(run.variables, num_images, seed=0)
    shown = np.unique(np.linspace(0, len(states) - 1, num_times).round().astype(int))
    tiles = run.medium.inverse(states[shown]).swapaxes(0, 1)
    return run.medium.picture(tiles.reshape(-1, *tiles.shape[2:]), columns=len(shown))
