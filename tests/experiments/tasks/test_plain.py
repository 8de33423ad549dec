"""Classical answers against numpy, defaults of theirs, slices and their files, requests that do not fit two runs."""

import inspect
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import nibabel
import numpy as np
import pytest

from experiments.data.inputs import volumes
from experiments.editing import translate
from experiments.errors import UserError
from experiments.files import Results
from experiments.generation.answers import measurement_keys
from experiments.inverse import baselines, problems, reconstruct
from experiments.inverse import build as tasks_inverse
from experiments.inverse import scanners as reconstruction
from experiments.media import ImageMedium
from sde_lib import inverse
from tests.experiments.tiny import fake_run, tiny_config

RNG = np.random.default_rng(0)


def test_defaults_of_classical_answers():
    """Fienup's feedback is from 0.5 to 1; the other numbers are those of docstrings."""
    found = {
        name: {p.name: p.default for p in inspect.signature(getattr(baselines, name)).parameters.values()
               if p.default is not p.empty}
        for name in ("wiener", "hybrid_input_output", "total_variation")
    }  # fmt: skip
    assert found == {
        "wiener": {"std": 0.5},
        "hybrid_input_output": {"steps": 400, "last": 50, "beta": 0.6},
        "total_variation": {"weight": None, "steps": 300},
    }
    assert (baselines.BLACK, baselines.LEAST_NOISE) == (-1.0, 0.01)


def hybrid(y, shape, steps, last, beta):
    """Fienup's section III by numpy: from a black image with noise, of an image within zeros."""
    x = np.zeros(y.shape)
    x[:, : shape[0], : shape[1]] = -1 + 0.5 * np.asarray(jax.random.normal(jax.random.key(0), (1, *shape, y.shape[3])))
    inside = np.zeros(y.shape, bool)
    inside[:, : shape[0], : shape[1]] = True
    for number in range(steps + last):
        spectrum = np.fft.fft2(x, axes=(1, 2))
        found = np.fft.ifft2(np.maximum(y, 0) * np.exp(1j * np.angle(spectrum)), axes=(1, 2), norm="ortho").real
        if number < steps:
            x = np.where(inside & (np.abs(found) <= 1), found, x - beta * found)
        else:
            x = np.where(inside, found.clip(-1, 1), 0)
    return x[:, : shape[0], : shape[1]]


@pytest.mark.parametrize("steps, last, beta", [(0, 1, 0.6), (1, 0, 0.6), (2, 1, 0.9)])
def test_each_turn_of_hybrid_input_output(steps, last, beta):
    measurement = inverse.PhaseRetrieval(oversampling=1.5)
    y = np.array(measurement.forward(jnp.asarray(RNG.uniform(-1, 1, (2, 6, 4, 1)))))
    assert y.shape == (2, 9, 6, 1)
    y[0, 2, 3] = -0.3  # by noise
    found = baselines.hybrid_input_output(measurement, jnp.asarray(y), steps=steps, last=last, beta=beta)
    np.testing.assert_allclose(found, hybrid(y, (6, 4), steps, last, beta), atol=1e-4)


def test_differences_to_the_next_row_and_column():
    x = np.array([[1.0, 4.0, 9.0], [2.0, 0.0, 5.0]])[None, ..., None]
    found = baselines._gradient(jnp.asarray(x))[0, ..., 0, :]
    np.testing.assert_allclose(found[..., 0], [[1, -4, -4], [0, 0, 0]])
    np.testing.assert_allclose(found[..., 1], [[3, 5, 0], [-2, 5, 0]])


@pytest.mark.parametrize("noise, weight", [(0.3, 0.3), (0.01, 0.01), (0.0, 0.01)])
def test_the_weight_of_total_variation_is_the_noise_in_the_gradient(noise, weight):
    """Of 2 x: a column of length 2. Of two values, the difference shrinks by 2 w / 4 and the mean stays."""
    measurement = inverse.Scaled(measurement=inverse.Denoising(event_shape=(1, 2, 1)), factor=2.0)
    norm, column = baselines._norms(measurement, jnp.float32)
    np.testing.assert_allclose([norm, column], [2.1, 2.0], rtol=1e-5)
    y = jnp.array([2.0, 4.0]).reshape(1, 1, 2, 1)
    by_rule = np.ravel(baselines.total_variation(measurement, y, noise))
    shrunk = 2 * weight / 4
    np.testing.assert_allclose(by_rule, [1 + shrunk, 2 - shrunk], atol=2e-3)


