"""`restore` from the command line: answers fit what was measured of their own input, whatever is drawn beside them.

Measurements are made here, with numpy alone, so that a flag which measures something else is seen in the misfit.
"""

import io
import json

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from experiments.__main__ import main
from experiments.inverse import build as inverse
from experiments.inverse import problems

pytestmark = pytest.mark.usefixtures("one_device")

NOISE = 0.1


@pytest.fixture
def restored(digits_run, tmp_path):
    """Runs the command; the arrays and the figures that it wrote."""

    def run(*arguments, out="out", **arrays):
        for name, array in arrays.items():
            np.savez(tmp_path / f"{name}.npz", array)
            arguments = (*arguments, f"--{name}={tmp_path / name}.npz")
        out = tmp_path / out
        assert main(["restore", f"--workdir={digits_run}", f"--out={out}", *arguments]) == 0
        with np.load(out / "answers.npz") as file:
            return dict(file), json.loads((out / "results.json").read_text())

    return run


def in_range(images):
    """As the model sees them."""
    return images / 127.5 - 1


def noisy(values, std=NOISE):
    return values + std * np.random.default_rng(0).normal(size=values.shape)


def given(y):
    """A measurement as the command reads it: on the scale of [0, 1]."""
    return (y + 1) / 2


def misfits(answers, y, measure):
    """Root mean squares (N, N): of what is measured of the answers of input i against y of input j."""
    made = measure(2 * answers - 1)
    return np.sqrt([[np.square(made[i] - y[j]).mean() for j in range(len(y))] for i in range(len(y))])


def blocks(x):
    """Means of 2 x 2 pixels of images (..., 8, 8, 1)."""
    return x.reshape(*x.shape[:-3], 4, 2, 4, 2, 1).mean((-4, -2))


def left(x):
    return x[..., :4, :]


def magnitudes(x):
    return np.abs(np.fft.fft2(x, (16, 16), axes=(-3, -2))) / 16


def clipped(x):
    return np.clip(1.5 * x, -1, 1)


def blurred(x):
    return scipy.ndimage.gaussian_filter(x, (0,) * (x.ndim - 3) + (1, 1, 0), truncate=4, mode="mirror")


def blurred_light(x):
    """Of the sRGB response's linear light."""
    u = (x + 1) / 2
    light = np.where(u > 0.04045, ((np.maximum(u, 0) + 0.055) / 1.055) ** 2.4, u / 12.92)
    light = scipy.ndimage.gaussian_filter(light, (0,) * (x.ndim - 3) + (1, 1, 0), truncate=4, mode="nearest")
    return 2 * np.where(light > 0.0031308, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055, 12.92 * light) - 1


