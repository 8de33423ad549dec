"""Places on the sheet, sizes of pictures that do not fit, strokes at their edges, figures of several plain answers."""

import numpy as np
import pytest
from PIL import Image, ImageFont

from experiments.data.inputs import images, strokes
from experiments.data.sources.cropping import center_crop
from experiments.editing import series
from experiments.errors import UserError
from experiments.inverse import ranking, results
from experiments.inverse.cases import CASES
from experiments.media import ImageMedium
from experiments.metrics import quality
from experiments.plotting import sheet
from experiments.plotting.sheet import FONT_SIZE, LINE, MARGIN, Column

FONT = ImageFont.load_default(FONT_SIZE)
RNG = np.random.default_rng(0)


def width_of(text):
    return int(np.ceil(FONT.getlength(text)))


def dark(page, left, top, right, bottom):
    """Whether something is written there."""
    return bool((np.asarray(page)[top:bottom, left:right] < 128).any())


@pytest.mark.parametrize("caption, note", [("k", "9 dB"), ("a caption that is much wider than the picture", "9 dB"),
                                           ("k", "a note that is much wider than the picture")])  # fmt: skip
@pytest.mark.parametrize("name", ["n", "a name that is wider than twice the side of a picture, and more"])
def test_everything_on_the_sheet_is_at_its_place(caption, note, name):
    """Names, then columns as wide as a picture or the widest text; a caption above, a note below each picture."""
    side, white = 96, np.full((2, 96, 96, 1), 255, np.uint8)
    grey = np.full((2, 48, 96, 1), 200, np.uint8)
    page = sheet.draw([Column(caption, white, [note, "1 dB"]), Column("second", grey)], [name, "x"])
    first = MARGIN + max(side, max(map(width_of, (caption, note))) + MARGIN)
    label = min(max(map(width_of, (name, "x"))) + 2 * MARGIN, 2 * side)
    second = max(side + MARGIN, width_of("second") + 2 * MARGIN)
    row = side + LINE + MARGIN
    top = LINE + 2 * MARGIN
    assert page.size == (label + first + second + MARGIN, top + 2 * row)
    pixels = np.asarray(page)[..., 0]
    for number in range(2):
        y = top + number * row
        assert (pixels[y : y + 48, label + first : label + first + 96] == 200).all()
        assert (pixels[y + 48 : y + 48 + LINE + MARGIN, label + first : label + first + 96] == 255).all()
        assert dark(page, label, y + side + 2, label + 60, y + side + LINE + 2)
        assert not dark(page, label, y, label + side, y + side)
        middle = y + side // 2
        assert dark(page, MARGIN, middle - LINE // 2, label - MARGIN, middle + LINE // 2)
        assert not dark(page, 0, y, label, middle - LINE // 2 - 1) and not dark(page, 0, middle + LINE, label, y + side)
        assert not dark(page, 0, y, MARGIN - 1, y + side) and not dark(page, label - MARGIN + 1, y, label, y + side)
    for x in (label, label + first):
        assert dark(page, x, MARGIN, x + 40, MARGIN + LINE)
    assert not dark(page, 0, 0, label, top) and not dark(page, 0, 0, page.width, MARGIN)


def test_notes_take_a_line_and_names_beyond_the_last_row_another():
    def height(count, notes=()):
        pictures = np.full((count, 96, 96, 1), 255, np.uint8)
        return sheet.draw([Column("", pictures, notes), Column("", pictures)], ["n"] * count).height

    top, row = LINE + 2 * MARGIN, 96 + MARGIN
    assert height(1) == top + row and height(3) == top + 3 * row
    assert height(3, ["9"] * 3) == top + 3 * (row + LINE)
    assert height(32) == top + 32 * row and height(33) == top + 32 * row + LINE
    page = sheet.draw([Column("", np.full((34, 96, 96, 1), 255, np.uint8))], ["n"] * 34)
    assert dark(page, MARGIN, page.height - LINE - 2, 90, page.height)
    assert not dark(page, 30, top, page.width, page.height - LINE - 2)  # no row but the 32
    assert sheet._widest(FONT, Column("a", None, ["b", "a long note"]), 1) == max(map(FONT.getlength, "ab"))


def test_a_grey_picture_and_one_of_two_channels_are_shown_in_grey(tmp_path):
    picture = RNG.integers(0, 256, (3, 4, 2), dtype=np.uint8)
    sheet.save_picture(tmp_path / "a.png", picture)
    with Image.open(tmp_path / "a.png") as found:
        assert found.mode == "L"
        np.testing.assert_array_equal(found, np.concatenate([picture[..., 0], picture[..., 1]], 1))


def levels(x):
    return x


def refusal(reader, *arguments, **options):
    with pytest.raises(UserError) as error:
        reader("--input", *arguments, **options)
    return str(error.value)


def test_sizes_that_do_not_fit_are_named_as_height_and_width(tmp_path):
    Image.fromarray(np.zeros((3, 5), np.uint8)).save(tmp_path / "a.png")
    np.savez(tmp_path / "a.npz", images=np.zeros((1, 3, 5)), bands=np.zeros((1, 8, 8, 2)))
    file, array = str(tmp_path / "a.png"), str(tmp_path / "a.npz")
    for text in (file, array):
        said = refusal(images.read, text, (4, 6, 1), levels, measured=True)
        assert (
            said == f"--input: {text} has 3x5 pixels, 4x6 are needed: a measurement must have exactly the measured size"
        )
        read = images.read("--input", text, (3, 5, 1), levels, measured=True)
        assert read.values.shape == (1, 3, 5, 1)
    said = refusal(images.read_grey, file, (4, 6, 1))
    assert said == f"--input: {file} has 3x5 pixels, 4x6 are needed: a mask must fit the model's images"
    assert images.read_grey("--input", file).shape == images.read_grey("--input", file, (3, 5, 3)).shape == (3, 5)
    for channels in (1, 3, 4):
        said = refusal(images.read, f"{array}:bands", (8, 8, channels), levels)
        assert said.endswith(f"'bands' has the wrong number of channels: {channels} are needed, it has 2")
    assert images.read("--input", f"{array}:bands", (8, 8, 2), levels).values.shape == (1, 8, 8, 2)
    for channels in (2, 5):
        said = refusal(images.read, file, (8, 8, channels), levels)
        assert said == f"--input: {file} is an image file, but {channels} channels are needed: give an .npz file"


def test_a_filter_that_overshoots_leaves_no_level_beyond_black_and_white(tmp_path):
    """Stripes, enlarged: the bicubic filter leaves [0, 255] at their edges, and the images do not."""
    stripes = np.tile(np.array([0, 0, 255, 255, 0, 0], np.uint8), (6, 1))
    beyond = center_crop(stripes[..., None].astype(np.float32), (16, 16))
    assert beyond.min() < -5 and beyond.max() > 260
    Image.fromarray(stripes).save(tmp_path / "a.png")
    np.savez(tmp_path / "a.npz", images=stripes[None] / 255)
    np.savez(tmp_path / "b.npz", images=stripes[None])
    for name in ("a.png", "a.npz", "b.npz"):
        read = images.read("--truth", str(tmp_path / name), (16, 16, 1), levels).values[0]
        np.testing.assert_allclose(read, beyond.clip(0, 255), atol=0.51)
        assert read.min() == 0 and read.max() == 255


def test_a_range_that_is_left_by_one_value_is_refused_in_either_direction(tmp_path):
    for value, shown in ((1.5, "0 to 1.5"), (-0.5, "-0.5 to 0")):
        array = np.zeros((2, 8, 8))
        array[1, 7, 7] = value
        np.savez(tmp_path / "a.npz", images=array)
        assert f"has values from {shown}: floats must be" in refusal(
            images.read, str(tmp_path / "a.npz"), (8, 8, 1), levels
        )
    np.savez(tmp_path / "a.npz", images=np.zeros((3, 8, 8), complex))
    assert "is complex128(3, 8, 8)" in refusal(images.read, str(tmp_path / "a.npz"), (8, 8, 1), levels)


def test_the_edge_of_paint_has_the_colour_of_the_paint(tmp_path):
    """Enlarged: what covers stays within 0 and 1, levels within black and white, and transparent colours do not leak."""
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[..., :3] = 255  # of the transparent pixels
    rgba[1:3, 1:3] = 200, 100, 0, 255
    Image.fromarray(rgba).save(tmp_path / "s.png")
    found, opacity = strokes.read_strokes("--strokes", str(tmp_path / "s.png"), (16, 16, 3))
    assert opacity.shape == (16, 16, 1) and opacity.min() == 0 and opacity.max() == 1
    assert found.shape == (16, 16, 3) and found.min() == 0 and found.max() <= 255
    edge = (opacity[..., 0] > 0.05) & (opacity[..., 0] < 0.95)
    assert edge.sum() > 20
    np.testing.assert_allclose(found[edge], np.broadcast_to([200, 100, 0], found[edge].shape), atol=0.5)


def test_strokes_and_masks_that_paint_nothing_or_everything(tmp_path):
    for name, mode, pixels in (("opaque", "RGB", np.zeros((8, 8, 3))), ("clear", "RGBA", np.zeros((8, 8, 4)))):
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{name}.png")
        said = refusal(strokes.read_strokes, str(tmp_path / f"{name}.png"), (8, 8, 3))
        problem = "has no transparency (mode RGB): all of the input would be covered" if mode == "RGB" else (
            "is transparent everywhere: nothing is painted"
        )  # fmt: skip
        assert said == f"--input: {tmp_path}/{name}.png {problem}"
    (tmp_path / "a.txt").touch()
    said = refusal(strokes.read_strokes, str(tmp_path / "a.txt"), (8, 8, 3))
    assert said.endswith("a.txt: unknown file type: strokes are a PNG with transparency")
    for level, problem in ((255, "is all white, so that all may change: leave it out"),
                           (0, "is all black, so that nothing may change"),
                           (100, "is all black, so that nothing may change (its lightest level is 100 of 255: a mask of 0 "
                                 "and 1 must be multiplied by 255)")):  # fmt: skip
        Image.fromarray(np.full((8, 8), level, np.uint8)).save(tmp_path / "m.png")
        assert refusal(strokes.read_mask, str(tmp_path / "m.png"), (8, 8, 3)) == f"--input: {tmp_path}/m.png {problem}"


def test_figures_of_several_plain_answers_belong_to_their_names(monkeypatch):
    """Of three inputs, two answers each, their mean and two others: every figure is that of one image and its truth."""
    truth = RNG.uniform(-0.5, 0.5, (3, 8, 8, 1)).astype(np.float32)
    answers = truth[:, None] + RNG.normal(0, 0.2, (3, 2, 8, 8, 1)).astype(np.float32)
    singles = {"mean": answers.mean(1), "one": truth + 0.3, "two": truth - np.linspace(0.1, 0.5, 3).reshape(3, 1, 1, 1)}
    singles = {name: of.astype(np.float32) for name, of in singles.items()}
    monkeypatch.setitem(results.METRICS, "perceptual", lambda images, truth: np.abs(images - truth).mean((1, 2, 3)))
    found = results._judge(answers, singles, truth)
    metrics = {"psnr": quality.psnr, "ssim": quality.ssim, "perceptual": results.METRICS["perceptual"]}
    assert list(found) == list(metrics)
    for metric, of in metrics.items():
        assert list(found[metric]) == ["answers", *singles]
        expected = np.stack([of(answers[:, k].clip(-1, 1), truth) for k in range(2)], 1)
        np.testing.assert_allclose(found[metric]["answers"], expected, rtol=1e-5)
        for name, images_ in singles.items():
            np.testing.assert_allclose(found[metric][name], of(images_.clip(-1, 1), truth), rtol=1e-4)


def test_the_perceptual_distance_is_of_what_can_be_shown(monkeypatch):
    given = []
    monkeypatch.setattr(quality, "perceptual", lambda *of: given.extend(of) or "distance")
    five = RNG.random((1, 4, 4, 5))
    assert results.METRICS["perceptual"](five, -five) == "distance"
    np.testing.assert_array_equal(given[0], five[..., :3])
    np.testing.assert_array_equal(given[1], -five[..., :3])


def test_figures_have_six_digits_and_are_put_in_words():
    assert results._rounded(1.23456789e-7) == 1.23457e-07 and results._rounded([[1 / 3], [2e9 / 3]]) == [
        [0.333333], [666667000.0],
    ]  # fmt: skip
    assert results._rounded(np.float32(np.inf)) == np.inf
    assert results._said({}) == "" and results._said({"misfit": 0.12345}) == "misfit 0.123; "
    assert results._said({"psnr": {"answers": 1.234, "mean": 5.0}}) == "PSNR 1.23 dB (answers), 5.00 dB (mean); "
    figures = [{"psnr": {"answers": [1.0, 2.25], "mean": 3.0}}, {"psnr": {"answers": [4.0, 5.55], "mean": 6.0}}]
    assert results._notes(figures, "answers", 1) == ["2.2 dB", "5.5 dB"] and results._notes(figures, "mean") == [
        "3.0 dB",
        "6.0 dB",
    ]
    assert results._notes([{"misfit": 1}], "mean") == results._notes([], "mean") == []


def test_the_arrays_of_a_task_have_the_names_of_its_inputs(tmp_path, monkeypatch):
    monkeypatch.setattr(sheet, "save", lambda *_: None)
    values = np.zeros((2, 4, 4, 1), np.float32)
    series.write(tmp_path / "deep" / "er", ("a", "b"), {"x": values}, ImageMedium((8, 8, 1)), {})
    results.write(tmp_path / "r" / "s", results.Drawn(("a", "b"), values[:, None], {}), ImageMedium((8, 8, 1)), {})
    for folder in ("deep/er", "r/s"):
        with np.load(tmp_path / folder / "answers.npz") as file:
            assert file["names"].tolist() == ["a", "b"]


def test_the_best_method_comes_before_the_best_plain_answer_even_if_it_is_worse():
    case = next(iter(CASES))
    rows = [
        ranking.Row(case, "plain", 30.0, 0.9),
        ranking.Row(case, "other", 31.0, 0.8),
        ranking.Row(case, "worse", 20.0, 0.5, evaluations=7),
        ranking.Row(case, "better", 21.0, 0.6, evaluations=9),
    ]
    assert ranking.best(rows) == f"{case:16}better 21.00 dB (SSIM 0.600); other 31.00 dB (SSIM 0.800)"
    cells = [line.split(" | ")[1] for line in ranking.markdown(rows).splitlines()[2:]]
    assert cells == ["*other*", "*plain*", "`better`", "`worse`"]
    assert ranking.markdown([]).count("\n") == 2


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (8, 12), (16, 24)])
def test_a_mask_of_an_edit_is_fitted_as_the_input_is(tmp_path, size):
    """The middle of a wide mask is kept; halves are averaged, and what is lighter than middle grey may change."""
    height, width = size
    pixels = np.zeros(size, np.uint8)
    middle = (width - height) // 2
    pixels[: height // 4, middle : middle + height // 2] = 200
    Image.fromarray(pixels).save(tmp_path / "m.png")
    found = strokes.read_mask("--mask", str(tmp_path / "m.png"), (8, 8, 3))
    expected = np.zeros((8, 8, 1), bool)
    expected[:2, :4] = True
    assert found.dtype == bool
    np.testing.assert_array_equal(found, expected)