def test_wiener_counts_on_pixels_of_half_the_range():
    """Of x itself: y / (1 + noise^2 / std^2)."""
    measurement, y = inverse.Denoising(event_shape=(1, 1, 1)), jnp.full((1, 1, 1, 1), 0.8)
    for noise, std, share in (
        (0.5, {}, 1 / 2),
        (0.25, {}, 4 / 5),
        (0.5, {"std": 1.0}, 4 / 5),
        (0.0, {"std": 0.01}, 1 / 2),
    ):
        np.testing.assert_allclose(np.ravel(baselines.wiener(measurement, y, noise, **std)), 0.8 * share, rtol=1e-4)


class Volume:
    """Stands for a request of `reconstruct`."""

    modality, seed, limit, window, axis, chosen = "mri", 4, None, None, "axial", slice(None)
    truth = input = white = None
    answers = 2

    def __init__(self, **given):
        self.__dict__.update(given)


MRI = inverse.FourierSampling(event_shape=(4, 4, 1), mask=np.ones((4, 4), np.float32))


@pytest.fixture
def scan():
    of = reconstruction.scan_problem("mri", MRI, 0.1)
    u = RNG.uniform(0, 300, (2, 4, 4, 1)).astype(np.float32)
    return of, u, np.asarray(MRI.forward(jnp.asarray(u)))


def test_what_a_scanner_measured_is_taken_to_the_scale_of_its_white(scan):
    """x = 2 u / white - 1, the white as given or the percentile 99.5 of the plain reconstructions."""
    of, u, y = scan
    model = SimpleNamespace(shape=(4, 4, 1), medium=ImageMedium((8, 8, 1)))
    for white, expected, by in ((250.0, 250.0, "--white"),
                                (None, np.percentile(u, 99.5), "percentile 99.5 of the plain reconstructions")):  # fmt: skip
        found = reconstruct._slices(Volume(white=white), of, y, model)
        assert (found.names, found.truth, found.low, found.window) == (("slice_0000", "slice_0001"), None, 0.0, by)
        np.testing.assert_allclose(found.high, expected, rtol=1e-4)
        np.testing.assert_allclose(found.y, MRI.forward(jnp.asarray(2 * u / found.high - 1)), atol=1e-3)
    with pytest.raises(UserError, match=r"^--input: a: its plain reconstructions are black: give --white=INTENSITY$"):
        reconstruct._slices(Volume(input="a"), of, np.zeros_like(y), model)


def test_what_is_measured_of_a_truth_has_its_noise_and_given_measurements_its_window(scan, monkeypatch):
    of, u, y = scan
    truth = reconstruct.Slices(("a", "b"), None, u / 150 - 1, 50.0, 350.0, "--window", None)
    monkeypatch.setattr(reconstruct, "_truth", lambda request, model: truth)
    found = reconstruct._slices(Volume(truth="t"), of, None, None)
    np.testing.assert_allclose(found.y, of.measure(measurement_keys(4, 2), truth.truth), atol=1e-5)
    assert (found.names, found.low, found.high, found.window) == (("a", "b"), 50.0, 350.0, "--window")
    found = reconstruct._slices(Volume(truth="t"), of, y, None)
    np.testing.assert_allclose(found.y, MRI.forward(jnp.asarray(2 * (u - 50) / 300 - 1)), atol=1e-3)
    with pytest.raises(UserError, match="--input has 1 slices and --truth 2: they are paired in their order"):
        reconstruct._slices(Volume(truth="t"), of, y[:1], None)


@pytest.mark.parametrize("answers", [1, 3])
def test_a_volume_is_written_in_its_intensities_beside_a_report(tmp_path, monkeypatch, answers):
    written = Results("line", (tmp_path / "sheet.png",), TOLD)
    monkeypatch.setattr(reconstruct.results, "write", lambda out, found, medium, told: kept.append(found) or written)
    kept, drawn = [], RNG.uniform(-1, 1, (2, answers, 4, 4, 1))
    of = SimpleNamespace(view=lambda y: y, baseline=lambda y: {"plain": y}, misfit=lambda x, y: x.mean((1, 2, 3)))
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    y, truth = np.zeros((2, 4, 4, 1)), np.ones((2, 4, 4, 1))
    slices = reconstruct.Slices(("a", "b"), y, truth, 100.0, 500.0, "", affine)
    made = reconstruct._write(Volume(out=tmp_path, answers=answers), of, slices, drawn, ImageMedium((8, 8, 1)), {})
    names = ["sheet.png", "mean.nii.gz", *["deviation.nii.gz"] * (answers > 1), "report.md"]
    assert made.summary == "line" and made.files == tuple(tmp_path / name for name in names)
    (found,) = kept
    np.testing.assert_allclose(found.misfit, drawn.mean((2, 3, 4)))
    assert found.arrays["measured"] is y and found.truth is truth and found.names == ("a", "b")
    assert list(found.beside) == ["plain"] and list(found.shown) == ["measured"]
    mean = nibabel.load(tmp_path / "mean.nii.gz")
    expected = 100 + 400 * (drawn.mean(1)[..., 0] + 1) / 2
    np.testing.assert_allclose(mean.get_fdata(), expected.transpose(2, 1, 0), rtol=1e-5)
    np.testing.assert_allclose(mean.affine, affine)
    assert mean.header.get_xyzt_units()[0] == "mm" and mean.get_data_dtype() == np.float32
    assert (tmp_path / "deviation.nii.gz").exists() == (answers > 1)
    if answers > 1:
        spread = nibabel.load(tmp_path / "deviation.nii.gz").get_fdata()
        np.testing.assert_allclose(spread, (400 * drawn.std(1)[..., 0] / 2).transpose(2, 1, 0), rtol=1e-4)
    assert (tmp_path / "report.md").read_text() == (
        "| mri by | PSNR, dB | SSIM | perceptual distance |\n|---|---|---|---|\n"
        "| dps, one answer | 20.12 | 0.5 | 0.1235 |\n| dps, mean of the answers | 21 | 0.6 | 0.2 |\n"
        "| zero-filled | 15 | 0.3 | 0.4 |\n"
    )
    (tmp_path / "new").mkdir()
    slices = reconstruct.Slices(("a", "b"), y, None, 100.0, 500.0, "", None)
    reconstruct._write(Volume(out=tmp_path / "new", answers=answers), of, slices, drawn, ImageMedium((8, 8, 1)), {})
    assert not list((tmp_path / "new").iterdir())


