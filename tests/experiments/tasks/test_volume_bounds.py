"""Slices of volumes at the bounds of each rule: which are chosen, how they are made square, how far apart they lie."""

import nibabel
import numpy as np
import pytest

from experiments.data.inputs import volumes
from experiments.errors import UserError
from experiments.inverse import modalities
from tests.experiments.tasks.medical import write_dicom


def volume(tmp_path, data, affine=None, **options):
    affine = np.eye(4) if affine is None else affine
    nibabel.save(nibabel.Nifti1Image(np.asarray(data, np.float32), affine), tmp_path / "v.nii")
    return volumes.read("--truth", str(tmp_path / "v.nii"), **options)


@pytest.mark.parametrize(
    "chosen, limit, names", [(slice(None), None, "0123"), (slice(None), 2, "01"), (slice(1, None, 2), None, "13"),
                             (slice(1, None, 2), 1, "1"), (slice(2, 99), None, "23"), (slice(-1, None), None, "3")],
)  # fmt: skip
def test_slices_that_are_chosen_and_their_places(tmp_path, chosen, limit, names):
    data = np.arange(4.0)[None, None] + np.zeros((2, 2, 1))
    found = volume(tmp_path, data, np.diag([1, 1, 2.5, 1]), window=(0, 4), chosen=chosen, limit=limit)
    numbers = [int(name) for name in names]
    assert found.names == tuple(f"axial_{number:04d}" for number in numbers)
    np.testing.assert_allclose(found.slices[:, 0, 0], np.array(numbers) / 4)
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    assert found.affine[2, 3] == 2.5 * numbers[0] and found.affine[2, 2] == 2.5 * step


def test_no_slice_at_all_is_refused(tmp_path):
    with pytest.raises(UserError, match="has 3 coronal slices, of which none is chosen"):
        volume(tmp_path, np.zeros((2, 3, 4)), axis="coronal", window=(0, 1), chosen=slice(3, None))


def test_intensities_beyond_the_window_are_black_and_white(tmp_path):
    found = volume(tmp_path, np.arange(8.0).reshape(2, 2, 2), window=(2.0, 6.0))
    np.testing.assert_allclose(np.sort(found.slices.ravel()), [0, 0, 0, 0.25, 0.5, 0.75, 1, 1])
    assert (found.low, found.high, found.window, found.slices.dtype) == (2, 6, "--window", np.float32)
    np.testing.assert_allclose(found.intensities(np.array([0, 0.5, 1])), [2, 4, 6])


@pytest.mark.parametrize("shape, above, left", [((3, 3), 0, 0), ((3, 6), 1, 0), ((6, 3), 0, 1), ((1, 6), 2, 0)])
def test_slices_are_made_square_with_black_at_the_sides(shape, above, left):
    """An odd margin is larger below and at the right; nothing is resized."""
    height, width = shape
    found = volumes.Volume(("a",), np.ones((1, height, width), np.float32), 0, 1, "", np.eye(4)).fitted(
        (max(shape), max(shape))
    )
    expected = np.zeros((max(shape),) * 2)
    expected[above : above + height, left : left + width] = 1
    np.testing.assert_array_equal(found.slices[0], expected)
    np.testing.assert_allclose(found.affine[:3, 3], [-left, -above, 0])


def test_resized_slices_keep_their_centre_and_their_range():
    values = np.zeros((1, 8, 8), np.float32)
    values[0, ::2] = 1
    found = volumes.Volume(("a",), values, 0, 1, "", np.diag([2.0, 3.0, 5.0, 1])).fitted((4, 4))
    assert found.slices.min() >= 0 and found.slices.max() <= 1 and found.slices.shape == (1, 4, 4)
    np.testing.assert_allclose(found.affine, [[4, 0, 0, 1], [0, 6, 0, 1.5], [0, 0, 5, 0], [0, 0, 0, 1]])
    larger = volumes.Volume(("a",), values, 0, 1, "", np.eye(4)).fitted((16, 16))
    assert larger.slices.min() >= 0 and larger.slices.max() <= 1  # the bicubic filter overshoots
    np.testing.assert_allclose(larger.affine[:2, 3], [-0.25, -0.25])


@pytest.mark.parametrize(
    "name, found", [("a.nii", True), ("A.NII.GZ", True), ("a.dcm", True), ("a.IMA", True), ("a.gz", False), ("a.npz", False),
                    ("nii", False)],
)  # fmt: skip
def test_volumes_are_known_by_their_ending(tmp_path, name, found):
    assert volumes.is_volume(str(tmp_path / name)) == found
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name).touch()
    assert volumes.is_volume(str(tmp_path / "folder")) == (found and "nii" not in name.lower())


def dicom(tmp_path, positions, **more):
    tmp_path.mkdir(exist_ok=True)
    for number, z in enumerate(positions):
        pixels = np.full((2, 3), number)
        write_dicom(tmp_path / f"{number}.dcm", pixels, (0, 0, z), (1, 0, 0), (0, 1, 0), (2.0, 1.0), **more)
    return volumes.read("--truth", str(tmp_path), window=(0.0, 10.0))


