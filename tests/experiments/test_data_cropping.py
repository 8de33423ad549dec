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
        found, expected = center_crop(image, size), uncropped(image, size)
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 if mode == "F" else 0)
    assert first > 50


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
