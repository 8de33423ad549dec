"""FourierSampling: numpy's Fourier transform, numpy's pseudo-inverse, and masks that can be counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sde_lib.inverse import (
    FourierSampling,
    MultiCoilFourierSampling,
    birdcage_maps,
    equispaced_mask,
    radial_mask,
    random_lines_mask,
    spiral_mask,
)
from tests.sde_lib.inverse.assembled import inner, matrix

RNG = np.random.default_rng(0)
SHAPE = (6, 5)  # an even and an odd side, and two lengths
# Neither symmetric nor without symmetric pairs; the centre (3, 2) is in, the highest frequency of the even side too.
MASK = np.array(
    [[1, 0, 1, 0, 0], [0, 0, 1, 1, 0], [1, 1, 0, 0, 0], [0, 1, 1, 1, 1], [0, 0, 0, 1, 0], [0, 1, 1, 0, 0]], bool
)
WEIGHTS = MASK * RNG.uniform(0.5, 2, SHAPE)


def one_coil(channels, mask=MASK):
    return FourierSampling(event_shape=(*SHAPE, channels), mask=mask)


def several_coils(channels, mask=MASK):
    maps = RNG.normal(size=(3, *SHAPE, 2))
    return MultiCoilFourierSampling(event_shape=(*SHAPE, channels), mask=mask, coil_maps=maps, rtol=1e-11)


EVERY = {
    "real": one_coil(1), "complex": one_coil(2), "real, weighted": one_coil(1, WEIGHTS),
    "complex, weighted": one_coil(2, WEIGHTS), "real, 3 coils": several_coils(1), "complex, 3 coils": several_coils(2),
}  # fmt: skip
every = pytest.mark.parametrize("measurement", EVERY.values(), ids=EVERY.keys())
one_coil_only = pytest.mark.parametrize("measurement", list(EVERY.values())[:4], ids=list(EVERY)[:4])


def images(measurement, batch=3):
    return RNG.normal(size=(batch, *measurement.event_shape))


def measured(measurement, batch=3):
    """Values that no image has, with something where nothing is sampled."""
    return RNG.normal(size=measurement.forward(images(measurement, batch)).shape)


def centred_dft(z):
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(z, (-2, -1)), norm="ortho"), (-2, -1))


@every
def test_forward_is_numpys_transform_at_the_sampled_points(measurement):
    x = images(measurement)
    z = x[..., 0] + (1j * x[..., 1] if x.shape[-1] == 2 else 0)
    if hasattr(measurement, "coil_maps"):
        z = z[:, None] * (measurement.coil_maps[..., 0] + 1j * measurement.coil_maps[..., 1])
    k = np.asarray(measurement.mask) * centred_dft(z)
    np.testing.assert_allclose(measurement.forward(x), np.stack([k.real, k.imag], -1), atol=1e-12)


def test_k_space_and_images_are_centred():
    """A point at the centre has flat k-space; a constant image has the zero frequency alone, in the middle."""
    measurement = one_coil(1, np.ones(SHAPE))
    point = np.zeros((1, *SHAPE, 1))
    point[0, 3, 2] = 1
    np.testing.assert_allclose(measurement.forward(point)[0], np.broadcast_to([30**-0.5, 0], (*SHAPE, 2)), atol=1e-14)
    np.testing.assert_allclose(
        measurement.forward(np.ones((1, *SHAPE, 1)))[0, ..., 0], 30**0.5 * point[0, ..., 0], atol=1e-14
    )


@every
def test_adjoint(measurement):
    x, y = images(measurement), measured(measurement)
    assert inner(measurement.forward(x), y) == pytest.approx(inner(x, measurement.adjoint(y)), abs=1e-10)
    np.testing.assert_allclose(jax.linear_transpose(measurement.forward, x)(y)[0], measurement.adjoint(y), atol=1e-12)


@every
def test_pseudo_inverse_is_that_of_the_matrix(measurement):
    """Of any y: noise takes it out of the range of A."""
    y = measured(measurement)
    expected = y.reshape(3, -1) @ np.linalg.pinv(matrix(measurement), rcond=1e-9).T
    np.testing.assert_allclose(
        jax.jit(lambda m, y: m.pseudo_inverse(y))(measurement, y).reshape(3, -1), expected, atol=1e-7
    )


@every
def test_normal_solve_is_that_of_the_matrix(measurement):
    """For one c, for one c an image, and for c = 0 where y has been measured of an image."""
    y, A = measured(measurement), matrix(measurement)
    solve = jax.jit(lambda m, y, c: m.normal_solve(y, c))
    for c in (np.full(3, 0.1), np.array([0.02, 0.5, 3.0])):
        expected = [np.linalg.solve(A @ A.T + c_i * np.eye(len(A)), y_i.ravel()) for c_i, y_i in zip(c, y, strict=True)]
        np.testing.assert_allclose(solve(measurement, y, c).reshape(3, -1), expected, atol=1e-7)
    y = measurement.forward(images(measurement))
    expected = np.asarray(y).reshape(3, -1) @ np.linalg.pinv(A @ A.T, rcond=1e-9)
    np.testing.assert_allclose(solve(measurement, y, 0.0).reshape(3, -1), expected, rtol=1e-6, atol=1e-7)


@one_coil_only
def test_singular_values_and_bases(measurement):
    """The values are the matrix's; V is orthogonal; A = U diag(s) V^T, and U^T U z = z where something is measured."""
    A, s, x = matrix(measurement), measurement.singular_values(), images(measurement)
    np.testing.assert_allclose(np.sort(s.ravel())[::-1], np.linalg.svd(A, compute_uv=False)[: s.size], atol=1e-7)
    z = measurement.to_spectrum(x)
    assert inner(z, z) == pytest.approx(inner(x, x))
    np.testing.assert_allclose(measurement.from_spectrum(z), x, atol=1e-12)
    np.testing.assert_allclose(measurement.measured_from_spectrum(s * z), measurement.forward(x), atol=1e-12)
    z = np.where(s > 0, z, 0)
    u = measurement.measured_from_spectrum(z)
    assert inner(u, u) == pytest.approx(inner(z, z))
    np.testing.assert_allclose(measurement.measured_to_spectrum(u), z, atol=1e-12)
    np.testing.assert_array_equal(measurement.measured_to_spectrum(measured(measurement))[:, s == 0], 0)


