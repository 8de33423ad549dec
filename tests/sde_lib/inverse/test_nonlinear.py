"""Nonlinear measurements: invariances, closed forms, Pillow's JPEG, scipy's convolution."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import convolve

from sde_lib.inverse import JPEG, HighDynamicRange, NonlinearBlur, PhaseRetrieval, soft_round, straight_through_round
from sde_lib.inverse.nonlinear import (
    CHROMINANCE_TABLE,
    LUMINANCE_TABLE,
    light_to_srgb,
    quantization_table,
    srgb_to_light,
)

RNG = np.random.default_rng(0)
KERNEL = np.array([[1, 2, 0], [0, 3, 1], [0, 0, 1], [0, 1, 0], [4, 0, 2]]) / 15


def smooth(height, width, channels, batch=1):
    """Uint8 images (batch, H, W, C) of a few waves, other ones for each channel."""
    row, column = np.indices((height, width))
    phase = 2.0 * np.arange(channels) + np.arange(batch)[:, None, None, None]
    waves = np.sin(row[..., None] / 7 + phase) + np.cos(column[..., None] / 5 - row[..., None] / 11 + 2 * phase)
    return np.rint(127.5 + 50 * waves).astype(np.uint8)


def test_magnitudes_are_numpys_of_the_image_among_zeros():
    x = RNG.normal(size=(2, 6, 5, 3))
    padded = np.pad(x, ((0, 0), (6, 0), (2, 3), (0, 0)))  # wherever the zeros are
    expected = np.abs(np.fft.fft2(padded, axes=(1, 2))) / np.sqrt(12 * 10)
    np.testing.assert_allclose(PhaseRetrieval().forward(x), expected, atol=1e-12)
    expected = np.abs(np.fft.fft2(x[:, :, :4], (9, 6), axes=(1, 2))) / np.sqrt(9 * 6)
    np.testing.assert_allclose(PhaseRetrieval(oversampling=1.5).forward(x[:, :, :4]), expected, atol=1e-12)


def test_magnitudes_do_not_tell_sign_turn_and_place():
    """But they do tell other images: here, a mirrored one."""
    x = np.zeros((1, 8, 8, 1))
    x[0, 1:5, 2:6, 0] = RNG.normal(size=(4, 4))
    measure = PhaseRetrieval().forward
    for same in (-x, x[:, ::-1, ::-1], np.roll(x, (3, -2), (1, 2))):
        np.testing.assert_allclose(measure(same), measure(x), atol=1e-12)
    assert np.abs(measure(x[:, ::-1]) - measure(x)).max() > 0.1


def test_magnitudes_have_a_gradient_at_zero():
    """A black image has no coefficients; and half the squares' gradient is the image (the transform is an isometry)."""
    x = RNG.normal(size=(1, 4, 4, 1))
    np.testing.assert_array_equal(jax.grad(lambda x: PhaseRetrieval().forward(x).sum())(0 * x), 0)
    np.testing.assert_allclose(jax.grad(lambda x: 0.5 * (PhaseRetrieval().forward(x) ** 2).sum())(x), x, atol=1e-12)


def test_high_dynamic_range():
    x = np.array([[-0.9, -0.4, 0.0, 0.3, 0.6]])
    np.testing.assert_allclose(HighDynamicRange().forward(x), [[-1, -0.8, 0, 0.6, 1]])
    np.testing.assert_allclose(HighDynamicRange(scale=3.0).forward(x), [[-1, -1, 0, 0.9, 1]])
    np.testing.assert_allclose(jax.grad(lambda x: HighDynamicRange().forward(x).sum())(x), [[0, 2, 2, 2, 0]])


@pytest.mark.parametrize("quality", [1, 10, 33, 50, 75, 90, 100])
def test_quantization_tables_are_pillows(quality):
    file = io.BytesIO()
    Image.fromarray(smooth(8, 8, 3)[0]).save(file, "JPEG", quality=quality)
    tables = Image.open(file).quantization
    for base, table in ((LUMINANCE_TABLE, tables[0]), (CHROMINANCE_TABLE, tables[1])):
        np.testing.assert_array_equal(quantization_table(base, quality).ravel(), table)


