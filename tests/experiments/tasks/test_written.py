"""What tasks read and write, without a model: columns and files, bounds of images, keys of noise."""

import json
import zlib
from pathlib import PurePosixPath

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageFont

from experiments.data.inputs import images, strokes
from experiments.editing import edit, edits, series, translate
from experiments.errors import UserError
from experiments.factory.experiment import Experiment
from experiments.generation import answers
from experiments.inverse import build as inverse
from experiments.inverse import problems, restore, results
from experiments.loading.models import Model
from experiments.media import ImageMedium
from experiments.metrics import quality
from experiments.plotting import sheet
from sde_lib import editing
from tests.experiments.tiny import tiny_config

SHAPE = (8, 8, 1)
RNG = np.random.default_rng(0)


@pytest.fixture
def shown(monkeypatch):
    """The columns of the sheets that are saved: captions, pictures and notes."""
    columns = []
    monkeypatch.setattr(sheet, "save", lambda path, found, names: columns.append((path.name, found, tuple(names))))
    monkeypatch.setattr(results, "METRICS", {"psnr": quality.psnr})
    return columns


def drawn(count, several, spread=0.2):
    truth = RNG.uniform(-0.6, 0.6, (count, *SHAPE)).astype(np.float32)
    return truth, truth[:, None] + spread * RNG.normal(size=(count, several, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("several", [1, 3, 5])
def test_the_sheet_has_what_was_given_four_answers_their_mean_and_deviation_others_and_the_truth(
    shown, tmp_path, several
):
    truth, drawn_ = drawn(2, several)
    given = np.zeros((2, 4, 4, 1), np.uint8)
    found = results.Drawn(("a", "b"), drawn_, {"measured": given}, truth, {"plain": truth + 0.1})
    made = results.write(tmp_path, found, ImageMedium((8, 8, 1)), {})
    line = made.summary
    ((name, columns, names),) = shown
    assert (name, names) == ("sheet.png", ("a", "b"))
    deviation = drawn_.std(1)
    white = np.sqrt(np.square(deviation).mean(-1)).max() if several > 1 else 1e-3
    of_several = ["mean", f"deviation, white {white:.2g}"] * (several > 1)
    captions = ["measured", *(f"answer {k}" for k in range(min(several, 4))), *of_several, "plain", "truth"]
    assert [column.caption for column in columns] == captions
    pictures = {column.caption: column.pictures for column in columns}
    notes = {column.caption: list(column.notes) for column in columns}
    np.testing.assert_array_equal(pictures["measured"], given)
    np.testing.assert_array_equal(pictures["truth"], np.rint(127.5 * (truth + 1)).astype(np.uint8))
    last = min(several, 4) - 1
    in_levels = np.rint(127.5 * (drawn_[:, last].clip(-1, 1) + 1)).astype(np.uint8)
    np.testing.assert_array_equal(pictures[f"answer {last}"], in_levels)
    psnr = quality.psnr(drawn_[:, last].clip(-1, 1), truth)
    assert notes[f"answer {last}"] == [f"{value:.1f} dB" for value in psnr]
    assert notes["plain"] == [f"{value:.1f} dB" for value in quality.psnr(truth + np.float32(0.1), truth)]
    assert notes["truth"] == notes["measured"] == []
    files = {f"{name}_{k}.png" for name in "ab" for k in range(several)} | {"answers.npz", "results.json"}
    files |= {f"{name}_{kind}.png" for name in "ab" for kind in ("mean", "deviation")} if several > 1 else set()
    assert {path.name for path in tmp_path.iterdir()} == files
    assert {path.name for path in made.files} == files | {"sheet.png"} and len(made.files) == len(files) + 1
    assert made.metrics == json.loads((tmp_path / "results.json").read_text())
    np.testing.assert_array_equal(made.arrays["answers"], (drawn_ + 1) / 2)
    if several > 1:
        grey = np.asarray(Image.open(tmp_path / "b_deviation.png"))
        np.testing.assert_array_equal(grey, np.rint(255 * deviation[1, ..., 0] / white).clip(0, 255))
        mean = np.asarray(Image.open(tmp_path / "a_mean.png"))
        np.testing.assert_array_equal(mean, np.rint(127.5 * (drawn_[0].mean(0)[..., 0].clip(-1, 1) + 1)))
        assert notes["mean"] == [f"{value:.1f} dB" for value in quality.psnr(drawn_.mean(1).clip(-1, 1), truth)]
    counted = "1 answer" if several == 1 else f"{several} answers"
    assert line.endswith(f"; {counted} for each of 2: {tmp_path}/sheet.png") and line.startswith("PSNR ")
    told = json.loads((tmp_path / "results.json").read_text())
    assert told["deviation_white"] == pytest.approx(white, rel=1e-5)
    assert ("deviation_error_correlation" in told["figures"]) == (several > 1) and "misfit" not in told["figures"]


def test_without_a_truth_there_are_no_figures_but_the_misfit(shown, tmp_path):
    _, drawn_ = drawn(2, 2)
    misfit = np.array([[3.0, 4.0], [0.0, 5.0]])
    made = results.write(
        tmp_path, results.Drawn(("a", "b"), drawn_, {}, misfit=misfit), ImageMedium((8, 8, 1)), {"x": 1}
    )
    told = json.loads((tmp_path / "results.json").read_text())
    assert told["figures"] == {"misfit": pytest.approx(np.sqrt(50 / 4), rel=1e-5)} and told["x"] == 1
    assert told["inputs"] == [{"name": "a", "misfit": [3, 4]}, {"name": "b", "misfit": [0, 5]}]
    assert made.summary == f"misfit 3.54; 2 answers for each of 2: {tmp_path}/sheet.png"
    ((_, columns, _),) = shown
    assert all(not column.notes for column in columns)
    with np.load(tmp_path / "answers.npz") as file:
        assert sorted(file) == ["answers", "deviation", "mean", "names"]


def test_a_series_has_a_column_and_a_picture_of_each_kind(shown, tmp_path):
    first, second = drawn(2, 1)[0], drawn(2, 1)[0]
    made = series.write(
        tmp_path / "new",
        ("a", "b"),
        {"one": first, "two": second},
        ImageMedium((8, 8, 1)),
        {"told": 3},
        {"two": ["x", "y"]},
    )
    assert made.files[0] == tmp_path / "new" / "sheet.png" and made.metrics == {"told": 3}
    assert {path.name for path in made.files if path.name != "sheet.png"} == {
        path.name for path in (tmp_path / "new").iterdir()
    }
    np.testing.assert_array_equal(made.arrays["two"], (second + 1) / 2)
    ((_, columns, names),) = shown
    assert [(column.caption, tuple(column.notes)) for column in columns] == [("one", ()), ("two", ("x", "y"))]
    assert names == ("a", "b") and json.loads((tmp_path / "new/results.json").read_text()) == {"told": 3}
    for kind, values in (("one", first), ("two", second)):
        levels = np.rint(127.5 * (values + 1))
        picture = np.asarray(Image.open(tmp_path / "new" / f"b_{kind}.png"))
        np.testing.assert_array_equal(picture, levels[1, ..., 0])
        with np.load(tmp_path / "new" / "answers.npz") as file:
            np.testing.assert_allclose(file[kind], (values + 1) / 2, rtol=1e-6)


def test_pictures_are_enlarged_to_tiles_by_whole_pixels_and_long_names_keep_their_end():
    picture = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    large = np.asarray(sheet._enlarged(picture, 12))
    np.testing.assert_array_equal(large, np.kron(picture[..., 0], np.ones((4, 4), np.uint8)))
    assert np.asarray(sheet._enlarged(np.zeros((2, 400, 1), np.uint8), 100)).shape == (1, 100)
    font = ImageFont.load_default(sheet.FONT_SIZE)
    width = font.getlength("...efgh")
    assert sheet._shortened("abcdefgh", font, font.getlength("abcdefgh")) == "abcdefgh"
    assert sheet._shortened("abcdefgh" * 3, font, width) == "...efgh"
    assert sheet._shortened("abcdefgh" * 3, font, font.getlength("...")) == "..."
    for side, tiles in ((8, 96), (95, 190), (96, 96), (97, 97)):
        page = sheet.draw([sheet.Column("", np.zeros((1, side, side, 1), np.uint8))], ["a"])
        assert page.height == sheet.LINE + 2 * sheet.MARGIN + tiles + sheet.MARGIN


def levels(x):
    return x


def read(tmp_path, array, shape=SHAPE, name="images", **options):
    np.savez(tmp_path / "a.npz", **{name: array})
    return images.read("--input", str(tmp_path / "a.npz"), shape, levels, **options)


@pytest.mark.parametrize(
    "values, measured, fits",
    [((0, 1), False, True), ((0, 1.001), False, False), ((-1e-3, 1), False, False), ((-10, 10), True, True),
     ((-10.01, 0), True, False), ((0, 10.01), True, False)],
)  # fmt: skip
def test_floats_are_from_black_to_white_and_with_noise_ten_times_as_far(tmp_path, values, measured, fits):
    array = np.resize(np.array(values, float), (1, 8, 8))
    if fits:
        found = read(tmp_path, array, measured=measured)
        np.testing.assert_allclose(found.values[0, ..., 0], 255 * array[0], rtol=1e-6)
        return
    with pytest.raises(
        UserError, match=rf"has values from .*: floats must be in \[0, 1\] .*{'noise' if measured else ''}$"
    ):
        read(tmp_path, array, measured=measured)


@pytest.mark.parametrize(
    "dtype, white, fits",
    [(bool, 1.0, True), (bool, 0.0, False), (np.int32, 255.0, True), (np.int32, 0.0, False), (np.uint8, 0.0, True),
     (complex, 1.0, False)],
)  # fmt: skip
def test_integers_need_a_white_level(tmp_path, dtype, white, fits):
    array, rendering = np.eye(8)[None].astype(dtype), images.Rendering(white=white)
    if not fits:
        with pytest.raises(UserError, match=r"'images' is \w+\(1, 8, 8\); uint8, or floats in"):
            read(tmp_path, array, rendering=rendering)
        return
    found = read(tmp_path, array, rendering=rendering).values[0, ..., 0]
    np.testing.assert_allclose(found, np.eye(8) * (255 / white if white else 1))


def test_names_of_entries_of_an_array_have_four_digits_or_as_many_as_the_last(tmp_path):
    assert images._numbers("--input", tmp_path, 2) == ("0000", "0001")
    for count, last in ((10_000, "9999"), (10_001, "10000")):
        found = images._numbers("--input", tmp_path, count)
        assert found[-1] == last and len(found[0]) == len(last)


def test_the_usual_array_is_read_first_or_the_only_one(tmp_path):
    one, two = np.zeros((1, 8, 8)), np.ones((1, 8, 8))
    for arrays, expected in (
        ({"samples": one, "images": two}, two),
        ({"x": one, "samples": two}, two),
        ({"x": two}, two),
    ):
        np.savez(tmp_path / "a.npz", **arrays)
        found = images.read("--input", str(tmp_path / "a.npz"), SHAPE, levels).values
        np.testing.assert_allclose(found[..., 0], 255 * expected)
    np.savez(tmp_path / "a.npz", one=np.float32(3))
    with pytest.raises(UserError, match="'one' is a single number; an array of images is needed"):
        images.read("--input", str(tmp_path / "a.npz"), SHAPE, levels)
    with pytest.raises(UserError, match=r"a\.npz has no array 'two': choose from one"):
        images.read("--input", f"{tmp_path}/a.npz:two", SHAPE, levels)


def test_a_limit_is_of_arrays_files_and_numbers(tmp_path):
    assert len(read(tmp_path, np.zeros((5, 8, 8)), limit=2).names) == 2
    np.savez(tmp_path / "v.npz", y=np.zeros((5, 3)))
    assert images.read_values("--input", f"{tmp_path}/v.npz", (3,), limit=4).names == ("0000", "0001", "0002", "0003")
    np.savez(tmp_path / "v.npz", y=np.zeros((5, 3), int))
    with pytest.raises(UserError, match=r"'y' is int64\(5, 3\); floats \(N, \*\(3,\)\) are needed"):
        images.read_values("--input", f"{tmp_path}/v.npz", (3,))
    np.savez(tmp_path / "v.npz", y=np.array([[0, np.inf, np.nan]]))
    with pytest.raises(UserError, match="2 of the 3 values of 'y' are not finite"):
        images.read_values("--input", f"{tmp_path}/v.npz", (3,))


@pytest.mark.parametrize("level, white", [(127, False), (128, True)])
def test_a_mask_is_white_above_middle_grey(level, white):
    found = images.checked_mask("--mask", "m", np.array([[0.0, level / 255, 1.0]]), white="x", black="y")
    assert found.tolist() == [[False, white, True]]
    assert not images.checked_mask("--mask", "m", np.zeros((1, 1)), white="x", black="").any()
    assert images.checked_mask("--mask", "m", np.ones((1, 1)), white="", black="y").all()


def test_names_keep_the_last_two_hundred_bytes():
    for length in (200, 201):
        (found,) = images.file_names([PurePosixPath("a" + "b" * (length - 1) + ".png")])
        assert found == ("a" if length == 200 else "b") + "b" * 199
    (found,) = images.file_names([PurePosixPath("\u00e9" * 101 + ".png")])
    assert found == "\u00e9" * 100


def test_strokes_of_paint_are_laid_over_each_input():
    inputs = np.stack([np.full(SHAPE, value, np.float32) for value in (-1.0, 0.5)])
    paint, opacity = np.full(SHAPE, 0.25), np.zeros(SHAPE)
    opacity[0, 0], opacity[0, 1] = 1, 0.25
    found = strokes.painted(inputs, paint, opacity)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, 0, :3, 0], [[0.25, -0.6875, -1], [0.25, 0.4375, 0.5]])