@every
def test_an_image_alone_is_that_image_in_a_batch(measurement):
    x, y = images(measurement), measured(measurement)
    for function, argument in ((measurement.forward, x), (measurement.adjoint, y), (measurement.pseudo_inverse, y)):
        np.testing.assert_allclose(jax.jit(function)(argument)[1], jax.jit(function)(argument[1:2])[0], atol=1e-9)


def test_a_mask_is_an_argument_of_a_compiled_program():
    traces = []

    @jax.jit
    def forward(measurement, x):
        traces.append(1)
        return measurement.forward(x)

    x = images(one_coil(1))
    results = [forward(one_coil(1, mask), x) for mask in (MASK, ~MASK)]
    assert len(traces) == 1
    np.testing.assert_allclose(sum(results), one_coil(1, np.ones(SHAPE)).forward(x), atol=1e-12)


@pytest.mark.parametrize("shape, coils", [((8, 8), 4), ((7, 12), 3)])
def test_squares_of_coil_maps_sum_to_one(shape, coils):
    maps = birdcage_maps(shape, coils)
    assert maps.shape == (coils, *shape, 2)
    np.testing.assert_allclose((maps**2).sum((0, -1)), 1, atol=1e-14)


def test_coils_stand_around_the_image_and_are_smooth():
    """A quarter turn of the image takes each of four coils to the next, from the right over the top; phases turn with it."""
    maps = birdcage_maps((16, 16), 4)
    z = np.asarray(maps[..., 0] + 1j * maps[..., 1])
    np.testing.assert_allclose(np.rot90(z[0]) * 1j, z[1], atol=1e-14)
    size = np.abs(z)
    assert np.unravel_index(size[0].argmax(), (16, 16))[1] == 15 and np.all(np.diff(size[0][8]) > 0)
    assert np.abs(np.diff(z, axis=1)).max() < 0.25 and np.abs(np.diff(z, axis=2)).max() < 0.25


