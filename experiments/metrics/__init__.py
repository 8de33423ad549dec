"""Metrics of samples: distances between sets of features, and a feature space that needs no download (`features`).

The metrics are the Frechet distance (`frechet`; `moments` for features that do not fit in memory), the kernel distance
(`kernel`), precision and recall, density and coverage (`precision_recall`, based on `neighbours`), the detection of
copies of training images (`memorisation`), and the Inception Score of a classifier's outputs (`inception_score`). All
functions take numpy arrays (N, d), compute in float64, and apply to any feature space.
"""

import numpy as np

from experiments.errors import UserError
from experiments.metrics.features import FeatureSpace, Perceptron, fit_features
from experiments.metrics.frechet import (
    frechet_distance,
    frechet_distance_and_error,
    frechet_distance_of_moments,
    scaled_frechet_distance,
)
from experiments.metrics.inception_score import inception_score
from experiments.metrics.kernel import kernel_distance, kernel_distance_of_subsets, scaled_kernel_distance
from experiments.metrics.memorisation import memorisation
from experiments.metrics.moments import Moments
from experiments.metrics.precision_recall import (
    DENSITY_NEIGHBOURS,
    NEIGHBOURS,
    density_and_coverage,
    precision_and_recall,
)
from experiments.metrics.statistics import Statistics, compute_statistics

__all__ = [
    "DENSITY_NEIGHBOURS",
    "FeatureSpace",
    "Moments",
    "Perceptron",
    "Statistics",
    "check_comparable",
    "compare",
    "compute_statistics",
    "density_and_coverage",
    "fit_features",
    "frechet_distance",
    "frechet_distance_and_error",
    "frechet_distance_of_moments",
    "inception_score",
    "kernel_distance",
    "kernel_distance_of_subsets",
    "memorisation",
    "precision_and_recall",
    "scaled_frechet_distance",
    "scaled_kernel_distance",
]


def compare(features: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Compares the features of samples (N, d) with those of real images (M, d).

    Returns:
        `frechet_distance` (the reference's variance = 100; lower is better), `kernel_distance` (100 MMD^2 on the
        reference's scale; lower is better), `precision` and `recall` (in [0, 1]; higher is better).

    Raises:
        UserError: too few samples, unequal dimensions, a feature that is not finite, or a constant reference.
    """
    check_comparable(features, reference)
    precision, recall = precision_and_recall(features, reference)
    return {
        "frechet_distance": scaled_frechet_distance(features, reference),
        "kernel_distance": scaled_kernel_distance(features, reference),
        "precision": precision,
        "recall": recall,
    }


def check_comparable(features: np.ndarray, reference: np.ndarray) -> None:
    """Checks that features (N, d) can be compared with the features of a reference (M, d); see `compare`.

    Raises:
        UserError: too few samples, unequal dimensions, a feature that is not finite, or a constant reference.
    """
    for name, array in (("samples", features), ("reference", reference)):
        if np.ndim(array) != 2 or len(array) <= NEIGHBOURS:
            required = f"(N, d) features with N > {NEIGHBOURS} are needed"
            raise UserError(f"cannot compare: the {name} have shape {np.shape(array)}; {required}")
        if not np.isfinite(array).all():
            raise UserError(f"cannot compare: features of the {name} are not all finite")
    if features.shape[1] != reference.shape[1]:
        raise UserError(
            f"cannot compare {features.shape[1]} features of samples with {reference.shape[1]} of the reference"
        )
    if np.ptp(reference, axis=0).max() == 0:
        raise UserError("cannot compare: all images of the reference have the same features, so there is no scale")