@pytest.mark.parametrize("shape", [(64, 96), (67, 75)])
@pytest.mark.parametrize("channels, subsampled", [(1, False), (3, False), (3, True)])
@pytest.mark.parametrize("quality", [10, 50, 95])
def test_jpeg_is_pillows(quality, channels, subsampled, shape):
    """To 1.5 grey levels, save where a coefficient lies half-way between two steps: Pillow rounds pixels before."""
    image = smooth(*shape, channels)[0]
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, "JPEG", quality=quality, subsampling=2 if subsampled else 0)
    expected = np.asarray(Image.open(file), float).reshape(image.shape)
    measurement = JPEG(quality=quality, subsampled_chroma=subsampled)
    got = 127.5 * (np.asarray(jax.jit(lambda m, x: m.forward(x))(measurement, image[None] / 127.5 - 1))[0] + 1)
    error = np.abs(got - expected)
    assert np.quantile(error, 0.8) < 1.5
    assert error.mean() < 0.5 + 0.2 * np.abs(expected - image).mean()


def test_jpeg_leaves_an_image_of_whole_steps_alone():
    """A file that is written again at the same quality stays as it is."""
    x = JPEG(quality=30.0).forward(smooth(16, 16, 3) / 127.5 - 1)
    np.testing.assert_allclose(JPEG(quality=30.0).forward(x), x, atol=1e-12)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpegs_straight_gradient_is_that_of_no_rounding(channels):
    """Without rounding the file is the image; so the gradient of <w, file> is w."""
    x, w = smooth(13, 16, channels) / 127.5 - 1, RNG.normal(size=(1, 13, 16, channels))
    x = 0.5 * x  # within black and white
    got = jax.grad(lambda x: (w * JPEG(quality=40.0).forward(x)).sum())(x)
    np.testing.assert_allclose(got, w, atol=1e-10)


def test_jpegs_soft_gradient_is_that_of_its_soft_values():
    """Finite differences agree, and it is not zero: in float64 the cube's own derivative."""
    x, w = 0.5 * (smooth(8, 8, 1) / 127.5 - 1), RNG.normal(size=(1, 8, 8, 1))
    value = lambda x: (w * JPEG(quality=40.0, rounding=soft_round).forward(x)).sum()  # noqa: E731
    slope = jax.grad(value)(x)
    step = 1e-6 * RNG.normal(size=x.shape)
    assert np.abs(slope).max() > 1e-3
    assert value(x + step) - value(x - step) == pytest.approx(2 * (slope * step).sum(), rel=1e-4)


def test_roundings():
    x = np.array([-1.4, 0.2, 2.0, 2.9])
    np.testing.assert_allclose(straight_through_round(x), [-1, 0, 2, 3])
    np.testing.assert_allclose(jax.vmap(jax.grad(straight_through_round))(x), 1)
    np.testing.assert_allclose(soft_round(x), [-1 - 0.064, 0.008, 2, 3 - 0.001])
    np.testing.assert_allclose(jax.vmap(jax.grad(soft_round))(x), [0.48, 0.12, 0, 0.03], atol=1e-12)


def test_the_srgb_response():
    """Its published values: half the light is level 188, level 128 is 21.6 % of the light; black has a finite slope."""
    assert 127.5 * (light_to_srgb(0.5) + 1) == pytest.approx(187.516, abs=1e-3)
    assert srgb_to_light(128 / 127.5 - 1) == pytest.approx(0.215861, abs=1e-6)
    assert srgb_to_light(10 / 127.5 - 1) == pytest.approx(0.003035, abs=1e-6)
    x = np.linspace(-1.5, 1.5, 61)
    np.testing.assert_allclose(light_to_srgb(srgb_to_light(x)), x, atol=1e-12)
    assert jax.grad(lambda x: light_to_srgb(x))(0.0) == pytest.approx(2 * 12.92)


