"""What holds of every measurement: the dtype of what it is given, sizes rounded to the nearest, and solves at the bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from sde_lib.inverse import (
    JPEG,
    Blur,
    Colorization,
    CompletedRadon,
    Compose,
    CompressedSensing,
    Decomposed,
    Denoising,
    FourierSampling,
    GaussianNoise,
    HighDynamicRange,
    Inpainting,
    LinearCompose,
    LinearMeasurement,
    MultiCoilFourierSampling,
    NonlinearBlur,
    PeriodicBlur,
    PhaseRetrieval,
    PoissonNoise,
    Radon,
    Scaled,
    SeparableBlur,
    SeparableMeasurement,
    SuperResolution,
    birdcage_maps,
    operator_norm,
)
from sde_lib.inverse.measurement import Measurement
from tests.sde_lib.inverse.dense import Dense
from tests.sde_lib.inverse.test_linear_measurements import BY_CONJUGATE_GRADIENTS, normal
from tests.sde_lib.processes import keys

SHAPE = (4, 6, 3)
KERNEL = np.array([[0.1, 0.6, 0.3]])
GREY = (4, 6, 1)
WEIGHTS = np.random.default_rng(0).uniform(size=GREY[:2])
MASK = WEIGHTS < 0.5
RADON = {"event_shape": GREY, "angles": np.array([0.1, 1.2, 2.3])}
EVERY = {
    "denoising": lambda: Denoising(event_shape=SHAPE),
    "inpainting": lambda: Inpainting.box(SHAPE, 2),
    "colorization": lambda: Colorization(event_shape=SHAPE),
    "average": lambda: SuperResolution.average(SHAPE, 2),
    "separable blur": lambda: SeparableBlur.gaussian(SHAPE, 1.0, 3),
    "periodic blur": lambda: PeriodicBlur(event_shape=SHAPE, kernel=KERNEL),
    "blur": lambda: Blur(event_shape=SHAPE, kernel=KERNEL),
    "compressed sensing": lambda: CompressedSensing.random(jax.random.key(0), SHAPE, 0.5),
    "k-space": lambda: FourierSampling(event_shape=GREY, mask=MASK),
    "weighted k-space": lambda: FourierSampling(event_shape=GREY, mask=WEIGHTS),
    "complex k-space": lambda: FourierSampling(event_shape=(4, 6, 2), mask=WEIGHTS),
    "coils": lambda: MultiCoilFourierSampling(event_shape=GREY, mask=WEIGHTS, coil_maps=birdcage_maps(GREY[:2], 2)),
    "radon": lambda: Radon(**RADON),
    "lost rays": lambda: Radon(**RADON, mask=np.ones((3, 8))),
    "completed radon": lambda: CompletedRadon(**RADON),
    "compose": lambda: LinearCompose(outer=Inpainting.box((2, 3, 3), 1), inner=SuperResolution.average(SHAPE, 2)),
    "scaled": lambda: Scaled(measurement=Denoising(event_shape=SHAPE), factor=0.5),
    "phase retrieval": PhaseRetrieval,
    "high dynamic range": HighDynamicRange,
    "jpeg": lambda: JPEG(subsampled_chroma=True),
    "nonlinear blur": lambda: NonlinearBlur(kernel=KERNEL),
    "nonlinear compose": lambda: Compose(outer=HighDynamicRange(), inner=Denoising(event_shape=SHAPE)),
}


@pytest.mark.parametrize("name", EVERY)
def test_what_is_measured_has_the_dtype_of_the_image(name):
    """And so has what is solved for, where masks and matrices are of float64; nothing is computed here."""
    measurement, dtype = EVERY[name](), jnp.float32
    x = jax.ShapeDtypeStruct((2, *getattr(measurement, "event_shape", SHAPE)), dtype)
    y = jax.eval_shape(measurement.forward, x)
    assert y.dtype == dtype
    tangent = measurement if hasattr(measurement, "adjoint") else jax.eval_shape(measurement.derivative, x)
    assert jax.eval_shape(lambda t, x: t.forward(x), tangent, x) == y
    for back in ("adjoint", "pseudo_inverse"):
        assert jax.eval_shape(lambda t, y, back=back: getattr(t, back)(y), tangent, y) == x
    for c in (0.0, 0.1):
        assert jax.eval_shape(lambda t, y, c=c: t.normal_solve(y, c), tangent, y) == y


@pytest.mark.parametrize("noise", [GaussianNoise(0.3), PoissonNoise(6.0)], ids=str)
def test_noise_has_the_dtype_of_what_is_measured(noise):
    clean = jax.ShapeDtypeStruct((2, 3), jnp.float32)
    assert jax.eval_shape(noise.sample, keys(2), clean) == clean
    assert jax.eval_shape(noise.log_prob, clean, clean) == jax.ShapeDtypeStruct((2,), jnp.float32)
    assert jax.eval_shape(noise.variance, clean).dtype == jnp.float32


def shape(measurement):
    return jax.eval_shape(measurement.forward, jnp.zeros((1, *getattr(measurement, "event_shape", (4, 5, 1))))).shape[
        1:
    ]


def test_sizes_are_rounded_to_the_nearest():
    for make in (SuperResolution.average, SuperResolution.bicubic):
        assert shape(make((10, 12, 2), 1.3)) == (8, 9, 2)  # 7.7 and 9.2
        assert shape(make((7, 4, 1), 3)) == (2, 1, 1)  # 2.3 and 1.3
    assert shape(PhaseRetrieval(oversampling=1.7)) == (7, 8, 1)  # 6.8 and 8.5, to even
    assert shape(PhaseRetrieval(oversampling=1.3)) == (5, 6, 1)  # 5.2 and 6.5
    for share, pixels, coefficients in ((0.28, 6, 17), (0.32, 6, 19), (0.34, 7, 20)):  # of 20 and of 60
        mask = Inpainting.random(jax.random.key(0), (4, 5, 3), share).mask
        assert mask[..., 0].sum() == pixels
        assert shape(CompressedSensing.random(jax.random.key(0), (4, 5, 3), share)) == (coefficients,)


def test_a_share_of_nothing_and_of_all():
    x = normal(0, 2, *SHAPE)
    np.testing.assert_array_equal(Inpainting.random(jax.random.key(0), SHAPE, 0).forward(x), 0 * x)
    np.testing.assert_array_equal(Inpainting.random(jax.random.key(0), SHAPE, 1).forward(x), x)
    whole = CompressedSensing.random(jax.random.key(0), SHAPE, 1.0)
    y = whole.forward(x)
    np.testing.assert_allclose(whole.pseudo_inverse(y), x, atol=1e-12)
    np.testing.assert_allclose((y**2).sum(1), (x**2).sum((1, 2, 3)), rtol=1e-12)


def test_a_factor_of_1_is_the_image():
    x = normal(0, 2, *SHAPE)
    for make in (SuperResolution.average, SuperResolution.bicubic):
        np.testing.assert_allclose(make(SHAPE, 1).forward(x), x, atol=1e-12)


@pytest.mark.parametrize(
    "shape, size, corner",
    [((5, 7), (1, 3), (2, 2)), ((6, 7), 3, (1, 2)), ((5, 6), 2, (1, 2)), ((4, 5), (4, 5), (0, 0))],
)
def test_a_box_without_a_corner_is_in_the_middle(shape, size, corner):
    """Of an odd margin the larger part is below and at the right."""
    expected = np.ones((*shape, 1))
    height, width = np.broadcast_to(size, 2)
    expected[corner[0] : corner[0] + height, corner[1] : corner[1] + width] = 0
    np.testing.assert_array_equal(Inpainting.box((*shape, 3), size).mask, expected)
    np.testing.assert_array_equal(Inpainting.box((*shape, 3), size, corner).mask, expected)


def test_masks_are_of_pixels_or_of_values():
    """(H, W), (H, W, 1) and (H, W, C), of booleans or numbers; NaN where nothing is measured is not looked at."""
    pixels = np.random.default_rng(1).integers(0, 2, SHAPE[:2])
    x, y = normal(0, 2, *SHAPE), normal(1, 2, *SHAPE)
    for mask in (pixels, pixels[..., None], pixels > 0, np.repeat(pixels[..., None], 3, 2).astype(float)):
        found = Inpainting.free(SHAPE, mask)
        np.testing.assert_array_equal(found.forward(x), x * pixels[..., None])
        spoilt = jnp.where(pixels[..., None] == 1, y, jnp.nan)
        for solved in (found.adjoint(spoilt), found.pseudo_inverse(spoilt)):
            np.testing.assert_array_equal(solved, y * pixels[..., None])
    one_row = Inpainting.free((4, 6), pixels)  # without channels the mask is the event's
    np.testing.assert_array_equal(one_row.forward(x[..., 0]), x[..., 0] * pixels)


def test_c_may_be_0_for_some_examples():
    """Then of those alone what lies outside the range of A does not count; by conjugate gradients and in closed form."""
    for measurement in (BY_CONJUGATE_GRADIENTS["differences"](), EVERY["inpainting"](), EVERY["average"]()):
        x = jnp.zeros((1, *measurement.event_shape))
        y, c = normal(3, 3, *measurement.forward(x).shape[1:]), jnp.array([0.0, 0.3, 0.0])
        solved = measurement.normal_solve(y, c)
        np.testing.assert_allclose(solved[1:2], measurement.normal_solve(y[1:2], 0.3), rtol=1e-7, atol=1e-9)
        for i in (0, 2):
            within = measurement.forward(measurement.pseudo_inverse(y[i : i + 1]))
            again = measurement.forward(measurement.adjoint(solved[i : i + 1]))
            np.testing.assert_allclose(again, within, atol=1e-7)
            outside = solved[i : i + 1] - measurement.forward(measurement.pseudo_inverse(solved[i : i + 1]))
            np.testing.assert_allclose(outside, 0, atol=1e-7)


@struct.dataclass(kw_only=True)
class Product(LinearMeasurement):
    """x matrix^T by the solves that every linear measurement has."""

    matrix: jax.Array

    def forward(self, x):
        return x @ self.matrix.T


def test_solves_by_conjugate_gradients_end_by_their_settings():
    """By numpy: after one step, of steepest descent, where that is all of the steps or near enough by the tolerance."""
    measurement = Product(event_shape=(3,), matrix=np.array([[1.0, 0.2, 0.0], [0.0, 0.4, 0.1], [0.1, 0.0, 0.7]]))
    y = normal(4, 1, 3)
    image = measurement.adjoint(y)

    def first_step(b, product):
        length = jnp.vdot(b, b) / jnp.vdot(b, product)
        assert 0.02 < jnp.linalg.norm(b - length * product) / jnp.linalg.norm(b) < 0.5
        return length * b

    solved = first_step(y, measurement.forward(image) + 0.3 * y)
    inverse = first_step(image, measurement.adjoint(measurement.forward(image)))
    for settings in ({"rtol": 1e-13, "max_steps": 1}, {"rtol": 0.5, "max_steps": 200}):
        short = measurement.replace(**settings)
        np.testing.assert_allclose(short.normal_solve(y, 0.3), solved, rtol=1e-9)
        np.testing.assert_allclose(short.pseudo_inverse(y), inverse, rtol=1e-9)


def test_singular_values_count_down_to_their_share_of_the_largest():
    """1e-5 by default, of the products of both axes and of a kernel's transform; in float64, of any matrix."""
    rows, columns = np.diag([2.0, 2.2e-3]).astype(np.float32), np.diag([1.0, 0.01, 0.009]).astype(np.float32)
    found = SeparableMeasurement.of((2, 3, 1), rows, columns)
    assert found.rows.s.dtype == found.columns.v.dtype == np.float64
    expected = [[2, 2e-2, 1.8e-2], [2.2e-3, 2.2e-5, 0]]  # the last is 1.98e-5
    np.testing.assert_allclose(found.singular_values()[..., 0], expected, rtol=1e-6)
    kept = SeparableMeasurement.of((2, 3, 1), rows, columns, rcond=9.8e-6)
    np.testing.assert_allclose(kept.singular_values()[1, 2, 0], 1.98e-5, rtol=1e-6)
    for least, there in ((1.1e-5, True), (0.9e-5, False)):
        # Of a kernel (a, b, a) over 4 columns the transform is b + 2 a cos(pi k / 2): least at k = 2.
        kernel = np.array([[(1 - least) / 4, (1 + least) / 2, (1 - least) / 4]])
        s = PeriodicBlur(event_shape=(1, 4, 1), kernel=kernel).singular_values()[0, :, 0]
        np.testing.assert_allclose(s, [1, (1 + least) / 2, least if there else 0, (1 + least) / 2], rtol=1e-9)
    found = Decomposed.of(Dense(event_shape=(3,), matrix=jnp.diag(jnp.array([1.0, 1e-13, 1e-15]))))
    np.testing.assert_allclose(found.singular_values(), [1, 1e-13, 0], rtol=1e-6)


