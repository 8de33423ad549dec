"""Radon: a disc's closed projections, scikit-image's transforms, the assembled matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sde_lib.inverse import (
    CompletedRadon,
    Radon,
    filtered_back_projection,
    interpolated,
    metal_mask,
    parallel_angles,
    radon,
)
from tests.sde_lib.inverse.assembled import inner, matrix

RNG = np.random.default_rng(0)


def disc(size, radius, right=0.0, up=0.0, parts=8):
    """A disc of density 1 in pixels (size, size), at (right, up) of the middle, each pixel the mean of its parts."""
    axis = (np.arange(size * parts) + 0.5) / parts - size / 2
    inside = (axis - right) ** 2 + (-axis[:, None] - up) ** 2 <= radius**2
    return inside.reshape(size, parts, size, parts).mean((1, 3))


def disc_sinogram(angles, detectors, radius, right=0.0, up=0.0):
    """2 sqrt(r^2 - s^2), s from the disc's middle."""
    s = np.arange(detectors) - (detectors - 1) / 2 - (right * np.cos(angles) + up * np.sin(angles))[:, None]
    return 2 * np.sqrt(np.maximum(radius**2 - s**2, 0))


def project(measurement, image):
    return np.asarray(jax.jit(measurement.forward)(image[None, ..., None]))[0, ..., 0]


@pytest.mark.parametrize("size", [64, 65])
def test_projections_of_a_disc(size):
    """Off the middle, so that every sign counts. Near its edge the pixels blur the disc, so not there."""
    angles = np.asarray(parallel_angles(20, 2 * np.pi))
    measurement = Radon(event_shape=(size, size, 1), angles=angles, detectors=size)
    expected = disc_sinogram(angles, size, 16, 9, 4)
    got = project(measurement, disc(size, 16, 9, 4))
    well_inside = expected > 16
    np.testing.assert_allclose(got[well_inside], expected[well_inside], rtol=0.025)
    np.testing.assert_allclose(got.sum(1), np.pi * 16**2, rtol=0.01)


def test_rows_and_columns_sum_exactly():
    """At 0 the detectors see the columns from left to right, at 90 degrees the rows from bottom to top; of any shape."""
    image = RNG.normal(size=(7, 5))
    got = project(Radon(event_shape=(7, 5, 1), angles=jnp.array([0, jnp.pi / 2]), detectors=9), image)
    np.testing.assert_allclose(got[0], np.pad(image.sum(0), 2), atol=1e-12)
    np.testing.assert_allclose(got[1], np.pad(image.sum(1)[::-1], 1), atol=1e-12)


@pytest.mark.parametrize("shape", [(8, 8), (6, 9)])
def test_rays_are_josephs(shape):
    """Each ray by itself, in numpy: row by row where it is steep, column by column where it is not."""
    image, angles = RNG.normal(size=shape), np.array([0.3, 1.2, 1.9, 2.8, 4.0])
    measurement = Radon(event_shape=(*shape, 1), angles=angles)
    x, y = np.arange(shape[1]) - (shape[1] - 1) / 2, (shape[0] - 1) / 2 - np.arange(shape[0])
    s = np.arange(measurement.num_detectors()) - (measurement.num_detectors() - 1) / 2
    x_and_zeros, y_and_zeros = np.r_[x[0] - 1, x, x[-1] + 1], np.r_[y[-1] - 1, y[::-1], y[0] + 1]
    got = project(measurement, image)
    for angle, ray in zip(angles, got, strict=True):
        cos, sin = np.cos(angle), np.sin(angle)
        if abs(cos) > abs(sin):
            rows = [np.interp((s - sin * y[i]) / cos, x_and_zeros, np.pad(row, 1)) for i, row in enumerate(image)]
            np.testing.assert_allclose(ray, sum(rows) / abs(cos), atol=1e-12)
        else:
            columns = [
                np.interp((s - cos * x[j]) / sin, y_and_zeros, np.pad(c[::-1], 1)) for j, c in enumerate(image.T)
            ]
            np.testing.assert_allclose(ray, sum(columns) / abs(sin), atol=1e-12)


def test_all_of_an_image_is_seen():
    """By default the corners are too: at each angle, the projection of a corner sums to nearly 1."""
    for shape in ((8, 8), (6, 9), (7, 4)):
        image = np.zeros(shape)
        image[0, 0] = 1
        measurement = Radon(event_shape=(*shape, 1), angles=parallel_angles(16))
        assert (measurement.num_detectors() - shape[1]) % 2 == 0
        np.testing.assert_allclose(project(measurement, image).sum(1), 1, atol=0.3)


