"""Crops of thin pictures and of arrays of any number of channels: the pixels of the plain way, without its memory."""

import time

import numpy as np
import pytest
from PIL import Image

from experiments.data import load
from experiments.data.prepare import prepare
from experiments.data.sources import Wanted, cropping
from experiments.data.sources.cropping import center_crop
from experiments.errors import UserError
from experiments.plotting import pictures
from tests.experiments.pictures_of_files import file_of


def uncropped(image, size):
    """`center_crop_arr` of guided-diffusion: the whole picture is resized, then the middle is cut out."""
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image)[top : top + size, left : left + size]


def sampled(image, size):
    """The largest centred region of an image (h, w), resampled to `size` as the filters' definitions say, in float64.

    While both sides are at least twice those wanted, rows and columns are averaged by Pillow's box filter: those whose
    centres lie within the new one (halves of odd sides are odd here, so that none lies on an edge). Then each pixel is the
    average of the source around its centre by Keys's cubic kernel (a = -0.5), as wide as the wanted pixels where these are
    larger.
    """
    (rows, columns), x = size, np.asarray(image, np.float64)
    while x.shape[0] >= 2 * rows and x.shape[1] >= 2 * columns:
        for axis in (0, 1):
            length = x.shape[axis]
            half = length // 2
            t = (np.arange(length) + 0.5) * (half / length) - (np.arange(half) + 0.5)[:, None]
            within = ((t > -0.5) & (t <= 0.5)).astype(np.float64)
            x = np.moveaxis(np.tensordot(within / within.sum(1, keepdims=True), x, (1, axis)), 0, axis)
    scale = max(rows / x.shape[0], columns / x.shape[1])
    for axis, wanted in ((0, rows), (1, columns)):
        length = x.shape[axis]
        full = round(length * scale)
        unit = length / full  # of a wanted pixel, in those of the source
        centres = ((full - wanted) // 2 + np.arange(wanted) + 0.5)[:, None] * unit
        t = np.abs(np.arange(length) + 0.5 - centres) / max(unit, 1)
        kernel = np.where(t < 1, 1.5 * t**3 - 2.5 * t**2 + 1, np.where(t < 2, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2, 0))
        x = np.moveaxis(np.tensordot(kernel / kernel.sum(1, keepdims=True), x, (1, axis)), 0, axis)
    return x


@pytest.mark.parametrize(
    "sides, size",
    [((48, 64), (48, 64)), ((48, 64), (24, 32)), ((50, 70), (24, 32)), ((63, 47), (7, 9)), ((9, 40), (16, 8)),
     ((40, 9), (8, 16)), ((5, 6), (30, 11)), ((100, 31), (10, 30)), ((16, 16), (3, 15)), ((1, 9), (2, 3))],
)  # fmt: skip
def test_a_rectangle_is_the_largest_centred_region_of_its_aspect_ratio(sides, size):
    image = np.random.default_rng(0).random(sides, np.float32) * 255
    found = center_crop(Image.fromarray(image), size)
    assert found.shape == size
    np.testing.assert_allclose(found, sampled(image, size), rtol=0, atol=2e-3)


def test_a_rectangle_keeps_what_lies_in_the_middle_of_a_picture():
    """Rows of 100 x 30 pixels are cut and columns all stay, and the other way round."""
    rows, columns = np.mgrid[:100, :30].astype(np.float32)
    np.testing.assert_allclose(center_crop(Image.fromarray(rows), (20, 30)), rows[40:60], atol=1e-4)
    np.testing.assert_allclose(center_crop(Image.fromarray(columns.T.copy()), (30, 20)), columns.T[:, 40:60], atol=1e-4)


def picture(rng, width, height, mode):
    if mode == "F":
        return Image.fromarray(rng.random((height, width), np.float32) * 255)
    shape = (height, width) if mode == "L" else (height, width, 3)
    return Image.fromarray(rng.integers(0, 2, shape, dtype=np.uint8) * 255)  # edges everywhere


@pytest.mark.parametrize("mode", ["L", "RGB", "F"])
@pytest.mark.parametrize("always", [False, True])
def test_cropping_first_changes_no_pixel(mode, always, monkeypatch):
    """Of ordinary and of thin pictures, enlarged and shrunk; with `always`, of all that are enlarged."""
    if always:
        monkeypatch.setattr(cropping, "LONG", 0)
    rng, first = np.random.default_rng(0), 0
    for _ in range(300):
        size, sides = int(rng.integers(1, 40)), rng.integers(1, (50, 300))
        image = picture(rng, *(map(int, rng.permutation(sides))), mode)
        long = max(image.size) * size / min(image.size)
        first += size > min(image.size) and long > cropping.LONG * size
        found, expected = center_crop(image, (size, size)), uncropped(image, size)
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 if mode == "F" else 0)
    assert first > 50


