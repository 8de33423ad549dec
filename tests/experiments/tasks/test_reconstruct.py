"""`reconstruct` from the command line: answers fit the scan of their own slice, and volumes come back in place.

Scans are made here, with numpy alone.
"""

import json

import nibabel
import numpy as np
import pytest
from PIL import Image

from experiments.__main__ import main
from sde_lib.inverse import Decomposed
from tests.experiments.tasks.test_scans import kspace_of

pytestmark = pytest.mark.usefixtures("one_device")

MASK = np.ones((8, 8))
MASK[:, [0, 2, 7]] = 0
WHITE = 400.0  # the scanner's intensity that is white


@pytest.fixture
def reconstructed(digits_run, tmp_path):
    """Runs the command; the arrays and the figures that it wrote, and the folder."""

    def run(*arguments, **scan):
        if scan:
            np.savez(tmp_path / "scan.npz", **scan)
            arguments = (*arguments, f"--input={tmp_path / 'scan.npz'}")
        out = tmp_path / "out"
        assert main(["reconstruct", f"--workdir={digits_run}", f"--out={out}", "--answers=2", *arguments]) == 0
        with np.load(out / "answers.npz") as file:
            return dict(file), json.loads((out / "results.json").read_text()), out

    return run


def intensities(digits):
    return WHITE * digits[..., 0] / 255.0


def assert_fit_their_own(answers, y, measure, ratio):
    """Root mean squares of what is measured of answers i against y of slice j: small for i = j alone."""
    made = measure(WHITE * answers[..., 0])
    found = np.sqrt([[np.square(np.abs(made[i] - y[j])).mean() for j in range(len(y))] for i in range(len(y))])
    assert np.diag(found).max() < found[~np.eye(len(y), dtype=bool)].min() / ratio, found


@pytest.mark.thorough
@pytest.mark.parametrize("coils", [1, 2])
def test_answers_fit_the_k_space_of_their_slice(reconstructed, digits, coils):
    rows, columns = np.mgrid[-1:1:8j, -1:1:8j]
    maps = np.stack([np.exp(1j * (rows + 2)) * (1.2 + columns), np.exp(1j * columns) * (1.2 - rows)])[:coils]

    def measure(u):
        return MASK * kspace_of(u[..., None, :, :] * maps)

    y = measure(intensities(digits))
    given = {"kspace": y[:, 0] if coils == 1 else y, "mask": MASK, "maps": maps}
    arrays, told, _ = reconstructed("--modality=mri", f"--white={WHITE}", "--steps=20", "--noise=0.02", **given)
    assert_fit_their_own(arrays["answers"], y, measure, 5)
    assert told["intensities"]["white"] == WHITE and told["method"] == "pigdm"


def test_answers_fit_the_projections_of_their_slice(reconstructed, digits):
    """Along columns and rows, which numpy sums: angles of 0 and 90 degrees."""

    def measure(u):
        return np.pad(np.stack([u.sum(-2), u.sum(-1)[..., ::-1]], -2), [(0, 0)] * (u.ndim - 1) + [(1, 1)])

    y = measure(intensities(digits))
    arrays, told, _ = reconstructed(
        "--modality=ct", f"--white={WHITE}", "--steps=20", projections=y, angles=np.array([0, 90])
    )
    assert_fit_their_own(arrays["answers"], y, measure, 3)
    assert told["method"] == "projection" and told["evaluations"] == 2 * 19 + 1


@pytest.mark.thorough
@pytest.mark.parametrize("method", ["dps:zeta=3", "ddrm", "ddnm+", "pigdm"])
def test_answers_fit_many_projections_as_well_as_the_noise(reconstructed, digits, tmp_path, method):
    """In the user's units, by numpy along the columns, where the norm of all 20 projections is 12."""
    np.savez(tmp_path / "truth.npz", images=digits[:2])
    noise = 0.05
    arrays, told, _ = reconstructed(
        "--modality=ct", f"--truth={tmp_path / 'truth.npz'}", "--angles=20", f"--method={method}", f"--noise={noise}"
    )
    columns = (2 * arrays["answers"][..., 0] - 1).sum(-2)
    y = arrays["measured"][:, None, 0, 2:-2, 0]
    truth = (2 * arrays["truth"][..., 0] - 1).sum(-2)
    assert 0.5 < np.sqrt(np.square(y[:, 0] - truth).mean()) / noise < 1.5
    assert np.sqrt(np.square(y - columns).mean()) < 2 * noise
    assert 0.7 < told["figures"]["misfit"] / noise < 1.5


