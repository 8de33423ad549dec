"""`edit`, `translate` and `interpolate` from the command line: what they write is what the library makes of the same run.

Two small runs: a class-conditional one of VP, with class dropout, and one of VE without classes.
"""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from experiments import load_run
from experiments.__main__ import main
from experiments.data.inputs import strokes
from experiments.devices.parallel import Pmap
from experiments.editing.edits import STYLE_STD
from experiments.errors import UserError
from sde_lib import ClassifierFree, Heun, karras_times
from sde_lib.editing import Style, bridge, interpolate_through, level_of_strength, patches, sdedit, shared_levels, until
from sde_lib.inverse import PiGDM
from tests.experiments.tiny import ROOT, flags

SHAPE, STEPS = (8, 8, 1), 4
DIGITS = np.rint(load_digits().images[:3] * 255 / 16).astype(np.uint8)[..., None]
INPUTS = DIGITS / np.float32(127.5) - 1
NO_CLASS = {"label": np.full(3, 10)}


@pytest.fixture(scope="module", autouse=True)
def one_device():
    """Programs of eight devices take longer to compile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.factory.devices.parallel", lambda config: Pmap(jax.devices()[:1]))
        yield


def trained(folder, process, **changes):
    changes |= {"training__checkpoint_every": 40, "training__sample_every": 40, "training__loss_bins": 0}
    options = [f"--config={ROOT}/configs/digits.py:{process}", f"--workdir={folder}", *flags(**changes)]
    assert main(["train", *options]) == 0
    return folder


@pytest.fixture(scope="module")
def vp(tmp_path_factory):
    """A run with classes, and class dropout."""
    folder = tmp_path_factory.mktemp("runs") / "vp"
    return trained(folder, "vp", model__num_classes=10, condition__label__dropout=0.2)


@pytest.fixture(scope="module")
def ve(tmp_path_factory):
    """A run of another process, without classes."""
    return trained(tmp_path_factory.mktemp("runs") / "ve", "ve")


@pytest.fixture
def made(tmp_path):
    """Runs a command on the digits; the arrays, in the model's range, and the figures that it wrote."""
    np.savez(tmp_path / "digits.npz", images=DIGITS)

    def run(command, workdir, *arguments):
        out = tmp_path / "out"
        given = (
            [] if any(argument.startswith("--input") for argument in arguments) else [f"--input={tmp_path}/digits.npz"]
        )
        assert main([command, f"--workdir={workdir}", f"--out={out}", *given, *map(str, arguments)]) == 0
        with np.load(out / "answers.npz") as file:
            arrays = {name: 2 * array - 1 for name, array in file.items() if name != "names"}
        return arrays, json.loads((out / "results.json").read_text())

    return run


def picture(path, pixels):
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
    return path


def answer_keys(inputs=3, answers=2, seed=5):
    """Those that the README promises: of the seed, i and k."""
    fold_in = jax.random.fold_in
    return jnp.stack([fold_in(fold_in(jax.random.key(seed), i), k) for i in range(inputs) for k in range(answers)])


PAINT = np.zeros((8, 8, 4))
PAINT[2:4] = 255, 255, 255, 255
PAINT[5] = 0, 0, 0, 51  # a fifth of black


