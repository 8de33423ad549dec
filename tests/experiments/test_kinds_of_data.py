"""Rectangles with alpha, rectangles of 16 bits, and arrays of numbers, through the command line from files to figures."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import factory
from experiments.__main__ import main
from experiments.devices.parallel import Pmap
from experiments.loading.runs import load_run
from tests.experiments.pictures_of_files import png
from tests.experiments.tiny import ROOT, command, flags, tiny_config

pytestmark = pytest.mark.e2e

HEIGHT, WIDTH = 4, 8
SHORT = {
    "training__num_steps": "8",
    "training__sample_every": "8",
    "evaluation__num_samples": "16",
    "sampling__steps": "2",
}
SHORT |= {"optim__warmup_steps": "0", "evaluation__neighbours": "16", "training__ema_decay": "0.5", "optim__lr": "1e-2"}


def blobs(number, channels):
    """Levels in [0, 1]: each image has a bright spot in another place; the last of 4 channels is 0 around it."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    rows, columns = rng.uniform(0, HEIGHT, number), rng.uniform(0, WIDTH, number)
    spots = np.exp(-((y - rows[:, None, None]) ** 2 + (x - columns[:, None, None]) ** 2) / 4)[..., None]
    levels = np.broadcast_to(spots, (number, HEIGHT, WIDTH, channels)).copy()
    if channels == 4:
        levels[..., :3] *= rng.uniform(0.3, 1, (number, 1, 1, 3))
        levels[..., 3] = levels[..., 3] > 0.4
    return levels


def folder(path, images, bits):
    path.mkdir()
    for i, image in enumerate(images):
        (path / f"{i}.png").write_bytes(png(np.rint(image), bits))
    return f"folder:{path}"


def train(workdir, *arguments, **changes):
    given = flags(**SHORT | {"data__test_fraction": "0.4", "data__batch_size": "8"} | changes)
    one = [f"--config={ROOT}/configs/digits.py", f"--workdir={workdir}", *given, *arguments]
    child = command("train", *one)
    said, errors = child.communicate(timeout=500)
    assert child.returncode == 0, errors
    return said


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    monkeypatch.setattr(factory, "parallel", lambda config: Pmap(jax.devices()[:1]))


@pytest.fixture(scope="module")
def with_alpha(tmp_path_factory):
    """A run on 8-bit PNG files of 4 x 8 pixels with alpha."""
    path = tmp_path_factory.mktemp("alpha")
    source = folder(path / "pictures", 255 * blobs(40, 4), 8)
    size = {"data__image_size": f"{HEIGHT}x{WIDTH}", "data__num_channels": "4", "data__background": "red"}
    train(path / "run", data__source=source, **size)
    return path


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """A run on PNG files of 8 x 16 grey pixels of 12 bits in 16, halved and cropped."""
    path = tmp_path_factory.mktemp("deep")
    large = np.kron(4095 * blobs(40, 1), np.ones((1, 2, 2, 1)))
    source = folder(path / "pictures", large, 16)
    size = {"data__image_size": f"{HEIGHT}x{WIDTH}", "data__white": "4095", "data__resize": "center_crop"}
    train(path / "run", data__source=source, data__random_flip="true", data__augmentation="0.2",
          model__augment_features="9", **size)  # fmt: skip
    return path


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    """A run on vectors in a narrow ring around (300, 300, ..., 300)."""
    path, rng = tmp_path_factory.mktemp("arrays"), np.random.default_rng(0)
    directions = rng.normal(size=(120, 6))
    values = 300 + 100 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    np.savez(path / "a.npz", data=values)
    config = path / "vectors.py"
    config.write_text(
        "from configs import digits\nfrom ml_collections import ConfigDict\n\n\ndef get_config():\n"
        "    config = digits.get_config()\n"
        "    config.model = ConfigDict({'name': 'mlp', 'width': 32, 'depth': 1})\n    return config\n"
    )
    kept = SHORT | {"training__num_steps": "200", "training__steps_per_call": "20"}
    kept |= {"training__sample_every": "100", "sampling__steps": "8", "evaluation__num_samples": "48"}
    kept |= {"evaluation__neighbours": "48", "data__batch_size": "32", "data__test_fraction": "0.4"}
    given = [f for f in flags(**kept) if not f.startswith("--config.model.")]
    one = [f"--config={config}", f"--workdir={path}/run", *given, f"--config.data.source=npz:{path}/a.npz"]
    one += ["--config.data.medium=array", "--config.data.range=200,400", "--config.training.ema_decay=0.9"]
    for _ in range(2):  # the second time, all is done
        child = command("train", *one)
        said, errors = child.communicate(timeout=500)
        assert child.returncode == 0, errors
    assert "Training is complete (step 200); nothing to do" in said
    return path


def figures(run):
    measured = json.loads((run / "metrics.json").read_text())
    assert np.isfinite(measured["samples"]["frechet_distance"]) and 0 <= measured["samples"]["recall"] <= 1
    return measured