@pytest.mark.parametrize("radius", [None, 2.0])
def test_coils_have_the_field_of_wires(radius):
    """Pixel by pixel: 1 / distance, perpendicular to the way there; wires 1.5 half-sides from the middle, from the right."""
    maps = np.asarray(birdcage_maps((3, 4), 3, *([] if radius is None else [radius])))
    for i, j in np.ndindex(3, 4):
        pixel = complex((2 * j - 3) / 4, -(2 * i - 2) / 3)
        away = np.array([pixel - (radius or 1.5) * np.exp(2j * np.pi * c / 3) for c in range(3)])
        field = away / np.abs(away) ** 2
        field /= np.linalg.norm(field)
        np.testing.assert_allclose(maps[:, i, j], np.stack([field.real, field.imag], 1), atol=1e-12)


def test_coils_recover_what_one_coil_has_lost():
    """Of every second line, SENSE recovers the complex image without error; one coil cannot."""
    mask, x = equispaced_mask((8, 8), 2, 2), RNG.normal(size=(2, 8, 8, 2))
    one = FourierSampling(event_shape=(8, 8, 2), mask=mask)
    four = MultiCoilFourierSampling(event_shape=(8, 8, 2), mask=mask, coil_maps=birdcage_maps((8, 8), 4), rtol=1e-11)
    assert np.abs(one.pseudo_inverse(one.forward(x)) - x).max() > 0.5
    np.testing.assert_allclose(four.pseudo_inverse(four.forward(x)), x, atol=1e-7)


