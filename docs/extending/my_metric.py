"""A metric of evaluation: `--config.evaluation.metrics=my_metric:VENDI`."""

import numpy as np

from experiments.metrics.records import Metric


def vendi_score(samples, real):
    """The effective number of different samples, by the eigenvalues of their kernel matrix.

    Source: Friedman and Dieng (2023), https://arxiv.org/abs/2210.02410, definition 3.1, with a Gaussian kernel whose width
    is the standard deviation of the real features.
    """
    z = (samples - real.mean(0)) / real.std()
    squared = np.square(z[:, None] - z[None]).sum(-1) / z.shape[1]
    eigenvalues = np.linalg.eigvalsh(np.exp(-squared / 2) / len(z))
    positive = eigenvalues[eigenvalues > 1e-12]
    return float(np.exp(-np.sum(positive * np.log(positive))))


VENDI = Metric("vendi", "Vendi score", vendi_score, meaning="effective number of different samples", less=False)