def test_a_slice_by_itself_is_as_thick_as_its_file_says_or_a_millimetre(tmp_path):
    for thickness, step in ((2.5, 2.5), (None, 1.0)):
        found = dicom(tmp_path / str(step), [7.0], thickness=thickness)
        np.testing.assert_allclose(np.abs(np.linalg.det(found.affine[:3, :3])), 2 * 1 * step)
    found = dicom(tmp_path / "several", [7.0, 11.0, 15.0], thickness=1.0)
    np.testing.assert_allclose(found.affine[2, 2:], [4, 7])


@pytest.mark.parametrize("last, fits", [(2.049, True), (2.051, False), (1.0, False)])
def test_slices_are_evenly_apart_to_a_twentieth_of_their_smallest_gap(tmp_path, last, fits):
    if fits:
        assert len(dicom(tmp_path, [0.0, 1.0, last]).names) == 3
        return
    with pytest.raises(UserError, match="mm apart: some are missing or double"):
        dicom(tmp_path, [0.0, 1.0, last])


def test_stored_values_are_rescaled(tmp_path):
    found = dicom(tmp_path, [0.0, 1.0], RescaleSlope=3.0, RescaleIntercept=2.0)
    np.testing.assert_allclose(found.slices[:, 0, 0], [0.2, 0.5])


@pytest.mark.parametrize("flag, text", [("axis", "coronal"), ("window", "0,1"), ("slices", "1:2")])
def test_flags_of_volumes_are_for_volumes(flag, text):
    given = dict.fromkeys(("axis", "window", "slices")) | {flag: text}
    expected = {"axis": "coronal" if flag == "axis" else "axial", "window": (0.0, 1.0) if flag == "window" else None,
                "slices": slice(1, 2) if flag == "slices" else slice(None)}  # fmt: skip
    assert modalities.of_volume("a.nii.gz", **given) == tuple(expected.values())
    for truth in (None, "a.npz"):
        with pytest.raises(UserError, match=rf"^--{flag}={text} does nothing: it is for a --truth that is a volume"):
            modalities.of_volume(truth, **given)
        assert modalities.of_volume(truth, None, None, None) == ("axial", None, slice(None))
    with pytest.raises(UserError, match=r"^--axis='x' is unknown: choose from axial, coronal, sagittal"):
        modalities.of_volume("a.dcm", "x", None, None)


@pytest.mark.parametrize(
    "shape, size, above, left",
    [((4, 6), (4, 8), 0, 1), ((4, 6), (6, 6), 1, 0), ((3, 4), (6, 8), 0, 0), ((5, 3), (10, 12), 0, 1),
     ((2, 9), (8, 6), 5, 0)],
)  # fmt: skip
def test_slices_are_fitted_to_rectangles(shape, size, above, left):
    """Padded to the aspect ratio of the model's images, then resized: pixels stay where they were in millimetres."""
    (height, width), (rows, columns) = shape, size
    tall, wide = (height, round(height * columns / rows)) if width * rows <= height * columns else (
        round(width * rows / columns), width
    )  # fmt: skip
    affine = np.diag([2.0, 3.0, 5.0, 1.0])
    values = np.full((1, height, width), 0.5, np.float32)
    found = volumes.Volume(("a",), values, 0, 1, "", affine).fitted(size)
    assert found.slices.shape == (1, rows, columns)
    scale = np.array([wide / columns, tall / rows])
    np.testing.assert_allclose(np.diag(found.affine)[:2], [2 * scale[0], 3 * scale[1]])
    corner = found.affine @ [-0.5, -0.5, 0, 1]  # of the first pixel; the slice begins `left` and `above` pixels within
    np.testing.assert_allclose(corner[:2], [2 * (-0.5 - left), 3 * (-0.5 - above)])
    inside = found.slices[0] > 0.25  # half of what is inside
    first, last = np.argwhere(inside).min(0), np.argwhere(inside).max(0) + 1
    expected = np.array([[above, left], [above + height, left + width]]) / scale[::-1]
    np.testing.assert_allclose([first, last], expected, atol=0.51)


@pytest.mark.parametrize("millimetres, fits", [(0.05, True), (1e-2, True), (2e-3, True), (5e-4, False), (0.0, False)])
def test_voxels_may_be_small_but_their_axes_span_space(tmp_path, millimetres, fits):
    """Of cubes with this side; a volume of no extent along an axis, or of two parallel axes, has no places."""
    affine = np.diag([millimetres] * 3 + [1.0])
    if fits:
        found = volume(tmp_path, np.arange(8.0).reshape(2, 2, 2), affine, window=(0, 8))
        np.testing.assert_allclose(np.abs(np.diag(found.affine)[:3]), millimetres, rtol=1e-6)
        return
    parallel = np.array([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    for given in (affine, parallel):
        path = tmp_path / "flat.nii"
        image = nibabel.Nifti1Image(np.arange(8, dtype=np.float32).reshape(2, 2, 2), None)
        image.header["sform_code"], image.header["qform_code"] = 1, 0
        for name, row in zip(("srow_x", "srow_y", "srow_z"), given, strict=False):
            image.header[name] = row
        image.to_filename(path)
        assert (nibabel.load(path).affine == np.float32(given)).all()
        with pytest.raises(UserError, match=r"has axes that do not span space \(its affine is singular\)$"):
            volumes.read("--truth", str(path), window=(0, 8))
