"""The kernel distance against its definition, and without bias."""

import numpy as np

from experiments.metrics import kernel, kernel_distance, scaled_kernel_distance


def brute_force(a, b):
    """Equation 4 of https://arxiv.org/abs/1801.01401, one pair at a time."""

    def k(u, v):
        return (sum(x * y for x, y in zip(u, v, strict=True)) / len(u) + 1) ** 3

    within_a = [k(a[i], a[j]) for i in range(len(a)) for j in range(len(a)) if i != j]
    within_b = [k(b[i], b[j]) for i in range(len(b)) for j in range(len(b)) if i != j]
    between = [k(u, v) for u in a for v in b]
    return np.mean(within_a) + np.mean(within_b) - 2 * np.mean(between)


def test_against_the_definition(monkeypatch):
    """In one block and in several, the last one partial."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(11, 3)), rng.normal(size=(7, 3)) + 0.5
    np.testing.assert_allclose(kernel_distance(a, b), brute_force(a, b), rtol=1e-12)
    monkeypatch.setattr(kernel, "BLOCK", 4)
    np.testing.assert_allclose(kernel_distance(a, b), brute_force(a, b), rtol=1e-12)


def test_unbiased():
    """Over many small draws of one distribution the mean is 0 within its error; the biased estimate's is not."""
    rng = np.random.default_rng(0)
    draws = [kernel_distance(rng.normal(size=(10, 4)), rng.normal(size=(12, 4))) for _ in range(4000)]
    error = np.std(draws) / np.sqrt(len(draws))
    assert abs(np.mean(draws)) < 4 * error
    # What the biased estimate adds: (E k(a, a) - E k(a, a')) (1/10 + 1/12), with E k(a, a) above 8.
    assert error < 0.1 * (8 - 2) * (1 / 10 + 1 / 12)


def test_expected_value_for_a_shift():
    """For N(m, 1) against N(0, 1) in one dimension, E (x y + 1)^3 in closed form gives MMD^2 = 3 m^2 + 6 m^2 + ...

    The features of the kernel are 1, sqrt(3) x, sqrt(3) x^2, x^3: MMD^2 is the squared difference of their means, with
    E x = m, E x^2 = 1 + m^2, E x^3 = m^3 + 3 m. So MMD^2 = 3 m^2 + 3 m^4 + (m^3 + 3 m)^2.
    """
    m = 0.7
    rng = np.random.default_rng(0)
    draws = [kernel_distance(m + rng.normal(size=(500, 1)), rng.normal(size=(500, 1))) for _ in range(200)]
    expected = 3 * m**2 + 3 * m**4 + (m**3 + 3 * m) ** 2
    assert abs(np.mean(draws) - expected) < 4 * np.std(draws) / np.sqrt(len(draws))


def test_scaled_distance_depends_on_neither_unit_nor_origin():
    rng = np.random.default_rng(0)
    features, reference = rng.normal(size=(60, 5)) + 0.5, rng.normal(size=(40, 5)) * 2
    expected = scaled_kernel_distance(features, reference)
    np.testing.assert_allclose(scaled_kernel_distance(7 * features - 3, 7 * reference - 3), expected, rtol=1e-10)
    turned = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    np.testing.assert_allclose(scaled_kernel_distance(features @ turned, reference @ turned), expected, rtol=1e-10)


def test_scale_is_unit_variance_on_average():
    """A reference already centred, with variances 0.5 and 1.5, is compared as it is, times 100."""
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(30, 2))
    reference = (reference - reference.mean(axis=0)) / reference.std(axis=0, ddof=1) * np.sqrt([0.5, 1.5])
    features = rng.normal(size=(20, 2)) + 1
    np.testing.assert_allclose(
        scaled_kernel_distance(features, reference), 100 * kernel_distance(features, reference), rtol=1e-10
    )
