"""Decomposed and Scaled against numpy on the assembled matrix, conjugate gradients, and a spectrum that is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sde_lib import VPSDE, exact
from sde_lib.inverse import (
    MMPS,
    Decomposed,
    FourierSampling,
    MultiCoilFourierSampling,
    Radon,
    Scaled,
    decomposed,
    operator_norm,
    parallel_angles,
)
from tests.sde_lib.inverse.assembled import matrix

RNG = np.random.default_rng(0)
MASK = np.array([[1, 0, 1, 0, 0], [0, 0, 1, 1, 0], [1, 1, 0, 0, 0], [0, 1, 1, 1, 1]], float)


def radon(angles):
    return Radon(event_shape=(4, 5, 1), angles=parallel_angles(angles) + 0.1, rtol=1e-13, max_steps=1000)


def coils(channels):
    maps = RNG.normal(size=(2, 4, 5, 2))
    return MultiCoilFourierSampling(event_shape=(4, 5, channels), mask=MASK, coil_maps=maps, rtol=1e-13, max_steps=1000)


# Fewer values measured than pixels, more, and as good as none of some pixels.
MEASUREMENTS = {
    "few angles": lambda: radon(2), "many angles": lambda: radon(9), "lost rays": lambda: masked(radon(4)),
    "real, 2 coils": lambda: coils(1), "complex, 2 coils": lambda: coils(2),
}  # fmt: skip
every = pytest.mark.parametrize("make", MEASUREMENTS.values(), ids=MEASUREMENTS)


def masked(measurement):
    return measurement.replace(mask=jnp.ones((4, measurement.num_detectors())).at[:, 3].set(0).at[1].set(0))


def images(measurement, batch=2):
    return RNG.normal(size=(batch, *measurement.event_shape))


def measured(measurement, batch=2):
    """Values that no image has, with something where nothing is sampled."""
    return RNG.normal(size=measurement.forward(images(measurement, batch)).shape)


def flat(x):
    return np.asarray(x).reshape(len(x), -1)


@every
def test_it_is_the_measurement(make):
    measurement = make()
    found, x, y = Decomposed.of(measurement), images(measurement), measured(measurement)
    np.testing.assert_allclose(found.forward(x), measurement.forward(x), atol=1e-10)
    np.testing.assert_allclose(found.adjoint(y), measurement.adjoint(y), atol=1e-10)
    s = np.linalg.svd(matrix(measurement), compute_uv=False)
    np.testing.assert_allclose(found.singular_values()[: len(s)], s[: x[0].size], atol=1e-10)
    assert found.singular_values().shape == (x[0].size,) and not found.singular_values()[len(s) :].any()


@every
def test_the_spectra_are_the_contracts(make):
    """V is orthogonal; U^T U is 1 where s > 0 and 0 elsewhere; A V = U s; and U^T gives 0 for what no image gives."""
    measurement = make()
    found, size = Decomposed.of(measurement), int(np.prod(measurement.event_shape))
    seen = np.asarray(found.singular_values()) > 0
    unit = np.eye(size)
    np.testing.assert_allclose(found.to_spectrum(found.from_spectrum(unit)), unit, atol=1e-12)
    there = found.measured_from_spectrum(unit * seen)
    np.testing.assert_allclose(found.measured_to_spectrum(there), np.diag(seen), atol=1e-12)
    np.testing.assert_allclose(
        measurement.forward(found.from_spectrum(unit)), flat_like(there, found.singular_values()), atol=1e-10
    )
    y, A = measured(measurement), matrix(measurement)
    outside = y - (flat(y) @ (A @ np.linalg.pinv(A, rcond=1e-11)).T).reshape(y.shape)
    assert np.abs(outside).max() > 0.1
    np.testing.assert_allclose(found.measured_to_spectrum(outside), 0, atol=1e-10)


def flat_like(rows, factors):
    return np.asarray(rows) * np.asarray(factors).reshape(-1, *[1] * (rows.ndim - 1))


@every
def test_solves_are_numpys(make):
    """For what no image gives too, by the matrix with all its rows; and those of conjugate gradients."""
    measurement = make()
    found, y, A = Decomposed.of(measurement), measured(measurement), matrix(measurement)
    for c in (0.3, 1e-3):
        expected = np.linalg.solve(A @ A.T + c * np.eye(len(A)), flat(y).T).T
        np.testing.assert_allclose(flat(found.normal_solve(y, c)), expected, rtol=1e-10, atol=1e-10)
    expected = flat(y) @ np.linalg.pinv(A, rcond=1e-11).T
    np.testing.assert_allclose(flat(found.pseudo_inverse(y)), expected, atol=1e-10 * np.abs(expected).max())
    each = jnp.array([0.3, 2.0])
    np.testing.assert_allclose(found.normal_solve(y, each), measurement.normal_solve(y, each), atol=1e-10)
    within = measurement.forward(images(measurement))
    solved = found.normal_solve(within)
    np.testing.assert_allclose(found.forward(found.adjoint(solved)), within, atol=1e-10)
    np.testing.assert_allclose(flat(solved), flat(within) @ np.linalg.pinv(A @ A.T, rcond=1e-11).T, atol=1e-8)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_known_spectrum_is_found(channels):
    """That of k-space with weights: one coil's, which is closed."""
    known = FourierSampling(event_shape=(4, 5, channels), mask=MASK * RNG.uniform(0.5, 2, MASK.shape))
    found, x, y = Decomposed.of(known), images(known), measured(known)
    np.testing.assert_allclose(
        found.singular_values(), np.sort(np.asarray(known.singular_values()).ravel())[::-1], atol=1e-10
    )
    np.testing.assert_allclose(found.forward(x), known.forward(x), atol=1e-10)
    np.testing.assert_allclose(found.pseudo_inverse(y), known.pseudo_inverse(y), atol=1e-10)
    np.testing.assert_allclose(found.normal_solve(y, 0.2), known.normal_solve(y, 0.2), atol=1e-10)


