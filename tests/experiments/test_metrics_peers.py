"""The figures of peers' real code on the same features, printed by a run of it with numpy 2.4.6 and scipy 1.17.1.

- `calculate_frechet_distance`: https://github.com/mseitzer/pytorch-fid/blob/b9c1811/src/pytorch_fid/fid_score.py
- `FIDStatistics.frechet_distance`, and `Evaluator.compute_inception_score` with a softmax of the logits in the place of
  TensorFlow's session: https://github.com/openai/guided-diffusion/blob/22e0df8/evaluations/evaluator.py
- `compute_prdc` of the package prdc 0.2, https://github.com/clovaai/generative-evaluation-prdc/blob/e320c1d/prdc/prdc.py
- `compute_authpct` and `compute_polynomial_mmd` of the first 90 samples:
  https://github.com/layer6ai-labs/dgm-eval/blob/74c79f7/dgm_eval/metrics/authpct.py and mmd.py
"""

import numpy as np
import pytest

from experiments import metrics

PYTORCH_FID = GUIDED_DIFFUSION_FID = 46.54044292890541
GUIDED_DIFFUSION_INCEPTION_SCORE = 3.6997742221293337  # split_size=50
PRDC_3 = {"precision": 0.95, "recall": 0.45555555555555555}  # nearest_k=3
PRDC_5 = {"density": 2.616666666666667, "coverage": 0.9555555555555556}  # nearest_k=5
DGM_EVAL_AUTHENTICITY = 11.666666984558105  # per cent
DGM_EVAL_MMD = 8.288791387840675


@pytest.fixture(scope="module")
def features():
    """Samples (120, 16), of which 30 are near training images, a reference (90, 16), training images (100, 16), logits."""
    draws = np.random.RandomState(0)  # its numbers are the same in every release
    mixing = draws.randn(16, 16)
    samples, reference, train = (draws.randn(n, 16) @ mixing for n in (120, 90, 100))
    samples = 0.5 * samples + 1
    samples[:30] = train[:30] + 0.3 * draws.randn(30, 16)
    return samples, reference, train, 3 * draws.randn(120, 10)


def test_frechet_distance(features):
    samples, reference, *_ = features
    moments = metrics.Moments.of(samples), metrics.Moments.of(reference)
    assert metrics.frechet_distance(samples, reference) == pytest.approx(PYTORCH_FID, rel=1e-10)
    assert metrics.frechet_distance_of_moments(*moments) == pytest.approx(GUIDED_DIFFUSION_FID, rel=1e-10)
    assert metrics.frechet_distance_and_error(samples, moments[1])[0] == pytest.approx(PYTORCH_FID, rel=1e-10)


def test_inception_score(features):
    """Over parts of 50, 50 and 20."""
    assert metrics.inception_score(features[3], 50)[0] == pytest.approx(GUIDED_DIFFUSION_INCEPTION_SCORE, rel=1e-12)


def test_precision_recall_density_coverage(features):
    samples, reference, *_ = features
    precision, recall = metrics.precision_and_recall(samples, reference)
    assert {"precision": precision, "recall": recall} == pytest.approx(PRDC_3, rel=1e-12)
    density, coverage = metrics.density_and_coverage(samples, reference)
    assert {"density": density, "coverage": coverage} == pytest.approx(PRDC_5, rel=1e-12)


def test_kernel_distance(features):
    """Subsets as large as the sets are the sets themselves."""
    samples, reference, *_ = features
    assert metrics.kernel_distance(samples[:90], reference) == pytest.approx(DGM_EVAL_MMD, rel=1e-10)
    mean, std = metrics.kernel_distance_of_subsets(samples[:90], reference, num_subsets=3)
    assert mean == pytest.approx(DGM_EVAL_MMD, rel=1e-10) and std < 1e-10


def test_authenticity(features):
    samples, reference, train, _ = features
    found = metrics.memorisation(samples, train, reference)
    assert 100 * found.authenticity.mean() == pytest.approx(DGM_EVAL_AUTHENTICITY, rel=1e-6)
