"""Time distributions: each has the distribution it names, and the density it states."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from sde_lib import (
    VESDE,
    DiscreteTime,
    GeometricSigma,
    LogitNormalTime,
    LogNormalSigma,
    LowDiscrepancyTimes,
    RectifiedFlow,
    UniformLogSNR,
    UniformTime,
)
from tests.sde_lib.processes import SOME_SDES, every_sde, keys, some_sdes

CONTINUOUS = [UniformTime(), UniformLogSNR(), LogNormalSigma(-0.5, 0.8), LogitNormalTime(0.3, 0.7)]
continuous = pytest.mark.parametrize("times", CONTINUOUS, ids=lambda times: type(times).__name__)


U = np.array([0.003, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98, 0.997])


@some_sdes
def test_quantiles_are_those_of_the_distribution_they_name(sde):
    """Beside scipy's, for the normal ones those of a normal distribution cut at the ends of the process."""
    length, high, low = sde.t_max - sde.t_min, sde.log_snr(sde.t_min), sde.log_snr(sde.t_max)
    np.testing.assert_allclose(UniformTime().quantile(sde, U), sde.t_min + length * U, rtol=1e-12)
    log_snr = sde.log_snr(UniformLogSNR().quantile(sde, U))
    np.testing.assert_allclose(log_snr, scipy.stats.uniform(low, high - low).isf(U), rtol=1e-6)
    share = (LogitNormalTime(0.3, 0.7).quantile(sde, U) - sde.t_min) / length
    np.testing.assert_allclose(np.log(share / (1 - share)), scipy.stats.norm(0.3, 0.7).ppf(U), rtol=1e-9)
    for mean, std in [(-0.5, 0.4), (-0.5, 10.0)]:
        ends = [(-0.5 * end - mean) / std for end in (high, low)]
        log_sigma = np.log(sde.noise_to_signal(LogNormalSigma(mean, std).quantile(sde, U)))
        np.testing.assert_allclose(log_sigma, scipy.stats.truncnorm(*ends, mean, std).ppf(U), rtol=1e-6, atol=1e-6)


@continuous
@some_sdes
def test_density_is_the_slope_of_the_distribution(sde, times):
    """u -> t covers [t_min, t_max], and density dt = du on the way: the density integrates to 1."""
    t = times.quantile(sde, np.linspace(0, 1, 9))
    np.testing.assert_allclose((t[0], t[-1]), (sde.t_min, sde.t_max), rtol=1e-6)
    h = 1e-5
    slope = (times.quantile(sde, U + h) - times.quantile(sde, U - h)) / (2 * h)
    np.testing.assert_allclose(np.exp(times.log_density(sde, times.quantile(sde, U))) * slope, 1, rtol=1e-4)


CUT = [LogNormalSigma(-0.5, 10.0), LogNormalSigma(4.0, 1.5), LogNormalSigma(-6.0, 2.0), LogitNormalTime(-3.0, 2.5)]


@pytest.mark.parametrize("times", [*CONTINUOUS, *CUT], ids=str)
@every_sde
def test_densities_integrate_to_1(sde, times):
    """Over times even in log-SNR and over even times, whichever the density is smooth in; also where the ends cut much."""
    even = sde.t_min + (sde.t_max - sde.t_min) * jax.nn.sigmoid(np.linspace(-16, 16, 4001))
    geometric = sde.time_at_log_snr(np.linspace(sde.log_snr(sde.t_min), sde.log_snr(sde.t_max), 4001))
    t = np.asarray(even if isinstance(times, LogitNormalTime) else geometric)
    assert np.trapezoid(np.exp(times.log_density(sde, t)), t) == pytest.approx(1, abs=2e-3)


@some_sdes
def test_density_of_uniform_log_snr_is_the_importance_of_the_likelihood(sde):
    """Proportional to g^2 / sigma^2 (Song et al., 2021b)."""
    t = np.linspace(sde.t_min, sde.t_max, 9)
    ratio = np.exp(UniformLogSNR().log_density(sde, t)) / (sde.squared_diffusion(t) / sde.sigma(t) ** 2)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)


@continuous
@some_sdes
def test_times_and_densities_keep_their_digits_in_float32(sde, times):
    """Down to the smallest and up to the largest number that a uniform draw can be."""
    u = np.array([0, 1.2e-38, 2**-23, 0.1, 0.5, 0.9, 1 - 2**-22, 1 - 2**-23, 1 - 2**-24], np.float32)
    with jax.enable_x64(False):
        t = np.asarray(times.quantile(sde, u))
        log_density = times.log_density(sde, t)
    low, high = np.float32(sde.t_min), np.float32(sde.t_max)
    assert t.dtype == np.float32 and (t >= low).all() and (t <= high).all() and (np.diff(t) >= 0).all()
    np.testing.assert_allclose(t, times.quantile(sde, u.astype(float)), rtol=1e-3, atol=2e-4)
    within = (t > low) & (t < high)
    np.testing.assert_allclose(log_density[within], times.log_density(sde, t.astype(float))[within], atol=1e-2)


