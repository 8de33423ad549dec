"""Kernel distance: the squared maximum mean discrepancy (MMD) of two sets of features, estimated without bias.

    MMD^2 = E k(a, a') + E k(b, b') - 2 E k(a, b),    k(u, v) = (u . v / d + 1)^3

With this kernel the MMD depends on the first three moments; the Frechet distance depends on two. In Inception features
it is the KID. Unlike the Frechet distance it is unbiased for small samples: the estimate for two sets of real images is
0 on average and may be negative. `kernel_distance` uses all samples at once; published values are means over random
subsets of 1,000 (`kernel_distance_of_subsets`), which have the same expectation. Source: Binkowski et al. (2018),
https://arxiv.org/abs/1801.01401, section 4.
"""

import numpy as np

from experiments.metrics.frechet import total_variance

BLOCK = 1000  # rows of the kernel matrix in memory at a time


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the unbiased estimate of MMD^2 between features a (N, d) and b (M, d), without scaling."""
    return kernel_distance_and_error(a, b)[0]


def kernel_distance_and_error(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Returns `kernel_distance` of a (N, d) and b (M, d), and its standard error over draws of a; b is held fixed.

    The error is that of the infinitesimal jackknife (see `frechet`): the influence of a feature u is
    2 (E k(u, a') - E k(u, b)), minus its mean.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    within = _mean_within(a)
    between = _row_sums(a, b) / len(b)
    distance = within.mean() + _mean_within(b).mean() - 2 * between.mean()
    return float(distance), float(2 * np.std(within - between) / np.sqrt(len(a)))


def kernel_distance_of_subsets(
    a: np.ndarray, b: np.ndarray, *, num_subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Returns mean and standard deviation of `kernel_distance` over pairs of random subsets, as KID is published.

    Args:
        a, b: features (N, d) and (M, d).
        num_subsets: pairs of subsets, each drawn without replacement.
        size: size of a subset, reduced to N or M if these are smaller.
        seed: seed of the subsets.
    """
    draws = np.random.default_rng(seed)
    size = min(size, len(a), len(b))
    distances = [
        kernel_distance(
            a[draws.choice(len(a), size, replace=False)],
            b[draws.choice(len(b), size, replace=False)],
        )
        for _ in range(num_subsets)
    ]
    return float(np.mean(distances)), float(np.std(distances))


def scaled_kernel_distance(features: np.ndarray, reference: np.ndarray) -> float:
    """Returns 100 * MMD^2 between features (N, d) and reference (M, d), on the reference's scale.

    The kernel is not invariant to shifts and scales. Both sets are therefore shifted and scaled such that the reference
    has mean 0 and a variance of 1 on average over its d features; k(u, u) is then about 8. The result depends on
    neither the unit nor the origin of the features.
    """
    return scaled_kernel_distance_and_error(features, reference)[0]


def scaled_kernel_distance_and_error(features: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Returns `scaled_kernel_distance` and its standard error over draws of the features."""
    reference = np.asarray(reference, np.float64)
    centre = reference.mean(axis=0)
    scale = np.sqrt(total_variance(reference) / reference.shape[1])
    distance, error = kernel_distance_and_error(
        (np.asarray(features, np.float64) - centre) / scale, (reference - centre) / scale
    )
    return 100 * distance, 100 * error


def _kernel(inner: np.ndarray, dimension: int) -> np.ndarray:
    base = inner / dimension + 1
    return base * base * base  # numpy's power is ten times slower


def _row_sums(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the sums (N,) of the kernel matrix over b."""
    return np.concatenate([_kernel(a[i : i + BLOCK] @ b.T, a.shape[1]).sum(axis=1) for i in range(0, len(a), BLOCK)])


def _mean_within(a: np.ndarray) -> np.ndarray:
    """Returns the mean kernel (N,) of each sample with all other samples; k(u, u) would bias the estimate upwards."""
    return (_row_sums(a, a) - _kernel(np.sum(a**2, axis=1), a.shape[1])) / (len(a) - 1)
