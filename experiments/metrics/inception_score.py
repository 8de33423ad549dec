"""Inception Score: confidence and diversity of the predicted classes of samples.

    IS = exp(mean_i KL(p_i || p)),    p_i = softmax(logits_i),    p = mean_i p_i

It is 1 if the classifier predicts the same probabilities for all samples, and at most the number of classes. It does
not use real images, and is meaningful only with a classifier of natural images. Published values are means over parts
of the samples: 10 parts in the original, parts of 5,000 in guided-diffusion; the score decreases with fewer samples per
part. Sources: Salimans et al. (2016), https://arxiv.org/abs/1606.03498, section 4; openai/guided-diffusion,
https://github.com/openai/guided-diffusion/blob/main/evaluations/evaluator.py, `compute_inception_score`.
"""

import numpy as np
from scipy.special import log_softmax

BLOCK = 1000


def inception_score(logits: np.ndarray, split_size: int = 5000) -> tuple[float, float]:
    """Returns the mean Inception Score of consecutive parts of the samples, and its standard error over draws.

    The error is that of the infinitesimal jackknife (see `frechet`): the influence of a sample on log IS is its
    divergence minus the mean divergence.

    Args:
        logits: (N, classes), before the softmax.
        split_size: samples per part; the last part may have fewer.
    """
    scores, squared_errors = [], []
    for start in range(0, len(logits), split_size):
        divergences = _divergences(logits[start : start + split_size])
        scores.append(np.exp(divergences.mean()))
        squared_errors.append(scores[-1] ** 2 * divergences.var() / len(divergences))
    return float(np.mean(scores)), float(np.sqrt(np.sum(squared_errors)) / len(scores))


def _divergences(logits: np.ndarray) -> np.ndarray:
    """Returns KL(p_i || p) in nats, (N,)."""
    blocks = [slice(i, i + BLOCK) for i in range(0, len(logits), BLOCK)]

    def log_p(block):
        return log_softmax(np.asarray(logits[block], np.float64), axis=1)

    marginal = sum(np.exp(log_p(block)).sum(axis=0) for block in blocks) / len(logits)
    # A class whose probability rounds to 0 for all samples does not contribute.
    log_marginal = np.log(np.where(marginal > 0, marginal, 1))
    return np.concatenate([np.sum(np.exp(log_p(b)) * (log_p(b) - log_marginal), axis=1) for b in blocks])
