"""PSNR, SSIM and the perceptual distance against their definitions, written out."""

import itertools

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from experiments.metrics import feature_networks, quality
from models.efficientnet import EfficientNetLite0


def pairs(height, width, channels=3, n=2):
    """Crops of a photograph in [-1, 1], and the same with noise."""
    photograph = load_sample_image("china.jpg")[200:, 100:, :channels] / 127.5 - 1
    truth = np.stack([photograph[i * height : (i + 1) * height, :width] for i in range(n)])
    return truth + 0.2 * np.random.default_rng(0).normal(size=truth.shape), truth


def test_psnr_of_known_errors():
    truth = np.zeros((3, 2, 2, 1))
    images = truth.copy()
    images[1] += 0.2
    images[2, 0, 0] = -0.4
    np.testing.assert_allclose(quality.psnr(images, truth), [np.inf, 20, 20])


def ssim_by_definition(a, b, side, std):
    """Of one channel (H, W): equation 13 of Wang et al. in every window within the image."""
    offsets = np.arange(side) - side // 2
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * std**2))
    window /= window.sum()
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    values = []
    for row, column in itertools.product(range(a.shape[0] - side + 1), range(a.shape[1] - side + 1)):
        x, y = (image[row : row + side, column : column + side] for image in (a, b))
        mx, my = (window * x).sum(), (window * y).sum()
        vx, vy, vxy = (
            (window * (x - mx) ** 2).sum(),
            (window * (y - my) ** 2).sum(),
            (window * (x - mx) * (y - my)).sum(),
        )
        values.append((2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return np.mean(values)


@pytest.mark.parametrize("size, side", [((13, 16), 11), ((8, 8), 7), ((12, 10), 9)])
def test_ssim_is_its_definition_in_the_window_that_fits(size, side):
    images, truth = pairs(*size)
    expected = [
        np.mean([ssim_by_definition(a[..., c], b[..., c], side, 1.5 * side / 11) for c in range(3)])
        for a, b in zip(images, truth, strict=True)
    ]
    assert quality.ssim_window(*size) == side
    np.testing.assert_allclose(quality.ssim(images, truth), expected, rtol=1e-6)


def last_map_of_each_size(image):
    """By Pillow and the network, all of whose maps are looked at."""
    channels = [Image.fromarray(c).resize((224, 224), Image.Resampling.BICUBIC) for c in image.transpose(2, 0, 1)]
    pixels = np.clip(np.stack([np.asarray(c) for c in channels], -1), 0, 255)
    _, kept = jax.jit(lambda v, x: EfficientNetLite0().apply(v, x, capture_intermediates=True))(
        feature_networks.load().variables, (pixels[None] - 127) / 128
    )
    maps = {}
    for number in range(16):
        found = kept["intermediates"][f"block_{number}"]["__call__"][0]
        maps[found.shape[1]] = np.asarray(found[0], np.float64)
    return maps


@pytest.mark.thorough
def test_perceptual_distance_is_that_of_unit_vectors_of_the_last_map_of_each_size():
    images, truth = (x.astype(np.float32) for x in pairs(24, 24))
    a, b = (last_map_of_each_size((x[1] + 1) * np.float32(127.5)) for x in (images, truth))
    assert sorted(a) == [7, 14, 28, 56, 112]
    unit = [[m[size] / np.linalg.norm(m[size], axis=-1, keepdims=True) for m in (a, b)] for size in a]
    expected = np.mean([np.square(x - y).sum(-1).mean() for x, y in unit])
    found = quality.perceptual(images, truth)
    np.testing.assert_allclose(found[1], expected, rtol=1e-3)
    np.testing.assert_allclose(quality.perceptual(truth, truth), 0, atol=1e-6)


def test_perceptual_distance_counts_each_image_of_any_number_once(monkeypatch):
    monkeypatch.setattr(quality, "BATCH_SIZE", 2)
    images, truth = pairs(16, 16, channels=1, n=3)
    alone = quality.perceptual(images[2:], truth[2:])
    np.testing.assert_allclose(quality.perceptual(images, truth)[2:], alone, rtol=1e-4)
    gray = [np.concatenate([x[2:]] * 3, -1) for x in (images, truth)]
    np.testing.assert_allclose(quality.perceptual(*gray), alone, rtol=1e-4)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match=r"images \(2, 4, 4, 1\) and truth \(1, 4, 4, 1\) must both be"):
        quality.psnr(np.zeros((2, 4, 4, 1)), np.zeros((1, 4, 4, 1)))
    with pytest.raises(ValueError, match="1 or 3 channels, not 2"):
        quality.perceptual(np.zeros((1, 4, 4, 2)), np.zeros((1, 4, 4, 2)))
