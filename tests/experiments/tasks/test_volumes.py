"""Volumes: every voxel is where it says it is, through reading, choosing, fitting and writing; and faults in one line."""

import nibabel
import numpy as np
import pytest

from experiments.data.inputs import volumes
from experiments.errors import UserError
from tests.experiments.tasks.medical import at, linear_volume, write_dicom

# Axes permuted and flipped: the first runs superior, the second left, the third posterior; a little oblique.
AFFINE = np.array([[0.1, -2.0, 0.0, 9.0], [0.0, 0.1, -1.5, 20.0], [3.0, 0.0, 0.1, -7.0], [0, 0, 0, 1]])
SHAPE = (5, 7, 6)
WIDE = (-1000.0, 1000.0)  # nothing is clipped


@pytest.fixture
def nifti(tmp_path):
    path = tmp_path / "volume.nii.gz"
    nibabel.save(nibabel.Nifti1Image(linear_volume(SHAPE, AFFINE).astype(np.float32), AFFINE), path)
    return path


def positions(volume):
    """In millimetres, of all pixels (N, H, W, 3)."""
    count, height, width = volume.slices.shape
    number, row, column = np.indices((count, height, width))
    places = np.stack([column, row, number], -1)
    return places @ volume.affine[:3, :3].T + volume.affine[:3, 3]


def assert_in_place(volume, inner=slice(None), atol=1e-2):
    expected = at(positions(volume))
    np.testing.assert_allclose(volume.intensities(volume.slices)[:, inner, inner], expected[:, inner, inner], atol=atol)


@pytest.mark.parametrize(
    "axis, shape, down, right",
    [
        ("axial", (5, 6, 7), (0, -1.5, 0), (2.0, 0, 0)),
        ("coronal", (6, 5, 7), (0, 0, -3.0), (2.0, 0, 0)),
        ("sagittal", (7, 5, 6), (0, 0, -3.0), (0, 1.5, 0)),
    ],
)
def test_slices_of_a_nifti_lie_as_radiographs_are_shown(nifti, axis, shape, down, right):
    volume = volumes.read("--truth", str(nifti), axis, WIDE)
    assert volume.slices.shape == shape and volume.names[1] == f"{axis}_0001"
    assert_in_place(volume)
    np.testing.assert_allclose(volume.affine[:3, 1], down, atol=0.11)
    np.testing.assert_allclose(volume.affine[:3, 0], right, atol=0.11)
    assert volume.affine[:3, 2].sum() > 0


def test_chosen_slices_stay_in_place(nifti):
    volume = volumes.read("--truth", str(nifti), "coronal", WIDE, slice(1, None, 2))
    assert volume.names == ("coronal_0001", "coronal_0003", "coronal_0005")
    assert_in_place(volume)


@pytest.mark.parametrize("shape, size, inner", [((14, 18, 3), 9, slice(3, -3)), ((5, 8, 3), 16, slice(8, 9))])
def test_fitted_slices_stay_in_place(tmp_path, shape, size, inner):
    """The bicubic filter reproduces linear functions away from the sides."""
    path, affine = tmp_path / "volume.nii", np.diag([1.0, 2.0, 3.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(linear_volume(shape, affine).astype(np.float32), affine), path)
    volume = volumes.read("--truth", str(path), "axial", WIDE).fitted((size, size))
    assert volume.slices.shape == (3, size, size)
    assert_in_place(volume, inner)


def test_what_is_written_is_where_it_was(nifti, tmp_path):
    volume = volumes.read("--truth", str(nifti), "sagittal", WIDE)
    volumes.write(tmp_path / "out.nii.gz", volume.intensities(volume.slices), volume.affine)
    again = volumes.read("--truth", str(tmp_path / "out.nii.gz"), "sagittal", WIDE)
    np.testing.assert_allclose(again.slices, volume.slices, atol=1e-6)
    np.testing.assert_allclose(again.affine, volume.affine, atol=1e-5)


def test_percentiles_are_black_and_white_and_the_way_back_is_known(nifti):
    volume = volumes.read("--truth", str(nifti))
    low, high = np.percentile(linear_volume(SHAPE, AFFINE), [0.5, 99.5])
    np.testing.assert_allclose([volume.low, volume.high], [low, high], rtol=1e-5)
    assert volume.slices.min() == 0 and volume.slices.max() == 1 and "percentiles" in volume.window
    inside = (volume.slices > 0) & (volume.slices < 1)
    np.testing.assert_allclose(volume.intensities(volume.slices)[inside], at(positions(volume))[inside], atol=1e-2)


ACROSS, DOWN = np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, -1.0])  # sagittal slices: posterior, inferior
SPACING = (3.0, 1.5)  # of rows, of columns
STEP = np.array([-2.0, 0.0, 0.0])  # along the normal, to the right


@pytest.fixture
def series(tmp_path):
    """Four slices of 5 x 6 pixels in files out of order; intensities are stored as (v + 600) / 0.5."""
    folder = tmp_path / "series"
    folder.mkdir()
    rows, columns = np.indices((5, 6))
    for number, name in enumerate("cadb"):
        position = np.array([9.0, -4.0, 30.0]) + number * STEP
        place = position + columns[..., None] * 1.5 * ACROSS + rows[..., None] * 3.0 * DOWN
        stored = (at(place * [-1, -1, 1]) + 600) / 0.5
        more = {"RescaleSlope": 0.5, "RescaleIntercept": -600, "WindowCenter": 30, "WindowWidth": 400}
        write_dicom(folder / f"{name}.dcm", np.rint(stored), position, ACROSS, DOWN, SPACING, **more)
    return folder


