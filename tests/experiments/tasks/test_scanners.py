"""Simulated and real scanners: masks, noise and views by hand, the bounds of files and flags, styles of patches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.inputs import scans
from experiments.editing import build as editing
from experiments.errors import UserError
from experiments.inverse import modalities, problems
from experiments.inverse import scanners as reconstruction
from sde_lib import inverse

MRI = {"mask": "equispaced", "acceleration": 4.0, "coils": 1, "operator_seed": 0}


@pytest.mark.parametrize(
    "size, acceleration, total, center",
    [(64, 4.0, 16, 5), (32, 4.0, 8, 3), (16, 4.0, 4, 1), (16, 8.0, 2, 1), (16, 16.0, 1, 1), (16, 1.0, 16, 5),
     (100, 4.0, 25, 8)],
)  # fmt: skip
def test_lines_are_a_share_of_all_and_about_a_third_of_them_in_the_middle(
    monkeypatch, size, acceleration, total, center
):
    """fastMRI's 8 % of all lines at an acceleration of 4."""
    given = []
    monkeypatch.setattr(inverse, "equispaced_mask", lambda *of: given.append(of) or np.ones(of[0]))
    monkeypatch.setattr(inverse, "random_lines_mask", lambda key, *of: given.append((key, *of)) or np.ones(of[0]))
    options = {"acceleration": acceleration, "operator_seed": 7}
    reconstruction.MASKS["equispaced"]((size, size), options)
    reconstruction.MASKS["random_lines"]((size, size), options)
    plain, (key, *random) = given
    assert plain == tuple(random) == ((size, size), acceleration, center)
    assert (jax.random.key_data(key) == jax.random.key_data(jax.random.key(7))).all()


def test_no_line_at_all_is_refused():
    for name in ("equispaced", "random_lines"):
        with pytest.raises(ValueError, match=r"acceleration=33\.0 samples none of the 16 lines"):
            reconstruction.MASKS[name]((16, 16), {"acceleration": 33.0, "operator_seed": 0})
        assert np.asarray(reconstruction.MASKS[name]((16, 16), {"acceleration": 31.0, "operator_seed": 0})).any()
    with pytest.raises(UserError, match=r"^--modality=mri: acceleration=33\.0 samples none of the 16 lines$"):
        reconstruction.simulated("mri", (16, 16, 1), MRI | {"acceleration": 33.0})


def test_spokes_are_as_few_as_sample_the_share(monkeypatch):
    """A share that is reached exactly is enough; all is sampled where no number of spokes reaches it."""
    shares = [0.0, 0.125, 0.25, 0.5]
    for name, attribute in (("radial", "radial_mask"), ("spiral", "spiral_mask")):
        made = reconstruction._turned(lambda shape, count: np.arange(16) < 16 * shares[min(count, 3)])
        for acceleration, share in ((8.0, 0.125), (7.9, 0.25), (4.0, 0.25), (2.0, 0.5)):
            assert made((4, 4), {"acceleration": acceleration}).mean() == share
        everything = np.asarray(made((4, 4), {"acceleration": 1.9}))
        assert everything.shape == (4, 4) and everything.dtype == bool and everything.all()
        assert hasattr(inverse, attribute) and name in reconstruction.MASKS
    assert set(reconstruction.MASKS) == set(modalities.MASKS)


def test_a_simulated_scan_has_the_coils_and_angles_of_its_flags():
    shape = (8, 8, 1)
    one, two = (reconstruction.simulated("mri", shape, MRI | {"coils": coils}) for coils in (1, 2))
    assert type(one) is inverse.FourierSampling and one.mask.dtype == jnp.float32
    assert type(two) is inverse.MultiCoilFourierSampling
    np.testing.assert_allclose(two.coil_maps, inverse.birdcage_maps((8, 8), 2), rtol=1e-6)
    ct = reconstruction.simulated("ct", shape, {"angles": 3, "arc": 120.0, "metal": None})
    assert type(ct) is inverse.CompletedRadon and ct.mask is None and ct.detectors is None
    np.testing.assert_allclose(ct.angles, np.deg2rad([0, 40, 80]), rtol=1e-6)
    problem = reconstruction.scan_problem("ct", ct, 0.3)
    assert problem.name == "ct" and problem.measured is None and problem.noise == inverse.GaussianNoise(0.3)
    measured = reconstruction.scan_problem("mri", two, 0.3).measured
    np.testing.assert_array_equal(measured, np.asarray(two.mask)[..., None])