def test_blur_is_scipys_of_the_light():
    x = RNG.uniform(-1, 1, size=(2, 9, 8, 3))
    expected = np.empty_like(x)
    for index in np.ndindex(2, 3):
        light = np.asarray(srgb_to_light(x[index[0], :, :, index[1]]))
        expected[index[0], :, :, index[1]] = light_to_srgb(convolve(light, KERNEL, mode="nearest"))
    np.testing.assert_allclose(NonlinearBlur(kernel=KERNEL).forward(x), expected, atol=1e-12)


def test_blur_of_black_and_white_is_brighter_than_their_mean():
    """Half the light of white: level 188, not 128. An even image stays as it is, a black one with a finite gradient."""
    columns = np.broadcast_to(np.array([-1.0, 1.0] * 4)[None, None, :, None], (1, 4, 8, 1))
    blurred = NonlinearBlur(kernel=np.array([[0.25, 0.5, 0.25]])).forward(columns)
    np.testing.assert_allclose(127.5 * (blurred[:, :, 1:-1] + 1), 187.516, atol=1e-3)
    blur = NonlinearBlur(kernel=KERNEL).forward
    np.testing.assert_allclose(blur(np.full((1, 7, 7, 1), 0.3)), 0.3, atol=1e-12)
    slope = jax.grad(lambda x: blur(x)[0, 3, 3, 0])(np.full((1, 7, 7, 1), -1.0))
    np.testing.assert_allclose(slope[0, 1:6, 2:5, 0], KERNEL[::-1, ::-1], atol=1e-12)


EVERY = [PhaseRetrieval(), HighDynamicRange(), JPEG(quality=20.0, subsampled_chroma=True), NonlinearBlur(kernel=KERNEL)]


@pytest.mark.parametrize("measurement", EVERY, ids=lambda measurement: type(measurement).__name__)
def test_an_image_alone_is_that_image_in_a_batch_in_float32_too(measurement):
    x = smooth(16, 16, 3, batch=3) / 127.5 - 1
    forward = jax.jit(lambda m, x: m.forward(x))
    np.testing.assert_allclose(forward(measurement, x)[1], forward(measurement, x[1:2])[0], atol=1e-12)
    single = forward(measurement, jnp.float32(x))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, forward(measurement, x), atol=2e-5)


SMOOTH = [PhaseRetrieval(), HighDynamicRange(), NonlinearBlur(kernel=KERNEL)]


@pytest.mark.parametrize("measurement", SMOOTH, ids=lambda measurement: type(measurement).__name__)
def test_derivative_is_that_of_differences_and_has_an_exact_adjoint(measurement):
    at, d = RNG.uniform(-0.9, 0.9, size=(2, 2, 6, 6, 1))
    tangent, h = measurement.derivative(at), 1e-6
    slope = (measurement.forward(at + h * d) - measurement.forward(at - h * d)) / (2 * h)
    np.testing.assert_allclose(tangent.forward(d), slope, atol=1e-8)
    y = RNG.normal(size=slope.shape)
    np.testing.assert_allclose(np.vdot(tangent.adjoint(y), d), np.vdot(y, tangent.forward(d)), rtol=1e-10)
    assert np.abs(tangent.adjoint(y)).max() > 0.1


def test_derivative_of_jpeg_is_that_of_no_rounding():
    """All but what is clipped: here, where the decoded image is beyond white."""
    jpeg, at = JPEG(quality=30.0), RNG.uniform(-0.5, 0.5, size=(1, 8, 8, 1))
    at[0, :, :4] = 1.2
    d = RNG.normal(size=at.shape)
    kept = np.abs(jpeg.forward(at)) < 1
    assert 0 < kept.sum() < kept.size
    np.testing.assert_allclose(jpeg.derivative(at).forward(d), np.where(kept, d, 0), atol=1e-12)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"images of shape \(8, 8, 2\) must have 1 channel .* or 3"):
        JPEG().forward(np.ones((1, 8, 8, 2)))
    with pytest.raises(ValueError, match=r"kernel of shape \(2, 3\) must be \(h, w\) with odd"):
        NonlinearBlur(kernel=np.ones((2, 3)) / 6).forward(np.ones((1, 8, 8, 1)))