@pytest.mark.parametrize("mean", [-12.0, 15.0])
def test_log_normal_tails_have_digits_in_float32(mean):
    """Probabilities near 1 have none: the quantiles of a distribution whose mean lies below the process are mirrored."""
    sde = VESDE(sigma_min=0.01, sigma_max=50.0)
    ends = [(np.log(end) - mean) / 1.5 for end in (0.01 * 5000.0**1e-5, 50.0)]
    expected = scipy.stats.truncnorm(*ends, mean, 1.5).ppf(U)
    with jax.enable_x64(False):
        t = LogNormalSigma(mean, 1.5).quantile(sde, U.astype(np.float32))
        np.testing.assert_allclose(np.log(sde.noise_to_signal(t)), expected, atol=1e-3)


@pytest.mark.parametrize(
    "mean, std, log_sigma", [(-60.0, 0.5, np.log(0.01)), (60.0, 0.5, np.log(50)), (0.0, 1e30, 0.0)]
)
def test_log_normal_without_probability_is_at_the_level_nearest_to_the_mean(mean, std, log_sigma):
    sde = VESDE(sigma_min=0.01, sigma_max=50.0)
    with jax.enable_x64(False):
        t = LogNormalSigma(mean, std).quantile(sde, U.astype(np.float32))
        np.testing.assert_allclose(np.log(sde.noise_to_signal(t)), log_sigma, atol=1e-3)


def test_times_are_quantiles_of_one_uniform_number_a_key():
    sde = SOME_SDES[0]
    t = np.asarray(UniformTime()(keys(5_000), sde))
    assert scipy.stats.kstest(t, scipy.stats.uniform(sde.t_min, sde.t_max - sde.t_min).cdf).pvalue > 0.01
    np.testing.assert_array_equal(UniformTime()(keys(5_000)[7:8], sde), t[7:8])
    u = (UniformTime()(keys(9), sde) - sde.t_min) / (sde.t_max - sde.t_min)
    np.testing.assert_allclose(LogNormalSigma()(keys(9), sde), LogNormalSigma().quantile(sde, u), rtol=1e-9)


def test_logit_normal_of_rectified_flow_is_log_normal():
    sde, u = RectifiedFlow(t_min=0.0, t_max=1.0), U
    logit_normal = LogitNormalTime(-0.4, 1.3).quantile(sde, u)
    np.testing.assert_allclose(logit_normal, LogNormalSigma(-0.4, 1.3).quantile(sde, u), rtol=1e-9)


def test_ddpm_takes_every_step_equally_often():
    t = DiscreteTime(50).quantile(SOME_SDES[0], (np.arange(500) + 0.5) / 500)
    np.testing.assert_allclose(t, np.repeat(np.arange(1, 51), 10) / 50, rtol=1e-12)
    assert np.asarray(DiscreteTime(50).quantile(SOME_SDES[0], np.array([0.0, 1.0]))).tolist() == [0.02, 1.0]


def test_smld_takes_every_geometric_sigma_equally_often():
    sde = VESDE(t_min=0.0, sigma_min=0.01, sigma_max=1.0)
    sigma = sde.sigma(GeometricSigma(10).quantile(sde, (np.arange(100) + 0.5) / 100))
    np.testing.assert_allclose(sigma, np.repeat(np.geomspace(0.01, 1.0, 10), 10), rtol=1e-9)


@some_sdes
def test_geometric_sigmas_are_geometric_in_every_process(sde):
    sigma = sde.noise_to_signal(GeometricSigma(5).quantile(sde, (np.arange(5) + 0.5) / 5))
    ends = sde.noise_to_signal(np.array([sde.t_min, sde.t_max]))
    np.testing.assert_allclose(sigma, np.geomspace(*ends, 5), rtol=1e-6)


def low_discrepancy(step, places, size=64, times=UniformTime()):  # noqa: B008
    return LowDiscrepancyTimes(jax.random.key(step), jnp.asarray(places), size, times)


def test_low_discrepancy_times_cover_the_batch_evenly():
    """Apart by 1/B, and the variance of a batch's mean is 1 / (12 B^2), where independent times have 1 / (12 B)."""
    sde = RectifiedFlow(t_min=0.0, t_max=1.0)
    batches = jax.jit(jax.vmap(lambda step: low_discrepancy(step, np.arange(64))(keys(64), sde)))(np.arange(200))
    means, t = batches.mean(1), batches[0]
    np.testing.assert_allclose(np.diff(np.sort(t)), 1 / 64, rtol=1e-9)
    assert float(np.var(means)) == pytest.approx(1 / (12 * 64**2), rel=0.3)