@pytest.mark.parametrize("axis, shape", [("axial", (5, 6, 4)), ("sagittal", (4, 5, 6)), ("coronal", (6, 5, 4))])
def test_a_dicom_series_is_sorted_and_in_place(series, axis, shape):
    volume = volumes.read("--truth", str(series), axis, WIDE)
    assert volume.slices.shape == shape
    assert_in_place(volume, atol=0.3)


def test_a_dicom_files_own_window_is_taken(series):
    volume = volumes.read("--truth", str(series / "a.dcm"), "sagittal")
    assert (volume.low, volume.high, volume.window) == (-170, 230, "the file's window")
    chosen = volumes.read("--truth", str(series / "a.dcm"), "sagittal", (0.0, 10.0))
    assert (chosen.low, chosen.high, chosen.window) == (0, 10, "--window")
    assert volume.slices.shape == (1, 5, 6)
    np.testing.assert_allclose(np.linalg.norm(volume.affine[:3, :3], axis=0), [1.5, 3.0, 2.0])


@pytest.mark.parametrize(
    "centre, width, window",
    [(0, 100, (-50, 50)), ([0, 30], [200, 10], (-100, 100)), (0, None, None), (None, 100, None)],
)
def test_a_window_about_0_is_one_and_one_that_lacks_a_number_is_none(series, centre, width, window):
    for number, file in enumerate(sorted(series.iterdir())):
        position = np.array([9.0, -4.0, 30.0]) + number * STEP
        pixels = np.arange(30).reshape(5, 6) + number
        write_dicom(file, pixels, position, ACROSS, DOWN, SPACING, WindowCenter=centre, WindowWidth=width)
    volume = volumes.read("--truth", str(series))
    assert (volume.low, volume.high) == (window or (volume.low, volume.high))
    assert (volume.window == "the file's window") == (window is not None)


def nifti_of(path, data, affine=None):
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4) if affine is None else affine), path)


def rgb():
    return np.zeros((3, 3, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.mark.parametrize(
    "name, make, message",
    [
        (
            "a.nii",
            lambda p: nifti_of(p, np.ones((3, 4, 5, 2))),
            "has the dimensions 3 x 4 x 5 x 2: one volume of three",
        ),
        ("a.nii", lambda p: nifti_of(p, np.ones((3, 4))), "has the dimensions 3 x 4: one volume of three is needed"),
        ("a.nii", lambda p: nifti_of(p, rgb()), "one real intensity for each voxel is needed"),
        ("a.nii", lambda p: nifti_of(p, np.full((2, 2, 2), np.nan)), "8 of 8 intensities are not finite"),
        ("a.nii", lambda p: nifti_of(p, np.ones((3, 4, 5))), "nearly all intensities are 1: give --window=LOW,HIGH"),
        ("a.nii.gz", lambda p: p.write_bytes(b"no gzip"), "is not a NIfTI file"),
        ("a.nii", lambda p: p.write_bytes(b"no header"), "is not a NIfTI file"),
        ("a.dcm", lambda p: p.write_bytes(b"no DICOM" * 50), "is not a DICOM file"),
    ],
)
def test_a_file_that_is_no_volume_is_named(tmp_path, name, make, message):
    make(tmp_path / name)
    with pytest.raises(UserError) as error:
        volumes.read("--truth", str(tmp_path / name))
    assert message in str(error.value) and str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("more", [(1,), (1, 1), (1, 1, 1)])
def test_more_dimensions_of_one_are_no_matter(tmp_path, more):
    data = np.random.default_rng(0).random((3, 4, 5, *more))
    nifti_of(tmp_path / "a.nii", data)
    volume = volumes.read("--truth", str(tmp_path / "a.nii"), "axial", (0, 1))
    np.testing.assert_allclose(volume.slices[2], data[:, ::-1, 2].reshape(3, 4).T, atol=1e-6)


def replaced(path, **more):
    write_dicom(path, np.zeros((5, 6)), (9.0, -4.0, 30.0), ACROSS, DOWN, SPACING, **more)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: (s / "d.dcm").unlink(), "its slices are 2 to 4 mm apart: some are missing or double"),
        (lambda s: replaced(s / "d.dcm", series="1.2.4"), "holds 2 series: a folder of one is needed"),
        (
            lambda s: replaced(s / "d.dcm", PhotometricInterpretation="RGB"),
            "d.dcm has 1 frames of RGB: one of MONOCHROME2",
        ),
        (lambda s: replaced(s / "d.dcm", NumberOfFrames=3), "d.dcm has 3 frames of MONOCHROME2"),
        (lambda s: replaced(s / "d.dcm", PixelData=b"12"), "d.dcm: its pixels cannot be decoded"),
        (
            lambda s: replaced(s / "d.dcm", PixelSpacing=None),
            "d.dcm has no PixelSpacing: slices of MRI or CT are needed",
        ),
    ],
)
def test_a_series_that_is_none_is_named(series, change, message):
    change(series)
    with pytest.raises(UserError, match=message) as error:
        volumes.read("--truth", str(series))
    assert "\n" not in str(error.value)


def test_what_is_missing_is_said(nifti, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "nibabel", None)
    with pytest.raises(UserError, match=r"needs nibabel: pip install -e \"\.\[medical\]\""):
        volumes.read("--truth", str(nifti))
