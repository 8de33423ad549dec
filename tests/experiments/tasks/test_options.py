"""Options of restorations: the defaults that the help states, the published kernels, and the values at each bound."""

import dataclasses
import re

import numpy as np
import pytest
from PIL import Image

from experiments import factory
from experiments.cli import arguments, reconstruct, restore
from experiments.data.inputs import images
from experiments.editing import edits
from experiments.errors import UserError
from experiments.factory.experiment import Experiment
from experiments.inverse import build as inverse
from experiments.inverse import cases, kernels, modalities, problems
from tests.experiments.tiny import ROOT, tiny_config

GREY = (16, 16, 1)


def problem(task, shape=GREY, noise=0.0, peak=None, **options):
    return inverse.problem(task, shape, problems.task(task, options), inverse.noise(noise, peak))


def stated_defaults(command):
    """Defaults by flag, as the help states them."""
    parser = arguments.Parser()
    command.add_arguments(parser)
    found = {}
    for action in parser._actions:
        text = action.help or ""
        stated = re.search(r"\(default ([^)]*)\)", text) or re.search(r"(\S+) \((?:[^()]*, )?default\)", text)
        found[action.dest] = stated and stated[1]
    return found


def test_defaults_of_tasks_are_those_that_the_help_states():
    stated = stated_defaults(restore)
    shares = dict(zip(("inpaint", "sensing"), stated["share"].split(", "), strict=True))
    for name, spec in problems.TASKS.items():
        for flag, value in spec.flags.items():
            text = shares[name] if flag == "share" else stated[flag]
            if value is None:
                assert text in (None, "4:2:0") or flag in ("box", "kernel_width"), flag
            else:
                assert type(value)(text) == value, flag


def test_defaults_of_modalities_are_those_that_the_help_states():
    stated = stated_defaults(reconstruct)
    for flags in modalities.MODALITIES.values():
        for flag, value in flags.items():
            assert value is None or type(value)(stated[flag]) == value, flag
    assert float(stated["noise"]) == modalities.NOISE
    assert modalities.flags() == ["mask", "acceleration", "coils", "operator_seed", "angles", "arc", "metal"]


# Steps and settings by method: those that docs/restoring.md ranks, and of the papers.
ANCESTRAL = {"sampler": "ancestral", "times": "quadratic", "steps": 100}
SAMPLING = {
    "pigdm": (ANCESTRAL, {"data_std": 0.5}),
    "mmps": (ANCESTRAL, {"max_steps": 1, "rtol": 1e-3}),
    "tmpd": (ANCESTRAL, {}),
    "dps": ({"sampler": "ddim", "eta": 1.0, "steps": 250}, {"zeta": 1.0}),
    "mcg": ({"sampler": "ddim", "eta": 1.0, "steps": 250}, {"zeta": 1.0}),
    "ddnm": ({"sampler": "ddim", "eta": 0.85, "steps": 100}, {}),
    "ddnm+": ({"steps": 100}, {}),
    "ddrm": ({"times": "quadratic", "steps": 50}, {"eta": 0.85, "eta_b": 1.0}),
    "diffpir": (ANCESTRAL, {"strength": 3.0}),
    "replacement": ({"steps": 250}, {"relaxation": 1.0}),
    "projection": ({"steps": 125}, {"relaxation": 1.0, "snr": 0.16}),
    "repaint": ({"steps": 25}, {"resamplings": 10, "substeps": 10}),
    "resample": ({"times": "quadratic", "steps": 100}, {"gamma": 40.0, "fit_steps": 50}),
    "daps": ({"steps": 100}, {"ode_steps": 5, "langevin_steps": 100, "step_size": 0.1, "data_std": np.inf}),
}  # fmt: skip


@pytest.mark.parametrize("name", problems.METHODS)
def test_a_method_samples_by_its_own_keys_and_never_by_the_recommended_sampler(name):
    sampling, settings = SAMPLING[name]
    stored = tiny_config(sampling__eta=0.3)
    stored.sampling.evaluations = 5
    made = inverse.with_sampling(stored, name).sampling.to_dict()
    assert made == stored.sampling.to_dict() | {"evaluations": 0} | sampling
    assert stored.sampling.evaluations == 5
    assert problems.method(name) == (name, settings)


def test_evaluations_are_those_of_the_ranked_restorations():
    """docs/restoring.md, whose rows were written by the command."""
    rows = re.findall(r"^\| (\S+) \| `(\S+)` .* (\d+) \|$", (ROOT / "docs/restoring.md").read_text(), re.MULTILINE)
    stated = {name: int(evaluations) for _, name, evaluations in rows}
    assert {case for case, *_ in rows} <= set(cases.CASES) and len(stated) >= 6
    a = problem("denoise", noise=0.1)
    for name, evaluations in stated.items():
        made = inverse.with_sampling(tiny_config(), name)
        y = np.zeros((1, *GREY), np.float32)
        settings = problems.METHODS[name].settings
        _, method = inverse.conditioned(Experiment(made), name, settings, None, a.measurement, y, a.noise, GREY)
        assert method.nfe(factory.sampler_and_steps(made)[1]) == evaluations, name


