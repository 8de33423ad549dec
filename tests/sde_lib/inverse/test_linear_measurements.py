"""Linear measurements against their assembled matrices: adjoints, solves, singular values, and what they measure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from flax import struct
from PIL import Image

from sde_lib.inverse import (
    Blur,
    Colorization,
    Compose,
    CompressedSensing,
    Denoising,
    Inpainting,
    LinearCompose,
    LinearMeasurement,
    Measurement,
    PeriodicBlur,
    SeparableBlur,
    SuperResolution,
    gaussian_kernel,
    motion_kernel,
    shake_kernel,
)
from sde_lib.inverse.conjugate_gradients import conjugate_gradients
from tests.sde_lib.processes import keys

SHAPE = (6, 4, 3)
# Nothing symmetric: a flip, a transposition or a shift by a pixel shows.
KERNEL = np.random.default_rng(3).uniform(size=(3, 5)) + np.pad([[[0, 2.0, 0]]], ((0, 0), (1, 1), (1, 1)))[0]
# One that has zeros among its singular values if the image repeats: every second difference of columns is lost.
MEAN_OF_TWO = np.array([[0.5, 0.5, 0.0]])
TIGHT = {"rtol": 1e-13, "max_steps": 2000}


@struct.dataclass(kw_only=True)
class Differences(LinearMeasurement):
    """What a researcher writes in a notebook: of less rank than it has rows."""

    def forward(self, x):
        return x - jnp.roll(x, 1, axis=2)


@struct.dataclass(kw_only=True)
class Square(Measurement):
    def forward(self, x):
        return x**2


def free_mask():
    return np.random.default_rng(0).integers(0, 2, SHAPE)


SPECTRAL = {
    "denoising": lambda: Denoising(event_shape=SHAPE),
    "box": lambda: Inpainting.box(SHAPE, (2, 3), (3, 1)),
    "free_mask": lambda: Inpainting.free(SHAPE, free_mask()),
    "grey": lambda: Colorization(event_shape=SHAPE),
    "luma": lambda: Colorization(event_shape=SHAPE, weights=np.array([-0.299, 0.587, 0.114])),
    "average": lambda: SuperResolution.average(SHAPE, 2),
    "bicubic": lambda: SuperResolution.bicubic(SHAPE, 2),
    "bicubic_uneven": lambda: SuperResolution.bicubic((7, 5, 2), 1.6),
    "gaussian_blur": lambda: SeparableBlur.gaussian(SHAPE, (0.5, 0.8), 5, rcond=1e-13),
    "truncated_blur": lambda: SeparableBlur.gaussian((8, 8, 1), 1.0, 7, rcond=0.05),
    "periodic_blur": lambda: PeriodicBlur(event_shape=SHAPE, kernel=KERNEL, rcond=1e-13),
    "singular_blur": lambda: PeriodicBlur(event_shape=SHAPE, kernel=MEAN_OF_TWO, rcond=1e-13),
    "compressed_sensing": lambda: CompressedSensing.random(jax.random.key(1), SHAPE, 0.4),
}
BY_CONJUGATE_GRADIENTS = {
    "blur": lambda: Blur(event_shape=SHAPE, kernel=KERNEL, **TIGHT),
    "blur_of_zeros": lambda: Blur(event_shape=SHAPE, kernel=KERNEL, border="constant", **TIGHT),
    "differences": lambda: Differences(event_shape=SHAPE, **TIGHT),
    "compose": lambda: LinearCompose(
        outer=Inpainting.box((3, 2, 3), 1, (0, 1)), inner=SuperResolution.bicubic(SHAPE, 2), **TIGHT
    ),
}
spectral = pytest.mark.parametrize("make", SPECTRAL.values(), ids=SPECTRAL)
every_linear = pytest.mark.parametrize(
    "make", [*SPECTRAL.values(), *BY_CONJUGATE_GRADIENTS.values()], ids=[*SPECTRAL, *BY_CONJUGATE_GRADIENTS]
)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def assembled(function, shape):
    """The matrix of a linear function of batches: its columns are what it makes of the unit vectors."""
    size = int(np.prod(shape))
    columns = jax.jit(function)(jnp.eye(size).reshape(size, *shape))
    return np.asarray(columns).reshape(size, -1).T


def measured_shape(measurement):
    return jax.eval_shape(measurement.forward, jnp.zeros((1, *measurement.event_shape))).shape[1:]


@every_linear
def test_adjoint(make):
    measurement = make()
    x = normal(0, 2, *measurement.event_shape)
    y = normal(1, 2, *measured_shape(measurement))
    left, right = jnp.vdot(jax.jit(type(measurement).forward)(measurement, x), y), jnp.vdot(x, measurement.adjoint(y))
    np.testing.assert_allclose(left, right, rtol=0, atol=1e-10)


@every_linear
def test_pseudo_inverse_is_that_of_the_assembled_matrix(make):
    """Also for measurements that no image gives, and by the four conditions of Moore and Penrose."""
    measurement = make()
    a = assembled(measurement.forward, measurement.event_shape)
    p = assembled(measurement.pseudo_inverse, measured_shape(measurement))
    np.testing.assert_allclose(p, np.linalg.pinv(a, rcond=1e-11), rtol=0, atol=1e-8)
    for product, equal in [(a @ p @ a, a), (p @ a @ p, p), ((a @ p).T, a @ p), ((p @ a).T, p @ a)]:
        np.testing.assert_allclose(product, equal, rtol=0, atol=1e-8)


@every_linear
def test_normal_solve(make):
    """(A A^T + c)^-1 y with a c of its own for each example, and for c = 0 the solution of least norm."""
    measurement = make()
    a = assembled(measurement.forward, measurement.event_shape)
    y, c = normal(1, 2, *measured_shape(measurement)), jnp.array([0.3, 0.01])
    solved = jax.jit(type(measurement).normal_solve)(measurement, y, c)
    for i in range(2):
        expected = np.linalg.solve(a @ a.T + float(c[i]) * np.eye(len(a)), y[i].ravel())
        np.testing.assert_allclose(solved[i].ravel(), expected, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(measurement.normal_solve(y, 0.01)[1], solved[1], rtol=1e-10, atol=1e-10)

    y = measurement.forward(normal(2, 2, *measurement.event_shape))
    expected = np.linalg.pinv(a @ a.T, rcond=1e-11) @ np.asarray(y).reshape(2, -1).T
    solved = measurement.normal_solve(y)
    np.testing.assert_allclose(np.asarray(solved).reshape(2, -1).T, expected, rtol=1e-6, atol=1e-6)


@spectral
def test_decomposition(make):
    """A = U diag(s) V^T with the singular values that numpy finds, orthogonal V, and U that is so where s > 0."""
    measurement = make()
    s = np.asarray(measurement.singular_values())
    v = assembled(measurement.from_spectrum, s.shape)
    v_transposed = assembled(measurement.to_spectrum, measurement.event_shape)
    u = assembled(measurement.measured_from_spectrum, s.shape) * (s.ravel() > 0)
    u_transposed = assembled(measurement.measured_to_spectrum, measured_shape(measurement))
    a = assembled(measurement.forward, measurement.event_shape)
    np.testing.assert_allclose(v.T @ v, np.eye(s.size), atol=1e-12)
    np.testing.assert_allclose(v_transposed, v.T, atol=1e-12)
    np.testing.assert_allclose(u.T @ u, np.diag(s.ravel() > 0), atol=1e-12)
    np.testing.assert_allclose(u_transposed, u.T, atol=1e-12)
    np.testing.assert_allclose(a, u @ (s.reshape(-1, 1) * v.T), atol=1e-12)
    found = np.linalg.svd(a, compute_uv=False)
    np.testing.assert_allclose(np.sort(s.ravel())[::-1][: len(found)], found, atol=1e-12)


@every_linear
def test_an_example_does_not_depend_on_its_batch(make):
    measurement = make()
    x = normal(0, 3, *measurement.event_shape) * jnp.array([1.0, 1e3, 1e-3]).reshape(3, 1, 1, 1)
    y = measurement.forward(x)
    for function in (measurement.forward, lambda x: measurement.normal_solve(measurement.forward(x), 0.1)):
        np.testing.assert_allclose(function(x)[2:], function(x[2:]), rtol=1e-9, atol=1e-15)
    for function in (measurement.adjoint, measurement.pseudo_inverse):
        np.testing.assert_allclose(function(y)[2:], function(y[2:]), rtol=1e-9, atol=1e-12)


def test_conjugate_gradients_end_after_their_steps():
    """One step is that of steepest descent; two solve a system of two values."""
    matrix, b = jnp.array([[2.0, 0.5], [0.5, 1.0]]), jnp.array([[1.0, -2.0]])
    one, two, three = (conjugate_gradients(lambda v: v @ matrix, b, 1e-14, steps) for steps in (1, 2, 3))
    np.testing.assert_allclose(one, b * (b @ b.T) / (b @ matrix @ b.T), rtol=1e-12)
    np.testing.assert_allclose(two, jnp.linalg.solve(matrix, b[0])[None], rtol=1e-12)
    np.testing.assert_allclose(three, two, rtol=1e-12)


def test_an_example_that_has_converged_rests_while_others_go_on():
    """To the last bit what it is alone, at a tolerance that another example of the batch reaches later."""
    matrix, b = jnp.diag(jnp.array([1.0, 1.2, 9.0, 50.0])), jnp.array([[1.0, 1.0, 0.1, 0.0], [1.0, -2.0, 1.0, 3.0]])
    both, alone = (conjugate_gradients(lambda v: v @ matrix, part, 0.2, 9) for part in (b, b[:1]))
    np.testing.assert_array_equal(both[0], alone[0])
    assert 0.01 < np.linalg.norm(b[0] - alone[0] @ matrix) / np.linalg.norm(b[0]) < 0.2


def test_without_c_what_lies_outside_the_range_does_not_count():
    box, y = Inpainting.box(SHAPE, 2), normal(0, 1, *SHAPE)
    np.testing.assert_array_equal(box.normal_solve(y), box.forward(y))


def test_small_singular_values_are_relative_to_the_largest():
    """A kernel of 100 times the light keeps the same directions, with singular values 100 times as large."""
    kernel = np.array([0.25, 0.5, 0.25])
    for make in (
        lambda light: SeparableBlur.of_kernels((8, 8, 1), light * kernel, kernel, rcond=0.05),
        lambda light: PeriodicBlur(event_shape=(8, 8, 1), kernel=light * np.outer(kernel, kernel), rcond=0.05),
    ):
        dim, bright = (np.asarray(make(light).singular_values()) for light in (1.0, 100.0))
        assert 0 < (dim > 0).sum() < dim.size
        np.testing.assert_allclose(bright, 100 * dim, rtol=1e-9)


def test_zeros_solve_to_zeros():
    """Conjugate gradients have nothing to divide by."""
    y = jnp.zeros((1, *SHAPE))
    blur = BY_CONJUGATE_GRADIENTS["blur"]()
    np.testing.assert_array_equal(blur.normal_solve(y, 0.1), y)
    np.testing.assert_array_equal(blur.pseudo_inverse(y), y)


def test_conjugate_gradients_of_images_in_float32():
    """lineax's give infinities here: see the comment at the call."""
    blur = Blur(event_shape=(64, 64, 3), kernel=np.array([[0.3]], np.float32))
    y = normal(0, 1, 64, 64, 3).astype(jnp.float32)
    np.testing.assert_allclose(blur.normal_solve(y), y / 0.09, rtol=1e-4, atol=1e-4)


