"""Streaming moments: parts merged equal the whole, where sums of squares would have lost every digit."""

import numpy as np
import pytest

from experiments.metrics import frechet_distance, frechet_distance_of_moments
from experiments.metrics.moments import Moments


@pytest.fixture(scope="module")
def features():
    """Far from the origin: the squares are 1e16 times the variance, so a sum of them has no digit of it."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(2500, 5)) @ rng.normal(size=(5, 5)) + 1e8 * np.array([1, -1, 1, 0, 2])


def assert_moments(moments, features):
    centred = features - features[0]  # exact: the shift is a difference of close numbers
    np.testing.assert_allclose(moments.mean - features[0], centred.mean(0), atol=1e-7)
    np.testing.assert_allclose(moments.covariance, np.cov(centred, rowvar=False), rtol=1e-7, atol=1e-7)
    assert moments.count == len(features)


def test_of_all_at_once(features):
    assert_moments(Moments.of(features), features)


@pytest.mark.parametrize("parts", [[2500], [1, 2499], [1, 1, 2, 996, 1500]], ids=str)
def test_parts_merge_to_the_whole(features, parts):
    pieces = np.split(features, np.cumsum(parts)[:-1])
    assert_moments(Moments.merge(Moments.of(piece) for piece in pieces), features)


def test_the_order_of_the_parts_does_not_matter(features):
    a, b, c = (Moments.of(piece) for piece in np.split(features, [100, 900]))
    np.testing.assert_allclose(((c + a) + b).covariance, (a + (b + c)).covariance, rtol=1e-7)


def test_a_part_of_weight_counts_by_its_number():
    """Two points at 0 and one at 3: mean 1, scatter 1 + 1 + 4."""
    merged = Moments.of(np.zeros((2, 1))) + Moments.of(np.full((1, 1), 3.0))
    assert (merged.count, merged.mean.item(), merged.scatter.item(), merged.covariance.item()) == (3, 1, 6, 3)


def test_float32_features_are_summed_in_float64():
    features = np.full((100_000, 1), 0.1, np.float32)
    assert Moments.of(features).mean.item() == pytest.approx(float(np.float32(0.1)), rel=1e-14)


def test_a_covariance_goes_in_and_comes_out():
    covariance = np.array([[2.0, 1.0], [1.0, 3.0]])
    moments = Moments.of_covariance(11, np.array([1, 2]), covariance)
    np.testing.assert_array_equal(moments.covariance, covariance)
    assert moments.total_variance == 5


def test_no_parts():
    with pytest.raises(ValueError, match="at least one part"):
        Moments.merge([])


@pytest.mark.parametrize("n", [300, 20], ids=["full rank", "fewer samples than features"])
def test_frechet_distance_of_moments_is_that_of_the_features(n):
    """With features that are constant, and variances over 14 orders of magnitude."""
    rng = np.random.default_rng(0)
    spread = np.logspace(-6, 1, 64)
    a, b = rng.normal(size=(n, 64)) * spread, rng.normal(size=(250, 64)) * spread[::-1] + 0.1
    a[:, :5] = b[:, :5] = 3.0
    moments = Moments.of(a), Moments.of(b)
    np.testing.assert_allclose(frechet_distance_of_moments(*moments), frechet_distance(a, b), rtol=1e-6)
    shuffled = Moments.of(a[::-1])
    assert frechet_distance_of_moments(moments[0], shuffled) < 1e-11 * moments[0].total_variance


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_frechet_distance_of_moments_is_in_squared_units_of_the_features(unit):
    """What is taken for no variance is so beside the largest, not by itself. Rank 3 of 8."""
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(40, 3)) @ rng.normal(size=(3, 8)) for _ in range(2))
    expected = unit**2 * frechet_distance(a, b)
    found = frechet_distance_of_moments(Moments.of(unit * a), Moments.of(unit * b))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_moments_without_variance():
    """Points alone: the squared distance of the means, and the variance of the other."""
    point, other = Moments.of(np.zeros((5, 2))), Moments.of(np.array([[3.0, 3.0], [3.0, 5.0]]))
    assert frechet_distance_of_moments(point, other) == pytest.approx(9 + 16 + 2)
    assert frechet_distance_of_moments(other, point) == pytest.approx(9 + 16 + 2)
