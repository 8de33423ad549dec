"""The files that tasks read and write: transparency, depth and masks of pictures; names and JSON of results."""

import json
import math
import re
import unicodedata
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image

from experiments.data.inputs import images, strokes
from experiments.data.sources.rendering import Rendering
from experiments.editing import series
from experiments.errors import UserError
from experiments.files import strict_json
from experiments.inverse import build as inverse
from experiments.inverse import problems, results
from experiments.media import ImageMedium
from experiments.metrics import quality
from experiments.plotting import pictures, sheet
from tests.experiments.pictures_of_files import file_of, png, with_orientation

ROOT = Path(__file__).parents[3]
GREY, COLOUR = (8, 8, 1), (8, 8, 3)
RNG = np.random.default_rng(0)


def levels(x):
    """No change of scale."""
    return x


def refusal(reader, *arguments, **options):
    with pytest.raises(UserError) as caught:
        reader(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def half(tmp_path):
    """8 x 8 black pixels whose right half is transparent, and stored as white."""
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[:, :4, 3] = 255
    rgba[:, 4:, :3] = 255
    path = tmp_path / "half.png"
    path.write_bytes(file_of(Image.fromarray(rgba)))
    return str(path)


@pytest.mark.parametrize("background, level", [("white", 255), ("black", 0), ("#404040", 64)])
def test_pictures_of_tasks_are_over_the_background(half, background, level):
    rendering = Rendering(background)
    for measured in (False, True):
        read = images.read("--truth", half, COLOUR, levels, measured=measured, rendering=rendering).values[0]
        assert (read[:, :4] == 0).all() and (read[:, 4:] == level).all()
    kernel = images.read_grey("--kernel", half, rendering=rendering)
    assert (kernel[:, :4] == 0).all() and np.allclose(kernel[:, 4:], level / 255)


def test_masks_are_over_the_background(half):
    right = np.arange(8) >= 4
    np.testing.assert_array_equal(images.read_mask("--mask", half, GREY), np.tile(right, (8, 1)))
    np.testing.assert_array_equal(strokes.read_mask("--mask", half, GREY)[..., 0], np.tile(right, (8, 1)))
    assert not images.read_mask("--mask", half, GREY, Rendering("black")).any()
    of = inverse.problem("inpaint", GREY, problems.task("inpaint", {"mask": half}), inverse.noise(0.1))
    np.testing.assert_array_equal(of.measured[..., 0], np.tile(right, (8, 1)))
    black = refusal(
        inverse.problem,
        "inpaint",
        GREY,
        problems.task("inpaint", {"mask": half}),
        inverse.noise(0.1),
        Rendering("black"),
    )
    assert "half.png is all black, so that nothing is measured" in black


def test_strokes_keep_their_alpha_at_any_depth(tmp_path):
    rgba = np.zeros((8, 8, 4), np.uint16)
    rgba[2:4, 2:4] = 3000, 1000, 0, 40000
    (tmp_path / "s.png").write_bytes(png(rgba))
    painted, opacity = strokes.read_strokes("--strokes", str(tmp_path / "s.png"), COLOUR, Rendering(white=4000.0))
    np.testing.assert_allclose(opacity[..., 0], rgba[..., 3] / 65535, atol=1e-6)
    np.testing.assert_allclose(painted[2, 2], [191.25, 63.75, 0], atol=1e-3)
    with_orientation_ = with_orientation(np.zeros((8, 8, 3), np.uint8), 6, "PNG")
    (tmp_path / "opaque.png").write_bytes(with_orientation_)
    assert "has no transparency (mode RGB)" in refusal(
        strokes.read_strokes, "--strokes", str(tmp_path / "opaque.png"), COLOUR
    )


def test_strokes_are_turned_upright(tmp_path):
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[0, 7] = 255
    (tmp_path / "s.png").write_bytes(with_orientation(rgba, 6, "PNG"))
    _, opacity = strokes.read_strokes("--strokes", str(tmp_path / "s.png"), COLOUR)
    np.testing.assert_array_equal(opacity[..., 0] > 0.5, np.rot90(rgba[..., 3] > 0, -1))


def test_masks_and_measurements_are_turned_before_their_size_is_checked(tmp_path):
    pixels = RNG.integers(0, 256, (6, 8), dtype=np.uint8)
    for kind, ending in (("PNG", "png"), ("TIFF", "tif")):
        path = tmp_path / f"a.{ending}"
        path.write_bytes(with_orientation(pixels, 6, kind))
        upright = np.rot90(pixels, -1)
        read = images.read("--input", str(path), (8, 6, 1), levels, measured=True).values[0, ..., 0]
        np.testing.assert_array_equal(read, upright)
        np.testing.assert_array_equal(images.read_mask("--mask", str(path), (8, 6, 1)), upright > 127)
        assert "has 8x6 pixels, 6x8 are needed" in refusal(images.read_mask, "--mask", str(path), (6, 8, 1))


def test_deep_measurements_keep_their_depth(tmp_path):
    stored = RNG.integers(0, 4096, (8, 8, 3), dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(png(stored))
    np.savez(tmp_path / "a.npz", images=stored[None])
    for name in ("a.png", "a.npz"):
        read = images.read(
            "--input", str(tmp_path / name), COLOUR, levels, measured=True, rendering=Rendering(white=4095.0)
        ).values[0]
        np.testing.assert_allclose(read, stored / 4095 * 255, atol=1e-3)
        message = refusal(images.read, "--input", str(tmp_path / name), COLOUR, levels)
        assert message.startswith("--input: ") and "--config.data.white=4095" in message


def test_arrays_with_channels_first_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 3, 8, 8)), one=np.zeros((8, 8, 3)))
    for shape in (GREY, COLOUR):
        message = refusal(images.read, "--truth", f"{tmp_path}/a.npz:images", shape, levels)
        assert "'images' has the shape (2, 3, 8, 8), which looks channels-first: transpose to (N, H, W, C)" in message
    message = refusal(images.read, "--truth", f"{tmp_path}/a.npz:one", COLOUR, levels)
    assert "'one' has the shape (8, 8, 3), which looks like one image (H, W, C)" in message


