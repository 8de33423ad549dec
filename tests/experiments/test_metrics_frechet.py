"""The Frechet distance against closed forms of Gaussians."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from experiments.metrics import Moments, frechet_distance, frechet_distance_of_moments, scaled_frechet_distance


def sample_with_moments(n, mean, covariance, seed=0):
    """A sample whose empirical mean and (unbiased) covariance are exactly these."""
    white = np.random.default_rng(seed).normal(size=(n, len(mean)))
    white -= white.mean(axis=0)
    white @= np.linalg.inv(np.linalg.cholesky(white.T @ white / (n - 1))).T
    return mean + white @ np.linalg.cholesky(covariance).T


def random_covariance(d, seed):
    root = np.random.default_rng(seed).normal(size=(d, d))
    return root @ root.T + 0.1 * np.eye(d)


def rotation(d, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]


def test_commuting_covariances():
    """Diagonal covariances: the distance is |m_a - m_b|^2 + sum (std_a - std_b)^2, here 25 + 1 + 4 + 0."""
    a = sample_with_moments(50, np.array([0.0, 0.0, 1.0]), np.diag([1.0, 4.0, 9.0]))
    b = sample_with_moments(70, np.array([3.0, 4.0, 1.0]), np.diag([4.0, 16.0, 9.0]), seed=1)
    np.testing.assert_allclose(frechet_distance(a, b), 30.0, rtol=1e-12)


def test_two_by_two_covariances_that_do_not_commute():
    """In two dimensions tr(M^1/2) = sqrt(tr M + 2 sqrt(det M)), here with M similar to S_a S_b."""
    cov_a, cov_b = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[1.0, -0.5], [-0.5, 4.0]])
    product = cov_a @ cov_b
    assert np.abs(product - product.T).max() > 1
    cross = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    expected = 1 + np.trace(cov_a) + np.trace(cov_b) - 2 * cross
    a = sample_with_moments(40, np.array([0.0, 1.0]), cov_a)
    b = sample_with_moments(30, np.array([0.0, 2.0]), cov_b, seed=1)
    np.testing.assert_allclose(frechet_distance(a, b), expected, rtol=1e-12)


def test_general_covariances_against_the_matrix_square_root():
    """SciPy's Schur method of the product, as the published FID code has it."""
    cov_a, cov_b = random_covariance(6, 0), random_covariance(6, 1)
    expected = np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    a = sample_with_moments(40, np.zeros(6), cov_a)
    b = sample_with_moments(50, np.zeros(6), cov_b, seed=1)
    np.testing.assert_allclose(frechet_distance(a, b), expected, rtol=1e-10)


@pytest.mark.parametrize("n", [300, 20], ids=["full rank", "fewer samples than features"])
def test_a_set_is_at_no_distance_from_itself(n):
    """To rounding, relative to the variance, and with singular covariances too: the usual matrix root fails there."""
    reference = np.random.default_rng(0).normal(size=(n, 64)) * np.logspace(-6, 1, 64)
    reference[:, :5] = 3.0
    assert scaled_frechet_distance(reference, reference[::-1]) < 1e-11


def test_rank_one_covariances():
    """Points on two lines at an angle: tr(S_a) + tr(S_b) - 2 s_a s_b |cos angle|."""
    t = sample_with_moments(20, np.zeros(1), np.eye(1))
    u, v = np.array([1.0, 0.0, 0.0]), np.array([np.cos(1.0), np.sin(1.0), 0.0])
    np.testing.assert_allclose(frechet_distance(2 * t * u, 3 * t * v), 4 + 9 - 12 * np.cos(1.0), rtol=1e-12)


def test_invariances():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(100, 5)) @ rng.normal(size=(5, 5)), rng.normal(size=(80, 5)) + 1
    distance, turned = frechet_distance(a, b), rotation(5)
    np.testing.assert_allclose(frechet_distance(b, a), distance, rtol=1e-10)
    np.testing.assert_allclose(frechet_distance(a @ turned + 7, b @ turned + 7), distance, rtol=1e-10)
    np.testing.assert_allclose(frechet_distance(3 * a, 3 * b), 9 * distance, rtol=1e-10)
    np.testing.assert_allclose(scaled_frechet_distance(3 * a, 3 * b), scaled_frechet_distance(a, b), rtol=1e-10)


def test_the_scale_is_the_references_variance():
    """Samples that all equal the reference's mean lack its whole variance: 100. A shift of one of 4 by its std: 25."""
    reference = sample_with_moments(50, np.ones(4), 2 * np.eye(4))
    np.testing.assert_allclose(scaled_frechet_distance(np.ones((10, 4)), reference), 100, rtol=1e-12)
    shift = np.array([np.sqrt(2), 0, 0, 0])
    np.testing.assert_allclose(scaled_frechet_distance(reference + shift, reference), 25, rtol=1e-10)


def test_float32_features_are_computed_in_float64():
    features = (1000 + np.random.default_rng(0).normal(size=(500, 3))).astype(np.float32)
    other = features[:250]
    exact = frechet_distance(features.astype(np.float64), other.astype(np.float64))
    assert frechet_distance(features, other) == exact


@pytest.mark.parametrize("seed", range(8))
def test_rounding_makes_no_distance_negative(seed):
    """Of a set to itself and to its own order reversed, whose distance is 0."""
    points = 1e3 * np.random.default_rng(seed).normal(size=(40, 7)) + 5
    for other in (points, points[::-1]):
        moments = Moments.of(points), Moments.of(other)
        for distance in (frechet_distance(points, other), frechet_distance_of_moments(*moments)):
            assert 0 <= distance < 1e-8 * moments[0].total_variance
