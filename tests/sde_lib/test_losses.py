"""Denoising score matching: its expectation has a closed form wherever the Denoiser does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from sde_lib import (
    DataWeighting,
    EDMWeighting,
    FunctionDenoiser,
    LikelihoodWeighting,
    LogNormalSigma,
    NoiseWeighting,
    ScoreWeighting,
    UniformTime,
    denoising_score_matching,
    exact,
)
from sde_lib.sde import expand
from tests.sde_lib.processes import EVERY_SDE, every_sde, keys


def at(t):
    """All the weight of the time distribution on one time."""
    return lambda keys, sde: jnp.full(keys.shape, t)


@every_sde
def test_weightings_are_the_squared_errors_that_the_table_names(sde):
    """For D(x) = x / alpha the error in x0 is sigma / alpha times the noise: every loss is a multiple of the first."""
    denoiser = FunctionDenoiser(sde, lambda x, t: x / expand(sde.alpha(t), x))
    t, x0 = 0.3, np.random.default_rng(0).normal(size=(4000, 5))

    def loss(weighting):
        return denoising_score_matching(keys(4000), denoiser, x0, weighting=weighting, times=at(t))

    noise = loss(NoiseWeighting())  # |noise|^2 / 5, which is chi-squared
    assert scipy.stats.kstest(noise * 5, scipy.stats.chi2(5).cdf).pvalue > 0.01
    s, sigma = sde.sigma(t) / sde.alpha(t), sde.sigma(t)
    np.testing.assert_allclose(loss(ScoreWeighting()), noise / sigma**2, rtol=1e-9)
    np.testing.assert_allclose(loss(LikelihoodWeighting()), noise * sde.diffusion(t) ** 2 / sigma**2, rtol=1e-9)
    np.testing.assert_allclose(loss(DataWeighting()), noise * s**2, rtol=1e-9)
    c_out = s * 0.7 / np.sqrt(s**2 + 0.7**2)
    np.testing.assert_allclose(loss(EDMWeighting(0.7)), noise * s**2 / c_out**2, rtol=1e-9)


@every_sde
def test_expected_loss_of_the_exact_denoiser_is_the_posterior_variance(sde):
    """For data N(m, s^2): E |D - x0|^2 = s^2 sigma^2 / (alpha^2 s^2 + sigma^2), averaged over uniform times."""
    denoiser = exact.Gaussian(sde, mean=0.4, std=0.5)
    x0 = denoiser.sample(jax.random.key(1), (50_000, 2))
    loss = denoising_score_matching(keys(50_000), denoiser, x0, weighting=DataWeighting(), times=UniformTime())
    t = jnp.linspace(sde.t_min, sde.t_max, 100_001)
    variance = 0.25 * sde.sigma(t) ** 2 / (0.25 * sde.alpha(t) ** 2 + sde.sigma(t) ** 2)
    expected = jnp.trapezoid(variance, t) / (sde.t_max - sde.t_min)
    assert abs(loss.mean() - expected) < 4 * loss.std() / np.sqrt(len(loss))


@every_sde
def test_the_posterior_mean_has_the_least_loss(sde):
    denoiser = exact.GaussianMixture(sde, np.array([[-1.0], [1.0]]), stds=0.2)
    x0 = denoiser.sample(jax.random.key(1), 40_000)

    @jax.jit
    def loss(offset, scale):
        other = FunctionDenoiser(sde, lambda x, t: offset + scale * denoiser(x, t))
        return denoising_score_matching(keys(40_000), other, x0, weighting=DataWeighting()).mean()

    least = loss(0.0, 1.0)
    assert all(loss(*away) > least for away in [(0.1, 1.0), (-0.1, 1.0), (0.0, 1.2), (0.0, 0.8)])


def test_defaults_are_ddpms_simple_loss_at_uniform_times():
    sde = EVERY_SDE[0]
    denoiser, x0 = exact.Gaussian(sde, mean=0.4, std=0.5), np.ones((8, 3))
    explicit = denoising_score_matching(keys(8), denoiser, x0, weighting=NoiseWeighting(), times=UniformTime())
    np.testing.assert_array_equal(denoising_score_matching(keys(8), denoiser, x0), explicit)


@every_sde
def test_example_i_depends_on_key_i_alone(sde):
    denoiser = exact.Gaussian(sde, mean=0.4, std=0.5)
    x0 = np.random.default_rng(0).normal(size=(8, 3))
    together = denoising_score_matching(keys(8), denoiser, x0)
    alone = jnp.concatenate([denoising_score_matching(keys(8)[i : i + 1], denoiser, x0[i : i + 1]) for i in range(8)])
    np.testing.assert_allclose(together, alone, rtol=1e-12)
    assert len(np.unique(together)) == 8


@every_sde
def test_times_have_the_distribution_they_name(sde):
    t = UniformTime()(keys(20_000), sde)
    uniform = scipy.stats.uniform(sde.t_min, sde.t_max - sde.t_min)
    assert scipy.stats.kstest(t, uniform.cdf).pvalue > 0.01
    t = LogNormalSigma(mean=-0.5, std=0.4)(keys(20_000), sde)
    log_sigma = np.log(sde.sigma(t) / sde.alpha(t))
    assert scipy.stats.kstest(log_sigma, scipy.stats.norm(-0.5, 0.4).cdf).pvalue > 0.01


@every_sde
def test_log_normal_times_stay_in_the_processes_range(sde):
    t = LogNormalSigma(mean=0.0, std=20.0)(keys(1000), sde)
    np.testing.assert_allclose((t.min(), t.max()), (sde.t_min, sde.t_max), rtol=1e-12)


@pytest.mark.parametrize("weighting", [NoiseWeighting(), EDMWeighting(0.5)], ids=lambda w: type(w).__name__)
def test_keys_are_used_once(weighting):
    """JAX's own check: no key is consumed twice on the way."""
    denoiser = exact.Gaussian(EVERY_SDE[0], mean=0.4, std=0.5)
    with jax.debug_key_reuse(True):
        loss = jax.jit(lambda k: denoising_score_matching(k, denoiser, jnp.ones((4, 3)), weighting=weighting))(keys(4))
    assert len(np.unique(loss)) == 4