TOLD = {
    "modality": "mri", "method": "dps",
    "figures": {
        "psnr": {"answers": 20.1234, "mean": 21.0, "zero-filled": 15.0}, "misfit": 1.0,
        "ssim": {"answers": 0.5, "mean": 0.6, "zero-filled": 0.3},
        "perceptual": {"answers": 0.123456, "mean": 0.2, "zero-filled": 0.4},
    },
}  # fmt: skip


def test_a_folder_with_any_dicom_file_is_a_volume(tmp_path):
    (tmp_path / "notes.txt").touch()
    assert not volumes.is_volume(str(tmp_path))
    (tmp_path / "a.DCM").touch()
    assert volumes.is_volume(str(tmp_path))


def test_the_window_is_that_of_all_slices_whichever_are_chosen(tmp_path):
    data = np.zeros((2, 2, 4), np.float32)
    data[..., 1], data[..., 3] = 100.0, 1000.0
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), tmp_path / "v.nii")
    for chosen in (slice(None), slice(0, 2)):
        found = volumes.read("--truth", str(tmp_path / "v.nii"), chosen=chosen)
        assert (found.low, found.high, found.window) == (0, 1000, "percentiles 0.5 and 99.5 of the volume")


def opened(**runs):
    """Stands for `open_model`: the run of each folder."""
    return lambda flag, workdir, *of, **options: runs[workdir]


def run(shape=(8, 8, 1), classes=10, scale=1.0, **more):
    config = tiny_config(model__num_classes=classes, condition__label__dropout=0.1 if classes else 0)
    config.sampling.guidance.scale = scale
    names = ("zero", "one", "two") if classes else None
    plain = {"require_plain_states": lambda what: None, "class_names": names}
    return fake_run(config, shape=shape, **plain | more)


def asked(**changes):
    fields = {
        "workdir": "a", "overrides": [], "to": None, "input": "i", "out": None, "from_label": None, "label": None,
        "strength": 1.0, "limit": None,
    }  # fmt: skip
    return translate.Translation(**fields | changes)


class Read(Exception):
    """The request fits."""


def test_translations_that_do_not_fit_two_runs(monkeypatch):
    def read(*of):
        raise Read

    monkeypatch.setattr(translate, "open_model", opened(a=run(read=read), b=run((4, 4, 3), classes=0)))
    with pytest.raises(UserError, match=r"^--to=b has images of 4x4x3, --workdir=a of 8x8x1$"):
        translate.translate(asked(to="b"))
    monkeypatch.setattr(translate, "open_model", opened(a=run(read=read), b=run(classes=0)))
    with pytest.raises(UserError, match=r"^--label=3: this run has no classes"):
        translate.translate(asked(to="b", label=3))
    with pytest.raises(UserError, match=r"^--from_label=10: "):
        translate.translate(asked(to="b", from_label=10))
    same = r"^--label=one: is --from_label too: images would come back as they are$"
    with pytest.raises(UserError, match=same):
        translate.translate(asked(label="one", from_label=1))
    monkeypatch.setattr(translate, "open_model", opened(a=run(read=read), b=run()))
    for fits in ({"label": "one", "from_label": 2}, {"label": 1}, {"label": 1, "from_label": 1, "to": "b"}, {"to": "b"},
                 {}):  # fmt: skip
        with pytest.raises(Read):
            translate.translate(asked(**fits))
    monkeypatch.setattr(translate, "open_model", opened(a=run(read=read, scale=2.0)))
    with pytest.raises(Read):
        translate.translate(asked(label="one", from_label=1))
    with pytest.raises(UserError, match=r"^--guidance=2: does nothing without a class to guide to: add --label$"):
        translate.translate(asked())