def test_a_small_c_in_float32():
    """Nothing of the range that is left by rounding is divided by c."""
    bicubic, y = SuperResolution.bicubic((9, 6, 2), 3), normal(0, 1, 3, 2, 2)
    solved = bicubic.normal_solve(y.astype(jnp.float32), jnp.float32(1e-7))
    np.testing.assert_allclose(solved, bicubic.normal_solve(y, 1e-7), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("half", ["left", "right", "top", "bottom"])
def test_half(half):
    x = jnp.ones((1, 5, 7, 1))
    missing = {"left": np.s_[:, :3], "right": np.s_[:, 4:], "top": np.s_[:2], "bottom": np.s_[3:]}[half]
    y = np.array(Inpainting.half((5, 7, 1), half).forward(x)[0])
    np.testing.assert_array_equal(y[missing], 0)
    y[missing] = 1
    np.testing.assert_array_equal(y, 1)


def test_box():
    y = Inpainting.box((5, 6, 1), (2, 3), (1, 2)).forward(jnp.ones((1, 5, 6, 1)))[0, :, :, 0]
    missing = [(int(i), int(j)) for i, j in np.argwhere(y == 0)]
    assert missing == [(1, 2), (1, 3), (1, 4), (2, 2), (2, 3), (2, 4)]
    y = Inpainting.box((6, 8, 1), 2).forward(jnp.ones((1, 6, 8, 1)))[0, :, :, 0]
    assert [(int(i), int(j)) for i, j in np.argwhere(y == 0)] == [(2, 3), (2, 4), (3, 3), (3, 4)]


def test_random_mask_measures_its_share_of_the_pixels():
    """Another key, other pixels; and no place is preferred."""
    masks = np.stack([Inpainting.random(key, (4, 5, 3), 0.3).mask for key in keys(400)])
    np.testing.assert_array_equal(masks[..., 0].sum((1, 2)), 6)
    # The standard error of a frequency is 0.023.
    np.testing.assert_allclose(masks[..., 0].mean(0), 0.3, atol=4 * 0.023)


def test_a_free_mask_measures_where_it_is_1():
    x = normal(0, 2, *SHAPE)
    mask = free_mask()
    np.testing.assert_array_equal(Inpainting.free(SHAPE, mask).forward(x), x * mask)
    np.testing.assert_array_equal(Inpainting.free(SHAPE, mask[..., 0] > 0).forward(x), x * mask[..., :1])


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Inpainting.free((4, 4, 3), np.ones((5, 4))), r"\(5, 4, 1\) does not fit images of \(4, 4, 3\)"),
        (lambda: Inpainting.free((4, 4, 3), np.ones((4, 4, 2))), r"\(4, 4, 2\) does not fit images of \(4, 4, 3\)"),
        (lambda: Inpainting.free((4, 4, 3), np.full((4, 4), 0.5)), "1 for measured pixels"),
        (lambda: Inpainting.box((4, 6, 3), (2, 2), (3, 0)), r"\(2, 2\) at \(3, 0\) is not inside an image of \(4, 6\)"),
        (lambda: Inpainting.box((4, 6, 3), 5), r"\(5, 5\) at .* is not inside an image of \(4, 6\)"),
        (lambda: Inpainting.random(jax.random.key(0), SHAPE, 1.5), "share=1.5"),
        (lambda: Inpainting.half(SHAPE, "upper"), "missing='upper' must be one of left, right, top, bottom"),
        (lambda: SuperResolution.average(SHAPE, 0.5), "factor=0.5"),
        (lambda: SuperResolution.bicubic(SHAPE, 20), "factor=20"),
        (lambda: CompressedSensing.random(jax.random.key(0), SHAPE, 0.0), "share=0.0"),
        (lambda: Blur(event_shape=SHAPE, kernel=KERNEL, border="mirror"), "border='mirror' must be one of reflect"),
        (lambda: Blur(event_shape=SHAPE, kernel=np.ones((2, 3))).forward(np.ones((1, *SHAPE))), r"odd.*\(2, 3\)"),
        (lambda: SeparableBlur.gaussian(SHAPE, 1.0, 4), "odd"),
        (lambda: SeparableBlur.gaussian(SHAPE, 0.0, 5), "std=0.0 must be more than 0"),
        (lambda: motion_kernel(5, 6.0), "length=6.0 must be less than size=5"),
    ],
)
def test_bad_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_average_is_the_mean_of_blocks():
    x = normal(0, 2, 6, 9, 2)
    y = SuperResolution.average((6, 9, 2), 3).forward(x)
    np.testing.assert_allclose(y, x.reshape(2, 2, 3, 3, 3, 2).mean((2, 4)), atol=1e-12)


