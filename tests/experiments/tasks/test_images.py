"""The user's images: what is read is what lies there, and what does not fit is named."""

import numpy as np
import pytest
from PIL import Image

from experiments.data.inputs import images
from experiments.errors import UserError
from experiments.media import ImageMedium

GREY, COLOUR = (8, 8, 1), (8, 8, 3)


def levels(x):
    """No change of scale."""
    return x


def pattern(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def picture(path, pixels):
    Image.fromarray(pixels).save(path)
    return str(path)


def refusal(*arguments, reader=images.read, **options):
    with pytest.raises(UserError) as caught:
        reader("--input", *map(str, arguments), **options)
    return str(caught.value)


def test_a_file_and_its_array_are_the_same_images_in_the_models_range(tmp_path):
    pixels = pattern(8, 8, 3)
    file = picture(tmp_path / "photo.png", pixels)
    np.savez(tmp_path / "a.npz", images=pixels[None], floats=pixels[None] / 255)
    forward = ImageMedium((8, 8, 1)).forward
    one = images.read("--input", file, COLOUR, forward)
    assert one.names == ("photo",) and one.values.dtype == np.float32
    np.testing.assert_allclose(one.values, pixels[None] / 127.5 - 1, atol=1e-6)
    for text in ("a.npz", "a.npz:images", "a.npz:floats"):
        read = images.read("--input", str(tmp_path / text), COLOUR, forward)
        np.testing.assert_allclose(read.values, one.values, atol=1e-6)
        assert read.names == ("0000",)


def test_a_folder_is_read_in_order_with_its_sub_folders_up_to_the_limit(tmp_path):
    (tmp_path / "b").mkdir()
    for number, name in enumerate(["c.png", "b/a.png", "a.png", "a.bmp"]):
        picture(tmp_path / name, np.full((8, 8), number, np.uint8))
    read = images.read("--input", str(tmp_path), GREY, levels)
    assert read.values[:, 0, 0, 0].tolist() == [3, 2, 1, 0]
    assert read.names == ("a_bmp", "a_png", "b_a_png", "c_png")
    few = images.read("--input", str(tmp_path), GREY, levels, limit=1)
    assert few.values[:, 0, 0, 0].tolist() == [3] and few.names == ("a",)


@pytest.mark.parametrize("kind", ["png", "uint8", "float"])
def test_a_larger_image_is_averaged_and_its_middle_cut_out(tmp_path, kind):
    """16 x 24 pixels in blocks of 2 x 2: the middle 8 x 8 blocks, each its mean (box averages come first)."""
    blocks = pattern(8, 12, 3).astype(int)
    spread = np.array([[-1, 1], [1, -1]])[None, :, None, :, None]
    pixels = np.clip(blocks, 1, 254)[:, None, :, None] + spread
    pixels = pixels.reshape(16, 24, 3).astype(np.uint8)
    picture(tmp_path / "png.png", pixels)
    np.savez(tmp_path / "uint8.npz", images=pixels[None])
    np.savez(tmp_path / "float.npz", images=pixels[None] / 255)
    text = str(tmp_path / f"{kind}.{'png' if kind == 'png' else 'npz'}")
    read = images.read("--truth", text, COLOUR, levels).values[0]
    np.testing.assert_allclose(read, np.clip(blocks, 1, 254)[:, 2:10], atol=1e-3)


def test_a_photograph_is_turned_as_its_camera_was(tmp_path):
    pixels = pattern(8, 8)
    exif = Image.Exif()
    exif[0x0112] = 6  # the top is at the left: viewers turn it clockwise
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    read = images.read("--input", str(tmp_path / "a.png"), GREY, levels).values[0, ..., 0]
    np.testing.assert_array_equal(read, np.rot90(pixels, -1))


@pytest.mark.parametrize("kind", ["png", "npz"])
def test_grey_becomes_colour_and_colour_grey(tmp_path, kind):
    grey, colour = pattern(8, 8), pattern(8, 8, 3)
    for name, pixels in (("grey", grey), ("colour", colour)):
        picture(tmp_path / f"{name}.png", pixels)
        np.savez(tmp_path / f"{name}.npz", images=pixels.reshape(1, 8, 8, -1) / 255)
    as_colour = images.read("--input", str(tmp_path / f"grey.{kind}"), COLOUR, levels).values[0]
    np.testing.assert_allclose(as_colour, np.stack([grey] * 3, -1), atol=1e-3)
    as_grey = images.read("--input", str(tmp_path / f"colour.{kind}"), GREY, levels).values[0, ..., 0]
    np.testing.assert_allclose(as_grey, colour @ [0.299, 0.587, 0.114], atol=0.51)


def test_a_mask_is_white_where_it_measures(tmp_path):
    pixels = np.zeros((8, 8), np.uint8)
    pixels[2, 5:] = 200
    mask = images.read_mask("--mask", picture(tmp_path / "mask.png", pixels), COLOUR)
    np.testing.assert_array_equal(mask, pixels > 0)
    wrong = picture(tmp_path / "wrong.png", pattern(4, 6))
    message = refusal(wrong, reader=lambda _, text: images.read_mask("--mask", text, COLOUR))
    assert message == f"--mask: {wrong} has 4x6 pixels, 8x8 are needed: a mask must fit the model's images"


def test_a_measurement_must_have_the_measured_size(tmp_path):
    file = picture(tmp_path / "a.png", pattern(16, 16))
    np.savez(tmp_path / "a.npz", y=np.zeros((2, 16, 16)))
    for path, text in ((file, file), (tmp_path / "a.npz", tmp_path / "a.npz:y")):
        message = refusal(text, shape=GREY, forward=levels, measured=True)
        assert message.startswith(f"--input: {path} has 16x16 pixels, 8x8 are needed: a measurement must have exactly")


def test_the_noise_of_a_measurement_may_leave_the_range(tmp_path):
    np.savez(tmp_path / "a.npz", y=np.full((1, 8, 8), 1.25))
    read = images.read("--input", str(tmp_path / "a.npz:y"), GREY, ImageMedium((8, 8, 1)).forward, measured=True)
    np.testing.assert_allclose(read.values, 1.5, atol=1e-6)


def test_numbers_that_are_no_images_are_read_as_they_are(tmp_path):
    values = np.random.default_rng(0).normal(size=(3, 5)) * 100
    np.savez(tmp_path / "a.npz", y=values)
    read = images.read_values("--input", str(tmp_path / "a.npz:y"), (5,), limit=2)
    np.testing.assert_allclose(read.values, values[:2], rtol=1e-6)
    assert "'y' is float64(3, 5); floats (N, *(4,)) are needed" in refusal(
        tmp_path / "a.npz:y", reader=lambda flag, text: images.read_values(flag, text, (4,))
    )


def write_bad_files(folder):
    (folder / "empty").mkdir()
    (folder / "a.txt").write_text("no image")
    (folder / "broken.png").write_bytes(b"no image")
    picture(folder / "deep.png", pattern(8, 8).astype(np.uint16) * 256)
    np.savez(
        folder / "a.npz",
        truths=np.zeros((2, 8, 8)), other=np.zeros((2, 8, 8)), levels=np.full((1, 8, 8), 255.0),
        negative=np.full((1, 8, 8), -0.5), hole=np.full((1, 8, 8), np.nan), flat=np.zeros(8),
        objects=np.array([{}], object), whole=np.zeros((1, 8, 8), int), two=np.zeros((1, 8, 8, 2)), none=np.zeros((0, 8, 8)),
    )  # fmt: skip


@pytest.mark.parametrize(
    "text, message",
    [
        ("b.npz", "b.npz does not exist; did you mean 'a.npz'?"),
        ("a.txt", "a.txt: unknown file type .txt: choose from .bmp .gif .jfif .jpeg .jpg .pbm .pgm .png .ppm .tif"),
        ("empty", "empty holds no image files (.bmp"),
        ("broken.png", "broken.png cannot be read as an image (not of a known format)"),
        ("deep.png", "deep.png has more than 8 bits per channel"),
        ("a.npz", "a.npz has the arrays truths, other, levels"),
        ("a.npz:truth", "a.npz has no array 'truth': choose from truths, other,"),
        ("a.npz:truth", "did you mean 'truths'?"),
        ("a.npz:levels", "'levels' has values from 255 to 255: floats must be in [0, 1] (x / 255"),
        ("a.npz:negative", "'negative' has values from -0.5 to -0.5: floats must be in [0, 1]"),
        ("a.npz:hole", "64 of the 64 values of 'hole' are not finite"),
        ("a.npz:flat", "'flat' is float64(8,); uint8, or floats in [0, 1], of (N, H, W) or"),
        ("a.npz:objects", "'objects' is not a plain array of numbers or texts; store it as one"),
        ("a.npz:whole", "'whole' is int64(1, 8, 8); uint8, or floats"),
        ("a.npz:two", "'two' has the wrong number of channels: 1 are needed"),
        ("a.npz:none", "a.npz holds no images"),
    ],
)
def test_bad_images_are_named_in_one_line(tmp_path, text, message):
    write_bad_files(tmp_path)
    told = refusal(tmp_path / text, shape=GREY, forward=levels)
    assert message in told and told.startswith("--input: ") and "\n" not in told


def test_images_in_pairs_must_be_as_many():
    one, two = (images.Images(tuple("ab"[:n]), np.zeros((n, 8, 8, 1))) for n in (1, 2))
    images.require_same_number(("--input", two), ("--truth", two))
    with pytest.raises(UserError, match="--input has 1 images and --truth 2: they are paired in their order"):
        images.require_same_number(("--input", one), ("--truth", two))


def test_a_folder_is_no_array_and_measured_numbers_are_finite_floats(tmp_path):
    (tmp_path / "folder.npz").mkdir()
    for reader, options in ((images.read, {"shape": GREY, "forward": levels}), (images.read_values, {"shape": (3,)})):
        told = refusal(tmp_path / "folder.npz", reader=reader, **options)
        assert told == f"--input: {tmp_path}/folder.npz is a folder, not an .npz file"
    np.savez(
        tmp_path / "A.NPZ.npz", y=np.array([[1.0, np.inf, np.nan]]), whole=np.ones((2, 3), int), none=np.zeros((0, 3))
    )
    (tmp_path / "A.NPZ.npz").rename(tmp_path / "A.NPZ")
    for name, message in (
        ("y", "2 of the 3 values of 'y' are not finite"), ("whole", "'whole' is int64(2, 3); floats (N, *(3,)) are needed"),
        ("none", "A.NPZ holds no images"),
    ):  # fmt: skip
        assert message in refusal(f"{tmp_path}/A.NPZ:{name}", reader=images.read_values, shape=(3,))
    (tmp_path / "a.png").touch()
    told = refusal(tmp_path / "a.png", reader=images.read_values, shape=(3,))
    assert told.endswith("a.png: what is measured here is no image: give numbers (3,) as FILE.npz:ARRAY")