@pytest.mark.thorough
def test_what_lost_rays_measured_changes_nothing(reconstructed):
    """Of a file: neither answers nor figures; the misfit is over the rays that count."""
    rng = np.random.default_rng(0)
    there = rng.uniform(size=(2, 10)) > 0.3
    y = rng.uniform(0, 4 * WHITE, (2, 2, 10))
    given = {"angles": np.array([0, 90]), "mask": there.astype(int)}
    runs = [
        reconstructed("--modality=ct", "--steps=3", projections=np.where(there, y, other), **given)
        for other in (0, np.nan)
    ]
    (arrays, told, _), (others, told_of_others, _) = runs
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, others[name])
    assert told["figures"] == told_of_others["figures"] and told["intensities"] == told_of_others["intensities"]

    answers = 2 * arrays["answers"][..., 0] - 1
    made = np.pad(np.stack([answers.sum(-2), answers.sum(-1)[..., ::-1]], -2), [(0, 0)] * 3 + [(1, 1)])
    apart = (made - arrays["measured"][:, None, ..., 0])[:, :, there]
    np.testing.assert_allclose(told["figures"]["misfit"], np.sqrt(np.square(apart).mean()), rtol=1e-4)
    seen = np.pad(np.ones((2, 8)), [(0, 0), (1, 1)])
    expected = 2 * y / told["intensities"]["white"] - 8 * seen
    np.testing.assert_allclose(arrays["measured"][..., 0], there * expected, atol=1e-3)


@pytest.mark.thorough
def test_what_metal_hides_changes_nothing(reconstructed, fails, digits, digits_run, tmp_path):
    """Of a truth that is measured: the density of the metal's pixels."""
    metal = np.zeros((8, 8), bool)
    metal[3:5, 2] = True
    Image.fromarray(255 * metal.astype(np.uint8)).save(tmp_path / "metal.png")
    arguments = ["--modality=ct", "--angles=5", f"--truth={tmp_path / 'truth.npz'}"]
    runs = []
    for grey in (0, 255):
        np.savez(tmp_path / "truth.npz", images=np.where(metal[..., None], grey, digits[:2]).astype(np.uint8))
        runs.append(reconstructed(*arguments, f"--metal={tmp_path / 'metal.png'}", "--steps=3", "--noise=0.1"))
    (arrays, told, _), (others, told_of_others, _) = runs
    for name in ("measured", "answers"):
        np.testing.assert_array_equal(arrays[name], others[name])
    assert told["figures"]["misfit"] == told_of_others["figures"]["misfit"]
    assert told["figures"]["psnr"] != told_of_others["figures"]["psnr"]

    for level, message in (
        (0, "metal.png is all black: metal is white"),
        (255, "every ray through the image goes through"),
    ):
        Image.fromarray(np.full((8, 8), level, np.uint8)).save(tmp_path / "metal.png")
        said = fails(
            "reconstruct", f"--workdir={digits_run}", "--out=out", *arguments, f"--metal={tmp_path / 'metal.png'}"
        )
        assert message in said