def test_average_over_parts_of_pixels():
    """From 6 to 4 rows: as from 6 to 12 by repetition, and to 4 by blocks of 3."""
    x = normal(0, 2, 6, 9, 2)
    y = SuperResolution.average((6, 9, 2), 1.5).forward(x)
    fine = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    np.testing.assert_allclose(y, fine.reshape(2, 4, 3, 6, 3, 2).mean((2, 4)), atol=1e-12)


@pytest.mark.parametrize("size, factor", [((12, 8), 4), ((13, 9), 3), ((10, 12), 1.3)])
def test_bicubic_is_that_of_image_libraries(size, factor):
    x = normal(0, 2, *size, 2)
    y = SuperResolution.bicubic((*size, 2), factor).forward(x)
    np.testing.assert_allclose(y, jax.image.resize(x, y.shape, "cubic", antialias=True), atol=1e-10)
    image = Image.fromarray(np.asarray(x[0, :, :, 0], np.float32), mode="F")
    resized = np.asarray(image.resize(y.shape[2:0:-1], Image.Resampling.BICUBIC))
    np.testing.assert_allclose(y[0, :, :, 0], resized, atol=1e-5)


# What scipy calls the borders of numpy.pad.
BORDERS = {"reflect": "mirror", "symmetric": "reflect", "edge": "nearest", "constant": "constant", "wrap": "wrap"}


