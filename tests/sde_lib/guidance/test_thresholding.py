"""Thresholds: quantiles of each sample."""

import jax.numpy as jnp
import numpy as np

from sde_lib import VPSDE, FunctionDenoiser, Thresholding


def constant(x0):
    return FunctionDenoiser(VPSDE(), lambda x, t: jnp.asarray(x0))


def test_thresholds_are_quantiles_of_each_sample():
    x0 = np.array([np.linspace(-3, 3, 601), np.linspace(-0.9, 0.9, 601), np.linspace(0, 12, 601)])
    x = np.zeros_like(x0)
    # Of |x0| uniform on [0, 3] 80 % lie below 2.4; within the range nothing moves; of [0, 12] it is 9.6.
    expected = [np.clip(x0[0], -2.4, 2.4) / 2.4, x0[1], np.clip(x0[2], 0, 9.6) / 9.6]
    np.testing.assert_allclose(Thresholding(constant(x0), 1.0, 0.8)(x, 0.5), expected, atol=1e-12)
    expected = [np.clip(x0[0], -2.4, 2.4) * 2 / 2.4, x0[1], np.clip(x0[2], 0, 9.6) * 2 / 9.6]
    np.testing.assert_allclose(Thresholding(constant(x0), 2.0, 0.8)(x, 0.5), expected, atol=1e-12)
    np.testing.assert_array_equal(Thresholding(constant(x0), 2.0, None)(x, 0.5), np.clip(x0, -2, 2))


def test_bounds_may_differ_from_image_to_image():
    """Of all values of an image, whatever its shape; the default quantile leaves 0.5 % of them beyond."""
    bounds, images = np.array([1.0, 2.0, 20.0]), np.linspace(-8, 10, 3 * 401).reshape(401, 3).T.reshape(3, 401, 1, 1)
    x = np.zeros_like(images)
    plain = Thresholding(constant(images), bounds, None)(x, 0.5)
    dynamic = Thresholding(constant(images), bounds)(x, 0.5)
    for i, bound in enumerate(bounds):
        size = max(np.quantile(np.abs(images[i]), 0.995), bound)
        np.testing.assert_array_equal(plain[i], np.clip(images[i], -bound, bound))
        np.testing.assert_allclose(dynamic[i], np.clip(images[i], -size, size) * bound / size, rtol=1e-12)


def test_thresholding_is_that_of_the_guided_data():
    """The noise is what x holds beside the thresholded data, of both kinds of threshold."""
    x0, x = np.array([[3.0, -0.5, 0.2]]), np.array([[1.0, 0.3, -2.0]])
    for quantile, expected in (
        (None, [[1.0, -0.5, 0.2]]),
        (0.5, [[1.0, -0.5, 0.2]]),
        (1.0, [[1.0, -0.5 / 3, 0.2 / 3]]),
    ):
        denoiser = Thresholding(constant(x0), 1.0, quantile)
        found, noise = denoiser.x0_and_noise(x, 0.5)
        alpha, sigma = denoiser.sde.alpha(0.5), denoiser.sde.sigma(0.5)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        np.testing.assert_allclose(noise, (x - alpha * np.array(expected)) / sigma, rtol=1e-9)