@pytest.fixture
def stub(monkeypatch):
    """A model's reading and scales, without a run."""

    class Stub:
        shape, rendering, medium = SHAPE, images.RENDERING, ImageMedium((8, 8, 1))

        def read(self, flag, text, limit=None):
            return images.read(flag, text, SHAPE, ImageMedium((8, 8, 1)).forward, limit=limit)

    return Stub()


def asked(**changes):
    fields = {name: None for name in edits.Edit.__dataclass_fields__} | {"strength": 0.4, "style_features": "patches"}
    return edits.Edit(**fields | {"style_std": 0.5, "masked_by": "replacement", "settings": {}} | changes)


def test_what_an_edit_shows_and_shares(stub, tmp_path):
    values = RNG.uniform(-1, 1, (2, *SHAPE)).astype(np.float32)
    guide, shown, same = edit._drawn_over(asked(), stub, values)
    assert guide is values and list(shown) == ["input"] and same == {"strength": np.float32(0.4)}
    paint, mask = np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8), np.uint8)
    paint[0] = mask[:, 5:] = 255
    for name, pixels in (("strokes", paint), ("mask", mask), ("style", RNG.integers(0, 256, (8, 8), dtype=np.uint8))):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    files = {name: str(tmp_path / f"{name}.png") for name in ("strokes", "mask", "style")}
    guide, shown, same = edit._drawn_over(asked(**files), stub, values)
    assert list(shown) == ["input", "with strokes", "may change", "style"]
    np.testing.assert_allclose(guide[:, 0], 1)
    np.testing.assert_array_equal(guide[:, 1:], values[:, 1:])
    np.testing.assert_array_equal(shown["with strokes"], ImageMedium((8, 8, 1)).inverse(guide))
    np.testing.assert_array_equal(shown["input"], ImageMedium((8, 8, 1)).inverse(values))
    np.testing.assert_array_equal(shown["may change"], np.broadcast_to(mask[None, ..., None], (2, *SHAPE)))
    assert shown["style"].shape == (2, *SHAPE) and same["mask"].dtype == bool and same["mask"].shape == SHAPE
    np.testing.assert_array_equal(shown["style"][1], shown["style"][0])
    assert float(same["style"].std) == pytest.approx(0.5 * 9 / np.sqrt(36))