MASK_READERS = {
    "restore": lambda path: inverse.problem(
        "inpaint", GREY, problems.task("inpaint", {"mask": path}), inverse.noise(0.1)
    ),
    "edit": lambda path: strokes.read_mask("--mask", path, GREY),
}


@pytest.mark.parametrize(
    "level, command, message",
    [
        (0, "restore", "m.png is all black, so that nothing is measured"),
        (
            1,
            "restore",
            "m.png is all black, so that nothing is measured (its lightest level is 1 of 255: a mask of 0 and 1",
        ),
        (255, "restore", "m.png is all white, so that nothing is missing: --task=denoise"),
        (0, "edit", "m.png is all black, so that nothing may change"),
        (1, "edit", "its lightest level is 1 of 255: a mask of 0 and 1 must be multiplied by 255"),
        (255, "edit", "m.png is all white, so that all may change: leave it out"),
    ],
)
def test_masks_that_make_no_sense_are_refused(tmp_path, level, command, message):
    pixels = np.full((8, 8), level, np.uint8)
    pixels[0, 0] = 0 if level == 1 else level
    Image.fromarray(pixels).save(tmp_path / "m.png")
    assert message in refusal(MASK_READERS[command], str(tmp_path / "m.png"))


@pytest.mark.parametrize("options", [{"mask": "box", "box": 8}, {"mask": "random", "share": 0.001}])
def test_named_masks_measure_something(options):
    assert "no pixel of the 8x8 ones is measured" in refusal(
        inverse.problem, "inpaint", GREY, problems.task("inpaint", options), inverse.noise(0.1)
    )


@pytest.mark.parametrize(
    "paths, names",
    [
        (["a/b.png", "a_b.png"], ["a_b_png", "a_b_png-2"]),
        (["a/b.png", "a_b.png", "a_b_png-2.png"], None),
        (["A.png", "a.png"], ["A_png", "a_png-2"]),
        (["a.png", "a.jpg", "b.png"], ["a_png", "a_jpg", "b_png"]),
        (["a/b.png", "a/c.png"], ["a_b", "a_c"]),
        (["\u00e9.png", "e\u0301.png", "E\u0301.png"], None),
        (["x" * 250 + ".png", "y" + "x" * 249 + ".png"], None),
        (["stra\u00dfe.png", "strasse.png"], None),
        (["a.b/c.png", "a/b/c.png", "a/b_c.png", "a_b_c.png", "a/b/c_png.png"], None),
    ],
)
def test_every_path_has_a_file_of_its_name_alone(paths, names):
    found = images.file_names([PurePosixPath(path) for path in paths])
    assert names is None or list(found) == names
    assert len({unicodedata.normalize("NFC", name).casefold() for name in found}) == len(paths)
    assert all(len(name.encode()) <= 210 and "/" not in name for name in found)


