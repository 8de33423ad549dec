"""Resizing for feature networks: Pillow's own bytes, PyTorch's own numbers, and the positions that each rule samples."""

import jax
import numpy as np
import pytest
from PIL import Image

from experiments.metrics import resizing

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def images(height, width, channels=3):
    """Noise, and black against white, where a cubic overshoots the range of bytes."""
    rng = np.random.default_rng(height * width)
    noise = rng.integers(0, 256, (height, width, channels))
    edges = 255 * rng.integers(0, 2, (height, width, channels))
    return np.stack([noise, edges]).astype(np.uint8)


def pillow(image, *sizes, resample):
    image = Image.fromarray(image)
    for size in sizes:
        image = image.resize(size, resample)
    return np.asarray(image)


@pytest.mark.parametrize("size", [8, 32, 56, 113, 256])
@pytest.mark.parametrize("filter_name", FILTERS)
def test_bytes_are_pillows(size, filter_name):
    """Up, down, by whole factors and others."""
    given = images(size, size)
    expected = [pillow(image, (56, 56), resample=FILTERS[filter_name]) for image in given]
    np.testing.assert_array_equal(resizing.pil(given, 56, filter_name), expected)


@pytest.mark.parametrize("shape", [(225, 60), (60, 225), (300, 601), (56, 1)], ids=str)
def test_columns_are_rounded_before_rows(shape):
    """Pillow in two calls, since from version 13 on one call may begin with the rows."""
    given = images(*shape)
    expected = [pillow(image, (56, shape[0]), (56, 56), resample=FILTERS["bicubic"]) for image in given]
    np.testing.assert_array_equal(resizing.pil(given, 56, "bicubic"), expected)


@pytest.mark.parametrize("shape", [(32, 32), (300, 97)], ids=str)
@pytest.mark.parametrize("filter_name", FILTERS)
def test_floats_are_pillows_clipped(shape, filter_name):
    given = images(*shape, channels=1)
    floats = [Image.fromarray(image[..., 0].astype(np.float32), mode="F") for image in given]
    expected = np.stack([np.asarray(image.resize((75, 75), FILTERS[filter_name])) for image in floats])
    assert filter_name == "bilinear" or (expected.min() < 0 and expected.max() > 255)
    resized = resizing.pil_float(given, 75, filter_name)[..., 0]
    np.testing.assert_allclose(resized, np.clip(expected, 0, 255), atol=2e-4)


@pytest.mark.parametrize("shape", [(8, 32), (299, 400), (16, 1)], ids=str)
@pytest.mark.parametrize("half_pixel", [True, False])
def test_bilinear_samples_where_its_rule_says(shape, half_pixel):
    """PyTorch looks at (i + 1/2) n_in / n_out - 1/2, TensorFlow 1 at i n_in / n_out; numpy interpolates there."""
    given, size = images(*shape), 299
    resize = resizing.bilinear if half_pixel else resizing.bilinear_tf1
    expected = given.astype(float)
    for axis in (1, 2):
        pixels = expected.shape[axis]
        places = np.arange(size) * pixels / size
        if half_pixel:
            places = (np.arange(size) + 0.5) * pixels / size - 0.5

        def sampled(line, places=places, pixels=pixels):
            return np.interp(places, np.arange(pixels), line)

        expected = np.apply_along_axis(sampled, axis, expected)
    np.testing.assert_allclose(resize(given, size), expected, atol=2e-2)  # float32 places of up to 400


def test_bilinear_is_pytorchs():
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install -e '.[interop]'")
    for shape in ((32, 32), (64, 300), (300, 299)):
        given = images(*shape)
        theirs = torch.nn.functional.interpolate(
            torch.tensor(given.transpose(0, 3, 1, 2)).float() / 255,
            size=(299, 299),
            mode="bilinear",
            align_corners=False,
        )
        ours = resizing.bilinear(given / np.float32(255), 299)
        np.testing.assert_allclose(ours, theirs.numpy().transpose(0, 2, 3, 1), atol=3e-6)


def test_resizing_compiles_and_sees_each_image_alone():
    given = images(20, 30)
    resize = jax.jit(resizing.pil, static_argnums=(1, 2))
    np.testing.assert_array_equal(resize(given, 25, "bicubic"), resizing.pil(given, 25, "bicubic"))
    np.testing.assert_array_equal(resize(given[1:], 25, "bicubic")[0], resizing.pil(given, 25, "bicubic")[1])
