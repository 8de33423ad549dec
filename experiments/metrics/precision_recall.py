"""Precision and recall, density and coverage: fidelity of samples, and coverage of the data.

The manifold estimate of a set is the union of closed balls around its points. The radius of each ball is the distance
to the point's k-th nearest neighbour in the same set.

- Precision is the fraction of samples inside the manifold estimate of the reference, recall the fraction of the
  reference inside the manifold estimate of the samples; k = 3. Kynkaanniemi et al. (2019),
  https://arxiv.org/abs/1904.06991, section 2.
- Density is the mean number of reference balls that contain a sample, divided by k; it may exceed 1. Coverage is the
  fraction of reference balls that contain a sample; k = 5. A single outlier of the reference, whose ball is large, has
  little effect on both. Naeem et al. (2020), https://arxiv.org/abs/2002.09797, section 3.

All values depend on the numbers of samples: compare only values of equal numbers.
"""

from dataclasses import dataclass

import numpy as np

from experiments.metrics.neighbours import nearest, together, within

NEIGHBOURS = 3
DENSITY_NEIGHBOURS = 5


@dataclass(frozen=True)
class Coverage:
    """Values of each sample and reference image, whose means are the four metrics.

    Attributes:
        precision: bool (N,), the sample is in the manifold estimate of the reference.
        recall: bool (M,), the reference image is in the manifold estimate of the samples.
        density: (N,), number of reference balls that contain the sample, divided by k.
        coverage: bool (M,), the ball of the reference image contains a sample.
    """

    precision: np.ndarray
    recall: np.ndarray
    density: np.ndarray
    coverage: np.ndarray


def coverage(features: np.ndarray, reference: np.ndarray) -> Coverage:
    """Compares features (N, d) with a reference (M, d); N and M at least 4.

    For density and coverage, k is at most M - 1.
    """
    samples, real = together(features, reference)
    deep = min(DENSITY_NEIGHBOURS, len(real) - 1)
    # Neighbour 0 is the point itself.
    sample_radii = nearest(samples, samples, NEIGHBOURS + 1)[0][:, NEIGHBOURS]
    real_radii = nearest(real, real, deep + 1)[0][:, [NEIGHBOURS, deep]].T
    realistic, dense = np.zeros(len(samples), bool), np.zeros(len(samples))
    recalled, covered = np.zeros(len(real), bool), np.zeros(len(real), bool)
    for block, (by_samples,), (by_real, by_real_deep) in within(samples, real, [sample_radii], list(real_radii)):
        realistic[block] = by_real.any(axis=1)
        recalled |= by_samples.any(axis=0)
        dense[block] = by_real_deep.sum(axis=1) / deep
        covered |= by_real_deep.any(axis=0)
    return Coverage(realistic, recalled, dense, covered)


def precision_and_recall(features: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Returns (precision, recall), both in [0, 1], of features (N, d) against reference (M, d); N and M at least 4."""
    values = coverage(features, reference)
    return float(values.precision.mean()), float(values.recall.mean())


def density_and_coverage(features: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Returns (density, coverage) of features (N, d) against reference (M, d), M at least 6; coverage is in [0, 1]."""
    values = coverage(features, reference)
    return float(values.density.mean()), float(values.coverage.mean())
