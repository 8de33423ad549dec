"""Real scans of heads, through files: as NIfTI and as DICOM they are the same slices; and figures are those of the scan.

The CT is VTK's, the MRI that of Colin Holmes. Where the file is not there, the tests are skipped.
"""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from experiments.__main__ import main
from experiments.data.inputs import volumes
from tests.experiments.tasks.medical import write_dicom
from tests.experiments.tasks.test_scans import kspace_of

FILE = Path(__file__).resolve().parents[4] / "shared" / "data" / "medical_volumes.npz"
pytestmark = [
    pytest.mark.skipif(not FILE.exists(), reason=f"needs {FILE.name} in shared/data beside the repository"),
    pytest.mark.usefixtures("one_device"),
]

WINDOW = (-160.0, 240.0)
SPACING = np.array([3.2, 3.0, 1.5])  # of columns, rows and slices, in millimetres


def turned(degrees):
    """A rotation about the first axis, then one of a third of it about the last."""
    (c, s), (c3, s3) = ((np.cos(a), np.sin(a)) for a in np.deg2rad([degrees, degrees / 3]))
    return np.array([[c3, -s3, 0], [s3, c3, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


# Where columns, rows and slices go, to the right, anterior and superior: unit vectors, the columns of a matrix.
DIRECTIONS = {
    "axial, downwards": np.array([[-1, 0, 0], [0, -1, 0], [0, 0, -1.0]]).T,
    "axial, gantry turned": (turned(20) @ np.array([[-1, 0, 0], [0, -1, 0], [0, 0, 1.0]])).T,
    "permuted": np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0.0]]).T,
    "permuted, oblique": turned(-25) @ np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0.0]]).T,
}


@pytest.fixture(scope="module")
def ct():
    """CT numbers of 20 slices, int16 (column, row, slice)."""
    with np.load(FILE) as file:
        return file["ct_head_vtk_raw_u16"][30:50].transpose(2, 1, 0).astype(np.int16) - 1024


def affine_of(directions):
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = directions * SPACING, [90.0, -40.0, 12.0]
    return affine


def write_both(folder, hounsfield, affine, **window):
    """The paths of a NIfTI file and of a series whose files are in no order, of one volume."""
    nibabel.save(nibabel.Nifti1Image(hounsfield, affine), folder / "head.nii.gz")
    series = folder / "series"
    series.mkdir()
    to_dicom = np.diag([-1.0, -1.0, 1.0])  # left and posterior are positive
    across, down = (to_dicom @ affine[:3, i] / SPACING[i] for i in (0, 1))
    names = np.random.default_rng(0).permutation(hounsfield.shape[2])
    for number, name in enumerate(names):
        position = to_dicom @ (affine[:3, 3] + number * affine[:3, 2])
        stored = hounsfield[:, :, number].T + 1024
        write_dicom(
            series / f"{name:03}.dcm", stored, position, across, down, (SPACING[1], SPACING[0]), SPACING[2],
            RescaleSlope=1, RescaleIntercept=-1024, **window,
        )  # fmt: skip
    return str(folder / "head.nii.gz"), str(series)


def voxels(affine, places):
    """The indices (3, ...) of the voxels at places (..., 3) in millimetres, which must be voxels' centres."""
    found = (places - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    np.testing.assert_allclose(found, np.rint(found), atol=2e-3)
    return tuple(np.moveaxis(np.rint(found).astype(int), -1, 0))


def places_of(shape, affine):
    """In millimetres, of all voxels (..., 3)."""
    return np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]


@pytest.mark.parametrize("axis", volumes.AXES)
@pytest.mark.parametrize("name", DIRECTIONS)
def test_nifti_and_dicom_are_the_same_slices_and_each_pixel_is_the_voxel_of_its_place(tmp_path, ct, name, axis):
    affine = affine_of(DIRECTIONS[name])
    centre, width = sum(WINDOW) / 2, WINDOW[1] - WINDOW[0]
    nifti, series = write_both(tmp_path, ct, affine, WindowCenter=centre, WindowWidth=width)
    first = volumes.read("--truth", nifti, axis, WINDOW)
    second = volumes.read("--truth", series, axis)
    assert first.names == second.names and (first.low, first.high) == (second.low, second.high) == WINDOW
    np.testing.assert_array_equal(first.slices, second.slices)
    np.testing.assert_allclose(first.affine, second.affine, atol=1e-3)

    places = places_of(first.slices.shape[::-1], first.affine).transpose(2, 1, 0, 3)
    expected = ct[voxels(affine, places)]
    np.testing.assert_allclose(first.intensities(first.slices), np.clip(expected, *WINDOW), atol=1e-3)
    assert len(np.unique(expected)) > 500  # no constant, which would be right anywhere
    right, up = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}[axis]
    assert first.affine[:3, 0].argmax() == right and first.affine[:3, 1].argmin() == up

    volumes.write(tmp_path / "again.nii.gz", second.intensities(second.slices), second.affine)
    again = nibabel.load(tmp_path / "again.nii.gz")
    expected = np.clip(ct[voxels(affine, places_of(again.shape, again.affine))], *WINDOW)
    np.testing.assert_allclose(again.get_fdata(), expected, atol=1e-3)