def sampled(path, number=8):
    assert main(["sample", f"--workdir={path}/run", f"--num_samples={number}", f"--out={path}/s.npz"]) == 0
    with np.load(path / "s.npz") as file:
        return file["samples"]


def test_rectangles_with_alpha_are_trained_on_sampled_and_measured(with_alpha):
    samples = sampled(with_alpha)
    assert samples.shape == (8, HEIGHT, WIDTH, 4) and samples.dtype == np.uint8
    grid = np.asarray(Image.open(with_alpha / "grid.png"))
    tile = 48 // HEIGHT  # a pixel is shown so large
    assert grid.shape == ((3 * HEIGHT + 2) * tile, (3 * WIDTH + 2) * tile, 3)
    first = grid[: HEIGHT * tile : tile, : WIDTH * tile : tile]
    composed = samples[0, ..., :3] + (1 - samples[0, ..., 3:] / 255) * [255, 0, 0]
    np.testing.assert_array_equal(first, np.rint(composed.clip(0, 255)))
    figures(with_alpha / "run")
    strip = Image.open(with_alpha / "run" / "samples" / "from_noise.png")  # 8 samples at 3 times
    assert strip.mode == "RGB" and strip.size == ((3 * WIDTH + 2) * tile, (8 * HEIGHT + 7) * tile)
    described = json.loads((with_alpha / "run" / "data.json").read_text())
    assert described["image_shape"] == [HEIGHT, WIDTH, 4] and "images of 4x8x4" in described["summary"]
    assert main(["evaluate", f"--workdir={with_alpha}/run", "--config.evaluation.seed=3"]) == 0


