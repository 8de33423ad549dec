"""What the flags of `restore` measure, against other libraries; and what is refused, before a model is loaded."""

import dataclasses
import io
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from flax import struct
from PIL import Image

from experiments import factory
from experiments.config import files as config
from experiments.factory.experiment import Experiment
from experiments.inverse import build as inverse
from experiments.inverse import problems
from sde_lib import exact
from sde_lib.inverse import LinearMeasurement
from tests.experiments.tiny import ROOT, tiny_config

GREY, COLOUR = (16, 16, 1), (16, 16, 3)


def measured(task, x, **options):
    """A x by numpy's hands, without noise."""
    of = inverse.problem(task, x.shape[1:], problems.task(task, options), inverse.noise(0.0))
    return np.asarray(of.select(of.measurement.forward(x)))


def smooth(channels=1):
    """Images whose values stay within black and white when they are resized or coded."""
    noise = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, channels))
    return scipy.ndimage.gaussian_filter(noise, (0, 1, 1, 0)).astype(np.float32)


def gaussian(x, **options):
    return scipy.ndimage.gaussian_filter(x, (0, 2.0, 2.0, 0), truncate=4, **options)


def of_pillow(x, change):
    """Images (N, H, W, 3) taken to grey levels, changed by Pillow, and back."""
    pictures = [Image.fromarray(np.rint(image * 127.5 + 127.5).astype(np.uint8)) for image in x]
    return np.stack([np.asarray(change(picture)) for picture in pictures]) / 127.5 - 1


def through_jpeg(subsampling):
    def change(picture):
        file = io.BytesIO()
        picture.save(file, "jpeg", quality=30, subsampling=subsampling)
        return Image.open(file)

    return change


def bicubic(picture):
    return picture.resize((8, 8), Image.Resampling.BICUBIC)