def test_an_edit_is_sdedit_of_the_painted_input_inside_of_the_mask(vp, made, tmp_path):
    """Towards a class, with guidance, by the run's own method and grid; outside of the mask nothing changes."""
    mask = np.zeros((8, 8))
    mask[:, 2:] = 255
    arrays, told = made(
        "edit", vp, "--strength=0.4", f"--strokes={picture(tmp_path / 's.png', PAINT)}", "--seed=5", "--answers=2",
        f"--mask={picture(tmp_path / 'm.png', mask)}", "--label=7", "--guidance=2.5",
        "--masked_by=replacement",
    )  # fmt: skip
    guide = INPUTS.copy()
    guide[:, 2:4] = 1
    guide[:, 5] = 0.8 * guide[:, 5] - 0.2
    np.testing.assert_allclose(arrays["guide"], guide, atol=1e-6)

    run = load_run(vp)
    guided = ClassifierFree(run.denoiser, {"label": np.full(6, 7)}, {"label": np.full(6, 10)}, 2.5)
    times = karras_times(until(guided.sde, 0.4), STEPS)
    expected = sdedit(answer_keys(), guided, Heun(), times, np.repeat(guide, 2, 0), mask[..., None] > 0)
    answers = arrays["answers"]
    np.testing.assert_allclose(answers.reshape(6, *SHAPE), expected, atol=2e-4)
    np.testing.assert_allclose(answers[:, :, :, :2], np.repeat(guide[:, None, :, :2], 2, 1), atol=1e-6)
    error = np.square(answers.clip(-1, 1) - INPUTS[:, None]).mean((2, 3, 4))
    np.testing.assert_allclose(told["psnr_to_input"], 10 * np.log10(4 / error), atol=2e-3)
    np.testing.assert_allclose(told["noise_to_signal"], level_of_strength(0.4), rtol=1e-6)
    assert told["evaluations"] == 2 * (2 * STEPS - 1)
    expected = {
        "strength": 0.4, "label": 7, "guidance": 2.5, "masked_by": {"name": "replacement"}, "style": None,
        "style_features": None, "style_std": None, "mask": str(tmp_path / "m.png"), "strokes": str(tmp_path / "s.png"),
        "seed": 5, "step": 40, "average": "warmup",
    }  # fmt: skip
    assert {key: told[key] for key in expected} == expected and told["sampling"]["steps"] == STEPS
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert sheet.width > 7 * 96  # input, strokes, mask, two answers, mean, deviation


@pytest.mark.parametrize(
    "masked_by, data_std", [((), 0.5), (("--masked_by=pigdm:data_std=0.3",), 0.3)], ids=["default", "set"]
)
def test_a_mask_by_a_posterior_is_sdedit_of_what_it_keeps(ve, made, tmp_path, masked_by, data_std):
    """With its settings, and by the run's own method."""
    mask = np.zeros((8, 8))
    mask[:, 3:] = 255
    arrays, told = made(
        "edit", ve, "--strength=0.5", "--seed=5", "--answers=2", f"--mask={picture(tmp_path / 'm.png', mask)}",
        *masked_by,
    )  # fmt: skip
    denoiser = load_run(ve).denoiser
    times, guides = karras_times(until(denoiser.sde, 0.5), STEPS), np.repeat(INPUTS, 2, 0)
    expected = sdedit(
        answer_keys(), denoiser, Heun(), times, guides, mask[..., None] > 0, partial(PiGDM, data_std=data_std)
    )
    np.testing.assert_allclose(arrays["answers"].reshape(6, *SHAPE), expected, atol=2e-4)
    assert told["masked_by"] == {"name": "pigdm", "data_std": data_std}


def test_an_edit_of_no_class_knows_none_and_the_strength_is_how_much_changes(vp, made):
    weak, _ = made("edit", vp, "--strength=0.02", "--seed=5", "--answers=2")
    np.testing.assert_allclose(weak["answers"], np.repeat(INPUTS[:, None], 2, 1), atol=0.3)
    strong, told = made("edit", vp, "--strength=0.7", "--seed=5", "--answers=2")
    nothing = ("label", "guidance", "mask", "masked_by", "strokes", "style", "style_features", "style_std")
    assert [key for key in nothing if told[key] is not None] == []
    denoiser = load_run(vp).denoiser.replace(condition={"label": np.full(6, 10)})
    expected = sdedit(
        answer_keys(), denoiser, Heun(), karras_times(until(denoiser.sde, 0.7), STEPS), np.repeat(INPUTS, 2, 0)
    )
    np.testing.assert_allclose(strong["answers"].reshape(6, *SHAPE), expected, atol=2e-4)