def test_without_a_window_nifti_and_dicom_have_the_same_percentiles(tmp_path, ct):
    nifti, series = write_both(tmp_path, ct, affine_of(DIRECTIONS["axial, gantry turned"]))
    first, second = (volumes.read("--truth", path) for path in (nifti, series))
    assert (first.low, first.high) == (second.low, second.high) == tuple(np.percentile(ct, volumes.PERCENTILES))
    np.testing.assert_array_equal(first.slices, second.slices)


@pytest.mark.thorough
def test_the_mean_comes_back_where_the_head_was_and_in_its_ct_numbers(digits_run, tmp_path, ct):
    """All of k-space without noise, of a turned head in a series: the mean is the head, of 8 x 8 pixels."""
    affine = affine_of(DIRECTIONS["axial, gantry turned"])
    _, series = write_both(tmp_path, ct, affine, WindowCenter=0, WindowWidth=2000)
    out = tmp_path / "out"
    arguments = ["--modality=mri", f"--truth={series}", "--slices=3:20:6", "--acceleration=1"]
    arguments += ["--answers=2", "--steps=5", "--method=ddnm", f"--workdir={digits_run}", f"--out={out}"]
    assert main(["reconstruct", *arguments]) == 0
    with np.load(out / "answers.npz") as file:
        arrays = dict(file)
    mean = nibabel.load(out / "mean.nii.gz")
    np.testing.assert_allclose(mean.get_fdata(), (-1000 + 2000 * arrays["mean"][..., 0]).transpose(2, 1, 0), atol=1e-2)
    # A pixel is 8 x 8 voxels, whose mean it nearly is; which those are, its place says.
    within = np.stack(np.meshgrid(np.arange(8), np.arange(8), [0]), -1).reshape(-1, 3) - np.array([3.5, 3.5, 0])
    steps = np.diag([1 / 8, 1 / 8, 1.0])
    places = places_of(mean.shape, mean.affine)[..., None, :] + within @ steps @ mean.affine[:3, :3].T
    blocks = np.clip(ct[voxels(affine, places)], -1000, 1000).mean(-1)
    error = np.sqrt(np.square(mean.get_fdata() - blocks).mean())
    others = [np.flip(mean.get_fdata(), axis) - blocks for axis in (0, 1, 2)]
    assert error < 50 and min(np.sqrt(np.square(other).mean()) for other in others) > 2 * error


@pytest.mark.thorough
def test_figures_of_several_coils_are_those_of_the_scan(digits_run, tmp_path):
    """A brain in k-space of three coils, made and judged by numpy alone."""
    with np.load(FILE) as file:
        brain = file["mri_t1_colin27_2mm"][:, 9:99, [35, 50]].T[:, ::-1]
    truth = np.stack([Image.fromarray(image).resize((8, 8), Image.Resampling.BOX) for image in brain]) / 255.0
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[-1:1:8j, -1:1:8j]
    maps = np.stack([np.exp(1j * rows) * (1.1 + columns), 1.2 - rows + 0.3j, np.exp(2j * columns) * (1 + rows / 2)])
    mask = np.ones((8, 8))
    mask[:, [0, 2, 6]] = 0

    def measure(u):
        return mask * kspace_of(u[..., None, :, :] * maps)

    noise = mask * (rng.normal(size=(2, 3, 8, 8)) + 1j * rng.normal(size=(2, 3, 8, 8)))
    kspace = measure(truth) + 0.01 * noise  # 0.02 where black to white is 2
    np.savez(tmp_path / "scan.npz", kspace=kspace, mask=mask, maps=maps)
    np.savez(tmp_path / "truth.npz", images=truth)
    out = tmp_path / "out"
    arguments = ["--modality=mri", f"--input={tmp_path / 'scan.npz'}", f"--truth={tmp_path / 'truth.npz'}"]
    arguments += ["--answers=3", "--steps=5", "--method=ddnm", f"--workdir={digits_run}", f"--out={out}"]
    assert main(["reconstruct", *arguments]) == 0
    told = json.loads((out / "results.json").read_text())
    with np.load(out / "answers.npz") as file:
        answers = file["answers"][..., 0].astype(float)
        np.testing.assert_allclose(file["truth"][..., 0], truth, atol=1e-6)

    apart = 2 * (measure(answers) - kspace[:, None])
    misfit = np.sqrt(np.square(np.abs(apart)).sum((2, 3, 4)) / (2 * 3 * mask.sum()))
    np.testing.assert_allclose([each["misfit"] for each in told["inputs"]], misfit, rtol=1e-3)
    np.testing.assert_allclose(told["figures"]["misfit"], np.sqrt(np.square(misfit).mean()), rtol=1e-3)
    assert 0.7 < told["figures"]["misfit"] / 0.02 < 1.2  # what of the noise lies outside the range of A

    def psnr(images):
        return -10 * np.log10(np.square(images.clip(0, 1) - truth).mean((1, 2)))

    coils = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, (-2, -1)), norm="ortho"), (-2, -1))
    expected = {
        "answers": np.mean([psnr(answers[:, k]) for k in range(3)]),
        "mean": psnr(answers.mean(1)).mean(),
        "zero-filled": psnr((np.conj(maps) * coils).sum(1).real).mean(),
    }
    for way, value in expected.items():
        np.testing.assert_allclose(told["figures"]["psnr"][way], value, rtol=1e-3, err_msg=way)