def test_projections_agree_with_scikit_image():
    """To 2 % of the largest projection, and to 0.6 % in root mean square; it turns the image, we follow the rays."""
    pytest.importorskip("skimage", reason="the reference is scikit-image's transform")
    from skimage.data import shepp_logan_phantom
    from skimage.transform import radon as reference
    from skimage.transform import resize

    angles = parallel_angles(24)
    for image in (disc(65, 16, 9, 4), resize(shepp_logan_phantom(), (65, 65), anti_aliasing=True)):
        got = project(Radon(event_shape=(65, 65, 1), angles=angles, detectors=65), image)
        expected = reference(image, np.rad2deg(angles)).T
        np.testing.assert_allclose(got, expected, atol=0.025 * expected.max())
        assert np.linalg.norm(got - expected) < 0.006 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    "name, tolerance", [("ramp", 1e-9), ("shepp_logan", 1e-9), ("cosine", 1e-9), ("hamming", 0.005), ("hann", 0.005)]
)
def test_back_projection_agrees_with_scikit_image(name, tolerance):
    """For any sinogram, within the circle that the detectors see, to rounding.

    Its last two windows are half a sample off (numpy's are symmetric, not periodic).
    """
    pytest.importorskip("skimage", reason="the reference is scikit-image's transform")
    from skimage.transform import iradon

    angles, sinogram = parallel_angles(10), RNG.normal(size=(10, 33))
    measurement = Radon(event_shape=(33, 33, 1), angles=angles, detectors=33)
    got = filtered_back_projection(measurement, sinogram[None, ..., None], getattr(radon, name))[0, ..., 0]
    expected = iradon(sinogram.T, np.rad2deg(angles), filter_name=name.replace("_", "-"), circle=False, output_size=33)
    seen = disc(33, 16) == 1
    np.testing.assert_allclose(got[seen], expected[seen], atol=tolerance)


def test_windows_at_their_ends():
    """1 at frequency 0, and as published at the highest."""
    ends = {"ramp": 1, "shepp_logan": 2 / np.pi, "cosine": 0, "hamming": 0.08, "hann": 0}
    for name, end in ends.items():
        np.testing.assert_allclose(getattr(radon, name)(np.array([0, 0.5])), [1, end], atol=1e-15)


def test_back_projection_of_a_disc_is_the_disc():
    """To half a percent inside of it, by the ramp filter; outside to 2 % by the smoothest, the angles being few for more."""
    angles = parallel_angles(160)
    measurement = Radon(event_shape=(81, 81, 1), angles=angles, detectors=81)
    sinogram = disc_sinogram(np.asarray(angles), 81, 20.5, 9, 4)[None, ..., None]
    sharp, soft = (
        np.asarray(filtered_back_projection(measurement, sinogram, window))[0, ..., 0]
        for window in (radon.ramp, radon.hann)
    )
    np.testing.assert_allclose(sharp[disc(81, 16, 9, 4) == 1], 1, atol=0.005)
    np.testing.assert_allclose(soft[(disc(81, 25, 9, 4) == 0) & (disc(81, 40) == 1)], 0, atol=0.02)


def test_back_projection_weighs_each_angle_by_its_share():
    """All of [0, pi) is the sum of its two halves, each a limited angle; and one angle stands for all."""
    angles, sinogram = parallel_angles(8), RNG.normal(size=(1, 8, 9, 2))

    def reconstruct(part):
        return filtered_back_projection(Radon(event_shape=(9, 9, 2), angles=angles[part]), sinogram[:, part])

    halves = reconstruct(slice(4)) + reconstruct(slice(4, 8))
    np.testing.assert_allclose(halves, reconstruct(slice(8)), atol=1e-12)
    one_by_one = sum(reconstruct(slice(i, i + 1)) for i in range(8)) / 8
    np.testing.assert_allclose(one_by_one, reconstruct(slice(8)), atol=1e-12)


def small(channels=1, mask=True):
    measurement = Radon(event_shape=(6, 7, channels), angles=parallel_angles(5) + 0.1, rtol=1e-12, max_steps=1000)
    shape = (5, measurement.num_detectors())
    return measurement.replace(mask=jnp.asarray(RNG.uniform(size=shape) > 0.2) if mask else None)


