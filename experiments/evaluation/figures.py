"""Which figures are taken of samples in which features, what they are called, and how sure they are.

A figure is named after its features: FID is a Frechet distance in Inception's, and no other. In the perceptron's features,
which belong to one data set, distances are on the scale of its reference; in published networks' they are as they come.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments import metrics
from experiments.errors import UserError
from experiments.evaluation.features import FeatureSet
from experiments.metrics.frechet import streamed_frechet_distance
from experiments.metrics.kernel import kernel_distance_and_error, scaled_kernel_distance_and_error
from experiments.metrics.memorisation import memorisation
from experiments.metrics.precision_recall import coverage
from experiments.metrics.statistics import Statistics, spread

SPREAD = 1.96  # standard errors on each side of an interval of 95 %

LESS, MORE = "less is better", "more is better"


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


@dataclass(frozen=True)
class Names:
    """The keys of the distances in some features, each with its title for people.

    Attributes:
        frechet, kernel, spatial, score: (key, title) of the Frechet and kernel distances, of the Frechet distance in spatial
            features, and of the classifier's score.
        scaled: distances are given with the reference's variance = 100.
    """

    frechet: tuple[str, str]
    kernel: tuple[str, str]
    spatial: tuple[str, str]
    score: tuple[str, str]
    scaled: bool = False


def names(network: str) -> Names:
    """The names of the distances in the features of a network."""
    if network in NAMES:
        return NAMES[network]
    slug = network.replace("-", "_")
    return Names(
        (f"fd_{slug}", f"Frechet distance in {network}"),
        (f"kd_{slug}", f"kernel distance in {network}"),
        (f"sfd_{slug}", f"spatial Frechet distance in {network}"),
        (f"score_{slug}", f"Inception Score's formula in {network}"),
    )


NAMES = {
    "perceptron": Names(
        ("frechet_distance", "Frechet distance"),
        ("kernel_distance", "kernel distance"),
        ("spatial_frechet_distance", "spatial Frechet distance"),
        ("classifier_score", "classifier score"),
        scaled=True,
    ),
} | {
    f"inception{way}": Names(
        (f"fid{key}", f"FID{title}"),
        (f"kid{key}", f"KID{title}"),
        (f"sfid{key}", f"sFID{title}"),
        (f"inception_score{key}", f"Inception Score{title}"),
    )
    for way, key, title in (("", "", ""), ("-tf1", "_tf1", " (TensorFlow 1)"), ("-clean", "_clean", " (clean-fid)"))
}


def meanings(network: str) -> dict[str, tuple[str, str]]:
    """key -> (title, meaning) of every figure that `compare` may give, in the order of a table, the main one first."""
    named = names(network)
    return {
        named.frechet[0]: (named.frechet[1], LESS),
        named.spatial[0]: (named.spatial[1], LESS),
        named.kernel[0]: (named.kernel[1], LESS),
        named.score[0]: (named.score[1], MORE),
        "precision": ("precision", "samples that look real"),
        "recall": ("recall", "real images that are covered"),
        "density": ("density", "real images around a sample, 1 is usual"),
        "coverage": ("coverage", "real images with a sample near"),
    }


def is_better(network: str, key: str, value: float, other: float) -> bool:
    """Whether one value of a figure is better than another."""
    return value < other if meanings(network)[key][1] == LESS else value > other


def compare(samples: FeatureSet, reference: Statistics, network: Any, neighbours: int) -> dict[str, Figure]:
    """The figures of samples against a reference, by key, in the order of `meanings`.

    Args:
        samples: of N images.
        reference: in the features of the same network.
        network: the feature network.
        neighbours: at most so many samples and images of the reference are compared pair by pair.

    Raises:
        UserError: too few samples, or features that do not vary.
    """
    named, count = names(network.name), len(samples)
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


MEMORISATION = {
    "nearer_than_held_out": ("nearer to training images than held-out images are", "1/2 is usual, 1 is copied"),
    "copies": ("three times as near to one training image as to the next", "less is better"),
    "authenticity": ("farther from a training image than that is from others", "as of held-out images"),
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
