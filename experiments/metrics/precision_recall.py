"""Are the samples realistic, and do they cover the data? Precision and recall, density and coverage.

The region of a set is the union of balls, one around each point, that reach to the point's k-th nearest neighbour in
the same set.

- Precision is the fraction of samples inside the region of the reference, recall the fraction of the reference inside the
  region of the samples; k = 3. Kynkaanniemi et al. (2019), https://arxiv.org/abs/1904.06991, section 2.
- Density is the number of the reference's balls that a sample lies in, on average and divided by k; it may exceed 1.
  Coverage is the fraction of the reference's balls that hold a sample; k = 5. A single outlier of the reference, whose
  ball is large, counts little in both. Naeem et al. (2020), https://arxiv.org/abs/2002.09797, section 3.

All depend on the numbers of samples: compare only figures of equal numbers. Borders belong to the balls.
"""

from dataclasses import dataclass

import numpy as np

from experiments.metrics.neighbours import nearest, together, within

NEIGHBOURS = 3
DENSITY_NEIGHBOURS = 5


@dataclass(frozen=True)
class Coverage:
    """What the four figures are the means of.

    Attributes:
        precision: bool (N,), the sample lies in the region of the reference.
        recall: bool (M,), the image of the reference lies in the region of the samples.
        density: (N,), the balls of the reference that hold the sample, divided by k.
        coverage: bool (M,), the ball of the image holds a sample.
    """

    precision: np.ndarray
    recall: np.ndarray
    density: np.ndarray
    coverage: np.ndarray


def coverage(features: np.ndarray, reference: np.ndarray) -> Coverage:
    """Compares features (N, d) with a reference (M, d); N and M are at least 4, or where they are 5, k is one less."""
    samples, real = together(features, reference)
    deep = min(DENSITY_NEIGHBOURS, len(real) - 1)
    # Number 0 in order is the point itself.
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
    found = coverage(features, reference)
    return float(found.precision.mean()), float(found.recall.mean())


def density_and_coverage(features: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Returns (density, coverage) of features (N, d) against reference (M, d), M at least 6; coverage is in [0, 1]."""
    found = coverage(features, reference)
    return float(found.density.mean()), float(found.coverage.mean())