# task, options, channels, the same by other hands, tolerance (Pillow's grey levels are 1/127.5 apart)
OTHERS = {
    "denoise": ("denoise", {}, 1, lambda x: x, 0),
    "bicubic": ("superres", {"factor": 2.0}, 3, lambda x: of_pillow(x, bicubic), 0.01),
    "average": (
        "superres", {"factor": 4.0, "downsampling": "average"}, 1,
        lambda x: x.reshape(2, 4, 4, 4, 4, 1).mean((2, 4)), 1e-5,
    ),
    "blur": ("deblur", {"kernel_width": 2.0}, 3, lambda x: gaussian(x, mode="mirror"), 2e-3),
    "periodic": ("deblur", {"kernel_width": 2.0, "border": "wrap"}, 1, lambda x: gaussian(x, mode="wrap"), 2e-3),
    "motion": (
        "deblur", {"kernel": "motion", "kernel_width": 4.0, "kernel_angle": 0.0}, 1,
        lambda x: scipy.ndimage.correlate1d(x, np.array([0.125, 0.25, 0.25, 0.25, 0.125]), 2, mode="mirror"), 0.02,
    ),
    "anisotropic": (
        "deblur", {"kernel": "anisotropic", "kernel_width": 2.0, "kernel_angle": 90.0, "border": "wrap"}, 1,
        lambda x: scipy.ndimage.gaussian_filter(x, (0, 2.0, 0.5, 0), truncate=4, mode="wrap"), 2e-2,
    ),
    "grey": ("colorize", {}, 3, lambda x: x.mean(-1, keepdims=True), 1e-5),
    "hdr": ("hdr", {"contrast": 3.0}, 1, lambda x: np.clip(3 * x, -1, 1), 1e-6),
    "phase": (
        "phase", {"oversampling": 1.5}, 1, lambda x: np.abs(np.fft.fft2(x, (24, 24), axes=(1, 2), norm="ortho")), 1e-4,
    ),
    "left": ("inpaint", {"mask": "half-left"}, 1, lambda x: np.where(np.arange(16)[:, None] < 8, 0, x), 0),
    "box": (
        "inpaint", {"box": 4}, 3,
        lambda x: np.where((abs(np.arange(16) - 7.5) < 2)[:, None] & (abs(np.arange(16) - 7.5) < 2)[:, None, None], 0, x), 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_flags_measure_what_other_libraries_measure(name):
    task, options, channels, by_other_hands, tolerance = OTHERS[name]
    x = smooth(channels)
    expected = by_other_hands(x)
    np.testing.assert_allclose(measured(task, x, **options), expected, atol=tolerance)
    if task != "denoise":
        assert expected.shape != x.shape or np.abs(expected - x).max() > 0.1


@pytest.mark.parametrize("chroma, other", [("4:2:0", "4:4:4"), ("4:4:4", "4:2:0")])
def test_jpeg_is_that_of_an_encoder_with_the_same_flags(chroma, other):
    """On average: where a coefficient lies between two steps, encoders may differ."""
    x = smooth(3)
    y = measured("dejpeg", x, quality=30.0, chroma=chroma)
    assert np.abs(y - of_pillow(x, through_jpeg(chroma))).mean() < 0.02
    assert np.abs(y - of_pillow(x, through_jpeg(other))).mean() > 0.05


def test_a_kernel_of_ones_own(tmp_path):
    """Only its shape counts: the picture may be of any brightness. It is not mirrored."""
    pixels = np.zeros((3, 3), np.uint8)
    pixels[0, 2], pixels[1, 1] = 20, 60
    Image.fromarray(pixels).save(tmp_path / "kernel.png")
    x = smooth()
    expected = scipy.ndimage.convolve(x, (pixels / 80)[None, :, :, None], mode="mirror")
    np.testing.assert_allclose(measured("deblur", x, kernel=str(tmp_path / "kernel.png")), expected, atol=1e-5)


def test_random_operators_are_one_for_all_inputs_and_differ_by_their_seed():
    x = smooth()
    for task, options in (("inpaint", {"mask": "random"}), ("sensing", {}), ("deblur", {"kernel": "shake"})):
        one, same, other = (measured(task, x, operator_seed=seed, **options) for seed in (0, 0, 1))
        np.testing.assert_array_equal(one, same)
        assert np.abs(one - other).max() > 0.01
    assert measured("sensing", x, share=0.5).shape == (2, 128)


@pytest.mark.parametrize("folder, found", [("tasks", problems.TASKS), ("methods", problems.METHODS)])
def test_each_record_is_one_file_that_explains_itself(folder, found):
    files = {path.stem for path in (ROOT / "experiments" / "inverse" / folder).glob("*.py")} - {"__init__"}
    assert {name.replace("-", "_").replace("+", "_plus") for name in found} == files and list(found) == sorted(found)
    for name, record in found.items():
        assert len(record.document) > 40 and len(record.summary) > 10, name
        if folder == "tasks":
            assert callable(record.make) and record.help.keys() == record.flags.keys() and record.baselines, name
        else:
            assert callable(record.posterior or record.steps) and record.ranges.keys() == record.settings.keys(), name


ALL, BENT = set(problems.METHODS), {"pigdm", "mmps", "tmpd", "diffpir", "dps", "daps", "resample"}


@pytest.mark.parametrize(
    "task, options, noise, shape, able",
    [
        ("inpaint", {}, (0.1,), GREY, ALL),
        ("colorize", {}, (0.1,), COLOUR, ALL),
        ("sensing", {}, (0.0,), GREY, ALL - {"daps"}),
        ("deblur", {"kernel": "motion"}, (0.1,), GREY, ALL - {"ddrm", "ddnm+"}),
        ("deblur", {"kernel": "motion", "border": "wrap"}, (0.1,), GREY, ALL),
        ("phase", {}, (0.1,), GREY, BENT),
        ("dejpeg", {}, (0.0,), COLOUR, BENT - {"daps"}),
        ("inpaint", {}, (0.0, 30.0), GREY, ALL - {"ddrm", "ddnm+", "pigdm", "diffpir", "daps"}),
    ],
    ids=["inpaint", "colorize", "sensing", "blur", "periodic blur", "phase", "jpeg", "poisson"],
)
def test_methods_say_themselves_what_they_can_solve(task, options, noise, shape, able):
    of = inverse.problem(task, shape, problems.task(task, options), inverse.noise(*noise))
    made = tiny_config()
    found = {
        name
        for name, spec in problems.METHODS.items()
        if inverse.obstacle(Experiment(made), name, spec.settings, of, shape) is None
    }
    assert found == able


@struct.dataclass(kw_only=True)
class Able(LinearMeasurement):
    """Of the methods that solve with A it has those named."""

    able: tuple[str, ...] = struct.field(pytree_node=False)

    def forward(self, x):
        return 2 * x

    def normal_solve(self, y, c=0.0):
        return self._asked("normal_solve", y / 4)

    def pseudo_inverse(self, y):
        return self._asked("pseudo_inverse", y / 2)

    def _asked(self, name, answer):
        if name not in self.able:
            raise ValueError(f"asked for {name}")
        return answer


@pytest.mark.parametrize("name", problems.METHODS)
def test_methods_ask_a_measurement_for_what_they_say(name):
    spec, made = problems.METHODS[name], inverse.with_sampling(tiny_config(), name)

    def obstacle(*able):
        of = inverse.problem("denoise", GREY, {}, inverse.noise(0.1))
        of = dataclasses.replace(of, measurement=Able(event_shape=GREY, able=able))
        return inverse.obstacle(Experiment(made), name, spec.settings, of, GREY)

    if spec.asks == "singular_values":
        assert "needs a spectral measurement" in obstacle("pseudo_inverse", "normal_solve")
    else:
        assert obstacle(spec.asks) is None
        assert obstacle() == (None if "products" in spec.asks else f"asked for {spec.asks}")


def test_the_misfit_counts_what_is_measured():
    of = inverse.problem("inpaint", GREY, problems.task("inpaint", {"mask": "half-left"}), inverse.noise(0.5))
    x, keys = smooth(), jax.random.split(jax.random.key(0), 2)
    y = of.measure(keys, x)
    np.testing.assert_allclose(of.misfit(x, y), np.sqrt(np.square(y - x)[:, :, 8:].mean((1, 2, 3))), rtol=1e-5)
    np.testing.assert_allclose(np.asarray(of.misfit(x, y)).mean(), 0.5, rtol=0.1)
    np.testing.assert_array_equal(of.measure(keys[1:], x[1:])[0], y[1])


@pytest.fixture
def untrained(tmp_path):
    """The folder of a run of which only the config is there: what is refused with it was refused without weights."""
    workdir = tmp_path / "run"
    (workdir / "checkpoints" / "1").mkdir(parents=True)
    (workdir / "config.json").write_text(config.to_json(tiny_config()))
    np.savez(tmp_path / "a.npz", np.zeros((1, 8, 8)))
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / "mask.png")
    Image.fromarray(np.full((3, 19), 255, np.uint8)).save(tmp_path / "wide.png")
    return workdir


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("--task=inpant", "--task='inpant' is unknown: choose from colorize, deblur, deblur-light, dejpeg,"),
        ("--task=inpant", "did you mean 'inpaint'?"),
        ("--task=denoise --limit=1", "--input=IMAGES is needed, or --truth=IMAGES to be measured"),
        ("--task=inpaint --mask=bx", "--mask='bx' is unknown: choose from FILE, box, half-bottom, half-left,"),
        ("--task=inpaint --factor=2", "--factor=2.0 does nothing for --task=inpaint --mask=box, which uses"),
        (
            "--task=inpaint --share=0.5",
            "--share=0.5 does nothing for --task=inpaint --mask=box, which uses --mask, --box",
        ),
        ("--task=inpaint --mask=random --box=2", "which uses --mask, --share, --operator_seed"),
        ("--task=denoise --mask=box", "--mask=box does nothing for --task=denoise, which uses no flags of its own"),
        ("--task=deblur --kernel_angle=3", "--kernel_angle=3.0 does nothing for --task=deblur --kernel=gaussian"),
        ("--task=inpaint --mask={folder}/mask.png", "mask.png has 4x6 pixels, 8x8 are needed: a mask must fit"),
        ("--task=inpaint --mask={folder}/mask.pgn", "mask.pgn does not exist; did you mean 'mask.png'?"),
        ("--task=inpaint --box=9", "--task=inpaint: Inpainting.box: a box of (9, 9) at (-1, -1) is not inside"),
        ("--task=superres --factor=0.5", "--task=superres: SuperResolution: factor=0.5 must be between 1 and"),
        ("--task=superres --factor=0", "--task=superres: SuperResolution: factor=0.0 must be between 1 and"),
        ("--task=superres --factor=1e-320", "must be between 1 and the image's size, which is 8"),
        (
            "--task=deblur --kernel_width=1e9",
            "--kernel_width=1000000000.0: must be more than 0, in pixels, and at most 4",
        ),
        ("--task=deblur-light --kernel_width=4.1", "and at most 4 for --kernel=gaussian of 8x8 images"),
        ("--task=deblur --kernel=shake --kernel_width=1000", "and at most 8 for --kernel=shake of 8x8 images"),
        ("--task=deblur --kernel={folder}/wide.png", "wide.png: is 19x3, but 8x8 images need at most 17 pixels to a"),
        ("--task=hdr --contrast=1e39", "--contrast=1e+39: must be from 1 to 1000"),
        ("--task=deblur --kernel={folder}/mask.png", "mask.png is black: a kernel needs light"),
        ("--task=deblur --kernel=motion --kernel_width=-1", "--kernel_width=-1.0: must be more than 0, in pixels"),
        ("--task=colorize", "--task=colorize: the model's images have 1 channel; colours are 3"),
        ("--task=dejpeg --quality=0", "--quality=0.0: must be from 1 to 100"),
        ("--task=dejpeg --chroma=4:4:4 --method=dps", "--chroma=4:4:4 does nothing: the model's images are grey"),
        (
            "--task=dejpeg --method=ddnm",
            "--method=ddnm: DDNM needs a linear measurement: JPEG has no `pseudo_inverse`; methods that can: diffpir, dps",
        ),
        ("--task=phase --method=ddrm", "--method=ddrm: DDRM needs a spectral measurement: PhaseRetrieval has no"),
        (
            "--task=denoise --method=daps --noise=0",
            "--method=daps: DAPS needs measurement noise of more than 0; methods that can: ddnm",
        ),
        ("--task=denoise --method=dsp", "--method='dsp' is unknown: choose from daps, ddnm, ddnm+,"),
        ("--task=denoise --method=dps:eta=1", "--method=dps:eta=1: 'eta=1' is no setting of dps, which are zeta=1.0"),
        ("--task=denoise --method=mmps:max_steps=1.5", "max_steps must be a whole number, such as 1"),
        ("--task=denoise --method=dps:zeta=-1", "--method=dps:zeta=-1: zeta must be more than 0"),
        (
            "--task=denoise --method=dps --noise=0.1 --input={folder}/a.npz",
            "--noise=0.1 does nothing: --method=dps does not ask for the noise of --input",
        ),
        ("--task=denoise --noise=-0.1", "--noise=-0.1: must be at least 0 and at most 1000; black to white is 2"),
        ("--task=denoise --noise=1e30", "--noise=1e+30: must be at least 0 and at most 1000; black to white is 2"),
        ("--task=denoise --peak=3", "--peak=3.0 does nothing without --noise_kind=poisson"),
        ("--task=denoise --noise_kind=poisson", "--noise_kind=poisson needs --peak, the expected count of a white"),
        ("--task=denoise --noise_kind=poisson --peak=1e-30", "--peak=1e-30: must be at least 0.001 and at most 1e+08"),
        (
            "--task=denoise --noise_kind=poisson --peak=9 --noise=1",
            "--noise=1.0 does nothing with --noise_kind=poisson",
        ),
        ("--task=denoise --noise_kind=poison --peak=9", "did you mean 'poisson'?"),
        (
            "--task=sensing --noise_kind=poisson --peak=9",
            "--noise_kind=poisson: counts are of light, but --task=sensing",
        ),
        (
            "--task=denoise --noise_kind=poisson --peak=9",
            "--method=pigdm: PiGDM needs noise of one variance for all values",
        ),
        (
            "--task=denoise --method=ddrm --config.sampling.sampler=heun",
            "--config.sampling.sampler=heun does nothing: --method=ddrm brings its own steps",
        ),
        ("--task=denoise --config.optim.lr=1", "cannot be changed after training; restore takes keys of sampling."),
        (
            "--task=superres --factor=2 --input={folder}/a.npz",
            "a.npz has 8x8 pixels, 4x4 are needed: a measurement must have exactly",
        ),
        (
            "--task=phase --method=dps --input={folder}/a.npz",
            "'arr_0' is float64(1, 8, 8); floats (N, *(16, 16, 1)) are needed",
        ),
        (
            "--task=phase --method=dps --input={folder}/mask.png",
            "what is measured here is no image: give numbers (16, 16, 1) as",
        ),
        ("--task=denoise --answers=0", "argument --answers: 0 must be at least 1"),
        ("--task=denoise --stepps=3", "unknown argument --stepps; did you mean '--steps'?"),
    ],
)
def test_what_cannot_be_or_would_do_nothing_is_refused_in_one_line(fails, untrained, tmp_path, arguments, message):
    if not {"--input", "--limit"} & {text.partition("=")[0] for text in arguments.split()}:
        arguments += " --truth={folder}/a.npz"
    texts = arguments.format(folder=tmp_path).split()
    assert message in fails("restore", f"--workdir={untrained}", f"--out={tmp_path}/out", *texts)
    assert not (tmp_path / "out").exists()