@pytest.mark.parametrize(
    "width, acceleration, center", [(32, 4, 3), (33, 4, 4), (30, 2.5, 0), (8, 1, 2), (16, 4, 4), (30, 6, 5)]
)
@pytest.mark.parametrize("kind", ["equispaced", "random"])
def test_lines_have_the_acceleration_and_the_centre(kind, width, acceleration, center):
    shape = (6, width)
    draw = {
        "equispaced": equispaced_mask,
        "random": lambda *args: random_lines_mask(jax.random.key(0), *args, power=2.0),
    }
    mask = np.asarray(draw[kind](shape, acceleration, center))
    assert mask.shape == shape and mask.dtype == bool
    np.testing.assert_array_equal(mask, np.broadcast_to(mask[:1], shape))
    assert mask[0].sum() == round(width / acceleration)
    np.testing.assert_array_equal(mask[0, width // 2 - center // 2 :][:center], True)


def test_equispaced_lines_are_evenly_spaced():
    np.testing.assert_array_equal(np.flatnonzero(equispaced_mask((2, 16), 4, 0)[0]), [2, 6, 10, 14])
    np.testing.assert_array_equal(np.flatnonzero(equispaced_mask((2, 18), 3, 2)[0]), [2, 6, 8, 9, 12, 16])


def test_random_lines_follow_their_density():
    """Over many keys, the line at distance d is drawn as often as (1 - d)^power says; without a power, all as often.

    The distance of the centre is 0 and that of the first line beyond the edge 1.
    """
    settings = ((9, 0.0), (9, 1.0), (8, 1.0))
    for (width, power), keys in zip(settings, jax.random.split(jax.random.key(1), (3, 4000)), strict=True):
        draws = jax.vmap(lambda key, w=width, p=power: random_lines_mask(key, (1, w), w, 0, p)[0])(keys)
        density = (1 - np.abs(np.arange(width) - 4) / 5) ** power
        np.testing.assert_allclose(draws.mean(0), density / density.sum(), atol=0.025)


def test_four_spokes_are_the_row_the_column_and_the_diagonals():
    row, column = np.indices((9, 9)) - 4
    np.testing.assert_array_equal(radial_mask((9, 9), 4), (row == 0) | (column == 0) | (np.abs(row) == np.abs(column)))


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (4, 12), (12, 4)])
def test_spokes_cross_images_of_any_shape(shape):
    """The row and the column of the centre (H // 2, W // 2), and its diagonals to the nearer edge; nothing comes round."""
    row, column = np.indices(shape) - np.array([shape[0] // 2, shape[1] // 2])[:, None, None]
    np.testing.assert_array_equal(radial_mask(shape, 2), (row == 0) | (column == 0))
    np.testing.assert_array_equal(radial_mask(shape, 4), (row == 0) | (column == 0) | (np.abs(row) == np.abs(column)))


def test_a_spiral_reaches_the_edge_of_the_longer_side():
    """Of an image that is shorter it is the part within; without a turn it is straight."""
    whole = np.asarray(spiral_mask((33, 33), 4))
    np.testing.assert_array_equal(spiral_mask((9, 33), 4), whole[12:21])
    np.testing.assert_array_equal(spiral_mask((33, 9), 4), whole[:, 12:21])
    row, column = np.indices((9, 12)) - np.array([4, 6])[:, None, None]
    np.testing.assert_array_equal(spiral_mask((9, 12), 0), (row == 0) & (column >= 0))
    np.testing.assert_array_equal(spiral_mask((9, 12), 0, interleaves=4), (row == 0) | (column == 0))


def test_one_spoke_at_sixty_degrees_rises_to_the_right():
    mask = np.asarray(radial_mask((33, 33), 3))
    assert mask[16 - 7, 16 + 4] and mask[16 + 7, 16 - 4] and mask[16 - 7, 16 - 4]  # 60 degrees, and 120
    assert mask[16].all() and mask[:, 16].sum() < 5  # 0, and not 90


def test_a_spiral_crosses_the_axis_once_a_turn():
    """Of radius 16.5 in 4 turns, it crosses the axis to the right at 4.1, 8.3 and 12.4, the one upwards a quarter sooner."""
    mask = np.asarray(spiral_mask((33, 33), 4))
    np.testing.assert_array_equal(np.flatnonzero(mask[16, 16:]), [0, 4, 8, 12, 16])
    np.testing.assert_array_equal(np.flatnonzero(mask[16::-1, 16]), [0, 1, 5, 9, 13])
    two = np.asarray(spiral_mask((33, 33), 4, interleaves=2))
    np.testing.assert_array_equal(two, mask | mask[::-1, ::-1])


@pytest.mark.parametrize("kind", [FourierSampling, MultiCoilFourierSampling])
def test_bad_input_is_named(kind):
    maps = {"coil_maps": jnp.ones((2, 6, 5, 2))} if kind is MultiCoilFourierSampling else {}
    x = np.ones((1, 6, 5, 1))
    with pytest.raises(ValueError, match=r"mask of shape \(5, 6\) must have the image's \(6, 5\)$"):
        kind(event_shape=(6, 5, 1), mask=jnp.ones((5, 6)), **maps).forward(x)
    with pytest.raises(ValueError, match=r"event_shape=\(6, 5, 3\) must be"):
        kind(event_shape=(6, 5, 3), mask=jnp.ones((6, 5)), **maps).adjoint(
            np.ones((1, *([2] if maps else []), 6, 5, 2))
        )
    if maps:
        with pytest.raises(ValueError, match=r"coil_maps of shape \(2, 5, 6, 2\) must be \(coils, 6, 5, 2\)"):
            kind(event_shape=(6, 5, 1), mask=jnp.ones((6, 5)), coil_maps=jnp.ones((2, 5, 6, 2))).forward(x)


@pytest.mark.parametrize("acceleration, center", [(4, 5), (0.5, 2)])
def test_more_lines_than_there_are_is_named(acceleration, center):
    with pytest.raises(ValueError, match=rf"acceleration={acceleration} .* of 16 lines"):
        equispaced_mask((16, 16), acceleration, center)