@pytest.mark.parametrize("border", BORDERS)
def test_blur_is_a_convolution(border):
    x = normal(0, 2, 8, 7, 2)
    shape = x.shape[1:]
    expected = np.empty(x.shape)
    for i, c in np.ndindex(2, 2):
        expected[i, :, :, c] = scipy.ndimage.convolve(np.asarray(x[i, :, :, c]), KERNEL, mode=BORDERS[border])
    np.testing.assert_allclose(Blur(event_shape=shape, kernel=KERNEL, border=border).forward(x), expected, atol=1e-12)
    if border == "wrap":
        periodic = PeriodicBlur(event_shape=shape, kernel=KERNEL, rcond=0.0)
        np.testing.assert_allclose(periodic.forward(x), expected, atol=1e-12)

    down, across = KERNEL[:, 0], KERNEL[1]
    separable = SeparableBlur.of_kernels(shape, down, across, border, rcond=0.0)
    blur = Blur(event_shape=shape, kernel=np.outer(down, across), border=border)
    np.testing.assert_allclose(separable.forward(x), blur.forward(x), atol=1e-12)


def test_gaussian_blur():
    x = normal(0, 1, 12, 11, 1)
    y = SeparableBlur.gaussian((12, 11, 1), (1.5, 0.7), 9, rcond=0.0).forward(x)
    expected = scipy.ndimage.gaussian_filter(np.asarray(x[0, :, :, 0]), (1.5, 0.7), mode="mirror", radius=4)
    np.testing.assert_allclose(y[0, :, :, 0], expected, atol=1e-12)
    blur = Blur(event_shape=(12, 11, 1), kernel=gaussian_kernel(9, (1.5, 0.7)))
    np.testing.assert_allclose(blur.forward(x), y, atol=1e-12)


