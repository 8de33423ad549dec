"""Noise of measurements: moments of its samples, and likelihoods against scipy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from sde_lib.inverse import GaussianNoise, PoissonNoise
from tests.sde_lib.processes import keys

N = 4000
CLEAN = np.array([[-0.9, 0.1], [0.5, 1.0]])
every_noise = pytest.mark.parametrize(
    "noise", [GaussianNoise(0.3), PoissonNoise(6.0), PoissonNoise(200.0, black=-2.0, white=0.5)], ids=str
)


@every_noise
def test_mean_and_variance(noise):
    """Of the samples, to four standard errors: the mean is the clean measurement, the variance what `variance` says."""
    clean = jnp.broadcast_to(CLEAN, (N, 2, 2))
    y = np.asarray(noise.sample(keys(N), clean))
    variance = np.broadcast_to(noise.variance(CLEAN), CLEAN.shape)
    np.testing.assert_array_less(np.abs(y.mean(0) - CLEAN), 4 * np.sqrt(variance / N))
    fourth = scipy.stats.moment(y, 4, axis=0)
    np.testing.assert_array_less(np.abs(y.var(0) - variance), 4 * np.sqrt((fourth - variance**2) / N))
    correlation = np.corrcoef(y.reshape(N, 4).T) - np.eye(4)
    np.testing.assert_array_less(np.abs(correlation), 4.5 / np.sqrt(N))


@every_noise
def test_an_example_depends_on_its_key_alone(noise):
    clean = jnp.broadcast_to(CLEAN, (4, 2, 2))
    y = noise.sample(keys(4), clean)
    np.testing.assert_array_equal(noise.sample(keys(4)[2:3], clean[2:3]), y[2:3])
    assert len(np.unique(np.asarray(y).reshape(4, -1), axis=0)) == 4


def test_gaussian_log_prob():
    clean = jnp.stack([CLEAN, CLEAN**2])
    y = GaussianNoise(0.3).sample(keys(2), clean)
    expected = scipy.stats.norm.logpdf(y, clean, 0.3).sum((1, 2))
    np.testing.assert_allclose(GaussianNoise(0.3).log_prob(y, clean), expected, rtol=1e-12)


@pytest.mark.parametrize("peak, black, white", [(6.0, -1.0, 1.0), (200.0, -2.0, 1.5)])
def test_poisson_log_prob(peak, black, white):
    noise = PoissonNoise(peak, black, white)
    clean = jnp.stack([CLEAN, CLEAN**2])
    y = noise.sample(keys(2), clean)
    counts = np.round((np.asarray(y) - black) / (white - black) * peak)
    expected = scipy.stats.poisson.logpmf(counts, peak * (clean - black) / (white - black)).sum((1, 2))
    np.testing.assert_allclose(noise.log_prob(y, clean), expected, rtol=1e-10)
    slope = jax.grad(lambda x: noise.log_prob(y, x).sum())(clean)
    np.testing.assert_allclose(slope, (counts / (clean - black) - peak / (white - black)), rtol=1e-8)


def test_poisson_without_light():
    """Below black there is none: no counts surely, any count never; and no NaN in derivatives."""
    noise, clean = PoissonNoise(6.0), jnp.array([[-1.0], [-1.3], [-1.0]])
    y = noise.sample(keys(3), clean)
    np.testing.assert_array_equal(y, -1)
    y = y.at[2].add(2 / 6)
    np.testing.assert_array_equal(noise.log_prob(y, clean), [0, 0, -jnp.inf])
    np.testing.assert_array_equal(jax.grad(lambda x: noise.log_prob(y, x).sum())(clean), 0)
    np.testing.assert_array_equal(noise.variance(clean), 0)


def test_a_dark_pixel_that_rounding_moved_has_no_counts():
    """Less than half a count on either side, as of a measurement that went through a file; from half a count on, one."""
    noise, dark = PoissonNoise(6.0), jnp.array([[-1.0, -1.0]])
    for part in (1e-6, -1e-6, 0.49, -0.49):
        np.testing.assert_array_equal(noise.log_prob(dark + part * 2 / 6, dark), [0])
    np.testing.assert_array_equal(noise.log_prob(dark.at[0, 1].add(0.51 * 2 / 6), dark), [-jnp.inf])


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match=r"GaussianNoise: std=-0\.1 must be at least 0"):
        GaussianNoise(-0.1)
    with pytest.raises(ValueError, match=r"PoissonNoise: peak=0\.0 must be more than 0"):
        PoissonNoise(0.0)