def test_noise_is_by_default_that_of_the_task_and_none_for_methods_that_take_y_as_exact():
    defaults = dict.fromkeys(problems.TASKS, 0.05) | {"denoise": 0.3, "dejpeg": 0.0}
    exact = {"mcg", "ddnm", "replacement", "projection", "repaint"}
    for task, std in defaults.items():
        for method in problems.METHODS:
            found = problems.noise(task, method, None, "gaussian", None, given=False)
            assert found == (0.0 if method in exact else std, None)
    for method in problems.METHODS:
        assert modalities.noise(method, None, measured=True) == (0.0 if method in exact else 0.02)
        assert problems.noise("hdr", method, 0.2, "gaussian", None, given=False) == (0.2, None)
        if method in exact | {"dps"}:
            with pytest.raises(UserError, match=r"--noise=0\.2 does nothing"):
                problems.noise("hdr", method, 0.2, "gaussian", None, given=True)
            with pytest.raises(UserError, match=r"--noise_kind=poisson does nothing"):
                problems.noise("hdr", method, None, "poisson", 9.0, given=True)
            with pytest.raises(UserError, match=r"--noise=0\.2 does nothing"):
                modalities.noise(method, 0.2, measured=True)
        else:
            assert problems.noise("hdr", method, 0.2, "gaussian", None, given=True) == (0.2, None)
            assert modalities.noise(method, 0.2, measured=True) == 0.2


@pytest.mark.parametrize(
    "std, peak, fits",
    [(0.0, None, True), (1000.0, None, True), (1000.1, None, False), (-1e-9, None, False), (np.nan, None, False),
     (None, 1e-3, True), (None, 1e8, True), (None, 0.99e-3, False), (None, 1.01e8, False), (None, np.nan, False)],
)  # fmt: skip
def test_the_bounds_of_noise(std, peak, fits):
    arguments = ("denoise", "mmps", std, "gaussian" if peak is None else "poisson", peak)
    if fits:
        assert problems.noise(*arguments, given=False) == (std or 0.0, peak)
        return
    with pytest.raises(UserError, match="must be at least"):
        problems.noise(*arguments, given=False)


def test_poisson_noise_is_of_tasks_that_measure_images():
    images = {name for name, spec in problems.TASKS.items() if spec.image}
    assert set(problems.TASKS) - images == {"phase", "sensing"}


def moments(kernel):
    """Standard deviations (down, across) and the correlation of a kernel as a density; rows go down."""
    rows, columns = np.indices(kernel.shape) - np.reshape(kernel.shape, (2, 1, 1)) // 2
    assert abs(kernel.sum() - 1) < 1e-6
    down, across = (np.sqrt((kernel * x**2).sum()) for x in (rows, columns))
    return down, across, -(kernel * rows * columns).sum() / max(down * across, 1e-12)


def kernel_of(side, name, **options):
    made = {"kernel": name, "kernel_width": None, "kernel_angle": 0.0, "operator_seed": 0} | options
    return np.asarray(kernels.kernel((side, side, 1), made))


