"""The Gaussian kernel distance against its definition, and against closed forms of Gaussian data."""

import numpy as np

from experiments.metrics import gaussian_kernel
from experiments.metrics.gaussian_kernel import gaussian_kernel_distance


def by_pairs(a, b):
    """Equation 3 of Gretton et al., one pair at a time."""
    width = sum(np.var(b[:, i], ddof=1) for i in range(b.shape[1]))

    def k(u, v):
        return np.exp(-sum((x - y) ** 2 for x, y in zip(u, v, strict=True)) / (2 * width))

    within_a = [k(a[i], a[j]) for i in range(len(a)) for j in range(len(a)) if i != j]
    within_b = [k(b[i], b[j]) for i in range(len(b)) for j in range(len(b)) if i != j]
    return 1000 * (np.mean(within_a) + np.mean(within_b) - 2 * np.mean([k(u, v) for u in a for v in b]))


def test_against_the_definition_in_one_block_and_in_several(monkeypatch):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(11, 3)), 2 * rng.normal(size=(7, 3)) + 0.5
    expected = by_pairs(a, b)
    np.testing.assert_allclose(gaussian_kernel_distance(a, b)[0], expected, rtol=1e-12)
    monkeypatch.setattr(gaussian_kernel, "BLOCK", 4)
    np.testing.assert_allclose(gaussian_kernel_distance(a, b)[0], expected, rtol=1e-12)
    far, unit = 1e4, 1e3
    np.testing.assert_allclose(gaussian_kernel_distance(unit * a + far, unit * b + far)[0], expected, rtol=1e-9)


def test_the_expected_value_of_gaussians_and_the_standard_error_are_right():
    """E k(u, v) of a difference N(m, 2 I) in d dimensions is (w^2 / (w^2 + 2))^(d / 2) exp(-|m|^2 / (2 (w^2 + 2)))."""
    rng, d, shift = np.random.default_rng(1), 3, np.array([0.9, 0.0, -0.4])
    real = rng.normal(size=(1500, d))
    found = np.array([gaussian_kernel_distance(rng.normal(size=(60, d)) + shift, real) for _ in range(80)])
    width = d  # the total variance
    same = (width / (width + 2)) ** (d / 2)
    expected = 1000 * 2 * same * (1 - np.exp(-(shift @ shift) / (2 * (width + 2))))
    spread = found[:, 0].std() / np.sqrt(len(found))
    assert abs(found[:, 0].mean() - expected) < 4 * spread + 0.05 * expected  # the real features are draws too
    assert spread < 0.06 * expected
    np.testing.assert_allclose(np.median(found[:, 1]), found[:, 0].std(), rtol=0.25)