def test_each_low_discrepancy_time_is_uniform_by_itself():
    sde = SOME_SDES[0]
    t = jax.jit(jax.vmap(lambda step: low_discrepancy(step, [5])(keys(1), sde)[0]))(np.arange(400))
    assert scipy.stats.kstest(t, scipy.stats.uniform(sde.t_min, sde.t_max - sde.t_min).cdf).pvalue > 0.01


def test_low_discrepancy_times_do_not_depend_on_how_the_batch_is_divided():
    sde, times = SOME_SDES[2], UniformLogSNR()
    whole = low_discrepancy(0, np.arange(64), times=times)(keys(64), sde)
    part = low_discrepancy(0, np.arange(40, 48), times=times)(keys(8, seed=9), sde)
    np.testing.assert_array_equal(part, whole[40:48])
    log_sigma = np.sort(np.log(sde.sigma(whole)))
    np.testing.assert_allclose(np.diff(log_sigma), np.log(20.0 / 0.01) / 64, rtol=1e-3)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: LogNormalSigma(std=0.0), "LogNormalSigma: std=0.0 must be more than 0"),
        (lambda: LogitNormalTime(std=-1.0), "LogitNormalTime: std=-1.0 must be more than 0"),
        (lambda: GeometricSigma(1), "GeometricSigma: levels=1 must be at least 2"),
        (lambda: DiscreteTime(0), "DiscreteTime: steps=0 must be at least 1"),
        (lambda: DiscreteTime(2000)(keys(1), SOME_SDES[0]), "steps=2000 of t_max=1.0 begin below t_min=0.001"),
        (lambda: DiscreteTime().log_density(SOME_SDES[0], 0.5), "DiscreteTime has no density"),
        (lambda: low_discrepancy(0, np.arange(4))(keys(3), SOME_SDES[0]), r"\(3,\) keys for \(4,\) places"),
    ],
)
def test_bad_numbers_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_low_discrepancy_times_have_the_law_of_their_distribution():
    sde = SOME_SDES[0]
    for times in (LogNormalSigma(-0.5, 10.0), LogitNormalTime(0.3, 0.7)):
        even, t = low_discrepancy(0, np.arange(4), times=times), np.array([0.1, 0.6])
        np.testing.assert_array_equal(even.quantile(sde, U), times.quantile(sde, U))
        np.testing.assert_array_equal(even.log_density(sde, t), times.log_density(sde, t))
        np.testing.assert_array_equal(even.coverage(sde), times.coverage(sde))
    with pytest.raises(ValueError, match="GeometricSigma has no density"):
        low_discrepancy(0, np.arange(4), times=GeometricSigma(4)).log_density(sde, 0.5)


@pytest.mark.parametrize("mean, std", [(-1.2, 1.2), (-0.5, 10.0), (4.0, 1.5), (-6.0, 2.0)])
@some_sdes
def test_coverage_is_the_probability_between_the_ends(sde, mean, std):
    """Of the normal law of log(sigma / alpha); nothing else is cut."""
    ends = np.log([sde.noise_to_signal(sde.t_min), sde.noise_to_signal(sde.t_max)])
    expected = np.diff(scipy.stats.norm(mean, std).cdf(ends))[0]
    np.testing.assert_allclose(LogNormalSigma(mean, std).coverage(sde), expected, rtol=1e-9)
    for times in (UniformTime(), UniformLogSNR(), LogitNormalTime(), GeometricSigma(4), DiscreteTime(4)):
        assert times.coverage(sde) == 1


@pytest.mark.parametrize("t_max", [1.0, 0.5])
def test_the_first_step_of_a_discrete_grid_may_be_t_min_but_not_before(t_max):
    sde = RectifiedFlow(t_min=t_max / 8, t_max=t_max)
    t = DiscreteTime(8).quantile(sde, np.array([0.0, 0.124, 0.125, 0.999, 1.0]))
    np.testing.assert_allclose(t, t_max * np.array([1, 1, 2, 8, 8]) / 8, rtol=1e-12)
    message = f"DiscreteTime: steps=9 of t_max={t_max} begin below t_min={t_max / 8}: choose at most 8 steps"
    with pytest.raises(ValueError, match=message):
        DiscreteTime(9).quantile(sde, U)
    assert DiscreteTime(9).quantile(sde.replace(t_min=jnp.array(t_max / 8)), 1.0) == t_max  # as traced ones, unchecked


@pytest.mark.parametrize("t_max", [1.0, 0.5])
def test_the_density_of_logit_normal_times_falls_to_0_at_the_ends(t_max):
    sde = RectifiedFlow(t_min=t_max / 8, t_max=t_max)
    t = np.array([0.05, 0.125, 0.5625, 1.0, 1.2]) * t_max  # before, the ends, the middle, beyond
    log_density = LogitNormalTime(0.0, 0.5).log_density(sde, t)
    assert (log_density[jnp.array([0, 1, 3, 4])] == -np.inf).all()
    np.testing.assert_allclose(log_density[2], np.log(4 / (0.5 * np.sqrt(2 * np.pi) * 0.875 * t_max)), rtol=1e-12)