def through_jpeg(x):
    def one(image):
        file = io.BytesIO()
        pixels = np.clip(np.rint(image[..., 0] * 127.5 + 127.5), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(file, "jpeg", quality=50)
        return np.asarray(Image.open(file))[..., None] / 127.5 - 1

    return np.stack([one(image) for image in x.reshape(-1, 8, 8, 1)]).reshape(x.shape)


def sensed(x):
    """By the library: `test_problems.py` has what it is held to."""
    options = problems.task("sensing", {"share": 0.5})
    of = inverse.problem("sensing", (8, 8, 1), options, inverse.noise(0.0))
    return np.asarray(of.measurement.forward(x.reshape(-1, 8, 8, 1))).reshape(*x.shape[:-3], -1)


# Steps that each needs on this model.
METHODS = {
    "pigdm": 20, "mmps": 20, "tmpd": 20, "dps": 60, "ddnm": 20, "ddnm+": 20, "ddrm": 20, "diffpir": 20,
    "replacement": 20, "projection": 20, "mcg": 60, "resample": 20, "repaint:resamplings=2,substeps=2": 15,
    "daps:ode_steps=2,langevin_steps=40": 15,
}  # fmt: skip


def test_every_method_is_tried():
    assert {name.partition(":")[0] for name in METHODS} == set(problems.METHODS)


@pytest.mark.thorough
@pytest.mark.parametrize("method", METHODS)
def test_answers_fit_what_was_measured_of_their_input(restored, digits, method):
    """A quarter of the pixels, as means of four: answers of other inputs are six times as far from it, or more."""
    y = noisy(blocks(in_range(digits)))
    arguments = ["--task=superres", "--factor=2", "--downsampling=average", "--answers=2", f"--steps={METHODS[method]}"]
    knows = problems.METHODS[method.partition(":")[0]].noise == "known"
    arguments += [f"--noise={NOISE}"] if knows else []
    arrays, told = restored(*arguments, f"--method={method}", input=given(y))
    found = misfits(arrays["answers"], y, blocks)
    np.testing.assert_allclose(
        np.sqrt(np.square(told["inputs"][1]["misfit"]).mean()), found[1, 1], rtol=1e-3, atol=1e-5
    )
    assert np.diag(found).max() < 1.6 * NOISE
    assert np.diag(found).mean() < found[~np.eye(6, dtype=bool)].mean() / 3
    assert arrays["deviation"].mean() > 0.01


MEASURED = {
    "denoise": ("", "ddrm", lambda x: x),
    "inpaint": ("--mask=half-right", "pigdm", left),
    "superres": ("--factor=2 --downsampling=average", "ddrm", blocks),
    "hdr": ("--contrast=1.5", "daps:ode_steps=2,langevin_steps=40", clipped),
    "phase": ("", "dps", magnitudes),
    "sensing": ("--share=0.5", "ddrm", sensed),
    "deblur": ("", "pigdm", blurred),
    "deblur-light": ("", "dps", blurred_light),
    "dejpeg": ("--quality=50", "dps", through_jpeg),
}


def test_every_task_is_tried():
    """But for colours, which the model of digits has not."""
    assert set(MEASURED) | {"colorize"} == set(problems.TASKS)


@pytest.mark.thorough
@pytest.mark.parametrize("task", MEASURED)
def test_each_task_measures_what_it_says(restored, digits, task):
    flags, method, measure = MEASURED[task]
    y = noisy(measure(in_range(digits)), 0 if task == "dejpeg" else 0.05)
    if task == "inpaint":
        measured = given(np.concatenate([y, 9 * np.ones_like(y)], -2))  # what lies in the hole is of no account
    else:
        measured = given(y) if problems.TASKS[task].image else y
    noise = ["--noise=0.05"] if not method.startswith("dps") else []
    arguments = [f"--task={task}", *flags.split(), *noise, f"--method={method}", "--steps=40", "--answers=2"]
    arrays, told = restored(*arguments, input=measured)
    found = misfits(arrays["answers"], y, measure)
    assert np.diag(found).mean() < found[~np.eye(6, dtype=bool)].mean() / 2.5
    if task != "dejpeg":  # the encoder here is of whole grey levels
        np.testing.assert_allclose(told["figures"]["misfit"], np.sqrt(np.square(np.diag(found)).mean()), rtol=1e-3)


def test_what_is_written_is_what_was_drawn_and_can_be_given_back(restored, digits, tmp_path):
    """The truth is measured; then the measurement that was written is given. PSNR is computed here."""
    arguments = ["--task=inpaint", "--mask=random", "--share=0.5", "--steps=8", "--answers=2", "--seed=3"]
    arrays, told = restored(*arguments, f"--noise={NOISE}", "--limit=3", truth=digits)
    answers, truth = arrays["answers"], arrays["truth"]
    np.testing.assert_allclose(255 * truth, digits[:3], atol=1e-4)
    errors = np.square(answers.clip(0, 1) - truth[:, None]).mean((2, 3, 4))
    np.testing.assert_allclose(
        [figure["psnr"]["answers"] for figure in told["inputs"]], -10 * np.log10(errors), rtol=1e-3
    )
    mean_error = np.square(answers.mean(1).clip(0, 1) - truth).mean((1, 2, 3))
    np.testing.assert_allclose(told["figures"]["psnr"]["mean"], -10 * np.log10(mean_error).mean(), rtol=1e-3)
    assert told["figures"]["psnr"]["biharmonic"] > 5 and told["figures"]["ssim"]["mean"] <= 1
    expected = {
        "task": "inpaint", "options": {"mask": "random", "share": 0.5, "operator_seed": 0}, "noise": NOISE,
        "method": "pigdm", "settings": {"data_std": 0.5}, "evaluations": 8, "seed": 3, "step": 1500, "average": "warmup",
    }  # fmt: skip
    assert {key: told[key] for key in expected} == expected
    assert {key: told["sampling"][key] for key in ("sampler", "times", "steps")} == {
        "sampler": "ancestral", "times": "quadratic", "steps": 8,
    }  # fmt: skip
    kept = arrays["measured"] != 0.5
    assert (kept.mean((1, 2, 3)) == 0.5).all() and (kept == kept[0]).all()
    spread = (arrays["measured"] - truth)[kept].std()
    np.testing.assert_allclose(spread, NOISE / 2, rtol=0.35)
    for picture, expected in (("0001_1", answers[1, 1]), ("0002_mean", arrays["mean"][2])):
        pixels = np.asarray(Image.open(tmp_path / "out" / f"{picture}.png"))
        np.testing.assert_array_equal(pixels, np.rint(255 * expected[..., 0].clip(0, 1)))

    measured = f"--input={tmp_path}/out/answers.npz:measured"
    again, _ = restored(*arguments, f"--noise={NOISE}", measured, out="again")
    np.testing.assert_allclose(again["answers"], answers, atol=1e-3)


def test_an_answer_does_not_depend_on_what_is_drawn_beside_it(restored, digits):
    arguments = ["--task=superres", "--factor=2", "--steps=8", "--method=ddrm", "--seed=5"]
    many, _ = restored(*arguments, "--answers=3", truth=digits[:4])
    few, _ = restored(*arguments, "--answers=2", "--limit=2", "--config.sampling.batch_size=1", truth=digits)
    np.testing.assert_allclose(few["answers"], many["answers"][:2, :2], atol=1e-4)
    other, _ = restored(*arguments, "--answers=2", "--limit=2", "--seed=6", truth=digits)
    assert np.abs(other["answers"] - few["answers"]).mean() > 0.01
    assert np.abs(other["measured"] - few["measured"]).mean() > 0.01
    np.testing.assert_allclose(few["measured"], many["measured"][:2], atol=1e-5)


def test_a_folder_of_pictures_and_a_mask_by_name(restored, digits, tmp_path):
    """Files keep their names; the mask's white pixels are those that answers keep."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, image in zip("ba", digits, strict=False):
        Image.fromarray(image[..., 0]).save(folder / f"{name}.png")
    mask = np.zeros((8, 8), np.uint8)
    mask[:, 2:6] = 255
    Image.fromarray(mask).save(tmp_path / "hole.png")
    arrays, told = restored(
        "--task=inpaint",
        f"--mask={tmp_path}/hole.png",
        f"--input={folder}",
        "--method=ddnm",
        "--steps=6",
        "--answers=1",
    )
    assert arrays["names"].tolist() == ["a", "b"] and told["inputs"][0]["name"] == "a"
    np.testing.assert_allclose(255 * arrays["answers"][:, 0, :, 2:6], digits[[1, 0], :, 2:6], atol=0.1)
    assert (tmp_path / "out" / "b_0.png").is_file() and not (tmp_path / "out" / "b_mean.png").exists()


def test_the_last_line_says_what_was_found_and_where(restored, digits, capsys):
    restored("--task=denoise", "--steps=3", "--method=ddrm:eta=1", "--answers=2", "--limit=1", truth=digits)
    said = capsys.readouterr().out.strip().splitlines()
    assert len(said) == 1 and said[0].startswith("denoise by ddrm, 3 evaluations each: misfit 0.")
    assert "dB (total variation); 2 answers for each of 1: " in said[0] and said[0].endswith("out/sheet.png")