def test_what_is_not_sampled_is_left_out():
    found = Decomposed.of(coils(1))
    assert len(found.rows) <= 2 * 2 * MASK.sum() and found.u.shape == (len(found.rows), 20)
    np.testing.assert_array_equal(found.forward(images(found))[:, :, MASK == 0], 0)


def test_small_singular_values_count_as_none():
    """Of a matrix that numpy makes of the rest: the measurement without them."""
    measurement = radon(3)
    s = np.linalg.svd(matrix(measurement), compute_uv=False)
    kept = 5
    found = Decomposed.of(measurement, rcond=(s[kept - 1] + s[kept]) / 2 / s[0])
    assert int((found.singular_values() > 0).sum()) == kept
    y = measured(measurement)
    expected = flat(y) @ np.linalg.pinv(matrix(measurement), rcond=(s[kept - 1] + s[kept]) / 2 / s[0]).T
    np.testing.assert_allclose(flat(found.pseudo_inverse(y)), expected, atol=1e-10)


def test_one_compilation_serves_other_angles():
    traces = []

    @jax.jit
    def solve(measurement, y):
        traces.append(1)
        return measurement.normal_solve(y, 0.1)

    first, second = radon(3), radon(3).replace(angles=parallel_angles(3) + 0.2)
    y = measured(first)
    for measurement in (first, second):
        A = matrix(measurement)
        expected = np.linalg.solve(A @ A.T + 0.1 * np.eye(len(A)), flat(y).T).T
        found = Decomposed.of(measurement)
        np.testing.assert_allclose(flat(solve(found, y)), expected, atol=1e-10)
    assert len(traces) == 1


@pytest.mark.parametrize("angles", [1, 3])
def test_the_abstract_one_has_the_shapes_of_the_decomposition(angles):
    """With fewer rows than pixels and with more."""
    measurement = Radon(event_shape=(4, 5, 1), angles=parallel_angles(angles))
    abstract, found = Decomposed.abstract(measurement), Decomposed.of(measurement)
    assert jax.tree.structure(abstract) == jax.tree.structure(found)
    for expected, leaf in zip(jax.tree.leaves(found), jax.tree.leaves(abstract), strict=True):
        assert (leaf.shape, leaf.dtype) == (expected.shape, expected.dtype)


def test_what_is_too_large_is_named(monkeypatch):
    large = Radon(event_shape=(65, 64, 1), angles=parallel_angles(1))
    with pytest.raises(ValueError, match=r"^Decomposed: Radon of images of 4160 values: at most 4096 are decomposed$"):
        Decomposed.of(large)
    assert not Decomposed.fits(large) and Decomposed.fits(radon(9))
    rows = len(Decomposed.of(radon(9)).rows)
    monkeypatch.setattr(decomposed, "MAX_MATRIX", 20 * rows - 1)
    with pytest.raises(
        ValueError, match=rf"has a matrix of {rows} x 20 values: at most {20 * rows - 1} are decomposed$"
    ):
        Decomposed.of(radon(9))
    assert not Decomposed.fits(radon(9))
    for largest, whole, fits in ((20, 20 * rows, True), (19, 20 * rows, False), (20, 20 * rows - 1, False)):
        monkeypatch.setattr(decomposed, "MAX_IMAGE", largest)
        monkeypatch.setattr(decomposed, "MAX_MATRIX", whole)
        assert Decomposed.fits(radon(9)) == fits


def test_columns_are_made_in_parts(monkeypatch):
    """Not a divisor of the number of pixels."""
    monkeypatch.setattr(decomposed, "COLUMNS", 7)
    x = images(radon(3))
    np.testing.assert_allclose(Decomposed.of(radon(3)).forward(x), radon(3).forward(x), atol=1e-10)


@every
def test_scaled_is_the_measurement_in_other_units(make):
    measurement, factor = make(), 0.3
    A, x, y = factor * matrix(measurement), images(measurement), measured(measurement)
    found = Scaled(measurement=measurement, factor=factor)
    np.testing.assert_allclose(flat(found.forward(x)), flat(x) @ A.T, atol=1e-10)
    np.testing.assert_allclose(flat(found.adjoint(y)), flat(y) @ A, atol=1e-10)
    expected = np.linalg.solve(A @ A.T + 0.2 * np.eye(len(A)), flat(y).T).T
    np.testing.assert_allclose(flat(found.normal_solve(y, 0.2)), expected, atol=1e-8)
    expected = flat(y) @ np.linalg.pinv(A, rcond=1e-9).T
    np.testing.assert_allclose(flat(found.pseudo_inverse(y)), expected, atol=1e-6 * np.abs(expected).max())


def test_the_norm_is_the_largest_singular_value():
    for measurement in (radon(2), radon(9), coils(2)):
        expected = np.linalg.svd(matrix(measurement), compute_uv=False)[0]
        assert float(operator_norm(measurement, steps=300)) == pytest.approx(expected, rel=1e-8)
        assert 0.97 * expected < float(operator_norm(measurement)) <= expected * (1 + 1e-12)
    nothing = Scaled(measurement=radon(2).replace(mask=jnp.zeros((2, radon(2).num_detectors()))), factor=1.0)
    assert float(operator_norm(nothing)) == 0


@every
def test_posteriors_that_differentiate_take_it(make):
    measurement = make()
    prior = exact.Gaussian(VPSDE(), 0.1, 0.7)
    x, y = images(measurement), measurement.forward(images(measurement))
    expected, found = (MMPS(prior, a, y, 0.3)(x, 0.4) for a in (measurement, Decomposed.of(measurement)))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