def test_the_statistics_of_the_answers_patches_go_to_those_of_the_style(ve, made, tmp_path):
    """The distances that are told are those of the definition, and fall with `--style_std`."""
    checks = np.kron(np.indices((4, 4)).sum(0) % 2, np.ones((2, 2))) * 255
    style = f"--style={picture(tmp_path / 'checks.png', checks)}"
    distances = []
    for std in (1e4, 0.1):
        arrays, told = made("edit", ve, "--strength=0.4", "--answers=2", "--steps=40", style, f"--style_std={std}")
        target = Style.of(lambda x: patches(x, 3), jnp.asarray(checks[..., None] / 127.5 - 1), 1.0)
        expected = np.sqrt(-2 * target(jnp.asarray(arrays["answers"].reshape(-1, *SHAPE))))
        np.testing.assert_allclose(np.ravel(told["distance_to_style"]), expected, atol=1e-3)
        of_inputs = np.sqrt(-2 * target(jnp.asarray(INPUTS)))
        np.testing.assert_allclose(told["distance_of_input_to_style"], of_inputs, atol=1e-3)
        assert (told["style_features"], told["style_std"]) == ("patches", std)
        distances.append(expected.mean())
    assert distances[1] < 0.8 * distances[0]


@pytest.mark.thorough
def test_a_perceptual_style_draws_the_answers_nearer_than_the_input(ve, made, tmp_path):
    """And nearer than answers that are hardly drawn."""
    checks = np.kron(np.indices((4, 4)).sum(0) % 2, np.ones((2, 2))) * 255
    distances = []
    for pull in (("--style_std=1e4",), ()):
        _, told = made(
            "edit", ve, "--strength=0.4", "--answers=1", "--limit=1", "--sampler=ddim", "--steps=4",
            f"--style={picture(tmp_path / 'checks.png', checks)}", "--style_features=perceptual", *pull,
        )  # fmt: skip
        distances.append(told["distance_to_style"][0][0])
    assert told["style_std"] == STYLE_STD["perceptual"]
    assert distances[1] < 0.95 * min(distances[0], told["distance_of_input_to_style"][0])


def decibels(a, b):
    return 10 * np.log10(4 / np.square(a - b).mean((1, 2, 3)))


def test_a_translation_is_the_bridge_to_another_process_and_comes_back(vp, ve, made):
    arrays, told = made("translate", vp, f"--to={ve}", "--from_label=3", "--strength=0.6", "--steps=12")
    source, target = load_run(vp).denoiser.replace(condition={"label": np.full(3, 3)}), load_run(ve).denoiser
    levels = shared_levels(source.sde, target.sde, 12, 0.6)
    np.testing.assert_allclose(told["noise_to_signal"], levels[np.array([0, -1])], rtol=1e-5)
    np.testing.assert_allclose(arrays["translated"], bridge(source, target, INPUTS, levels), atol=1e-3)
    assert np.abs(arrays["translated"] - INPUTS).mean() > 0.05
    expected = {
        "strength": 0.6, "from_label": 3, "label": None, "guidance": None, "evaluations": 4 * 12, "steps_trained": [40, 40]
    }  # fmt: skip
    assert {key: told[key] for key in expected} == expected
    assert told["sampling"].keys() == {"steps", "rho", "t_min", "batch_size", "ema"} and told["sampling"]["steps"] == 12
    cycle = decibels(arrays["back"], INPUTS)
    np.testing.assert_allclose([row["cycle_psnr"] for row in told["inputs"]], cycle, atol=0.01)
    np.testing.assert_allclose(told["average"]["cycle_psnr"], cycle.mean(), atol=0.01)
    assert told["average"]["cycle_psnr"] > made("translate", vp, f"--to={ve}", "--from_label=3", "--steps=3")[1][
        "average"]["cycle_psnr"] + 10  # fmt: skip


def test_a_class_becomes_another_within_one_run(vp, made):
    arrays, told = made("translate", vp, "--label=7", "--guidance=2", "--steps=12")
    assert (told["from_label"], told["label"], told["guidance"]) == (None, 7, 2)
    assert told["evaluations"] == 2 * (1 + 2) * 12
    plain = load_run(vp).denoiser
    levels = shared_levels(plain.sde, plain.sde, 12)
    guided = ClassifierFree(plain, {"label": np.full(3, 7)}, NO_CLASS, 2.0)
    expected = bridge(plain.replace(condition=NO_CLASS), guided, INPUTS, levels)
    np.testing.assert_allclose(arrays["translated"], expected, atol=2e-3)