@pytest.mark.parametrize("rows, columns", [((5, 3), (2, 4)), ((3, 3), (6, 4))], ids=str)
def test_a_separable_measurement_may_have_more_values_than_the_image(rows, columns):
    """Y = R X K^T with matrices of any shape, its least-squares images and its solves."""
    draws = np.random.default_rng(0)
    r, k = draws.normal(size=rows), draws.normal(size=columns)
    found = SeparableMeasurement.of((rows[1], columns[1], 2), r, k)
    x, y = draws.normal(size=(2, rows[1], columns[1], 2)), draws.normal(size=(2, rows[0], columns[0], 2))
    np.testing.assert_allclose(found.forward(x), np.einsum("ih,bhwc,jw->bijc", r, x, k), atol=1e-12)
    expected = np.einsum("hi,bijc,wj->bhwc", np.linalg.pinv(r), y, np.linalg.pinv(k))
    np.testing.assert_allclose(found.pseudo_inverse(y), expected, atol=1e-10)
    solved = found.normal_solve(jnp.asarray(y), 0.3)
    np.testing.assert_allclose(found.forward(found.adjoint(solved)) + 0.3 * solved, y, atol=1e-10)


def test_what_a_derivative_is():
    """A linear measurement is its own; any other's is of its images, with the settings of every linear one."""
    linear = EVERY["blur"]()
    x = normal(0, 2, *SHAPE)
    assert linear.derivative(x) is linear
    tangent = HighDynamicRange().derivative(x)
    assert isinstance(tangent, LinearMeasurement) and not isinstance(linear.derivative(x), type(tangent))
    assert (tangent.event_shape, tangent.rtol, tangent.max_steps) == (SHAPE, 1e-6, 256)
    np.testing.assert_array_equal(tangent.forward(x), jnp.where(jnp.abs(2 * x) < 1, 2 * x, 0))
    assert not hasattr(Measurement(), "adjoint")