@pytest.mark.parametrize("mask", [False, True])
def test_adjoint_and_solves_are_those_of_the_matrix(mask):
    measurement = small(mask=mask)
    A, x = matrix(measurement), RNG.normal(size=(2, 6, 7, 1))
    y = RNG.normal(size=measurement.forward(x).shape)
    assert inner(measurement.forward(x), y) == pytest.approx(inner(x, measurement.adjoint(y)), abs=1e-10)
    np.testing.assert_allclose(measurement.adjoint(y).reshape(2, -1), y.reshape(2, -1) @ A, atol=1e-10)
    solved = measurement.normal_solve(y, 0.3).reshape(2, -1)
    np.testing.assert_allclose(solved, np.linalg.solve(A @ A.T + 0.3 * np.eye(len(A)), y.reshape(2, -1).T).T, atol=1e-8)
    expected = y.reshape(2, -1) @ np.linalg.pinv(A, rcond=1e-9).T
    np.testing.assert_allclose(measurement.pseudo_inverse(y).reshape(2, -1), expected, atol=1e-6)


def test_gradient_is_the_adjoints():
    """Under jit; and angles are an argument, by which it differentiates too."""
    measurement, x = small(), RNG.normal(size=(2, 6, 7, 1))
    y = RNG.normal(size=measurement.forward(x).shape)
    loss = jax.jit(lambda m, x: 0.5 * ((m.forward(x) - y) ** 2).sum())
    np.testing.assert_allclose(
        jax.grad(loss, 1)(measurement, x), measurement.adjoint(measurement.forward(x) - y), atol=1e-10
    )
    slope = jax.grad(lambda angles: loss(measurement.replace(angles=angles), x))(measurement.angles)
    step = np.zeros(5)
    step[2] = 1e-6
    ends = [loss(measurement.replace(angles=measurement.angles + sign * step), x) for sign in (1, -1)]
    assert slope[2] == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-4)


def test_images_and_channels_are_seen_by_themselves():
    measurement, x = small(channels=2), RNG.normal(size=(3, 6, 7, 2))
    y, alone = measurement.forward(x), measurement.replace(event_shape=(6, 7, 1)).forward(x[1:2, ..., 1:])
    np.testing.assert_allclose(y[1, ..., 1], alone[0, ..., 0], atol=1e-12)
    back = filtered_back_projection(measurement, y)[1, ..., 1]
    np.testing.assert_allclose(back, filtered_back_projection(measurement, y[1:2])[0, ..., 1], atol=1e-12)


def test_a_gradient_keeps_one_angle_at_a_time():
    """Memory of a compiled gradient hardly grows with the angles: not with places and weights of each."""

    def temporary(count):
        measurement = Radon(event_shape=(32, 32, 1), angles=parallel_angles(count), detectors=32)
        loss = lambda x: (measurement.forward(x) ** 2).sum()  # noqa: E731
        return jax.jit(jax.grad(loss)).lower(jnp.ones((1, 32, 32, 1))).compile().memory_analysis().temp_size_in_bytes

    assert temporary(64) - temporary(32) < 32 * 32 * 32 * 4


@pytest.mark.parametrize("shape, detectors", [((4, 6), 6), ((5, 4), 6), ((4, 5), 7)])
def test_back_projection_along_the_axes_is_the_ramps_convolution(shape, detectors):
    """At 0 pixels see the detector above them, at 90 degrees the one beside; the ramp is 1/4, -1 / (pi n)^2 at odd n, 0."""
    n = np.subtract.outer(*[np.arange(detectors)] * 2)
    ramp = np.where(n == 0, 1 / 4, np.where(n % 2, -1 / (np.pi * np.where(n == 0, 1, n)) ** 2, 0))
    sinogram = RNG.normal(size=(2, 1, detectors, 1))
    filtered = np.pi * (ramp @ sinogram[:, 0, :, 0].T).T  # one angle stands for all of [0, pi)
    (height, width), middle = shape, (detectors - 1) / 2
    for angle, place in ((0.0, np.arange(width) - (width - 1) / 2), (np.pi / 2, (height - 1) / 2 - np.arange(height))):
        geometry = Radon(event_shape=(*shape, 1), angles=np.array([angle]), detectors=detectors)
        found = filtered_back_projection(geometry, jnp.asarray(sinogram))[..., 0]
        for image, row in zip(found, filtered, strict=True):
            seen = np.interp(place + middle, np.arange(detectors), row)
            expected = seen if angle == 0 else seen[:, None]
            np.testing.assert_allclose(image, np.broadcast_to(expected, shape), atol=1e-12)