@pytest.mark.parametrize(
    "side, gaussian, anisotropic, motion, shake",
    [(256, 3.0, 20.0, 61.0, 61), (128, 1.5, 10.0, 30.5, 31), (64, 1.0, 5.0, 15.25, 17), (16, 1.0, 2.0, 3.8125, 5),
     (8, 1.0, 2.0, 3.0, 5)],
)  # fmt: skip
def test_default_kernels_are_the_published_ones_in_proportion_to_the_image(side, gaussian, anisotropic, motion, shake):
    """Gaussian of 3 and motion of 61 pixels (DPS), anisotropic of 20 and a quarter of it (DDRM), at 256 px; a blur still."""
    kernel = kernel_of(side, "gaussian")
    assert len(kernel) == 8 * gaussian + 1  # four standard deviations to each side
    np.testing.assert_allclose(moments(kernel), (gaussian, gaussian, 0), rtol=5e-3, atol=1e-9)
    kernel = kernel_of(side, "anisotropic")
    assert len(kernel) == 8 * anisotropic + 1
    np.testing.assert_allclose(moments(kernel)[1], anisotropic, rtol=5e-3)
    row = kernel.sum(1)
    np.testing.assert_allclose(row[len(row) // 2] / row.max(), 1)
    offsets = np.arange(len(row)) - len(row) // 2
    expected = np.exp(-0.5 * (offsets / (anisotropic / 4)) ** 2)
    np.testing.assert_allclose(row, expected / expected.sum(), atol=1e-6)
    kernel = kernel_of(side, "motion")
    assert len(kernel) % 2 and motion + 1 <= len(kernel) < motion + 3
    np.testing.assert_allclose(moments(kernel)[1], motion / 12**0.5, atol=0.1)  # constant speed: a uniform density
    assert kernel.sum(1)[len(kernel) // 2] > 0.99
    assert kernel_of(side, "shake").shape == (shake, shake)


@pytest.mark.parametrize("name", ["anisotropic", "motion"])
def test_kernels_are_turned_counterclockwise(name):
    flat, turned, upright = (moments(kernel_of(64, name, kernel_angle=angle)) for angle in (0.0, 45.0, 90.0))
    np.testing.assert_allclose(flat[:2], upright[1::-1], rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(turned[0], turned[1], rtol=1e-3)
    assert turned[2] > 0.8 and flat[1] > 3 * flat[0]  # 45 degrees: up on the right


@pytest.mark.parametrize("name, most", [("gaussian", 8.0), ("anisotropic", 8.0), ("motion", 16.0), ("shake", 16.0)])
def test_kernels_are_as_wide_as_half_the_image_or_the_image_at_most(name, most):
    """Of 16 x 16 pixels, and of 8 x 16: the longer side counts."""
    assert kernel_of(16, name, kernel_width=most).sum() == pytest.approx(1)
    made = {"kernel": name, "kernel_width": most, "kernel_angle": 0.0, "operator_seed": 0}
    kernels.kernel((8, 16, 1), made)
    for width in (most + 0.01, 0.0, -1.0, np.nan):
        with pytest.raises(
            UserError, match=f"must be more than 0, in pixels, and at most {most:g} for --kernel={name}"
        ):
            kernel_of(16, name, kernel_width=width)


@pytest.mark.parametrize("sides, fits", [((33, 1), True), ((1, 33), True), ((34, 1), False), ((1, 34), False)])
def test_a_picture_of_a_kernel_has_two_sides_of_the_image_and_one_pixel_at_most(tmp_path, sides, fits):
    """More reaches no pixel of the image."""
    Image.fromarray(np.full(sides, 9, np.uint8)).save(tmp_path / "k.png")
    options = {"kernel": str(tmp_path / "k.png"), "rendering": images.RENDERING}
    if fits:
        kernel = kernels.kernel(GREY, options)
        np.testing.assert_allclose(kernel, np.full(sides, 1 / 33), rtol=1e-6)
        return
    with pytest.raises(UserError, match=f"is {sides[1]}x{sides[0]}, but 16x16 images need at most 33 pixels to a side"):
        kernels.kernel(GREY, options)


@pytest.mark.parametrize(
    "task, flag, low, high", [("dejpeg", "quality", 1.0, 100.0), ("hdr", "contrast", 1.0, 1000.0),
                              ("phase", "oversampling", 1.0, 8.0)]
)  # fmt: skip
def test_bounds_of_numbers_of_tasks(task, flag, low, high):
    for value in (low, high):
        problem(task, (8, 8, 1), **{flag: value})
    for value in (low - 0.01, high + 0.01, np.nan):
        with pytest.raises(UserError, match=rf"^--{flag}={value}: must be from {low:g} to {high:g}$"):
            problem(task, (8, 8, 1), **{flag: value})


@pytest.mark.parametrize("shape", [(16, 16, 1), (7, 7, 3)])
def test_masks_by_name(shape):
    """What is measured: all but a box of half the side in the middle; a share; all but the half that is named."""
    side = shape[0]
    first, end = (side - side // 2) // 2, (side - side // 2) // 2 + side // 2
    box = np.ones((side, side), bool)
    box[first:end, first:end] = False
    np.testing.assert_array_equal(problem("inpaint", shape).measured, np.broadcast_to(box[..., None], shape))
    for share, flags in ((0.3, {}), (0.6, {"share": 0.6})):
        found = problem("inpaint", shape, mask="random", **flags).measured
        np.testing.assert_allclose(found[..., 0].mean(), share, atol=1 / side**2)
    places = np.indices(shape)
    for name, of_half in (
        ("left", places[1] < side // 2), ("top", places[0] < side // 2),
        ("right", places[1] >= side - side // 2), ("bottom", places[0] >= side - side // 2),
    ):  # fmt: skip
        found = problem("inpaint", shape, mask=f"half-{name}").measured
        assert (found[of_half] == 0).all() and found.mean() == pytest.approx(1 - of_half.mean(), abs=1.01 / side)


def test_colours_and_chroma_are_of_models_of_colours():
    for shape, said in (((8, 8, 1), "1 channel"), ((8, 8, 2), "2 channels"), ((8, 8, 4), "4 channels")):
        with pytest.raises(UserError, match=f"the model's images have {said}; colours are 3"):
            problem("colorize", shape)
    with pytest.raises(UserError, match="--chroma='4:1:1' is unknown: choose from 4:2:0, 4:4:4"):
        problem("dejpeg", (8, 8, 3), chroma="4:1:1")
    subsampled = {chroma: problem("dejpeg", (8, 8, 3), chroma=chroma) for chroma in (None, "4:2:0", "4:4:4")}
    found = {chroma: of.measurement.subsampled_chroma for chroma, of in subsampled.items()}
    assert found == {None: True, "4:2:0": True, "4:4:4": False}


IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, *GREY)).astype(np.float32)


def baselines_of_tasks():
    return {name: task.baselines for name, task in problems.TASKS.items()}


def test_plain_answers_of_each_task():
    """Those that are what was measured, in units of the image; the others are held to in test_baselines.py."""
    y = IMAGES
    for task in ("dejpeg", "deblur-light"):
        found = problem(task).baseline(y)
        np.testing.assert_array_equal(found["as measured"], y)
    np.testing.assert_allclose(problem("hdr", contrast=4.0).baseline(y)["y / contrast"], y / 4, rtol=1e-6)
    grey = problem("colorize", (16, 16, 3)).baseline(y)["grey"]
    np.testing.assert_allclose(grey, np.repeat(y, 3, -1), atol=1e-6)
    names = {task: list(captions) for task, captions in baselines_of_tasks().items()}
    assert names == {
        "denoise": ["total variation"], "inpaint": ["biharmonic"], "superres": ["bicubic"], "deblur": ["Wiener"],
        "deblur-light": ["as measured"], "colorize": ["grey"], "dejpeg": ["as measured"],
        "phase": ["hybrid input-output"], "hdr": ["y / contrast"], "sensing": ["total variation"],
    }  # fmt: skip


def test_plain_answers_count_on_the_noise_of_the_problem(monkeypatch):
    """Of Poisson noise, on that of middle grey: half the peak's counts, whose deviation is 2 sqrt(peak / 2) / peak."""
    given = []
    plain = dataclasses.replace(problems.TASKS["denoise"], baselines={"plain": lambda a, y, std: given.append(std)})
    monkeypatch.setitem(problems.TASKS, "denoise", plain)
    for noise, peak, std in ((0.2, None, 0.2), (0.0, None, 0.0), (0.0, 50.0, 2 * np.sqrt(25) / 50)):
        problem("denoise", noise=noise, peak=peak).baseline(IMAGES)
        assert given.pop() == pytest.approx(std, rel=1e-5)


def test_the_view_of_magnitudes_is_their_logarithm_from_the_least_to_the_largest():
    """Zero frequency in the middle; what noise makes negative counts as 0; each image by itself."""
    y = np.ones((2, 4, 4, 1))
    y[0, 0, 0], y[0, 1, 2], y[0, 3, 3] = 999e-3, -0.5, 9e-3  # with 1e-3 added: 1, 1e-3 and 1e-2
    y[0][y[0] == 1] = 99e-3
    view = problem("phase").view(y)
    expected = np.full((4, 4), 1 / 3)
    expected[2, 2], expected[3, 0], expected[1, 1] = 1, -1, -1 / 3
    np.testing.assert_allclose(view[0, ..., 0], expected, atol=1e-9)
    np.testing.assert_allclose(view[1], -1)


def test_the_view_of_coefficients_is_the_image_of_least_norm_and_of_images_themselves():
    of, y = problem("sensing", (2, 2, 1), share=0.5), np.array([[1.0, -2.0]], np.float32)
    np.testing.assert_allclose(of.view(y), of.measurement.pseudo_inverse(y), atol=1e-6)
    for task in ("denoise", "inpaint", "hdr"):
        np.testing.assert_array_equal(problem(task).view(IMAGES), IMAGES)


def test_the_cases_of_a_ranking_state_their_noise_and_have_options_of_their_task_or_modality():
    for case, (command, name, noise, options) in cases.CASES.items():
        assert noise > 0, case
        if command == "restore":
            kinds, known = problems.TASKS[name].flags, problems.task(name, options)
        else:
            kinds, known = modalities.MODALITIES[name], modalities.options(name, options, measured=False)
        assert known.items() >= options.items()
        assert [type(value) for value in options.values()] == [type(kinds[key]) for key in options], case


def test_edits_are_masked_by_methods_that_work_without_noise():
    known = {"pigdm", "mmps", "dps", "mcg", "ddnm"}
    assert set(edits.MASKED_BY) == known | {"replacement"} and edits.MASKED_BY["replacement"] == {}
    assert all(edits.MASKED_BY[name] == SAMPLING[name][1] for name in known)
    assert edits.STYLE_STD == {"patches": 0.25, "perceptual": 0.1}