def velocity(what):
    raise UserError(what)


def test_translations_and_interpolations_need_states_that_are_images(monkeypatch):
    for runs in (
        {"a": run(require_plain_states=velocity), "b": run()},
        {"a": run(), "b": run(require_plain_states=velocity)},
    ):
        monkeypatch.setattr(translate, "open_model", opened(**runs))
        with pytest.raises(UserError, match=r"^handing an encoding to another model$"):
            translate.translate(asked(to="b"))


def test_flags_choices_and_tables_of_tasks():
    assert problems.flags() == [
        "kernel", "kernel_width", "kernel_angle", "operator_seed", "border", "quality", "chroma", "contrast", "mask",
        "box", "share", "oversampling", "factor", "downsampling",
    ]  # fmt: skip
    assert problems.choices("border") == ["reflect", "wrap"] and problems.choices("share") == []
    assert problems.choices("kernel") == ["gaussian", "anisotropic", "motion", "shake", "FILE"]
    assert problems.choices("mask") == ["box", "random", "half-left", "half-right", "half-top", "half-bottom", "FILE"]
    of = {"a": problems.Task("first"), "abc": problems.Task("second")}
    assert problems.table(of) == "  a    first\n  abc  second"


@pytest.mark.parametrize(
    "task, given, options",
    [
        ("denoise", {}, {}), ("inpaint", {}, {"mask": "box", "box": None}),
        ("inpaint", {"box": 3}, {"mask": "box", "box": 3}),
        ("inpaint", {"mask": "random", "operator_seed": 4}, {"mask": "random", "share": 0.3, "operator_seed": 4}),
        ("inpaint", {"mask": "half-top"}, {"mask": "half-top"}), ("inpaint", {"mask": "a.png"}, {"mask": "a.png"}),
        ("superres", {"downsampling": "average"}, {"factor": 4.0, "downsampling": "average"}),
        ("deblur", {}, {"kernel": "gaussian", "kernel_width": None, "border": "reflect"}),
        ("deblur", {"kernel": "shake"}, {"kernel": "shake", "kernel_width": None, "operator_seed": 0, "border": "reflect"}),
        ("deblur", {"kernel": "k.png", "border": "wrap"}, {"kernel": "k.png", "border": "wrap"}),
        ("deblur-light", {"kernel": "motion"}, {"kernel": "motion", "kernel_width": None, "kernel_angle": 45.0}),
        ("sensing", {"share": 0.5}, {"share": 0.5, "operator_seed": 0}),
        ("dejpeg", {"chroma": "4:4:4"}, {"quality": 10.0, "chroma": "4:4:4"}),
    ],
)  # fmt: skip
def test_options_of_a_task_are_those_that_its_choices_use(task, given, options):
    assert problems.task(task, given) == options


@pytest.mark.parametrize(
    "task, given, said",
    [
        ("inpaint", {"mask": "half-top", "share": 0.5}, "--share=0.5 does nothing for --task=inpaint --mask=half-top, which "
                                                        "uses --mask"),
        ("deblur", {"kernel": "k.png", "kernel_width": 3.0}, "--kernel_width=3.0 does nothing for --task=deblur "
         "--kernel=k.png --border=reflect, which uses --kernel, --border"),
        ("deblur", {"border": "wrop"}, "--border='wrop' is unknown: choose from reflect, wrap; did you mean 'wrap'?"),
        ("deblur", {"border": "w.png"}, "--border='w.png' is unknown: choose from reflect, wrap"),
        ("hdr", {"factor": 2.0}, "--factor=2.0 does nothing for --task=hdr, which uses --contrast"),
    ],
)  # fmt: skip
def test_flags_that_a_choice_does_not_use_are_refused(task, given, said):
    with pytest.raises(UserError) as error:
        problems.task(task, given)
    assert str(error.value).startswith(said)


def test_a_box_by_its_side_and_a_task_that_measures_nothing():
    def problem(**given):
        return tasks_inverse.problem("inpaint", (6, 6, 1), problems.task("inpaint", given), tasks_inverse.noise(0.1))

    assert (problem(box=2).measured == 0).sum() == 4 and (problem().measured == 0).sum() == 9
    with pytest.raises(UserError) as error:
        problem(box=6)
    assert str(error.value) == "--mask=box --box=6: no pixel of the 6x6 ones is measured: leave some"
