"""Processes: drift, diffusion, marginals and transitions must be those of one and the same SDE."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from sde_lib import SDE, VESDE, VPSDE, SubVPSDE
from tests.sde_lib.processes import every_sde


def moments(sde, mean, variance, start, end):
    """Mean and variance at `end` of a scalar that has the given ones at `start`, by their own ODEs from f and g."""

    def slope(t, moments, _):
        mean, variance = moments
        rate = sde.drift(jnp.ones((1,)), t)[0]
        return rate * mean, 2 * rate * variance + sde.diffusion(t) ** 2

    controller = diffrax.PIDController(rtol=1e-10, atol=1e-12)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(slope), diffrax.Tsit5(), start, end, 1e-4, (mean, variance),
        stepsize_controller=controller, max_steps=100_000,
    )  # fmt: skip
    return solution.ys[0][0], solution.ys[1][0]


@every_sde
@pytest.mark.parametrize("start, end", [(0.02, 0.3), (0.3, 0.9)])
def test_drift_and_diffusion_carry_the_marginal_from_one_time_to_another(sde, start, end):
    mean, std = sde.marginal(jnp.array([1.7]), jnp.float64(start))
    got = moments(sde, mean[0], std**2, jnp.float64(start), jnp.float64(end))
    expected_mean, expected_std = sde.marginal(jnp.array([1.7]), jnp.float64(end))
    np.testing.assert_allclose(got, (expected_mean[0], expected_std**2), rtol=1e-7)


@every_sde
def test_transition_is_the_kernel_of_drift_and_diffusion(sde):
    got = moments(sde, jnp.float64(1.7), jnp.float64(0), jnp.float64(0.2), jnp.float64(0.7))
    mean, std = sde.transition(jnp.array([1.7]), 0.2, 0.7)
    np.testing.assert_allclose((mean[0], std**2), got, rtol=1e-7)


@pytest.mark.parametrize("t", [0.01, 0.4, 1.0])
def test_diffusion_is_the_published_one(t):
    """Song et al. (2021), eq. 11, 12 and 9: beta; beta (1 - exp(-2 int beta)); d sigma^2 / dt."""
    beta, integral = 0.1 + 19.9 * t, 0.1 * t + 19.9 * t**2 / 2
    np.testing.assert_allclose(VPSDE().squared_diffusion(t), beta, rtol=1e-12)
    np.testing.assert_allclose(SubVPSDE().squared_diffusion(t), beta * (1 - np.exp(-2 * integral)), rtol=1e-12)
    ratio = 50 / 0.01
    np.testing.assert_allclose(VESDE().diffusion(t), 0.01 * ratio**t * np.sqrt(2 * np.log(ratio)), rtol=1e-12)
    x = jnp.array([[2.0]])
    for sde in (VPSDE(), SubVPSDE()):
        np.testing.assert_allclose(sde.drift(x, t), -0.5 * beta * x, rtol=1e-12)
    np.testing.assert_array_equal(VESDE().drift(x, t), 0)


@every_sde
def test_time_at_log_snr_inverts_log_snr_in_closed_form_and_by_bisection(sde):
    t = jnp.linspace(sde.t_min, sde.t_max, 50)
    np.testing.assert_allclose(sde.time_at_log_snr(sde.log_snr(t)), t, rtol=1e-9)
    np.testing.assert_allclose(SDE.time_at_log_snr(sde, sde.log_snr(t)), t, rtol=1e-9)


def test_constant_beta_has_its_time_at_log_snr_too():
    sde = VPSDE(beta_min=5.0, beta_max=5.0)
    np.testing.assert_allclose(sde.time_at_log_snr(sde.log_snr(0.3)), 0.3, rtol=1e-12)


@every_sde
def test_prior_is_the_marginal_at_t_max_of_data_at_the_origin(sde):
    x = jax.vmap(lambda key: sde.prior_sample(key, (2,)))(jax.random.split(jax.random.key(0), 20_000))
    std = sde.marginal(jnp.zeros(1), sde.t_max)[1]
    assert scipy.stats.kstest(np.ravel(x), scipy.stats.norm(scale=std).cdf).pvalue > 0.01
    expected = scipy.stats.norm(scale=std).logpdf(x[:5]).sum(1)
    np.testing.assert_allclose(sde.prior_log_prob(x[:5]), expected, rtol=1e-12)


@pytest.mark.parametrize("sde", [VPSDE(), SubVPSDE(), VESDE()], ids=lambda sde: type(sde).__name__)
def test_float32_keeps_five_digits_at_the_smallest_times_and_steps(sde):
    """1 - alpha^2 and the kernel's variance are differences of numbers close to 1; steps are those of 1,000."""
    t = np.float32([1e-5, 2e-3, 0.5, 1.0])
    s = np.float32([5e-6, 1e-3, 0.499, 0.999])
    exact = [sde.sigma(np.float64(t)), sde.log_snr(np.float64(t)), sde.squared_diffusion(np.float64(t))]
    exact_variance = sde.transition_coefficients(np.float64(s[1:]), np.float64(t[1:]))[1]
    with jax.enable_x64(False):
        short = [sde.sigma(t), sde.log_snr(t), sde.squared_diffusion(t)]
        short_variance = sde.transition_coefficients(s[1:], t[1:])[1]
    assert short_variance.dtype == np.float32
    np.testing.assert_allclose(short_variance, exact_variance, rtol=3e-4)
    for value, expected in zip(short, exact, strict=True):
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_positional_numbers_are_the_processes_own():
    assert VPSDE(0.2, 10.0).beta_max == 10.0
    assert VESDE(0.02, 30.0).sigma_min == 0.02
