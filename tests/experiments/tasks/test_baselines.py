"""Classical reconstructions against scikit-image, Pillow and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from skimage.restoration import denoise_tv_chambolle
from sklearn.datasets import load_sample_image

from experiments.inverse import baselines
from sde_lib import inverse

PHOTOGRAPH = load_sample_image("flower.jpg")[200:216, 300:314].astype(np.float32) / 127.5 - 1  # (16, 14, 3)
GRAY = PHOTOGRAPH[None, ..., :1]
NOISY = (PHOTOGRAPH + 0.1 * np.random.default_rng(0).normal(size=PHOTOGRAPH.shape)).astype(np.float32)[None]


def denoised(weight, images=NOISY):
    return np.stack([denoise_tv_chambolle(x, weight, eps=1e-12, max_num_iter=5000, channel_axis=-1) for x in images])


def test_total_variation_denoises_as_scikit_image_does():
    measurement = inverse.Denoising(event_shape=PHOTOGRAPH.shape)
    found = baselines.total_variation(measurement, NOISY, 0.1, weight=0.15, steps=2000)
    np.testing.assert_allclose(found, denoised(0.15), atol=5e-3)
    by_rule = baselines.total_variation(measurement, NOISY, 0.1, steps=2000)
    np.testing.assert_allclose(by_rule, denoised(0.1), atol=5e-3)


def test_total_variation_of_a_transform_is_that_of_the_image_behind_it():
    """y = 2 F x: of |2 F x - y|^2 / 2 + w TV, as of |x - x'|^2 / 2 + w / 4 TV; the rule's w is 2 times the noise."""
    measurement = inverse.FourierSampling(event_shape=GRAY.shape[1:], mask=2 * np.ones(GRAY.shape[1:3]))
    y = measurement.forward(jnp.asarray(NOISY[..., :1]))
    found = baselines.total_variation(measurement, y, 0.2, steps=4000)
    np.testing.assert_allclose(found, denoised(0.4 / 4, NOISY[..., :1]), atol=5e-3)


def test_divergence_is_minus_the_adjoint_of_the_gradient():
    key = jax.random.key(0)
    x, edges = jax.random.normal(key, (1, 4, 5, 1)), jax.random.normal(key, (1, 4, 5, 1, 2))
    expected = -jnp.vdot(baselines._gradient(x), edges)
    np.testing.assert_allclose(jnp.vdot(x, baselines._divergence(edges)), expected, rtol=1e-5)


def test_bicubic_is_pillows():
    measurement = inverse.SuperResolution.average((16, 14, 1), 2)
    y = measurement.forward(GRAY)
    expected = Image.fromarray(np.asarray(y)[0, ..., 0]).resize((14, 16), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(baselines.bicubic(measurement, y)[0, ..., 0], expected, atol=1e-5)


def test_biharmonic_continues_a_plane_and_keeps_what_is_known():
    rows, columns = np.mgrid[:12, :10]
    plane = np.stack([0.1 * rows - 0.3, 0.05 * columns + 0.02 * rows], -1)[None].astype(np.float32)
    mask = np.ones((12, 10, 2))
    mask[4:8, 3:6, 0] = mask[5:8, 4:8, 1] = 0
    measurement = inverse.Inpainting.free((12, 10, 2), mask)
    y = np.asarray(measurement.forward(plane)) + np.float32(0)
    found = baselines.biharmonic(measurement, y)
    np.testing.assert_allclose(found, plane, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(found)[0][mask == 1], y[0][mask == 1])
    nothing = inverse.Inpainting.free((12, 10, 2), np.zeros((12, 10)))
    np.testing.assert_array_equal(baselines.biharmonic(nothing, 0 * y), 0 * y)


@pytest.mark.parametrize("noise, counted", [(0.1, 0.1), (0.0, 0.01)])
def test_wiener_is_the_ridge_regression_of_its_noise(noise, counted):
    """(A^T A + c I)^-1 A^T y, of the matrix."""
    shape = (6, 6, 1)
    measurement = inverse.PeriodicBlur(event_shape=shape, kernel=inverse.gaussian_kernel(3, 0.8))
    matrix = np.asarray(measurement.forward(jnp.eye(36).reshape(36, *shape))).reshape(36, 36).T
    y = GRAY[:, :6, :6]
    normal = matrix.T @ matrix + (counted / 0.5) ** 2 * np.eye(36)
    expected = np.linalg.solve(normal, matrix.T @ y.reshape(-1))
    np.testing.assert_allclose(baselines.wiener(measurement, y, noise).reshape(-1), expected, atol=1e-4)


def test_zero_filled_is_the_image_above_black_without_the_lines_that_were_not_sampled():
    mask = np.asarray(inverse.equispaced_mask((16, 14), 2, 3))
    measurement = inverse.FourierSampling(event_shape=GRAY.shape[1:], mask=mask)
    k = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(GRAY[0, ..., 0] + 1)))
    expected = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(mask * k))).real - 1
    found = baselines.zero_filled(measurement, measurement.forward(GRAY))
    np.testing.assert_allclose(found[0, ..., 0], expected, atol=1e-5)
    coils = inverse.MultiCoilFourierSampling(
        event_shape=GRAY.shape[1:], mask=np.ones((16, 14)), coil_maps=inverse.birdcage_maps((16, 14), 3)
    )
    np.testing.assert_allclose(baselines.zero_filled(coils, coils.forward(GRAY)), GRAY, atol=1e-5)


def test_filtered_back_projection_is_that_of_the_image_above_black():
    rows, columns = np.mgrid[-1:1:16j, -1:1:16j]
    bright = np.exp(-4 * ((rows - 0.2) ** 2 + columns**2))[None, ..., None].astype(np.float32)
    radon = inverse.Radon(event_shape=(16, 16, 1), angles=inverse.parallel_angles(60))
    found = baselines.filtered_back_projection(radon, radon.forward(2 * bright - 1))
    np.testing.assert_allclose(found, 2 * bright - 1, atol=0.08)
    black = np.full((1, 16, 16, 1), -1, np.float32)
    np.testing.assert_allclose(baselines.filtered_back_projection(radon, radon.forward(black)), black, atol=1e-5)

    metal = (rows + 0.3) ** 2 + (columns - 0.2) ** 2 < 0.04
    there = np.asarray(inverse.metal_mask(radon, metal))
    lost = radon.replace(mask=there)
    sinogram = np.array(radon.forward(2 * bright)[0, ..., 0])
    for row, kept in zip(sinogram, there, strict=True):
        row[~kept] = np.interp(np.flatnonzero(~kept), np.flatnonzero(kept), row[kept])
    expected = inverse.filtered_back_projection(radon, jnp.asarray(sinogram)[None, ..., None]) - 1
    found = baselines.filtered_back_projection(lost, lost.forward(2 * bright - 1))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_hybrid_input_output_finds_the_image_of_the_magnitudes():
    """Without noise; up to its sign and to half a turn, of which magnitudes say nothing."""
    x = np.random.default_rng(5).uniform(-1, 1, size=(1, 6, 5, 1))
    measurement = inverse.PhaseRetrieval()
    y = measurement.forward(jnp.asarray(x))
    found = np.asarray(baselines.hybrid_input_output(measurement, y, steps=1000, last=500))
    same = [sign * turned for sign in (1, -1) for turned in (x, x[:, ::-1, ::-1])]
    assert min(np.abs(found - one).max() for one in same) < 1e-3