def test_compositions_have_the_images_of_the_inner_one():
    inner, outer = SuperResolution.average(SHAPE, 2), Inpainting.box((2, 3, 3), 1)
    assert LinearCompose(outer=outer, inner=inner).event_shape == SHAPE
    assert Scaled(measurement=inner, factor=2.0).event_shape == SHAPE
    y = normal(0, 2, 2, 3, 3)
    found = LinearCompose(outer=outer, inner=inner).adjoint(y)
    np.testing.assert_array_equal(found, inner.adjoint(outer.adjoint(y)))
    each = jnp.array([0.2, 2.0])  # a c of its own for each example, in the units of the scaled one
    scaled = Scaled(measurement=inner, factor=2.0)
    solved = scaled.normal_solve(y, each)
    again = scaled.forward(scaled.adjoint(solved)) + each.reshape(2, 1, 1, 1) * solved
    np.testing.assert_allclose(again, y, rtol=1e-10, atol=1e-12)


def test_the_norm_is_approached_from_below_in_steps_of_a_power():
    """Of diag(1, 0.5), from the image that a key of 0 draws: each step takes a quarter of what the second one has."""
    measurement = Dense(event_shape=(2,), matrix=np.diag([1.0, 0.5]))
    a, b = np.asarray(jax.random.normal(jax.random.key(0), (1, 2), float))[0]
    for steps in (1, 2, 5):
        first, last = (np.hypot(a, b * 0.25**k) for k in (steps - 1, steps))
        np.testing.assert_allclose(operator_norm(measurement, steps) ** 2, last / first, rtol=1e-10)
    norm = jax.eval_shape(lambda: operator_norm(Denoising(event_shape=(2,)), 2, dtype=jnp.float32))
    assert norm == jax.ShapeDtypeStruct((), jnp.float32)
