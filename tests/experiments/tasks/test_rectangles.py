"""Operators of images that are no squares: which side sets what, and that height and width keep their places."""

import jax.numpy as jnp
import numpy as np
import pytest

import sde_lib
from experiments.factory.experiment import Experiment
from experiments.inverse import build, kernels, problems, scanners
from sde_lib import exact, inverse
from tests.experiments.tiny import tiny_config

TALL, WIDE = (256, 128, 1), (128, 256, 1)


def kernel(shape, name, **options):
    return np.asarray(
        kernels.kernel(
            shape, {"kernel": name, "kernel_width": None, "kernel_angle": 30.0, "operator_seed": 2} | options
        )
    )


@pytest.mark.parametrize("name, size", [("gaussian", 13), ("anisotropic", 81), ("motion", 33), ("shake", 31)])
def test_default_kernels_are_in_proportion_to_the_shorter_side(name, size):
    """Half of the published widths at 128 pixels, whichever side that is."""
    tall, wide, square = (kernel(shape, name) for shape in (TALL, WIDE, (128, 128, 1)))
    assert tall.shape == (size, size)
    np.testing.assert_array_equal(tall, square)
    np.testing.assert_array_equal(wide, square)


@pytest.mark.parametrize(
    "name, width, size", [("gaussian", 2.0, 17), ("gaussian", 0.25, 3), ("anisotropic", 1.5, 13), ("motion", 4.0, 5),
                          ("motion", 4.1, 7), ("shake", 7.0, 7), ("shake", 7.1, 9)],
)  # fmt: skip
def test_kernels_of_a_width_are_as_large_as_it_takes_whatever_the_image(name, width, size):
    """Four standard deviations or half of the motion to each side, and an odd number of pixels."""
    found = [kernel(shape, name, kernel_width=width) for shape in (TALL, WIDE)]
    assert found[0].shape == (size, size) and found[0].sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("width, odd", [(0.5, 1), (1, 1), (1.01, 3), (2, 3), (3, 3), (3.01, 5), (16, 17), (17, 17)])
def test_the_smallest_odd_number_from_a_width_on(width, odd):
    assert kernels._odd(width) == odd


@pytest.mark.parametrize(
    "shape, scale", [((4, 16), 8), ((16, 4), 8), ((8, 8), 8), ((256, 256), 256), ((512, 512), 512)]
)
@pytest.mark.parametrize("name, other", [("dps", None), ("mcg", None), ("pigdm", "data_std")])
def test_settings_for_256_pixels_are_in_proportion_to_the_side_of_a_square_of_as_many(shape, scale, name, other):
    """The others stay as they are."""
    measurement = inverse.Denoising(event_shape=(*shape, 1))
    prior, y = exact.Gaussian(sde_lib.VPSDE(t_min=1e-3)), jnp.zeros((1, *shape, 1))
    experiment, noise = Experiment(tiny_config(sampling__sampler="ddim")), inverse.GaussianNoise(0.1)
    setting = other or "zeta"
    found, _ = build.conditioned(experiment, name, {setting: 3.0}, prior, measurement, y, noise, (*shape, 1))
    assert getattr(found, setting) == pytest.approx(3.0 if other else 3.0 * scale / 256)


@pytest.mark.parametrize("shape", [(6, 10, 1), (10, 6, 1), (7, 9, 3)])
@pytest.mark.parametrize("box", [None, 2])
def test_a_box_in_the_middle_is_half_of_the_shorter_side(shape, box):
    options = problems.task("inpaint", {} if box is None else {"box": box})
    missing = build.problem("inpaint", shape, options, build.noise(0.1)).measured == 0
    side = box or min(shape[:2]) // 2
    rows, columns, channels = np.nonzero(missing)
    for places, size in ((rows, shape[0]), (columns, shape[1])):
        assert (places.min(), places.max() + 1) == ((size - side) // 2, (size - side) // 2 + side)
    assert missing.sum() == side**2 * shape[2] and set(channels) == set(range(shape[2]))


@pytest.mark.parametrize("name", ["random_lines", "equispaced"])
@pytest.mark.parametrize("shape", [(4, 24), (24, 4)])
def test_lines_are_columns_of_k_space(name, shape):
    """A share of the width: each is sampled whole or not at all."""
    mask = np.asarray(scanners.MASKS[name](shape, {"acceleration": 2.0, "operator_seed": 0}))
    assert mask.shape == shape and (mask == mask[:1]).all() and mask[0].sum() == shape[1] / 2


def test_the_view_of_k_space_joins_the_coils_of_a_slice():
    """Power of both parts and all coils, in powers of ten below the largest of the slice; rows stay rows."""
    y = np.zeros((2, 3, 2, 5, 2))
    y[0, 0, 1, 4] = 3.0, 4.0  # power 25
    y[0, 2, 1, 4, 0] = np.sqrt(75.0)  # 100 together
    y[0, 1, 0, 2, 1] = 0.1  # 0.01
    y[1, 1, 0, 0, 0] = 7.0
    view = scanners.VIEWS["mri"](y, None)
    assert view.shape == (2, 2, 5, 1)
    expected = np.full((2, 2, 5, 1), -1.0)
    expected[0, 1, 4], expected[0, 0, 2], expected[1, 0, 0] = 1, 0, 1
    np.testing.assert_allclose(view, expected, atol=1e-12)


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (-100.0, 300.0)])
def test_intensities_of_a_rectangle_are_taken_to_the_models_scale(low, high):
    """k-space of u is that of 2 (u - low) / (high - low) - 1."""
    rng = np.random.default_rng(0)
    u = rng.uniform(low, high, (2, 4, 6, 1)).astype(np.float32)
    measurement = inverse.FourierSampling(
        event_shape=(4, 6, 1), mask=(rng.uniform(size=(4, 6)) > 0.4).astype(np.float32)
    )
    found = scanners.on_the_models_scale(measurement, np.asarray(measurement.forward(jnp.asarray(u))), low, high)
    expected = measurement.forward(jnp.asarray(2 * (u - low) / (high - low) - 1))
    np.testing.assert_allclose(found, expected, atol=1e-4)
