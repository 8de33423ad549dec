"""Improved precision and recall: are the samples realistic, and do they cover the data?

The region of a set is the union of balls, one around each point, that reach to the point's k-th nearest neighbour in
the same set. Precision is the fraction of samples inside the region of the reference; recall is the fraction of the
reference inside the region of the samples.
Source: Kynkaanniemi et al. (2019), https://arxiv.org/abs/1904.06991, section 2; k = 3.

Both depend on the numbers of samples: compare only figures of equal numbers.
"""

import numpy as np
from scipy.spatial.distance import cdist

NEIGHBOURS = 3
# Rows of the distance matrix held at a time: 80 MB against 10,000 points.
BLOCK = 1000


def precision_and_recall(features: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Returns (precision, recall), both in [0, 1], of features (N, d) against reference (M, d); N and M at least 4."""
    features, reference = np.asarray(features, np.float64), np.asarray(reference, np.float64)
    feature_radii, reference_radii = _squared_radii(features), _squared_radii(reference)
    realistic = 0
    covered = np.zeros(len(reference), bool)
    for i in range(0, len(features), BLOCK):
        distances = _squared_distances(features[i : i + BLOCK], reference)
        realistic += np.sum(np.any(distances <= reference_radii, axis=1))
        covered |= np.any(distances <= feature_radii[i : i + BLOCK, None], axis=0)
    return float(realistic / len(features)), float(covered.mean())


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    # From differences, not from inner products: these round, and would put a point outside its own copy's ball.
    return cdist(a, b, "sqeuclidean")


def _squared_radii(points: np.ndarray) -> np.ndarray:
    """Squared distances (N,) to the k-th nearest of the other points."""
    radii = []
    for i in range(0, len(points), BLOCK):
        distances = _squared_distances(points[i : i + BLOCK], points)
        distances.partition(NEIGHBOURS, axis=1)  # number 0 in order is the point itself
        radii.append(distances[:, NEIGHBOURS].copy())  # a view would keep the whole block
    return np.concatenate(radii)