def test_a_volume_comes_back_in_place_and_in_its_intensities(reconstructed, digits, tmp_path):
    """Digits as axial slices, the first axis to the left and the second to the anterior."""
    affine = np.array([[-2.0, 0, 0, 30], [0, 2.0, 0, -10], [0, 0, 3.0, 5], [0, 0, 0, 1]])
    volume = (1000 + 4 * digits[..., 0].astype(np.float32)).transpose(2, 1, 0)[::-1, ::-1]
    nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / "volume.nii.gz")
    arrays, told, out = reconstructed(
        "--modality=mri", f"--truth={tmp_path / 'volume.nii.gz'}", "--window=1000,2020", "--acceleration=1",
        "--slices=1:6:2", "--noise=0.02", "--steps=20",
    )  # fmt: skip
    np.testing.assert_allclose(arrays["truth"][..., 0], digits[1::2, ..., 0] / 255, atol=1e-3)
    mean, deviation = (nibabel.load(out / f"{name}.nii.gz") for name in ("mean", "deviation"))
    np.testing.assert_allclose(mean.get_fdata(), (1000 + 1020 * arrays["mean"][..., 0]).transpose(2, 1, 0), rtol=1e-4)
    np.testing.assert_allclose(deviation.get_fdata(), (1020 * arrays["deviation"][..., 0]).transpose(2, 1, 0), atol=0.1)
    turned = nibabel.as_closest_canonical(mean)
    original = nibabel.as_closest_canonical(nibabel.Nifti1Image(volume, affine))
    np.testing.assert_allclose(turned.affine[:, :2], original.affine[:, :2])
    np.testing.assert_allclose(turned.affine[:3, 3], original.affine[:3, 3] + original.affine[:3, 2])
    np.testing.assert_allclose(turned.affine[:3, 2], 2 * original.affine[:3, 2])
    errors = turned.get_fdata() - original.get_fdata()[..., 1::2]
    assert np.sqrt(np.square(errors).mean()) < 20  # of 1020: nothing is missing of this scan but for its noise

    expected = {
        "modality": "mri", "noise": 0.02, "intensities": {"black": 1000, "white": 2020, "by": "--window"}, "method": "pigdm",
        "options": {"mask": "random_lines", "acceleration": 1.0, "coils": 1, "operator_seed": 0}, "seed": 0, "step": 1500,
    }  # fmt: skip
    assert {key: told[key] for key in expected} == expected
    figures = told["figures"]
    table = (out / "report.md").read_text().splitlines()
    assert table[2].startswith(
        f"| pigdm, one answer | {figures['psnr']['answers']:.4g} | {figures['ssim']['answers']:.4g}"
    )
    assert [row.split(" | ")[0] for row in table[4:]] == ["| zero-filled", "| total variation"]
    assert figures["psnr"]["zero-filled"] > 35  # all of k-space, noise of 0.02 in 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("--modality=pet", "--modality='pet' is unknown: choose from ct, mri"),
        ("--modality=mri", "--input=FILE is needed, or --truth=FILE to be measured"),
        ("--modality=mri --truth=a.npz --mask=radal", "--mask='radal' is unknown: choose from equispaced, radial"),
        ("--modality=mri --truth=a.npz --angles=3", "--angles=3 does nothing for --modality=mri, which uses --mask,"),
        (
            "--modality=mri --truth=a.npz --mask=radial --operator_seed=1",
            "does nothing for --modality=mri --mask=radial",
        ),
        ("--modality=ct --input=a.npz --angles=3", "--angles=3 does nothing with --input, which says itself how"),
        ("--modality=ct --input=a.npz --metal=a.png", "--metal=a.png does nothing with --input, which says itself"),
        ("--modality=mri --truth=a.npz --metal=a.png", "--metal=a.png does nothing for --modality=mri, which uses"),
        ("--modality=mri --truth=a.npz --acceleration=0.5", "--acceleration=0.5: must be at least 1"),
        ("--modality=ct --truth=a.npz --arc=0", "--arc=0.0: must be more than 0 and at most 360 degrees"),
        ("--modality=mri --truth=a.npz --white=3", "--white=3.0 does nothing: --truth says what is white"),
        (
            "--modality=mri --truth=a.npz --axis=axial",
            "--axis=axial does nothing: it is for a --truth that is a volume",
        ),
        ("--modality=mri --truth=a.nii --axis=axal", "--axis='axal' is unknown: choose from axial, coronal, sagittal"),
        ("--modality=mri --truth=a.nii --window=5", "--window=5: must be two rising numbers, LOW,HIGH"),
        ("--modality=mri --truth=a.nii --window=5,a", "--window=5,a: must be two rising numbers"),
        ("--modality=mri --truth=a.nii --slices=5", "--slices=5: must be FIRST:END or FIRST:END:STEP"),
        ("--modality=mri --truth=a.nii --slices=9:2:-1", "--slices=9:2:-1: must be FIRST:END"),
        ("--modality=mri --truth=a.npz --noise=-1", "--noise=-1.0: must be at least 0"),
        ("--modality=ct --input=a.npz --noise=1", "--noise=1.0 does nothing: --method=projection does not ask"),
        ("--modality=ct --truth=a.npz --method=projecton", "did you mean 'projection'?"),
    ],
)
def test_what_is_wrong_is_said_before_the_run_is_opened(fails, arguments, message):
    assert message in fails("reconstruct", "--workdir=nowhere", "--out=out", *arguments.split())


def test_files_that_do_not_fit_the_model_are_named(digits_run, fails, monkeypatch, tmp_path):
    def wrong(*arguments):
        return fails("reconstruct", f"--workdir={digits_run}", f"--out={tmp_path / 'out'}", *arguments)

    np.savez(tmp_path / "a.npz", kspace=np.ones((1, 16, 16), complex), mask=np.ones((16, 16)))
    assert "'kspace' is complex128(1, 16, 16); the model's images are 8 x 8" in wrong(
        "--modality=mri", f"--input={tmp_path / 'a.npz'}"
    )
    nibabel.save(nibabel.Nifti1Image(np.ones((3, 4, 5, 2)), np.eye(4)), tmp_path / "a.nii")
    assert "3 x 4 x 5 x 2: one volume of three" in wrong("--modality=mri", f"--truth={tmp_path / 'a.nii'}")
    scan = {"kspace": kspace_of(np.ones((2, 8, 8))), "mask": np.ones((8, 8))}
    np.savez(tmp_path / "b.npz", **scan)
    np.savez(tmp_path / "truth.npz", images=np.ones((3, 8, 8), np.uint8))
    assert "--input has 2 slices and --truth 3: they are paired" in wrong(
        "--modality=mri", f"--input={tmp_path / 'b.npz'}", f"--truth={tmp_path / 'truth.npz'}"
    )
    (tmp_path / "c.mat").write_bytes(b"")
    assert "unknown file type .mat" in wrong("--modality=mri", f"--truth={tmp_path / 'c.mat'}")
    assert "--modality=mri: acceleration=20.0 samples none of the 8 lines" in wrong(
        "--modality=mri", f"--truth={tmp_path / 'truth.npz'}", "--acceleration=20"
    )
    monkeypatch.setattr(Decomposed, "of", None)  # what cannot be is found before the measurement is decomposed
    said = wrong("--modality=ct", f"--truth={tmp_path / 'truth.npz'}", "--method=daps", "--noise=0")
    assert said.startswith("--method=daps: DAPS needs measurement noise of more than 0; methods that can: ddnm, ")
    assert "ddrm" in said
    assert not (tmp_path / "out").exists()
