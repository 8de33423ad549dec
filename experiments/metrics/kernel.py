"""Kernel distance: the squared maximum mean discrepancy (MMD) of two sets of features, estimated without bias.

    MMD^2 = E k(a, a') + E k(b, b') - 2 E k(a, b),    k(u, v) = (u . v / d + 1)^3

With this kernel it sees the first three moments, where the Frechet distance sees two. In Inception features it is the
KID. Unlike the Frechet distance it has no bias at small samples: real against real is 0 on average, and an estimate
may be negative. It is computed on all samples at once, not on random subsets.
Source: Binkowski et al. (2018), https://arxiv.org/abs/1801.01401, section 4.
"""

import numpy as np

from experiments.metrics.frechet import total_variance

BLOCK = 1000  # rows of the kernel matrix held at a time


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the unbiased estimate of MMD^2 between features a (N, d) and b (M, d), as they are."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return _mean_within(a) + _mean_within(b) - 2 * _kernel_sum(a, b) / (len(a) * len(b))


def scaled_kernel_distance(features: np.ndarray, reference: np.ndarray) -> float:
    """Returns 100 * MMD^2 between features (N, d) and reference (M, d), on the reference's scale.

    The kernel has a scale and an origin of its own. Both sets are therefore shifted and scaled alike, so that the
    reference has mean 0 and a variance of 1 on average over its d features; k(u, u) is then about 8. So the figure
    depends on neither the unit nor the origin of the features.
    """
    reference = np.asarray(reference, np.float64)
    centre = reference.mean(axis=0)
    scale = np.sqrt(total_variance(reference) / reference.shape[1])
    return 100 * kernel_distance((np.asarray(features, np.float64) - centre) / scale, (reference - centre) / scale)


def _kernel(inner: np.ndarray, dimension: int) -> np.ndarray:
    base = inner / dimension + 1
    return base * base * base  # numpy's power is ten times slower


def _kernel_sum(a: np.ndarray, b: np.ndarray) -> float:
    return float(sum(_kernel(a[i : i + BLOCK] @ b.T, a.shape[1]).sum() for i in range(0, len(a), BLOCK)))


def _mean_within(a: np.ndarray) -> float:
    """The mean kernel over pairs of different samples: those of a sample with itself would bias it upwards."""
    diagonal = _kernel(np.sum(a**2, axis=1), a.shape[1]).sum()
    return (_kernel_sum(a, a) - float(diagonal)) / (len(a) * (len(a) - 1))
