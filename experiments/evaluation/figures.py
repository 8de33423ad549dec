"""Figures of samples in the features of a network, with standard errors and confidence intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments import metrics
from experiments.errors import UserError
from experiments.evaluation.features import FeatureSet
from experiments.metrics import names
from experiments.metrics.frechet import streamed_frechet_distance
from experiments.metrics.kernel import kernel_distance_and_error, scaled_kernel_distance_and_error
from experiments.metrics.memorisation import memorisation
from experiments.metrics.precision_recall import coverage
from experiments.metrics.records import Metric
from experiments.metrics.statistics import Statistics, spread

SPREAD = 1.96  # standard errors on each side of an interval of 95 %


def standard_error_of_mean(values: np.ndarray) -> float | None:
    """The standard error of the mean of values (N,); None of a single value, which says nothing of their spread."""
    return float(np.std(values) / np.sqrt(len(values))) if len(values) > 1 else None


@dataclass(frozen=True)
class Figure:
    """A figure, its standard error and the number of samples (or, of recall and coverage, real images) that it is of.

    The standard error is None where it is unknown, as of the mean of a single value.
    """

    value: float
    standard_error: float | None
    count: int
    least: float = -np.inf
    most: float = np.inf

    @property
    def interval(self) -> list[float] | None:
        """The ends of the 95 % interval, within what the figure can be; None where the standard error is unknown."""
        if self.standard_error is None:
            return None
        reach = SPREAD * self.standard_error
        return [float(max(self.value - reach, self.least)), float(min(self.value + reach, self.most))]

    @classmethod
    def of_mean(cls, values: np.ndarray, most: float = 1.0) -> "Figure":
        """The mean of values (N,), at least 0; a bootstrap's standard deviation of a mean is known."""
        return cls(float(np.mean(values)), standard_error_of_mean(values), len(values), 0.0, most)


def compare(
    samples: FeatureSet, reference: Statistics, network: Any, neighbours: int, metrics_of_user: Sequence[Metric] = ()
) -> dict[str, Figure]:
    """The figures of samples against a reference, by key, in the order of `names.meanings`.

    Args:
        samples: of N images.
        reference: in the features of the same network.
        network: the feature network.
        neighbours: at most so many samples and images of the reference are compared pair by pair.
        metrics_of_user: further metrics, of as many features.

    Raises:
        UserError: too few samples, or features that do not vary.
    """
    named, count = names.distances(network.name), len(samples)
    if reference.pool.total_variance == 0:
        raise UserError("cannot compare: all images of the reference have the same features, which leaves no scale")
    scale = 100 / reference.pool.total_variance if named.scaled else 1.0
    found = {named.frechet[0]: _frechet(samples.pool, reference.pool, scale)}
    if samples.spatial is not None and reference.spatial is not None:
        found[named.spatial[0]] = _spatial(samples, reference.spatial)
    few, real = samples.pool[:neighbours], some(reference.features, neighbours)
    if len(real):
        metrics.check_comparable(few, real)
        kernel = scaled_kernel_distance_and_error if named.scaled else kernel_distance_and_error
        found[named.kernel[0]] = Figure(*kernel(few, real), len(few))
    if samples.logits is not None:
        found[named.score[0]] = Figure(*metrics.inception_score(samples.logits), count, 1.0, samples.logits.shape[1])
    if len(real):
        inside = coverage(few, real)
        found |= {
            "precision": Figure.of_mean(inside.precision),
            "recall": Figure.of_mean(inside.recall),
            "density": Figure.of_mean(inside.density, np.inf),
            "coverage": Figure.of_mean(inside.coverage),
        }
        found |= {metric.key: Figure(*metric(few, real), len(few)) for metric in metrics_of_user}
    return found


def some(features: np.ndarray, limit: int) -> np.ndarray:
    """At most `limit` of the features (N, d), evenly spread."""
    return features[spread(len(features), limit)]


def _frechet(features: np.ndarray, reference: metrics.Moments, scale: float) -> Figure:
    distance, error = metrics.frechet_distance_and_error(features, reference)
    return Figure(scale * distance, scale * error, len(features), 0.0)


def _spatial(samples: FeatureSet, reference: metrics.Moments) -> Figure:
    moments = metrics.Moments.merge(map(metrics.Moments.of, samples.spatial()))
    return Figure(*streamed_frechet_distance(samples.spatial(), moments, reference), len(samples), 0.0)


def find_copies(features: np.ndarray, train: np.ndarray, held_out: np.ndarray) -> dict[str, Figure]:
    """The figures of `metrics.memorisation`, of the features of samples, training images and held-out images."""
    found = memorisation(features, train, held_out)
    return {
        "nearer_than_held_out": Figure.of_mean(found.nearer_than_held_out),
        "copies": Figure.of_mean(found.copies),
        "authenticity": Figure.of_mean(found.authenticity),
    }


def values(figures: dict[str, Figure]) -> dict[str, float]:
    """The values alone."""
    return {key: figure.value for key, figure in figures.items()}


def intervals(figures: dict[str, Figure]) -> dict[str, list[float] | None]:
    """The ends of their intervals; None where one is unknown."""
    return {key: figure.interval for key, figure in figures.items()}


def counts(figures: dict[str, Figure]) -> dict[str, int]:
    """What each is of."""
    return {key: figure.count for key, figure in figures.items()}
