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