def test_a_kernel_wider_than_the_image_wraps_onto_itself():
    x, kernel = normal(0, 1, 5, 4, 1), np.random.default_rng(0).uniform(size=(9, 11))
    y = PeriodicBlur(event_shape=(5, 4, 1), kernel=kernel, rcond=0.0).forward(x)
    expected = scipy.ndimage.convolve(np.asarray(x[0, :, :, 0]), kernel, mode="wrap")
    np.testing.assert_allclose(y[0, :, :, 0], expected, atol=1e-12)


def moments(kernel):
    """The mean and the covariance of a kernel's mass, with x to the right and y up."""
    size = len(kernel)
    x, y = np.meshgrid(np.arange(size) - size // 2, size // 2 - np.arange(size))
    places = np.stack([x.ravel(), y.ravel()])
    mean = places @ kernel.ravel()
    return mean, (places - mean[:, None]) * kernel.ravel() @ (places - mean[:, None]).T


def turned(variance_along, variance_across, degrees):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    rotation = np.array([[c, -s], [s, c]])
    return rotation @ np.diag([variance_along, variance_across]) @ rotation.T


def test_kernels_have_their_size_and_direction():
    """By the covariance of their mass; a line drawn on pixels has that of the line and of the sharing among pixels."""
    mean, covariance = moments(gaussian_kernel(41, (1.5, 4.0), angle=30))
    np.testing.assert_allclose(mean, 0, atol=1e-12)
    np.testing.assert_allclose(covariance, turned(16, 2.25, 30), rtol=1e-3)
    mean, covariance = moments(motion_kernel(21, 15.0, angle=30))
    np.testing.assert_allclose(mean, 0, atol=1e-12)
    np.testing.assert_allclose(covariance, turned(15**2 / 12, 0, 30) + np.eye(2) / 6, rtol=0, atol=0.1)
    np.testing.assert_allclose(motion_kernel(5, 1.0)[2], [0, 1 / 8, 3 / 4, 1 / 8, 0], atol=1e-3)


def test_shake_kernels():
    """Straight without intensity; else of the expected spread of a path whose direction diffuses; all inside, centred."""
    mean, covariance = moments(shake_kernel(jax.random.key(0), 15, 0.0))
    np.testing.assert_allclose(mean, 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.eigvalsh(covariance), [1 / 6, 14**2 / 12 + 1 / 6], atol=0.1)
    kernels = [shake_kernel(key, 15, 0.3) for key in keys(300)]
    np.testing.assert_allclose([k.sum() for k in kernels], 1, rtol=1e-12)
    # E|p(s) - p(r)|^2 of a path of length 1 whose direction has variance v per length is 2 (d - (1 - e^-ad) / a) / a with
    # a = v / 2 and d = |s - r|; half its mean over s and r is the spread about the mean.
    a = (2 * np.pi * 0.3) ** 2 / 2
    d = np.abs(np.subtract.outer(*[(np.arange(200) + 0.5) / 200] * 2))
    spread = (d - (1 - np.exp(-a * d)) / a).mean() / a * 14**2
    spreads = [np.trace(moments(k)[1]) - 1 / 3 for k in kernels]
    np.testing.assert_allclose(np.mean(spreads), spread, atol=4 * np.std(spreads) / np.sqrt(300))
    np.testing.assert_allclose(np.mean([moments(k)[0] for k in kernels], axis=0), 0, atol=1e-10)


def test_colorization_sums_the_channels():
    x = normal(0, 2, *SHAPE)
    np.testing.assert_allclose(Colorization(event_shape=SHAPE).forward(x)[..., 0], x.mean(-1), atol=1e-12)
    for weights in ((0.299, 0.587, 0.114), (-0.5, 0.2, 0.1)):
        y = Colorization(event_shape=SHAPE, weights=weights).forward(x)
        np.testing.assert_allclose(y[..., 0], x @ np.array(weights), atol=1e-12)


def test_compressed_sensing_spreads_each_image():
    """A flat image, which has one cosine coefficient, has energy in all of them once its signs are random."""
    sensing = CompressedSensing.random(jax.random.key(0), (8, 8, 1), 0.25)
    assert measured_shape(sensing) == (16,)
    flat = sensing.forward(jnp.full((1, 8, 8, 1), 1.0))[0]
    # A quarter of the energy 64 is measured; without the signs one coefficient would hold all of it.
    assert 4 < (flat**2).sum() < 36
    assert (flat**2).max() < 8
    other = CompressedSensing.random(jax.random.key(1), (8, 8, 1), 0.25)
    assert set(np.asarray(other.indices)) != set(np.asarray(sensing.indices))
    assert len(set(np.asarray(sensing.indices))) == 16


def test_compositions():
    """The inner one is first: blocks are averaged and then masked, and a square is taken of what is measured."""
    x = normal(0, 2, *SHAPE)
    inner, outer = SuperResolution.average(SHAPE, 2), Inpainting.box((3, 2, 3), 1, (2, 0))
    expected = np.array(x.reshape(2, 3, 2, 2, 2, 3).mean((2, 4)))
    np.testing.assert_allclose(Compose(outer=Square(), inner=inner).forward(x), expected**2, atol=1e-12)
    expected[:, 2, 0] = 0
    linear = LinearCompose(outer=outer, inner=inner)
    assert linear.event_shape == SHAPE
    np.testing.assert_allclose(linear.forward(x), expected, atol=1e-12)


def test_solves_have_derivatives():
    """Of normal_solve with respect to c, by conjugate gradients and in closed form: -(A A^T + c)^-2 y."""
    y = normal(0, 1, *SHAPE)
    for measurement in (BY_CONJUGATE_GRADIENTS["blur"](), SPECTRAL["free_mask"](), SPECTRAL["singular_blur"]()):
        slope = jax.jacfwd(lambda c, m=measurement: m.normal_solve(y, c))(0.3)
        twice = measurement.normal_solve(measurement.normal_solve(y, 0.3), 0.3)
        np.testing.assert_allclose(slope, -twice, rtol=1e-8, atol=1e-10)


def test_one_compilation_serves_every_mask():
    """Masks, kernels and weights are leaves; shapes are static."""
    traces = []

    @jax.jit
    def forward(measurement, x):
        traces.append(1)
        return measurement.forward(x)

    x = normal(0, 1, *SHAPE)
    for corner in ((0, 0), (1, 1)):
        box = Inpainting.box(SHAPE, 2, corner)
        np.testing.assert_array_equal(forward(box, x), box.forward(x))
    assert len(traces) == 1