def test_plain_reconstructions_have_their_captions_and_the_noise(monkeypatch):
    given = []
    monkeypatch.setattr(reconstruction.baselines, "total_variation", lambda a, y, std: given.append(std) or "tv")
    monkeypatch.setattr(reconstruction, "PLAIN", {"mri": ("plain", lambda a, y: y)})
    of = reconstruction.scan_problem("mri", reconstruction.simulated("mri", (8, 8, 1), MRI), 0.3)
    assert of.baseline("y") == {"plain": "y", "total variation": "tv"} and given == [0.3]


def test_captions_of_plain_reconstructions():
    captions = {name: caption for name, (caption, _) in reconstruction.PLAIN.items()}
    assert captions == {"mri": "zero-filled", "ct": "filtered back-projection"}


def test_the_view_of_projections_goes_from_their_least_to_their_largest_and_lost_rays_are_black():
    y = np.array([[0.0, 2.0, 4.0, 100.0], [7.0, 7.0, 7.0, -9.0]]).reshape(2, 1, 4, 1)
    there = np.array([1.0, 1.0, 1.0, 0.0]).reshape(1, 4, 1)
    found = reconstruction.VIEWS["ct"](y, there)[..., 0, :, 0]
    np.testing.assert_allclose(found, [[-1, 0, 1, -1], [-1, -1, -1, -1]])
    whole = reconstruction.VIEWS["ct"](y, None)[..., 0, :, 0]
    np.testing.assert_allclose(whole, [[-1, -0.96, -0.92, 1], [1, 1, 1, -1]])


def test_a_scan_that_measures_nothing_has_a_unit_of_one():
    measurement = inverse.CompletedRadon(event_shape=(4, 4, 1), angles=jnp.zeros(1), mask=jnp.zeros((1, 6)))
    of = reconstruction.scan_problem("ct", measurement, 0.1)
    assert not reconstruction._sees(measurement) and reconstruction._sees(measurement.replace(mask=None))
    assert reconstruction.for_methods(of, "products")[1] == 1.0


@pytest.mark.parametrize(
    "flags, given, fits",
    [
        ("mri", {"acceleration": 1.0}, True), ("mri", {"acceleration": 0.99}, False),
        ("mri", {"acceleration": np.nan}, False), ("ct", {"arc": 360.0}, True), ("ct", {"arc": 360.1}, False),
        ("ct", {"arc": 0.1}, True), ("ct", {"arc": 0.0}, False), ("ct", {"arc": np.nan}, False),
        ("mri", {"operator_seed": 3}, True), ("mri", {"mask": "spiral", "operator_seed": 3}, False),
        ("mri", {"mask": "equispaced", "operator_seed": 3}, False), ("mri", {"angles": 3}, False),
        ("ct", {"coils": 3}, False), ("ct", {"operator_seed": 3}, False),
    ],
)  # fmt: skip
def test_flags_of_modalities_at_their_bounds(flags, given, fits):
    if fits:
        assert modalities.options(flags, given, measured=False) == modalities.MODALITIES[flags] | given
    else:
        with pytest.raises(UserError, match=f"^--{next(reversed(given))}="):
            modalities.options(flags, given, measured=False)
    assert modalities.options(flags, {}, measured=True) == {}


@pytest.mark.parametrize(
    "slices, window, expected",
    [
        (None, None, (slice(None, None), None)), (":", "-160,240", (slice(None, None), (-160.0, 240.0))),
        ("20:60:4", "0,1e3", (slice(20, 60, 4), (0.0, 1000.0))), ("5:", None, (slice(5, None), None)),
        ("::2", None, (slice(None, None, 2), None)), ("1:9:0", None, "--slices=1:9:0"), ("1:9:", None, "--slices=1:9:"),
        ("1:2:3:4", None, "--slices=1:2:3:4"), ("3", None, "--slices=3"), (None, "2,2", "--window=2,2"),
        (None, "3,2", "--window=3,2"), (None, "1,2,3", "--window=1,2,3"), (None, "1", "--window=1"),
    ],
)  # fmt: skip
def test_slices_and_windows_in_text(slices, window, expected):
    if isinstance(expected, str):
        with pytest.raises(UserError, match=f"^{expected}: must be"):
            modalities.of_volume("a.nii", None, window, slices)
        return
    assert modalities.of_volume("a.nii", None, window, slices) == ("axial", expected[1], expected[0])
    assert modalities.of_volume("a.nii", "sagittal", window, slices)[0] == "sagittal"


def kspace(tmp_path, values, mask=None, **more):
    mask = np.ones(values.shape[-2:]) if mask is None else mask
    np.savez(tmp_path / "scan.npz", kspace=values, mask=mask, **more)
    return scans.read_kspace("--input", str(tmp_path / "scan.npz"), values.shape[-2:], None)