def test_interpolation_leads_from_one_to_the_other(ve, made, tmp_path):
    np.savez(tmp_path / "others.npz", images=DIGITS[::-1])
    arrays, told = made("interpolate", ve, f"--to={tmp_path}/others.npz", "--images=3", "--steps=12", "--strength=0.6")
    denoiser = load_run(ve).denoiser
    levels = shared_levels(denoiser.sde, denoiser.sde, 12, 0.6)
    expected = interpolate_through(denoiser, INPUTS, INPUTS[::-1], [0.0, 0.5, 1.0], levels)
    for kind, images in zip(("0", "0.5", "1"), expected, strict=True):
        np.testing.assert_allclose(arrays[kind], images, atol=1e-3)
    np.testing.assert_allclose(arrays["to"], INPUTS[::-1], atol=1e-6)
    ends = np.stack([decibels(arrays["0"], INPUTS), decibels(arrays["1"], INPUTS[::-1])], 1)
    np.testing.assert_allclose([row["psnr_of_ends"] for row in told["inputs"]], ends, atol=0.01)
    np.testing.assert_allclose(told["noise_to_signal"], levels[np.array([0, -1])], rtol=1e-5)
    expected = {"strength": 0.6, "label": None, "evaluations": 2 * 12 * (2 + 3), "step": 40}
    assert {key: told[key] for key in expected} == expected
    assert told["sampling"].keys() == {"steps", "rho", "t_min", "batch_size", "ema"}
    assert [(row["name"], row["to"]) for row in told["inputs"]] == [
        ("0000", "0000"),
        ("0001", "0001"),
        ("0002", "0002"),
    ]


def test_strokes_on_a_large_photograph_fall_where_they_were_painted(tmp_path):
    """Twice the size and wider: the middle is cut out. Half a covered block is half covered, in the paint's own colour."""
    paint = np.zeros((16, 24, 4))
    paint[:, :] = 0, 0, 0, 0
    paint[4:6, 8:9] = 200, 200, 200, 255  # the left half of the pixel in row 2 and column (8 - 4) / 2
    levels, opacity = strokes.read_strokes("--strokes", str(picture(tmp_path / "s.png", paint)), SHAPE)
    expected = np.zeros(SHAPE)
    expected[2, 2] = 0.5
    np.testing.assert_allclose(opacity, expected, atol=1e-6)
    np.testing.assert_allclose(levels[2, 2], 200, atol=0.01)
    np.testing.assert_allclose(strokes.painted(np.ones((1, *SHAPE)), levels, opacity)[0, 2, 2], 100.5, atol=0.01)


def test_strokes_outside_of_the_crop_paint_nothing(tmp_path):
    """The picture is wider than the input, and its left side is cut off."""
    paint = np.zeros((16, 32, 4))
    paint[:, :2] = 200, 200, 200, 255
    with pytest.raises(UserError, match="is transparent everywhere: nothing is painted"):
        strokes.read_strokes("--strokes", str(picture(tmp_path / "s.png", paint)), SHAPE)


