"""The perceptual style of `edit`: statistics and gradient against Pillow's resizing and the network's own maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from experiments.editing import build as editing
from experiments.editing.styles import perceptual
from experiments.metrics import feature_networks
from models.efficientnet import EfficientNetLite0

SIZE = 12


def enlarging():
    """Pillow's bicubic filter from SIZE to 224 pixels as a matrix: what it makes of each pixel."""
    columns = [Image.fromarray(np.float32(row)[None]) for row in np.eye(SIZE)]
    return np.stack([np.asarray(column.resize((224, 1), Image.Resampling.BICUBIC))[0] for column in columns], 1)


def statistics(variables, image):
    """Mean and covariance of the last map of each size, of one image (H, W, 1 or 3)."""
    resize = enlarging()
    pixels = jnp.einsum("ih,jw,hwc->ijc", resize, resize, 127.5 * (image + 1), precision="highest")
    pixels = jnp.broadcast_to(pixels, (224, 224, 3))
    _, kept = EfficientNetLite0().apply(variables, (pixels[None] - 127) / 128, capture_intermediates=True)
    maps = {}
    for number in range(16):
        found = kept["intermediates"][f"block_{number}"]["__call__"][0][0]
        maps[len(found)] = found.reshape(-1, found.shape[-1])
    assert sorted(maps) == [7, 14, 28, 56, 112]
    return [(x.mean(0), jnp.cov(x.T, bias=True)) for x in maps.values()]


@pytest.mark.thorough
def test_the_perceptual_style_has_the_statistics_and_the_gradient_of_each_map(monkeypatch):
    """In units of the style's variance; beyond black and white too, and whatever other images are with it."""
    monkeypatch.setattr(perceptual, "AT_ONCE", 2)
    china = load_sample_image("china.jpg") / np.float32(127.5) - 1
    style, *images = (china[200:][:SIZE, 50 * i :][:, :SIZE, :1] for i in range(4))
    images = np.stack([images[0], style, 1.3 * images[2]])
    variables = feature_networks.load().variables

    def square_distance(variables, image):
        squares = []
        for (mean, covariance), (wanted, wanted_covariance) in zip(
            statistics(variables, image), statistics(variables, style), strict=True
        ):
            unit = jnp.trace(wanted_covariance)
            squares.append(jnp.square(mean - wanted).sum() / unit)
            squares.append(jnp.square(covariance - wanted_covariance).sum() / unit**2)
        return sum(squares) / 5

    expected, gradient = jax.jit(jax.value_and_grad(square_distance, 1))(variables, images[2])
    found = editing.style("perceptual", style, 0.3)
    pull = jax.jit(jax.grad(lambda x, style: (style(x)[2], style(x)), has_aux=True))
    pulled, log_p = pull(images, found)
    np.testing.assert_allclose(log_p[2], -0.5 * expected / 0.3**2, rtol=1e-3)
    np.testing.assert_allclose(log_p[1], 0, atol=1e-6)
    assert not np.abs(pulled[:2]).any()
    error = np.abs(pulled[2] + 0.5 * gradient / 0.3**2).max()
    assert error < 5e-3 * np.abs(gradient).max() / 0.3**2
