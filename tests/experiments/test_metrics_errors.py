"""Standard errors of the distances: those of a bootstrap, and the spread over draws."""

import numpy as np
import pytest

from experiments.metrics import Moments, frechet_distance_and_error, frechet_distance_of_moments, inception_score
from experiments.metrics.kernel import kernel_distance, kernel_distance_and_error, scaled_kernel_distance_and_error

RNG = np.random.default_rng


@pytest.fixture(scope="module")
def sets():
    rng = RNG(0)
    mixing = rng.normal(size=(6, 6))
    return np.abs(rng.normal(size=(300, 6)) @ mixing + 1), np.abs(rng.normal(size=(500, 6)) @ mixing)


def bootstrapped(figure, n, draws=300):
    """The standard deviation of a figure over resamples; it is known to 1 / sqrt(2 draws) = 4 %."""
    rng = RNG(1)
    return np.std([figure(rng.integers(0, n, n)) for _ in range(draws)])


def test_frechet_distance(sets):
    a, b = sets[0], Moments.of(sets[1])
    distance, error = frechet_distance_and_error(a, b)
    assert distance == frechet_distance_of_moments(Moments.of(a), b)
    expected = bootstrapped(lambda i: frechet_distance_of_moments(Moments.of(a[i]), b), len(a))
    assert error == pytest.approx(expected, rel=0.12)


def test_frechet_distance_near_its_floor():
    """Of samples from the reference's own distribution the error is, on average, no less than the spread over draws of
    samples and at most half more, though the distance is no longer nearly linear there; a bootstrap's is 1.6 times it."""
    rng = RNG(0)
    reference = Moments.of(rng.normal(size=(500, 6)))
    found = np.array([frechet_distance_and_error(rng.normal(size=(400, 6)), reference) for _ in range(300)])
    assert 1 < found[:, 1].mean() / found[:, 0].std() < 1.5


def test_frechet_distance_with_fewer_samples_than_features():
    """In a space of more dimensions that are constant, the error is the same; unit and turn do not matter."""
    rng = RNG(0)
    a, b = rng.normal(size=(40, 3)) * [1, 2, 3], rng.normal(size=(50, 3)) + 1
    error = frechet_distance_and_error(a, Moments.of(b))[1]
    turn = np.linalg.qr(rng.normal(size=(60, 60)))[0]

    def embed(x):
        return 10 * np.pad(x, ((0, 0), (0, 57))) @ turn + 5

    assert frechet_distance_and_error(embed(a), Moments.of(embed(b)))[1] == pytest.approx(100 * error, rel=1e-6)


def test_frechet_distance_of_one_dimension():
    """FD = (m_a - m_b)^2 + (s_a - s_b)^2, so I(x) = 2 (m_a - m_b) u + (1 - s_b / s_a) (u^2 - s_a^2)."""
    a, b = RNG(0).normal(size=(100_000, 1)) * 2 + 1, Moments.of_covariance(10**6, np.zeros(1), np.eye(1))
    distance, error = frechet_distance_and_error(a, b)
    assert distance == pytest.approx(1 + 1, rel=0.05)
    # var(u) = 4, var(u^2) = 2 * 16, and both are uncorrelated: 4 * 4 + (1 / 2)^2 * 32 = 24.
    assert error == pytest.approx(np.sqrt(24 / len(a)), rel=0.03)


def test_kernel_distance(sets):
    a, b = sets
    between = np.mean((a @ b.T / 6 + 1) ** 3, axis=1)
    within = (a @ a.T / 6 + 1) ** 3
    np.fill_diagonal(within, 0)  # pairs of an image with itself, or with its copy in a resample, are left out

    def figure(i):
        total = len(i) ** 2 - np.sum(np.bincount(i) ** 2)
        return within[i][:, i].sum() / total - 2 * between[i].mean()

    distance, error = kernel_distance_and_error(a, b)
    assert distance == kernel_distance(a, b)
    assert error == pytest.approx(bootstrapped(figure, len(a)), rel=0.12)


def test_scaled_kernel_distance_has_a_scaled_error(sets):
    a, b = sets
    plain, scaled = scaled_kernel_distance_and_error(a, b), scaled_kernel_distance_and_error(7 * a - 3, 7 * b - 3)
    assert plain == pytest.approx(scaled, rel=1e-10)
    rng = RNG(0)
    white = rng.normal(size=(500, 2))
    white = (white - white.mean(0)) / white.std(0, ddof=1)
    other = rng.normal(size=(80, 2)) + 1
    assert scaled_kernel_distance_and_error(other, white)[1] == pytest.approx(
        100 * kernel_distance_and_error(other, white)[1], rel=1e-10
    )


def test_inception_score_of_extremes():
    """Certain and even over 8 classes: 8. The same answer for all: 1. Neither varies. Large logits do not overflow."""
    certain = np.tile(1e4 * np.eye(8), (50, 1))
    assert inception_score(certain) == pytest.approx((8, 0), abs=1e-6)
    assert inception_score(certain, split_size=80) == pytest.approx((8, 0), abs=1e-6)
    assert inception_score(np.tile(RNG(0).normal(size=8), (30, 1))) == pytest.approx((1, 0), abs=1e-7)


def test_inception_score_of_two_kinds():
    """Half the samples certain of class 0, half undecided between both: p = (3/4, 1/4), KL = log 4/3 and log 2/sqrt 3."""
    logits = np.array([[60.0, 0.0], [0.0, 0.0]] * 100)
    expected = np.exp(0.5 * np.log(4 / 3) + 0.5 * np.log(2 / np.sqrt(3)))
    score, error = inception_score(logits)
    assert score == pytest.approx(expected, rel=1e-12)
    spread = 0.5 * (np.log(4 / 3) - np.log(2 / np.sqrt(3)))
    assert error == pytest.approx(expected * spread / np.sqrt(200), rel=1e-12)


def test_error_of_inception_score_is_that_of_the_bootstrap():
    logits = 2 * RNG(0).normal(size=(600, 10)) + np.linspace(0, 3, 10)
    expected = bootstrapped(lambda i: inception_score(logits[i])[0], len(logits))
    assert inception_score(logits)[1] == pytest.approx(expected, rel=0.12)


def test_error_over_parts_is_that_of_a_mean():
    """Parts are independent, so the mean of k has the error of their mean."""
    logits = RNG(0).normal(size=(300, 4))
    parts = [inception_score(logits[i : i + 100]) for i in (0, 100, 200)]
    score, error = inception_score(logits, split_size=100)
    assert score == pytest.approx(np.mean([s for s, _ in parts]))
    assert error == pytest.approx(np.sqrt(np.sum(np.square([e for _, e in parts]))) / 3)


@pytest.mark.parametrize("count", [999, 1000, 1001, 2500])
def test_inception_score_of_any_number_of_samples_is_its_definition(count):
    """Sums over samples are taken a thousand at a time."""
    logits = RNG(2).normal(size=(count, 3)) + np.linspace(0, 2, count)[:, None] * [1, 0, 0]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    divergences = (p * np.log(p / p.mean(0))).sum(1)
    expected = np.exp(divergences.mean())
    assert inception_score(logits) == pytest.approx(
        (expected, expected * divergences.std() / np.sqrt(count)), rel=1e-10
    )
