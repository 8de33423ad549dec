"""Squared maximum mean discrepancy (MMD) with a Gaussian kernel, which depends on all moments of the features.

    MMD^2 = E k(a, a') + E k(b, b') - 2 E k(a, b),    k(u, v) = exp(-|u - v|^2 / (2 w^2))

With w^2 equal to the total variance of the real features, the distance depends on neither their unit nor their origin.
The estimate for two sets of real images is 0 on average and may be negative.

Sources: Gretton et al. (2012), https://jmlr.org/papers/v13/gretton12a.html, eq. 3; for images, in the features of CLIP,
Jayasumana et al. (2024), https://arxiv.org/abs/2401.09603.
"""

import numpy as np

from experiments.metrics.frechet import total_variance
from experiments.metrics.records import Metric

BLOCK = 1000  # rows of the kernel matrix in memory at a time


def gaussian_kernel_distance(samples: np.ndarray, real: np.ndarray) -> tuple[float, float]:
    """Returns 1000 MMD^2, estimated without bias, and its standard error over draws of the samples.

    The error is that of the infinitesimal jackknife, as in `kernel.kernel_distance_and_error`.

    Args:
        samples, real: features (N, d) and (M, d), each of at least two rows.
    """
    real = np.asarray(real, np.float64)
    centre, width = real.mean(axis=0), total_variance(real)  # centring reduces rounding errors of squared norms
    a, b = np.asarray(samples, np.float64) - centre, real - centre
    within = (_row_sums(a, a, width) - 1) / (len(a) - 1)  # k(u, u) = 1
    of_real = (_row_sums(b, b, width) - 1) / (len(b) - 1)
    between = _row_sums(a, b, width) / len(b)
    distance = within.mean() + of_real.mean() - 2 * between.mean()
    return 1000 * float(distance), 1000 * float(2 * np.std(within - between) / np.sqrt(len(a)))


def _row_sums(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """Returns the sums (N,) of the kernel matrix over b; `width` is w^2."""
    squares = np.sum(b**2, axis=1)
    blocks = (a[i : i + BLOCK] for i in range(0, len(a), BLOCK))
    distances = (np.sum(rows**2, axis=1)[:, None] + squares - 2 * rows @ b.T for rows in blocks)
    return np.concatenate([np.exp(-np.maximum(block, 0) / (2 * width)).sum(axis=1) for block in distances])


METRICS = {
    "gaussian_kernel_distance": Metric(
        "gaussian_kernel_distance", "kernel distance (Gaussian)", gaussian_kernel_distance
    )
}