def test_figures_of_an_edit():
    inputs = np.zeros((2, *SHAPE), np.float32)
    found = np.stack([inputs + 0.2, inputs - 3.0], 1)  # beyond black is black
    np.testing.assert_allclose(edit._psnr(found, inputs), [[20, 20 * np.log10(2)]] * 2, rtol=1e-5)
    style = editing.Style.of(lambda x: x, jnp.zeros((4, 4, 1)), 1.0)
    images_ = np.zeros((1, 4, 4, 1), np.float32)
    told = edit._distances_to_style(style, images_ + 0.5, np.stack([images_, images_ + 2.0], 1))
    assert told == {"distance_to_style": [[0.0, 2.0]], "distance_of_input_to_style": [0.5]}
    assert edit._advice(asked()) == "try more --steps, another --sampler"
    assert edit._advice(asked(style="x")) == "try more --steps, another --sampler or a larger --style_std"


class Measured:
    """Stands for the request of a restoration."""

    def __init__(self, task, **given):
        self.task, self.seed, self.limit = task, 5, None
        self.truth = self.input = None
        self.__dict__.update(given)


def test_what_was_measured_is_paired_with_the_truth_or_made_of_it(stub, tmp_path):
    of = inverse.problem("inpaint", SHAPE, problems.task("inpaint", {"mask": "half-left"}), inverse.noise(0.3))
    truth, y = RNG.random((2, 8, 8)), RNG.random((2, 8, 8))
    np.savez(tmp_path / "t.npz", images=truth)
    np.savez(tmp_path / "y.npz", images=y)
    files = {"truth": str(tmp_path / "t.npz"), "input": str(tmp_path / "y.npz")}
    names, made, kept = restore._inputs(Measured("inpaint", truth=files["truth"]), of, stub)
    keys = answers.measurement_keys(5, 2)
    np.testing.assert_allclose(made, of.measure(keys, jnp.asarray(2 * truth[..., None] - 1, jnp.float32)), atol=1e-5)
    np.testing.assert_allclose(kept, 2 * truth[..., None] - 1, atol=1e-6)
    assert names == ("0000", "0001")
    _, given, kept = restore._inputs(Measured("inpaint", **files), of, stub)
    right = np.arange(8)[:, None] >= 4
    np.testing.assert_allclose(given, right * (2 * y[..., None] - 1), atol=1e-6)
    np.testing.assert_allclose(kept, 2 * truth[..., None] - 1, atol=1e-6)
    assert restore._inputs(Measured("inpaint", input=files["input"]), of, stub)[2] is None
    assert len(restore._inputs(Measured("inpaint", input=files["input"], limit=1), of, stub)[1]) == 1
    with pytest.raises(UserError, match="--input has 2 images and --truth 1"):
        np.savez(tmp_path / "t.npz", images=truth[:1])
        restore._inputs(Measured("inpaint", **files), of, stub)


def test_the_noise_of_measurements_has_keys_of_its_own_number():
    key = jax.random.fold_in(jax.random.key(3), zlib.crc32(b"measurement"))
    expected = [jax.random.key_data(jax.random.fold_in(key, i)).tolist() for i in range(4)]
    assert jax.random.key_data(answers.measurement_keys(3, 4)).tolist() == expected


@pytest.mark.parametrize("process, plain", [("vp", True), ("edm", True), ("critically_damped", False)])
def test_states_with_a_velocity_are_no_images(process, plain, tmp_path):
    model = Model("--to", tmp_path, Experiment(tiny_config(process, sampling__t_min=0.25)))
    assert model.has_plain_states() == plain and model.shape == SHAPE and model.sde.t_min == 0.25
    if plain:
        model.require_plain_states("interpolation")
        return
    with pytest.raises(UserError, match=rf"^--to={tmp_path}: interpolation needs states that are noisy images"):
        model.require_plain_states("interpolation")


def test_keys_that_an_encoding_reads():
    keys = ("steps", "rho", "t_min", "batch_size", "ema")
    expected = (*(f"sampling.{key}" for key in keys), "data.background", "data.white")
    assert (expected, ("model", "average", "flow")) == (translate.KEYS, translate.USES)