def test_a_large_mask_is_made_to_fit(tmp_path):
    pixels = np.zeros((16, 24))
    pixels[2:8, 8:12] = 255
    mask = strokes.read_mask("--mask", str(picture(tmp_path / "m.png", pixels)), SHAPE)
    expected = np.zeros(SHAPE, bool)
    expected[1:4, 2:4] = True
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("edit --strength=0", "argument --strength: 0 must be more than 0 and at most 1"),
        ("edit --strength=1.5", "argument --strength: 1.5 must be more than 0 and at most 1"),
        ("edit --guidance=2", "--guidance=2: does nothing without a class to guide to: add --label"),
        ("edit --style_std=1", "--style_std=1: does nothing without --style"),
        ("edit --style_features=patches", "--style_features=patches: does nothing without --style"),
        ("edit --style=x.png --style_features=patch", "choose from patches, perceptual; did you mean 'patches'?"),
        ("edit --masked_by=pigdm", "--masked_by=pigdm: does nothing without --mask"),
        ("edit --mask=m.png --masked_by=pigmd", "did you mean 'pigdm'?"),
        ("edit --mask=m.png --masked_by=ddnm:eta=1", "--masked_by=ddnm:eta=1: 'eta=1' is no setting of ddnm"),
        ("edit --style=x.png --style_std=0", "--style_std=0: must be more than 0"),
        ("translate", "--to=RUN is needed, or --label of the class to become"),
        ("translate --label=3 --from_label=3", "--label=3: is --from_label too: images would come back as they are"),
        ("translate --to=x --guidance=2", "--guidance=2: does nothing without a class"),
        (
            "interpolate --to=x.png --images=2",
            "--images=2: both ends are counted; there is something between from 3 on",
        ),
        ("edit --out=setup.cfg", "argument --out: setup.cfg is a file: a folder is needed"),
        ("interpolate", "the following arguments are required: --to"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_file_is_read(fails, arguments, message):
    command, *rest = arguments.split()
    assert message in fails(command, "--workdir=nowhere", "--input=nowhere", "--out=nowhere", *rest)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("edit {vp} --label=10", "--label=10: the classes are 0 to 9"),
        ("edit {ve} --label=1", "--label=1: this run has no classes (model.num_classes=0)"),
        ("edit {ve} --mask={tmp}/mask.png", "mask.png does not exist; did you mean 'masks.png'?"),
        ("edit {ve} --mask={tmp}/masks.png", "masks.png is all black, so that nothing may change"),
        ("edit {ve} --mask={tmp}/white.png", "white.png is all white, so that all may change: leave it out"),
        (
            "edit {ve} --strokes={tmp}/white.png",
            "white.png has no transparency (mode L): all of the input would be covered",
        ),
        ("edit {ve} --strokes={tmp}/empty.png", "empty.png is transparent everywhere: nothing is painted"),
        ("edit {ve} --strokes={tmp}/digits.npz", "unknown file type: strokes are a PNG with transparency"),
        ("edit {ve} --sampler=huen", "did you mean 'heun'?"),
        ("edit {ve} --config.sde.name=vp", "cannot be changed after training; edit takes keys of sampling."),
        ("translate {ve} --to={tmp}", "--to={tmp} holds no run (no config.json)"),
        ("translate {ve} --to={vp} --from_label=2", "--from_label=2: this run has no classes"),
        (
            "translate {ve} --to={vp} --config.sampling.eta=1",
            "cannot be changed after training; translate takes keys of",
        ),
        ("interpolate {ve} --to={tmp}/white.png", "--input has 3 images and --to 1: they are paired in their order"),
    ],
)
def test_what_does_not_fit_the_run_is_refused_before_weights_are_read(
    fails, vp, ve, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.setattr("experiments.loading.runs.load_run", lambda *_: pytest.fail("read"))
    np.savez(tmp_path / "digits.npz", images=DIGITS)
    picture(tmp_path / "masks.png", np.zeros((8, 8)))
    picture(tmp_path / "white.png", np.full((8, 8), 255))
    picture(tmp_path / "empty.png", np.zeros((8, 8, 4)))
    command, workdir, *rest = [text.format(vp=vp, ve=ve, tmp=tmp_path) for text in arguments.split()]
    error = fails(command, f"--workdir={workdir}", f"--input={tmp_path}/digits.npz", f"--out={tmp_path}/out", *rest)
    assert message.format(tmp=tmp_path) in error
    assert not (tmp_path / "out").exists()


def test_a_model_that_never_went_without_a_class_wants_one(fails, vp, tmp_path):
    """The run's config, as if it had been trained without class dropout."""
    stored = json.loads((vp / "config.json").read_text())
    stored["condition"]["label"]["dropout"] = 0.0
    (tmp_path / "checkpoints" / "40").mkdir(parents=True)
    (tmp_path / "config.json").write_text(json.dumps(stored))
    given = [f"--workdir={tmp_path}", f"--input={tmp_path}", f"--out={tmp_path}/out"]
    assert "--label is needed: this run's model was always told the class" in fails("edit", *given)
    said = fails("edit", *given, "--label=1", "--guidance=2")
    assert "trained without class dropout (condition.label.dropout=0), so that classifier-free" in said