def test_a_model_of_latents_has_no_images_to_restore(fails, untrained, tmp_path):
    made = tiny_config(data__source="latents")
    (untrained / "config.json").write_text(config.to_json(made))
    arguments = ["--task=denoise", f"--truth={tmp_path}/a.npz", f"--out={tmp_path}/out"]
    assert "this model makes latents; restore needs one of images" in fails(
        "restore", f"--workdir={untrained}", *arguments
    )


def test_help_and_wrong_flags_wait_for_nothing_slow():
    program = "import sys\nfrom experiments.__main__ import _parsers\n_parsers()[1]['restore'].format_help()\n"
    program += "from experiments.inverse import problems\nproblems.task('denoise', {})\nassert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_the_methods_own_sampling_stands_unless_it_is_overridden():
    stored = tiny_config()
    made = inverse.with_sampling(stored, "ddnm")
    assert (made.sampling.sampler, made.sampling.eta, made.sampling.steps) == ("ddim", 0.85, 100)
    assert stored.sampling.steps == 4 and factory.sampler(made).eta == 0.85


def test_dps_moves_a_pixel_as_far_at_any_size():
    """The gradient of |r| has unit length, shared by more pixels in a larger image: they are corrected alike."""
    made = tiny_config()
    process = factory.sde(made, 1e-3)
    corrections = []
    for side in (16, 64):
        shape = (side, side, 1)
        of = inverse.problem("denoise", shape, {}, inverse.noise(0.1))
        prior, y = exact.Gaussian(process), jnp.ones((1, *shape))
        posterior, _ = inverse.conditioned(
            Experiment(made), "dps", {"zeta": 1.0}, prior, of.measurement, y, of.noise, shape
        )
        x = jnp.zeros((1, *shape))
        corrections.append(np.asarray(posterior(x, 0.3) - prior(x, 0.3)))
    np.testing.assert_allclose(corrections[0][0, 0, 0], corrections[1][0, 0, 0], rtol=1e-4)
    assert corrections[0].min() > 0
