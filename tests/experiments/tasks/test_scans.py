"""Scanners' files: what they must hold, and the intensities behind them, against numpy's transforms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.inputs import scans
from experiments.errors import UserError
from experiments.inverse import problems
from experiments.inverse import scanners as reconstruction
from sde_lib import inverse
from tests.sde_lib.inverse.assembled import matrix

SIZE = 8
ROWS, COLUMNS = np.mgrid[-1:1:8j, -1:1:8j]
IMAGE = np.exp(-3 * (ROWS**2 + (COLUMNS - 0.2) ** 2))
MASK = np.ones((SIZE, SIZE), int)
MASK[:, [0, 2, 7]] = 0


def kspace_of(images):
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(images, (-2, -1)), norm="ortho"), (-2, -1))


def scan(image=IMAGE, **changes):
    return {"kspace": kspace_of(image[None]).astype(np.complex64), "mask": MASK} | changes


def stored(tmp_path, arrays):
    np.savez(tmp_path / "scan.npz", **{name: array for name, array in arrays.items() if array is not None})
    return str(tmp_path / "scan.npz")


def test_only_what_is_sampled_is_read(tmp_path):
    found = scans.read_kspace("--input", stored(tmp_path, scan()), (SIZE, SIZE), None)
    np.testing.assert_allclose(found.values[0, 0], MASK * kspace_of(IMAGE), atol=1e-6)
    assert found.maps is None and (found.mask == MASK).all()


@pytest.mark.parametrize("phase, share", [(0.0, 0.0), (np.pi / 2, 1.0), (0.5, np.sin(0.5) ** 2)])
def test_the_imaginary_share_is_that_of_the_phase(phase, share):
    """Lines without a sampled negative, which make any image complex, do not count."""
    values = MASK * kspace_of(np.exp(1j * phase) * IMAGE)
    found = scans.KSpace(values[None, None], MASK.astype(bool), None)
    np.testing.assert_allclose(scans.imaginary_share(found), share, atol=1e-9)
    maps = np.exp(1j * phase) * np.ones((1, SIZE, SIZE))
    known = scans.KSpace(values[None, None], MASK.astype(bool), maps)
    np.testing.assert_allclose(scans.imaginary_share(known), 0, atol=1e-9)


COILS = np.ones((2, SIZE, SIZE), np.complex64)


@pytest.mark.parametrize(
    "arrays, message",
    [
        (scan(kspace=None), "has no array 'kspace', which --modality=mri needs; it has mask"),
        (scan(kspace=IMAGE[None]), "'kspace' is float64(1, 8, 8); complex (N, H, W) or (N, coils, H, W) is needed"),
        (scan(kspace=np.ones((1, 6, 8), complex)), "'kspace' is complex128(1, 6, 8); the model's images are 8 x 8"),
        (scan(mask=np.ones((8, 6))), "'mask' is float64(8, 6); (8, 8) of 0 and 1 is needed, as 'kspace' is"),
        (scan(mask=2 * MASK), "of 0 and 1 is needed, as 'kspace' is; the largest value is 2: divide by it"),
        (scan(mask=255 * MASK), "of 0 and 1 is needed, as 'kspace' is; the largest value is 255: divide by it"),
        (scan(mask=0 * MASK), "of 0 and 1 is needed, as 'kspace' is; all values are 0: nothing is measured"),
        (scan(mask=0.5 * MASK), "of 0 and 1 is needed, as 'kspace' is; the largest value is 0.5: divide by it"),
        (scan(mask=MASK + 0.5 * (1 - MASK)), "of 0 and 1 is needed, as 'kspace' is; there are others between: 0.5"),
        (scan(mask=MASK - 1), "of 0 and 1 is needed, as 'kspace' is; the smallest value is -1"),
        (scan(mask=np.full((8, 8), np.nan)), "of 0 and 1 is needed, as 'kspace' is; 64 of its 64 values are not finite"),
        (scan(mask=MASK.astype(str)), "of 0 and 1 is needed, as 'kspace' is; its values are no numbers"),
        (scan(kspace=np.zeros((1, 8, 8), complex)), "all values of 'kspace' that 'mask' leaves are 0: nothing is measured"),
        (scan(kspace=np.zeros((0, 8, 8), complex)), "'kspace' is complex128(0, 8, 8): there are no slices"),
        (scan(kspace=1e16 * kspace_of(IMAGE[None])), "magnitudes of 'kspace' reach 1.58e+16; at most 1e+15 is needed"),
        (scan(maps=np.full((1, 8, 8), np.nan + 0j)), "64 of the 64 values of 'maps' are not finite"),
        (scan(maps=COILS), "'maps' is complex64(2, 8, 8); complex (1, 8, 8) is needed, as 'kspace' is"),
        (scan(kspace=COILS[None]), "'kspace' of 2 coils needs 'maps', complex (2, 8, 8)"),
        (scan(kspace=np.full((1, 8, 8), np.nan + 0j)), "64 of the 64 values of 'kspace' are not finite"),
        (scan(kspace=np.fft.fft2(IMAGE)[None], mask=0 * MASK + 1), "is strongest at (0, 0); the zero frequency must be at"),
        (scan(np.exp(1j) * IMAGE), "71% of the image's energy is imaginary, but the model's images are real"),
    ],
)  # fmt: skip
def test_kspace_that_does_not_fit_is_named(tmp_path, arrays, message):
    with pytest.raises(UserError) as error:
        scans.read_kspace("--input", stored(tmp_path, arrays), (SIZE, SIZE), None)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "projections, angles, message",
    [
        (np.ones((2, 3)), np.arange(3), "'projections' is float64(2, 3); real (N, angles, bins) is needed"),
        (np.ones((2, 3, 8)), np.arange(4), "'angles' is int64(4,); 3 are needed, as in 'projections'"),
        (np.ones((2, 3, 7)), np.arange(3), "has 7 bins, one pixel apart: images of 8 x 8 are seen by 8 to 12"),
        (np.ones((2, 3, 8)), np.array([0, 1, 3]), "'angles' must rise evenly; the steps are 1 to 2"),
        (np.ones((0, 3, 8)), np.arange(3), "'projections' is float64(0, 3, 8): there are no slices"),
        (
            np.zeros((2, 3, 8)),
            np.arange(0, 180, 60),
            "all values of 'projections' that 'mask' leaves are 0: nothing is",
        ),
        (np.full((2, 3, 8), 1e20), np.arange(0, 180, 60), "magnitudes of 'projections' reach 1e+20; at most 1e+15 is"),
        (
            np.ones((2, 4, 8)),
            np.linspace(0, np.pi, 4),
            "'angles' from 0 to 3.14159 look like radians: degrees are needed",
        ),
        (np.full((2, 3, 8), np.inf), np.arange(3), "48 of the 48 values of 'projections' are not finite"),
    ],
)
def test_projections_that_do_not_fit_are_named(tmp_path, projections, angles, message):
    path = stored(tmp_path, {"projections": projections, "angles": angles})
    with pytest.raises(UserError) as error:
        scans.read_projections("--input", path, (SIZE, SIZE), 12, None)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_lost_rays_may_hold_anything(tmp_path):
    there = np.ones((3, 8), int)
    there[1, 2:4] = 0
    values = np.arange(48.0).reshape(2, 3, 8)
    arrays = {"projections": np.where(there, values, np.nan), "angles": np.arange(3), "mask": there}
    found = scans.read_projections("--input", stored(tmp_path, arrays), (SIZE, SIZE), 12, None)
    np.testing.assert_array_equal(found.values, there * values)
    np.testing.assert_array_equal(found.mask, there == 1)


@pytest.mark.parametrize(
    "mask, fault",
    [
        (np.ones((8, 3)), ""),
        (2 * np.ones((3, 8)), "; the largest value is 2: divide by it"),
        (np.zeros((3, 8)), "; all values are 0: nothing is measured"),
    ],
)
def test_a_mask_of_rays_that_does_not_fit_is_named(tmp_path, mask, fault):
    path = stored(tmp_path, {"projections": np.ones((2, 3, 8)), "angles": np.arange(3), "mask": mask})
    with pytest.raises(UserError) as error:
        scans.read_projections("--input", path, (SIZE, SIZE), 12, None)
    sides = "({}, {})".format(*mask.shape)
    expected = f"'mask' is float64{sides}; (3, 8) of 0 and 1 is needed, as 'projections' is{fault}"
    assert str(error.value).endswith(expected)


@pytest.mark.parametrize("bins", [8, 10])
@pytest.mark.parametrize("lost", [False, True])
def test_a_scan_of_projections_measures_as_its_file_says(tmp_path, bins, lost):
    """At 0 and 90 degrees numpy sums columns and rows; rays that are lost measure nothing."""
    rng = np.random.default_rng(0)
    there = rng.uniform(size=(2, bins)) > 0.3 if lost else np.ones((2, bins), bool)
    values = rng.uniform(1, 2, (3, 2, bins))
    arrays = {"projections": values, "angles": np.array([0, 90])} | ({"mask": there.astype(int)} if lost else {})
    measurement, y = reconstruction.read_scan("ct", "--input", stored(tmp_path, arrays), (SIZE, SIZE, 1), 2)
    np.testing.assert_allclose(y, (there * values)[:2, ..., None], rtol=1e-6)
    assert measurement.num_detectors() == bins and (measurement.mask is not None) == lost
    image = rng.uniform(size=(SIZE, SIZE))
    sums = np.pad(np.stack([image.sum(0), image.sum(1)[::-1]]), [(0, 0), ((bins - SIZE) // 2,) * 2])
    measured = measurement.forward(np.float32(image[None, ..., None]))
    np.testing.assert_allclose(measured[0, ..., 0], there * sums, rtol=1e-5, atol=1e-4)


def test_rays_that_all_miss_the_image_are_no_scan(tmp_path):
    there = np.zeros((2, 12))
    there[0, 0] = 1
    path = stored(tmp_path, {"projections": np.ones((1, 2, 12)), "angles": np.array([0, 90]), "mask": there})
    with pytest.raises(UserError, match="none of the rays that 'mask' leaves goes through the image"):
        reconstruction.read_scan("ct", "--input", path, (SIZE, SIZE, 1), None)


def test_other_files_are_not_read(tmp_path):
    (tmp_path / "scan.h5").write_bytes(b"")
    with pytest.raises(UserError, match=r"scan\.h5: unknown file type \.h5: measurements are read from \.npz files"):
        scans.read_kspace("--input", str(tmp_path / "scan.h5"), (SIZE, SIZE), None)


SHAPE = (SIZE, SIZE, 1)


@pytest.mark.parametrize(
    "measurement",
    [
        inverse.FourierSampling(event_shape=SHAPE, mask=MASK.astype(np.float32)),
        inverse.Radon(event_shape=SHAPE, angles=inverse.parallel_angles(3)),
    ],
    ids=["mri", "ct"],
)
def test_a_measurement_of_intensities_becomes_that_of_the_models_images(measurement):
    u = jnp.asarray(100 * IMAGE[None, ..., None] - 30, jnp.float32)
    x = 2 * (u + 20) / 90 - 1
    found = reconstruction.on_the_models_scale(measurement, measurement.forward(u), -20, 70)
    np.testing.assert_allclose(found, measurement.forward(x), atol=1e-4)


@pytest.mark.parametrize("name", ["mri", "ct"])
def test_white_is_a_percentile_of_the_intensities(name):
    measurement = {
        "mri": inverse.FourierSampling(event_shape=SHAPE, mask=np.ones((SIZE, SIZE), np.float32)),
        "ct": inverse.Radon(event_shape=SHAPE, angles=inverse.parallel_angles(40)),
    }[name]
    u = 300 * np.stack([IMAGE, 0.5 * IMAGE])[..., None].astype(np.float32)
    white = reconstruction.white_of(name, measurement, measurement.forward(u))
    np.testing.assert_allclose(white, np.percentile(u, 99.5), rtol={"mri": 1e-4, "ct": 0.15}[name])


def test_the_view_of_kspace_is_black_four_powers_of_ten_below_the_largest():
    """Magnitudes over both coils and both parts, each image beside its own largest; no k-space at all is black."""
    y = np.zeros((2, 2, 1, 5, 2))  # (N, coils, H, W, 2)
    y[0, 0, 0, :, 1] = [5.0, 0.04, 4e-4, 3e-6, 0]
    y[0, 1, 0, :, 0] = [0.0, 0.03, 3e-4, 4e-6, 0]
    view = reconstruction.VIEWS["mri"](y, None)
    np.testing.assert_allclose(view[0, 0, :, 0], [1, 0, -1, -1, -1], atol=1e-12)
    np.testing.assert_array_equal(view[1], -1)


@pytest.mark.parametrize("name", reconstruction.MASKS)
@pytest.mark.parametrize("acceleration", [2.0, 4.0])
def test_masks_sample_the_share_that_the_acceleration_says(name, acceleration):
    options = {"acceleration": acceleration, "operator_seed": 0}
    mask = np.asarray(reconstruction.MASKS[name]((32, 32), options))
    line = 1 / 32 if name in ("random_lines", "equispaced") else 0.1
    assert 1 / acceleration <= mask.mean() <= 1 / acceleration + line
    assert mask[16, 16]
    if name in ("random_lines", "equispaced"):
        assert mask[:, 15:17].all()
    if name == "random_lines":
        other = np.asarray(reconstruction.MASKS[name]((32, 32), options | {"operator_seed": 1}))
        assert (mask == mask[0]).all() and (mask != other).any()


def test_coils_and_angles_are_as_many_as_asked_for():
    mri = reconstruction.simulated(
        "mri", SHAPE, {"mask": "equispaced", "acceleration": 2.0, "coils": 3, "operator_seed": 0}
    )
    ct = reconstruction.simulated("ct", SHAPE, {"angles": 4, "arc": 90.0, "metal": None})
    shapes = [jax.eval_shape(m.forward, jax.ShapeDtypeStruct((1, *SHAPE), jnp.float32)).shape for m in (mri, ct)]
    assert shapes == [(1, 3, 8, 8, 2), (1, 4, 12, 1)]
    np.testing.assert_allclose(ct.angles, np.deg2rad([0, 22.5, 45, 67.5]), rtol=1e-6)


def problem_of(name, std=0.1):
    """CT with some small singular values, or k-space of two coils whose maps are strong."""
    maps = 3 * inverse.birdcage_maps((SIZE, SIZE), 2)
    measurement = {
        "ct": inverse.CompletedRadon(event_shape=SHAPE, angles=inverse.parallel_angles(5)),
        "mri": inverse.MultiCoilFourierSampling(event_shape=SHAPE, mask=MASK.astype(np.float32), coil_maps=maps),
    }[name]
    return reconstruction.scan_problem(name, measurement, std)


@pytest.mark.parametrize("name", ["mri", "ct"])
@pytest.mark.parametrize("small", [True, False])
def test_methods_see_a_measurement_of_norm_one(name, small, monkeypatch):
    """And the noise of y in its units; what the misfit is told in stays. Large images are not decomposed."""
    monkeypatch.setattr(inverse.decomposed, "MAX_IMAGE", SIZE * SIZE - (not small))
    of = problem_of(name)
    solved, unit = reconstruction.for_methods(of, "singular_values")
    assert hasattr(solved.measurement, "singular_values") == small
    assert hasattr(reconstruction.for_checks(of).measurement, "singular_values") == small
    A = matrix(of.measurement)
    np.testing.assert_allclose(unit, np.linalg.svd(A, compute_uv=False)[0], rtol=0.01)
    np.testing.assert_allclose(unit * matrix(solved.measurement), A, atol=1e-5)
    np.testing.assert_allclose(unit * solved.noise.std, 0.1, rtol=1e-6)
    assert of.noise.std == 0.1


def test_ct_keeps_its_back_projection():
    """For methods that ask for a pseudo-inverse; the exact one makes too much of the noise."""
    of = problem_of("ct")
    solved, unit = reconstruction.for_methods(of, "pseudo_inverse")
    y = of.measure(jax.random.split(jax.random.key(0), 1), jnp.asarray(IMAGE[None, ..., None], jnp.float32))
    np.testing.assert_allclose(
        solved.measurement.pseudo_inverse(y / unit), of.measurement.pseudo_inverse(y), rtol=1e-4, atol=1e-5
    )


def test_one_coil_is_left_as_it_is():
    measurement = inverse.FourierSampling(event_shape=SHAPE, mask=MASK.astype(np.float32))
    of = reconstruction.scan_problem("mri", measurement, 0.1)
    assert reconstruction.for_methods(of, "singular_values") == (of, 1.0)
    assert reconstruction.for_checks(of) is of


@pytest.mark.parametrize(
    "name, served",
    [
        ("ct", {"many products", "normal_solve", "singular_values"}),
        ("mri", {"pseudo_inverse", "normal_solve", "singular_values"}),
    ],
)
def test_what_a_method_has_no_use_for_is_not_decomposed(name, served, monkeypatch):
    of = problem_of(name)
    asked = {spec.asks for spec in problems.METHODS.values()}
    found = {asks for asks in asked if hasattr(reconstruction.for_methods(of, asks)[0].measurement, "singular_values")}
    assert found == served and asked - served
    monkeypatch.setitem(reconstruction.FASTER_BY_MATRICES, "ct", SIZE * SIZE - 1)
    solved, _ = reconstruction.for_methods(of, "many products")
    assert not hasattr(solved.measurement, "singular_values")


@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize("row, column", [(0, 3), (2, 0), (4, 6)])
def test_frequencies_whose_negatives_are_sampled_are_those_about_the_middle(side, row, column):
    """Of any size: a real image with a frequency less than it has, whose negative then does not count either."""
    image = np.random.default_rng(0).random((side, side))
    mask = np.ones((side, side), bool)
    mask[row, column] = False
    values = mask * kspace_of(image)
    assert scans.imaginary_share(scans.KSpace(values[None, None], mask, None)) < 1e-20
    both = mask.copy()
    negative = (2 * (side // 2) - row) % side, (2 * (side // 2) - column) % side
    both[negative] = False
    phase = np.exp(0.3j)
    turned = scans.KSpace((mask * kspace_of(phase * image))[None, None], mask, None)
    found = np.fft.ifft2(np.fft.ifftshift(both * kspace_of(phase * image)), norm="ortho")
    share = np.square(found.imag).sum() / np.square(np.abs(found)).sum()
    np.testing.assert_allclose(scans.imaginary_share(turned), share, rtol=1e-9)


def test_the_imaginary_share_of_coils_is_that_of_their_sum():
    """Of two coils that see halves of the image; what two slices have is added."""
    half = np.stack([ROWS < 0, ROWS >= 0])
    maps = half * np.array([1.0, 1j]).reshape(2, 1, 1)
    images = np.stack([IMAGE, 2 * IMAGE * np.exp(0.4j)])
    values = kspace_of(images[:, None] * maps)
    whole = np.ones((SIZE, SIZE), bool)
    share = 4 * np.sin(0.4) ** 2 / 5
    np.testing.assert_allclose(scans.imaginary_share(scans.KSpace(values, whole, maps)), share, rtol=1e-9)
    assert scans.imaginary_share(scans.KSpace(0 * values, whole, maps)) == 0.0


def test_real_and_imaginary_parts_are_the_last_axis():
    found = scans.channels(np.array([[1 + 2j], [3 - 4j]]))
    assert found.tolist() == [[[1, 2]], [[3, -4]]] and found.dtype == np.float32


@pytest.mark.parametrize(
    "moved, fits", [((2, 0), True), ((0, -2), True), ((0, 3), False), ((-3, 0), False), ((0, -4), False)]
)
@pytest.mark.parametrize("shape", [(8, 16), (16, 8)])
def test_the_strongest_frequency_of_a_rectangle_is_within_a_quarter_of_its_shorter_side(tmp_path, shape, moved, fits):
    """Of images of either orientation; what is read keeps its rows and columns."""
    rng = np.random.default_rng(0)
    values = 1e-6 * kspace_of(1 + rng.random((2, *shape)))
    place = tuple(side // 2 + by for side, by in zip(shape, moved, strict=True))
    mirror = tuple((side // 2 - by) % side for side, by in zip(shape, moved, strict=True))
    values[:, *mirror], values[:, *place] = 1, 1 + 1e-6
    path = stored(tmp_path, {"kspace": values, "mask": np.ones(shape)})
    if fits:
        found = scans.read_kspace("--input", path, shape, None)
        np.testing.assert_allclose(found.values[:, 0], values, rtol=1e-6)
        for other in (shape[::-1], (shape[0], shape[0]), (shape[1], shape[1])):
            with pytest.raises(UserError, match=f"the model's images are {other[0]} x {other[1]}"):
                scans.read_kspace("--input", path, other, None)
        return
    with pytest.raises(UserError, match=rf"is strongest at \({place[0]}, {place[1]}\); the zero frequency must be at"):
        scans.read_kspace("--input", path, shape, None)