def projections(tmp_path, values, angles, most=12, size=8, limit=None, **more):
    np.savez(tmp_path / "scan.npz", projections=values, angles=angles, **more)
    return scans.read_projections("--input", str(tmp_path / "scan.npz"), (size, size), most, limit)


def spectrum(image):
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image, (-2, -1)), norm="ortho"), (-2, -1))


BRIGHT = np.ones((1, 8, 8)) + 0.1 * np.random.default_rng(0).normal(size=(1, 8, 8))


@pytest.mark.parametrize("share, fits", [(0.099, True), (0.101, False)])
def test_a_tenth_of_the_energy_may_be_imaginary(tmp_path, share, fits):
    values = spectrum(BRIGHT * np.exp(1j * np.arcsin(np.sqrt(share))))
    if fits:
        kspace(tmp_path, values)
        return
    with pytest.raises(UserError, match="10% of the image's energy is imaginary"):
        kspace(tmp_path, values)


@pytest.mark.parametrize("moved, fits", [((0, 0), True), ((2, -2), True), ((3, 0), False), ((0, -3), False)])
def test_the_strongest_frequency_is_within_a_quarter_of_the_middle(tmp_path, moved, fits):
    values = np.full((1, 8, 8), 1e-6 + 0j)
    values[0, 4 + moved[0], 4 + moved[1]] = values[0, 4 - moved[0], 4 - moved[1]] = 1
    values[0, 4 + moved[0], 4 + moved[1]] *= 1.0001
    if fits:
        kspace(tmp_path, values)
        return
    with pytest.raises(UserError) as error:
        kspace(tmp_path, values)
    place = f"({4 + moved[0]}, {4 + moved[1]})"
    assert f"is strongest at {place}; the zero frequency must be at (4, 4)" in str(error.value)


