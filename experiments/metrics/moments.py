"""Mean and covariance of features that do not fit in memory, merged from the moments of blocks.

With counts n, means m and scatters S = sum (x - m)(x - m)^T of two parts a and b, their union has

    n = n_a + n_b,    m = m_a + (n_b / n) d,    S = S_a + S_b + (n_a n_b / n) d d^T,    d = m_b - m_a.

Unlike sums of squares, these updates have no cancellation of large numbers, so the result is as accurate as the moments
of all features at once. Source: Chan, Golub and LeVeque (1983), https://doi.org/10.1080/00031305.1983.10483115, eq.
2.1.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np

BLOCK = 1000  # features per block


@dataclass(frozen=True)
class Moments:
    """Count, mean and scatter of features (N, d), in float64.

    Attributes:
        count: N.
        mean: (d,).
        scatter: (d, d), the sum over the features of (x - mean)(x - mean)^T.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Self:
        """Returns the moments of features (N, d), N > 0."""
        parts = (cls._of_block(features[i : i + BLOCK]) for i in range(0, len(features), BLOCK))
        return cls.merge(parts)

    @classmethod
    def _of_block(cls, features: np.ndarray) -> Self:
        features = np.asarray(features, np.float64)
        mean = features.mean(axis=0)
        centred = features - mean
        # Corrects for the rounding error of the mean, because of which the centred features do not sum to 0.
        slack = centred.sum(axis=0)
        return cls(len(features), mean, centred.T @ centred - np.outer(slack, slack) / len(features))

    @classmethod
    def of_covariance(cls, count: int, mean: np.ndarray, covariance: np.ndarray) -> Self:
        """Returns the moments with an unbiased covariance (d, d), as stored in files."""
        return cls(int(count), np.asarray(mean, np.float64), np.asarray(covariance, np.float64) * (count - 1))

    @classmethod
    def merge(cls, parts: Iterable[Self]) -> Self:
        """Returns the moments of the union of all parts.

        Raises:
            ValueError: there are no parts.
        """
        whole = None
        for part in parts:
            whole = part if whole is None else whole + part
        if whole is None:
            raise ValueError("moments of no features: at least one part is needed")
        return whole

    def __add__(self, other: Self) -> Self:
        count = self.count + other.count
        shift = other.mean - self.mean
        mean = self.mean + (other.count / count) * shift
        between = (self.count * other.count / count) * np.outer(shift, shift)
        return type(self)(count, mean, self.scatter + other.scatter + between)

    @property
    def covariance(self) -> np.ndarray:
        """The unbiased covariance (d, d); 0 for a single feature."""
        return self.scatter / max(self.count - 1, 1)

    @property
    def total_variance(self) -> float:
        """The trace of the covariance."""
        return float(np.trace(self.covariance))