def test_rectangles_with_alpha_are_restored_and_edited(with_alpha):
    run, out = with_alpha / "run", with_alpha / "out"
    picture = with_alpha / "large.png"  # of another size and shape: cropped to 2 : 4
    picture.write_bytes(png(np.rint(255 * np.kron(blobs(1, 4)[0], np.ones((3, 2, 1)))), 8))
    strokes = with_alpha / "strokes.png"
    strokes.write_bytes(png(np.rint(255 * blobs(2, 4)[1]), 8))
    mask = with_alpha / "mask.png"
    Image.fromarray(np.repeat([[0, 255]], HEIGHT, 0).repeat(WIDTH // 2, 1).astype(np.uint8)).save(mask)
    for task, size in (
        ("inpaint", (HEIGHT, WIDTH)),
        ("superres", (HEIGHT // 2, WIDTH // 2)),
        ("deblur", (HEIGHT, WIDTH)),
    ):
        flags = ["--factor=2"] if task == "superres" else []
        given = [f"--truth={picture}", f"--out={out}/{task}", "--steps=2", "--answers=2", *flags]
        assert main(["restore", f"--workdir={run}", f"--task={task}", "--method=pigdm", *given]) == 0
        with np.load(out / task / "answers.npz") as file:
            assert file["measured"].shape == (1, *size, 4) and file["answers"].shape == (1, 2, HEIGHT, WIDTH, 4)
        answer = Image.open(out / task / "large_0.png")
        assert (answer.mode, answer.size) == ("RGBA", (WIDTH, HEIGHT))
        assert Image.open(out / task / "sheet.png").mode == "RGB"
    given = [f"--input={picture}", f"--strokes={strokes}", f"--mask={mask}", f"--out={out}/edit", "--steps=2"]
    assert main(["edit", f"--workdir={run}", *given]) == 0
    with np.load(out / "edit" / "answers.npz") as file:
        guide, answers = file["guide"][0], file["answers"][0, 0]
    assert guide.shape == answers.shape == (HEIGHT, WIDTH, 4)


def test_a_colour_task_refuses_images_with_alpha(with_alpha, fails):
    arguments = (
        "restore",
        f"--workdir={with_alpha}/run",
        f"--truth={with_alpha}/pictures/0.png",
        f"--out={with_alpha}/no",
    )
    assert "have 4 channels; colours are 3" in fails(*arguments, "--task=colorize", "--method=pigdm")


def test_rectangles_of_16_bits_are_trained_on_sampled_and_measured(deep):
    samples = sampled(deep)
    assert samples.shape == (8, HEIGHT, WIDTH, 1) and samples.dtype == np.uint8
    figures(deep / "run")
    assert load_run(deep / "run").config.data.image_size == f"{HEIGHT}x{WIDTH}"
    # Records of `prepare` equal the images of training.
    given = [
        f"--source=folder:{deep}/pictures",
        f"--image_size={HEIGHT}x{WIDTH}",
        "--resize=center_crop",
        "--white=4095",
    ]
    assert main(["prepare", f"--out={deep}/records", *given]) == 0
    from experiments.data import load

    options = {"image_size": f"{HEIGHT}x{WIDTH}", "num_channels": 1, "test_fraction": 0.4}
    records = load(f"arrayrecord:{deep}/records", **options)
    files = load(f"folder:{deep}/pictures", resize="center_crop", white=4095.0, **options)
    np.testing.assert_array_equal(records.train.images, files.train.images)
    expected = np.rint(255 * np.rint(4095 * blobs(40, 1)) / 4095)
    found = {image.tobytes() for part in (files.train, files.test) for image in part.images}
    assert found == {image.astype(np.uint8).tobytes() for image in expected}


@pytest.mark.parametrize(
    "modality, flags", [("mri", ("--acceleration=2", "--mask=equispaced")), ("ct", ("--angles=12",))]
)
def test_scans_of_rectangles_are_reconstructed(deep, modality, flags):
    given = [
        f"--truth={deep}/pictures/3.png",
        f"--out={deep}/{modality}",
        "--steps=2",
        f"--modality={modality}",
        *flags,
    ]
    assert main(["reconstruct", f"--workdir={deep}/run", *given, "--config.data.white=4095", "--method=pigdm"]) == 0
    with np.load(deep / modality / "answers.npz") as file:
        assert file["answers"].shape[2:] == (HEIGHT, WIDTH, 1) and np.isfinite(file["answers"]).all()


def test_arrays_are_trained_on_sampled_and_measured(arrays, capsys):
    samples = sampled(arrays, 64)
    assert "float32 arrays, which have no picture" in capsys.readouterr().out
    assert samples.shape == (64, 6) and samples.dtype == np.float32 and not (arrays / "grid.png").exists()
    assert 200 < samples.mean() < 400 and 10 < samples.std() < 120  # in the units of the file
    run = arrays / "run"
    measured = figures(run)
    assert measured["samples"]["frechet_distance"] < 400 and "6 values" in measured["features"]
    assert not list(run.glob("**/*.png"))
    page = (run / "report.html").read_text()
    assert "Noise becoming images" not in page and "Samples over training" not in page
    stored = json.loads((run / "config.json").read_text())["data"]
    assert (stored["event_shape"], stored["medium"], stored["range"]) == ([6], "array", [200, 400])


@pytest.mark.parametrize("name", ["restore", "edit", "interpolate"])
def test_what_needs_images_refuses_arrays(arrays, fails, name):
    arguments = {"restore": ("--task=denoise", "--method=pigdm", "--truth=a.png"), "edit": ("--input=a.png",),
                 "interpolate": ("--input=a.png", "--to=a.png")}  # fmt: skip
    said = fails(name, f"--workdir={arrays}/run", f"--out={arrays}/out", *arguments[name])
    assert said == f"--workdir={arrays}/run: this model makes arrays; {name} needs one of images"


def test_default_operators_of_restoration_fit_rectangles():
    """The box and the kernels are set by the shorter side."""
    from experiments.inverse.build import noise, problem
    from experiments.inverse.problems import TASKS

    for shape in ((4, 16, 3), (16, 4, 3)):
        for task, spec in TASKS.items():
            made = problem(task, shape, dict(spec.flags), noise(0.1))
            y = jax.eval_shape(made.measurement.forward, jax.ShapeDtypeStruct((2, *shape), np.float32))
            assert len(y.shape) >= 2, task
    missing = np.asarray(problem("inpaint", (4, 16, 3), dict(TASKS["inpaint"].flags), noise(0.1)).measured)[..., 0] == 0
    assert missing.sum() == 4 and missing[1:3, 7:9].all()


def test_training_mirrors_rectangles_left_to_right():
    images = np.random.default_rng(0).integers(0, 256, (16, 3, 5, 4), dtype=np.uint8)
    from experiments.data import Images, training_batches

    with training_batches(Images(images), batch_size=64, seed=0, flip=True) as stream:
        batch = next(stream)["image"]
    plain, mirrored = ({image.tobytes() for image in part} for part in (images, images[:, :, ::-1]))
    kinds = [(image.tobytes() in plain, image.tobytes() in mirrored) for image in batch]
    assert set(kinds) == {(True, False), (False, True)}


def test_a_rectangle_is_augmented_as_by_hand():
    """Mirrors exactly; a shift by whole pixels, and half a turn, but for the filter, in the middle of a smooth image."""
    from experiments.data.augmentation import SHIFT_STD, Motion, move

    height, width = 12, 20
    y, x = np.mgrid[:height, :width]
    image = np.stack([np.sin(y / 4 + x / 10), np.cos(x / 6)], -1).astype(np.float32)

    def moved(**changes):
        zero = np.float32(0)
        plain = Motion(False, False, zero, zero, zero, zero, np.zeros(2, np.float32))
        return np.asarray(move(image, plain.replace(**changes)))

    np.testing.assert_array_equal(moved(mirror_x=True), image[:, ::-1])
    np.testing.assert_array_equal(moved(mirror_y=True), image[::-1])
    right, down = 3, 2
    shifted = moved(shift=np.float32([right / (SHIFT_STD * width), down / (SHIFT_STD * height)]))
    np.testing.assert_allclose(shifted[down:, right:], image[:-down, :-right], atol=2e-2)
    np.testing.assert_allclose(moved(angle=np.float32(np.pi)), image[::-1, ::-1], atol=5e-2)


def test_the_tile_of_pictures_is_the_shorter_side():
    assert factory.medium(tiny_config(data__image_size="8x4")).tile == 4