def test_kspace_of_coils_is_kept_by_coil_and_of_a_limit_the_first(tmp_path):
    maps = np.stack([np.full((8, 8), np.exp(0.5j)), np.full((8, 8), 2 * np.exp(-1j))])
    images = np.concatenate([BRIGHT, 2 * BRIGHT, 3 * BRIGHT])
    values = spectrum(images[:, None] * maps)
    np.savez(tmp_path / "scan.npz", kspace=values, mask=np.ones((8, 8)), maps=maps)
    found = scans.read_kspace("--input", str(tmp_path / "scan.npz"), (8, 8), 2)
    assert found.values.shape == (2, 2, 8, 8) and found.values.dtype == found.maps.dtype == np.complex64
    np.testing.assert_allclose(found.values, values[:2], rtol=1e-5)
    measurement, y = reconstruction.read_scan("mri", "--input", str(tmp_path / "scan.npz"), (8, 8, 1), 2)
    np.testing.assert_allclose(y[..., 0] + 1j * y[..., 1], values[:2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(measurement.coil_maps, np.stack([maps.real, maps.imag], -1), rtol=1e-6)
    one = kspace(tmp_path, spectrum(BRIGHT))
    assert one.values.shape == (1, 1, 8, 8)
    _, y = reconstruction.read_scan("mri", "--input", str(tmp_path / "scan.npz"), (8, 8, 1), None)
    assert y.shape == (1, 8, 8, 2)


@pytest.mark.parametrize("largest, fits", [(0.99e15, True), (1.01e15, False)])
def test_magnitudes_that_float32_can_square_and_add(tmp_path, largest, fits):
    values = np.full((1, 3, 8), largest)
    if fits:
        projections(tmp_path, values, np.arange(3) * 60)
        return
    with pytest.raises(UserError, match=r"reach 1\.01e\+15; at most 1e\+15 is needed"):
        projections(tmp_path, values, np.arange(3) * 60)


@pytest.mark.parametrize(
    "angles, message",
    [
        ([0, 10, 20.099], None), ([0, 10, 20.11], "must rise evenly; the steps are 10 to 10.11"),
        ([0, 10, 10], "must rise evenly; the steps are 0 to 10"), ([20, 10, 0], "must rise evenly"), ([5], None),
        ([5, 5], "must rise evenly; the steps are 0 to 0"),
        ([0, 0.1, 0.2], None), ([0, 2.34, 4.68, 7.02], None), ([0, 2.33, 4.66, 6.99], "look like radians"),
        ([0, 60, np.nan], "1 of the 3 values of 'angles' are not finite"),
    ],
)  # fmt: skip
def test_angles_rise_evenly_in_degrees(tmp_path, angles, message):
    """To a hundredth of the step; four angles or more span seven degrees."""
    values = np.ones((1, len(angles), 8))
    if message is None:
        found = projections(tmp_path, values, np.array(angles))
        np.testing.assert_allclose(found.angles, np.deg2rad(angles))
        assert found.values.dtype == np.float32 and found.mask is None
        return
    with pytest.raises(UserError, match=message):
        projections(tmp_path, values, np.array(angles))


@pytest.mark.parametrize("bins, fits", [(7, False), (8, True), (12, True), (13, False)])
def test_bins_see_the_image_and_no_more_than_its_corners(tmp_path, bins, fits):
    values = np.arange(3.0 * bins).reshape(3, 1, bins)
    if fits:
        found = projections(tmp_path, values, np.array([0]), limit=2)
        np.testing.assert_array_equal(found.values, values[:2])
        return
    with pytest.raises(UserError, match=f"has {bins} bins, one pixel apart: images of 8 x 8 are seen by 8 to 12"):
        projections(tmp_path, values, np.array([0]))


def test_integers_are_projections_and_complex_numbers_or_texts_are_none(tmp_path):
    np.testing.assert_array_equal(projections(tmp_path, np.ones((1, 2, 8), np.uint16), np.array([0, 90])).values, 1)
    for values, angles, message in (
        (np.ones((1, 2, 8), complex), np.array([0, 90]), "real"), (np.ones((1, 2, 8)), np.array(["0", "90"]), "2 are needed")
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            projections(tmp_path, values, angles)


@pytest.mark.parametrize("shape", [(8, 8, 1), (5, 9, 3)])
def test_the_style_of_patches_allows_each_figure_its_deviation(shape):
    """The mean and covariance of 9 C figures over all positions, each off by std for one patch, by less for their mean."""
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = editing.style("patches", image, 0.25)
    positions = (shape[0] - 2) * (shape[1] - 2)
    assert float(found.std) == pytest.approx(0.25 * 9 * shape[2] / np.sqrt(positions), rel=1e-6)
    patches = np.stack([
        image[i : i + 3, j : j + 3].ravel() for i in range(shape[0] - 2) for j in range(shape[1] - 2)
    ])  # fmt: skip
    (mean,), (covariance,) = jax.tree.leaves(found.mean), jax.tree.leaves(found.covariance)
    np.testing.assert_allclose(np.sort(np.ravel(mean)), np.sort(patches.mean(0)), atol=1e-5)
    eigenvalues = np.linalg.eigvalsh(np.cov(patches.T, bias=True))
    np.testing.assert_allclose(np.linalg.eigvalsh(covariance), eigenvalues, atol=1e-4)


def test_perceptual_styles_are_of_grey_or_colour_images():
    for channels in (2, 4):
        with pytest.raises(
            UserError, match=f"--style_features=perceptual: is of images of 1 or 3 channels, not {channels}"
        ):
            editing.style("perceptual", np.zeros((8, 8, channels)), 0.1)
    with pytest.raises(UserError, match="--style_features='patch' is unknown: choose from patches, perceptual"):
        editing.style("patch", np.zeros((8, 8, 1)), 0.1)


def test_a_method_is_named_with_its_settings():
    assert problems.method("mmps:max_steps=3,rtol=0.5") == ("mmps", {"max_steps": 3, "rtol": 0.5})
    assert problems.method("repaint:substeps=2,") == ("repaint", {"resamplings": 10, "substeps": 2})
    assert type(problems.method("mmps:max_steps=3")[1]["max_steps"]) is int
    for text, message in (
        ("mmps:rtol", "'rtol' is no setting of mmps, which are max_steps=1, rtol=0.001; did you mean 'rtol'?"),
        ("mmps:rtl=1", "'rtl=1' is no setting of mmps, which are max_steps=1, rtol=0.001; did you mean 'rtol'?"),
        ("tmpd:x=1", "'x=1' is no setting of tmpd, which are none"),
        ("mmps:rtol=x", "rtol must be a number, such as 0.001"),
    ):
        with pytest.raises(UserError) as error:
            problems.method(text)
        assert str(error.value) == f"--method={text}: {message}"
    assert problems.METHODS["mmps"].settings == {"max_steps": 1, "rtol": 1e-3}


def test_keys_of_the_sampler_do_nothing_for_methods_with_steps_of_their_own():
    own = {"ddnm+", "ddrm", "replacement", "projection", "repaint", "resample", "daps"}
    assert {name for name, spec in problems.METHODS.items() if spec.own_steps} == own
    for name in problems.METHODS:
        problems.check_overrides(name, [("sampling.steps", "3"), ("sampling.times", "karras")])
        for key in ("sampling.sampler", "sampling.evaluations"):
            given = [("sampling.steps", "3"), (key, "9")]
            if name in own:
                with pytest.raises(UserError) as error:
                    problems.check_overrides(name, given)
                assert str(error.value) == f"--config.{key}=9 does nothing: --method={name} brings its own steps"
            else:
                problems.check_overrides(name, given)