@pytest.mark.parametrize("mode", ["L", "RGB", "F"])
def test_cropping_rectangles_first_changes_no_pixel(mode, monkeypatch):
    """Thin pictures against the same with the whole picture resized."""
    rng, first, enlarged = np.random.default_rng(0), [0], cropping._enlarged_middle

    def counted(*arguments):
        first[0] += 1
        return enlarged(*arguments)

    monkeypatch.setattr(cropping, "_enlarged_middle", counted)
    for _ in range(100):
        size, sides = tuple(map(int, rng.integers(1, 40, 2))), rng.integers(1, (20, 200))
        image = picture(rng, *(map(int, rng.permutation(sides))), mode)
        monkeypatch.setattr(cropping, "LONG", 0)
        found = center_crop(image, size)
        monkeypatch.setattr(cropping, "LONG", np.inf)
        np.testing.assert_allclose(found, center_crop(image, size), rtol=0, atol=1e-4 if mode == "F" else 0)
    assert first[0] > 30


@pytest.mark.parametrize("size", [(8000, 2), (2, 8000), (20000, 1), (1, 65000), (400000, 1)])
def test_thin_pictures_take_memory_and_time_of_their_result(size, monkeypatch):
    """No image of more pixels than the file's or four results is made on the way."""
    largest = [0]
    resize = Image.Image.resize

    def watched(image, new, *args, **kwargs):
        largest.append(new[0] * new[1])
        return resize(image, new, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", watched)
    content = file_of(Image.new("RGB", size, "red"))
    started = time.process_time()
    assert (Wanted(256, 3, "center_crop").decode(content, "a.png") == (255, 0, 0)).all()
    assert max(largest) <= 4 * 256**2 and time.process_time() - started < 5


@pytest.mark.parametrize("channels", [2, 4, 5, 13])
def test_arrays_are_resized_band_by_band(tmp_path, channels):
    """Pillow takes the fourth of four for alpha, and does not know five."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 9, 12, channels), dtype=np.uint8)
    images[..., -1] = 0  # transparent, if it were alpha
    np.savez(tmp_path / "a.npz", x_train=images[:5], x_test=images[5:])
    options = {"image_size": 4, "num_channels": channels, "test_fraction": 0.5, "resize": "center_crop"}
    found = load(f"npz:{tmp_path}/a.npz", **options).train.images
    for image, crop in zip(images, found, strict=False):
        for band in range(channels):
            np.testing.assert_array_equal(crop[..., band], uncropped(Image.fromarray(image[..., band].copy()), 4))
    prepare(f"npz:{tmp_path}/a.npz", tmp_path / "out", image_size=4, resize="center_crop")
    again = load(f"arrayrecord:{tmp_path}/out", **options).train
    np.testing.assert_array_equal(again.gather(np.arange(5))["image"], found)


@pytest.mark.parametrize("shape", [(9, 3, 32, 32), (9, 1, 28, 28), (9, 4, 16, 16), (9, 13, 32, 32), (9, 3, 40, 60)])
@pytest.mark.parametrize("resize", ["none", "center_crop"])
@pytest.mark.parametrize("num_channels", [1, 3, 32])
def test_channels_that_come_first_are_named(tmp_path, shape, resize, num_channels):
    np.savez(tmp_path / "a.npz", images=np.zeros(shape, np.uint8))
    with pytest.raises(UserError) as error:
        load(f"npz:{tmp_path}/a.npz", image_size=32, num_channels=num_channels, test_fraction=0.5, resize=resize)
    assert f"shape {shape}, which looks channels-first: transpose to (N, H, W, C)" in str(error.value)
    assert "config.data" not in str(error.value)


@pytest.mark.parametrize(
    "shape", [(9, 4, 4, 3), (9, 4, 4, 5), (9, 2, 50, 3), (9, 8, 8, 32), (9, 3, 3, 3), (9, 7, 5, 7)]
)
def test_images_with_channels_last_are_not_taken_for_others(tmp_path, shape):
    np.savez(tmp_path / "a.npz", x_train=np.zeros(shape, np.uint8), x_test=np.zeros(shape, np.uint8))
    options = {"image_size": 2, "num_channels": shape[3], "test_fraction": 0.5, "resize": "center_crop"}
    assert load(f"npz:{tmp_path}/a.npz", **options).train.images.shape == (9, 2, 2, shape[3])


def test_one_image_is_not_taken_for_several(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(UserError, match=r"looks like one image \(H, W, C\): reshape to \(1, H, W, C\)"):
        load(f"npz:{tmp_path}/a.npz", image_size=32, num_channels=1, test_fraction=0.5)


def test_records_hold_at_most_255_channels(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((9, 2, 2, 300), np.uint8))
    with pytest.raises(UserError, match="has 300 channels; records hold at most 255"):
        prepare(f"npz:{tmp_path}/a.npz", tmp_path / "out")


def test_grids_show_any_number_of_channels(tmp_path):
    """The first three as colours; two as grey pictures side by side."""
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 7), dtype=np.uint8)
    for channels in (3, 4, 7):
        grid = pictures.grid(images[..., :channels])
        np.testing.assert_array_equal(grid, pictures.grid(images[..., :3]))
        np.testing.assert_array_equal(grid[6:, :5], images[2, ..., :3])
    two = pictures.grid(images[..., :2])
    assert two.shape == (11, 21, 1)
    np.testing.assert_array_equal(two[:5, 11:16, 0], images[1, ..., 0])
    np.testing.assert_array_equal(two[:5, 16:, 0], images[1, ..., 1])
    for channels in (1, 2, 4, 7):
        pictures.save(tmp_path / "grid.png", pictures.grid(images[..., :channels]), 5)
        assert Image.open(tmp_path / "grid.png").mode == ("RGB" if channels > 2 else "L")
