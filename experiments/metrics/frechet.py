"""Frechet distance: how far apart two sets of features are, if each is taken for a Gaussian.

    FD = |m_a - m_b|^2 + tr(S_a) + tr(S_b) - 2 tr((S_a^1/2 S_b S_a^1/2)^1/2)

with means m and covariances S: the squared Wasserstein-2 distance of N(m_a, S_a) and N(m_b, S_b). In Inception features
it is the FID. Sources: Dowson and Landau (1982), https://doi.org/10.1016/0047-259X(82)90077-X; Heusel et al. (2017),
https://arxiv.org/abs/1706.08500.

A finite sample has a positive distance even to its own distribution, by some d / N for d features: compare only figures
of equal numbers of samples, and read them beside that of real images against real images.
"""

import numpy as np


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the Frechet distance of features a (N, d) and b (M, d), in squared units of the features.

    Covariances are the unbiased estimates. N or M may be d or less: singular covariances cost no accuracy, because no
    square root of a matrix is taken. With S_a = A^T A and S_b = B^T B, the matrix S_a^1/2 S_b S_a^1/2 has the squared
    singular values of A B^T as its eigenvalues, so that the last trace is the sum of these singular values.
    """
    mean_a, root_a = _mean_and_root(a)
    mean_b, root_b = _mean_and_root(b)
    means = np.sum((mean_a - mean_b) ** 2)
    traces = np.sum(root_a**2) + np.sum(root_b**2)
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    return float(max(means + traces - 2 * cross, 0.0))  # rounding alone makes it negative


def scaled_frechet_distance(features: np.ndarray, reference: np.ndarray) -> float:
    """Returns 100 * frechet_distance / trace(cov(reference)): on this scale the reference's variance is 100.

    So it does not depend on the unit of the features, and 100 is what one would get for samples that all equal the
    reference's mean. `features` are (N, d), `reference` (M, d).
    """
    return 100 * frechet_distance(features, reference) / total_variance(reference)


def total_variance(features: np.ndarray) -> float:
    """Returns the trace of the covariance (unbiased) of features (N, d)."""
    return float(np.var(np.asarray(features, np.float64), axis=0, ddof=1).sum())


def _mean_and_root(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean (d,) and a matrix R (min(N, d), d) with R^T R = the covariance."""
    features = np.asarray(features, np.float64)
    mean = features.mean(axis=0)
    return mean, np.linalg.qr(features - mean, mode="r") / np.sqrt(len(features) - 1)