@pytest.mark.parametrize("shape, angles, complete", [((4, 6), 3, 6), ((6, 4), 4, 6), ((4, 5), 8, 8)])
def test_a_complete_set_has_an_angle_for_each_pixel_of_the_longer_side(shape, angles, complete):
    """Or all of its own, where these are more: then it is the back-projection of themselves."""
    geometry = {"event_shape": (*shape, 1), "angles": parallel_angles(angles), "detectors": 7}
    y = jnp.asarray(RNG.normal(size=(1, angles, 7, 1)))
    expected = filtered_back_projection(Radon(**geometry), y) * angles / complete
    np.testing.assert_allclose(CompletedRadon(**geometry).pseudo_inverse(y), expected, atol=1e-12)


def test_detectors_are_the_fewest_that_see_the_corners():
    """As many as the diagonal has pixels, and one more where a detector would not be above a column."""
    for height, width in np.ndindex(9, 9):
        shape, diagonal = (height + 1, width + 1, 2), np.hypot(height + 1, width + 1) - 1e-9
        fewest = next(n for n in range(1, 20) if n >= diagonal and (n - shape[1]) % 2 == 0)
        assert Radon(event_shape=shape, angles=np.zeros(1)).num_detectors() == fewest
        assert Radon(event_shape=shape, angles=np.zeros(1), detectors=2).num_detectors() == 2


def test_angles_are_spread_over_their_span():
    np.testing.assert_allclose(parallel_angles(4), [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4])
    np.testing.assert_allclose(parallel_angles(3, np.pi / 2), [0, np.pi / 6, np.pi / 3])


def test_metal_hides_the_rays_through_it():
    """And what is left of a sinogram does not depend on the metal's density."""
    measurement = Radon(event_shape=(9, 9, 1), angles=parallel_angles(6), detectors=13)
    metal = np.zeros((9, 9), bool)
    metal[2, 6] = True  # 2 right of and 2 above the middle
    mask = np.asarray(metal_mask(measurement, metal))
    s = 2 * np.cos(measurement.angles) + 2 * np.sin(measurement.angles)
    np.testing.assert_array_equal(
        np.abs(np.arange(13) - 6 - s[:, None]) < 0.5, ~mask & (np.abs(np.arange(13) - 6 - s[:, None]) < 0.5)
    )
    assert np.all(mask[np.abs(np.arange(13) - 6 - s[:, None]) > 1.5])
    hidden = measurement.replace(
        event_shape=(9, 9, 3), mask=np.zeros((6, 13))
    )  # its channels and its mask do not count
    np.testing.assert_array_equal(metal_mask(hidden, metal), mask)
    masked = measurement.replace(mask=mask)
    x = RNG.normal(size=(9, 9))
    np.testing.assert_array_equal(project(masked, x), project(masked, x + 5 * metal))
    np.testing.assert_array_equal(project(masked, x), mask * project(measurement, x))


def test_lost_rays_are_interpolated_along_the_detectors_of_their_angle():
    """By numpy. The first angle loses both its ends, the second two gaps, the third all, the fourth none."""
    there = np.ones((4, 7), bool)
    there[0, [0, 1, 6]] = there[1, [2, 4, 5]] = there[2] = False
    sinogram = RNG.normal(size=(2, 4, 7, 3))
    expected = np.zeros_like(sinogram)
    for i, row, c in np.ndindex(2, 4, 3):
        if there[row].any():
            places = np.flatnonzero(there[row])
            expected[i, row, :, c] = np.interp(np.arange(7), places, sinogram[i, row, places, c])
    masked = Radon(event_shape=(5, 5, 3), angles=parallel_angles(4), detectors=7, mask=there)
    spoilt = np.where(there[..., None], sinogram, np.nan)
    np.testing.assert_allclose(interpolated(masked, jnp.asarray(spoilt)), expected, atol=1e-12)
    assert interpolated(masked.replace(mask=None), sinogram) is sinogram


def test_back_projection_takes_lost_rays_as_0():
    measurement = small()
    there = np.asarray(measurement.mask)[..., None]
    sinogram = RNG.normal(size=(1, *there.shape))
    spoilt = jnp.asarray(np.where(there, sinogram, np.nan))
    expected = filtered_back_projection(measurement.replace(mask=None), jnp.asarray(there * sinogram))
    np.testing.assert_array_equal(filtered_back_projection(measurement, spoilt), expected)


def test_a_mask_of_another_size_is_named():
    measurement = Radon(event_shape=(6, 6, 1), angles=parallel_angles(5), detectors=6, mask=jnp.ones((6, 5)))
    with pytest.raises(ValueError, match=r"mask of shape \(6, 5\) must have the sinogram's \(5, 6\)$"):
        measurement.forward(np.ones((1, 6, 6, 1)))