def test_names_are_unique_for_any_set_of_paths():
    parts = ["a", "b", "a_b", "A", "a-2", "b.c", "a_b_png-2"]
    for _ in range(200):
        chosen = {
            "/".join(RNG.choice(parts, RNG.integers(1, 4))) + str(RNG.choice([".png", ".jpg"])) for _ in range(30)
        }
        found = images.file_names([PurePosixPath(path) for path in sorted(chosen)])
        assert len({name.casefold() for name in found}) == len(chosen)


def test_colliding_pictures_are_both_written(tmp_path):
    for name, level in (("a/b.png", 10), ("a_b.png", 200)):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), level, np.uint8)).save(tmp_path / "in" / name)
    read = images.read("--input", str(tmp_path / "in"), GREY, ImageMedium((8, 8, 1)).forward)
    series.write(tmp_path / "out", read.names, {"input": read.values}, ImageMedium((8, 8, 1)), {})
    written = sorted(np.asarray(Image.open(path)).max() for path in (tmp_path / "out").glob("*_input.png"))
    assert written == [10, 200]


def strict(path):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_results_are_json_for_figures_that_are_not_finite(tmp_path, monkeypatch):
    """PSNR of the truth itself is infinite; a misfit may be NaN; a method may have an infinite setting."""
    monkeypatch.setattr(results, "METRICS", {"psnr": quality.psnr})  # the others compile
    truth = np.zeros((2, *GREY), np.float32)
    answers = np.stack([truth, truth], 1)
    misfit = np.array([[np.nan, 1.0], [2.0, 3.0]])
    found = results.Drawn(("a", "b"), answers, {}, truth, misfit=misfit)
    summary = results.write(
        tmp_path, found, ImageMedium((8, 8, 1)), {"settings": {"data_std": math.inf, "low": -math.inf}}
    )
    told = strict(tmp_path / "results.json")
    assert told["settings"] == {"data_std": "inf", "low": "-inf"} and told["inputs"][0]["misfit"] == [None, 1.0]
    assert told["figures"]["psnr"]["mean"] == "inf" and "misfit nan" in summary.summary
    again = strict_json.read(tmp_path / "results.json", strict_json.RESULTS)
    assert again["figures"]["psnr"]["mean"] == math.inf and math.isnan(again["inputs"][0]["misfit"][0])
    series.write(tmp_path / "s", ("a",), {"x": truth[:1]}, ImageMedium((8, 8, 1)), {"cycle": np.float32("nan")})
    assert strict(tmp_path / "s" / "results.json") == {"cycle": None}


def test_json_keeps_what_is_finite(tmp_path):
    value = {"a": [1, 2.5, None, True, "inf"], "b": {"c": np.float32(0.5), "d": np.arange(2)}}
    strict_json.write(tmp_path / "a.json", value)
    assert strict(tmp_path / "a.json") == {"a": [1, 2.5, None, True, "inf"], "b": {"c": 0.5, "d": [0, 1]}}


def test_nothing_that_is_measured_is_written_by_another_writer():
    """`json.dump` writes NaN unless it is forbidden; these files hold no measured numbers."""
    allowed = {
        "files/strict_json.py", "runs/lock.py", "runs/integrity.py", "devices/distributed.py", "config/files.py",
        "logs/writers/tracking.py", "data/prepare.py", "evaluation/evaluate.py", "evaluation/journal.py",
        "metrics/statistics.py",
    }  # fmt: skip  # configs, identities and hashes of them, messages between processes
    for path in (ROOT / "experiments").rglob("*.py"):
        name, text = path.relative_to(ROOT / "experiments").as_posix(), path.read_text()
        assert name in allowed or ("json.dump(" not in text and not re.search(r"(?<!strict_)json\.dumps\(", text)), name


def test_sheets_and_pictures_show_any_number_of_channels(tmp_path):
    bands = RNG.integers(0, 256, (1, 8, 8, 5), dtype=np.uint8)
    for channels, mode, size in ((1, "L", (8, 8)), (2, "L", (16, 8)), (4, "RGBA", (8, 8)), (5, "RGB", (8, 8))):
        sheet.save(tmp_path / "sheet.png", [sheet.Column("bands", bands[..., :channels])], ["a"])
        sheet.save_picture(tmp_path / "one.png", bands[0, ..., :channels])
        picture = Image.open(tmp_path / "one.png")
        assert (picture.mode, picture.size) == (mode, size)
        shown = np.asarray(picture).reshape(8, size[0], -1)
        expected = pictures.straight(bands[0, ..., :4]) if channels == 4 else bands[0]
        np.testing.assert_array_equal(shown[:, :8], expected[..., : shown.shape[2]])
