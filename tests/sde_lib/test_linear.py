"""LinearSDE: given another process's drift and diffusion, it is that process."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sde_lib import VPSDE, EulerMaruyama, FunctionDenoiser, LinearSDE, SubVPSDE, sample, uniform_times
from tests.sde_lib.processes import keys

pytestmark = pytest.mark.thorough


def beta(t):
    return 0.1 + 19.9 * t


def copy(sde):
    """The process of the published drift and diffusion (Song et al., 2021, eq. 11 and 12)."""
    integral = {VPSDE: lambda t: jnp.inf, SubVPSDE: lambda t: 0.1 * t + 9.95 * t**2}[type(sde)]
    squared_diffusion = lambda t: -beta(t) * jnp.expm1(-2 * integral(t))  # noqa: E731
    return LinearSDE(lambda t: -0.5 * beta(t), squared_diffusion, t_min=sde.t_min, t_max=sde.t_max)


T = np.array([1e-5, 1e-3, 0.1, 0.5, 1.0])  # at the first, sub-VP's sigma is 1e-6


@pytest.mark.parametrize("sde", [VPSDE(), SubVPSDE()], ids=lambda sde: type(sde).__name__)
def test_moments_are_those_of_the_process_with_this_drift_and_diffusion(sde):
    linear = copy(sde)
    np.testing.assert_allclose(linear.log_alpha(T), sde.log_alpha(T), rtol=1e-9)
    np.testing.assert_allclose(linear.sigma(T), sde.sigma(T), rtol=1e-9)


def test_a_time_alone_is_that_time_in_a_batch():
    """Of shape () too; to rounding, for the solver's steps for one time do not depend on the others."""
    linear = copy(VPSDE())
    alone = linear.log_snr(0.1)
    assert alone.shape == ()
    np.testing.assert_allclose(linear.log_snr(T)[2], alone, rtol=1e-14)


def test_moments_differentiate_to_any_order_under_jit_and_vmap():
    linear, sde = copy(VPSDE()), VPSDE()
    got, expected = (jax.jit(jax.vmap(jax.grad(s.log_snr)))(T) for s in (linear, sde))
    np.testing.assert_allclose(got, expected, rtol=1e-7)
    got, expected = (jax.jit(jax.grad(jax.grad(s.sigma)))(0.3) for s in (linear, sde))
    np.testing.assert_allclose(got, expected, rtol=1e-7)


def test_drift_and_diffusion_are_the_functions_themselves():
    sde, t = LinearSDE(lambda t: -3 * t, lambda t: jnp.exp(t)), jnp.array([0.2, 0.9])
    np.testing.assert_array_equal(sde.drift_rate(t), -3 * t)
    np.testing.assert_array_equal(sde.squared_diffusion(t), jnp.exp(t))
    np.testing.assert_array_equal(sde.drift(jnp.full((2, 3), 2.0), t), -6 * t[:, None] * jnp.ones((2, 3)))


def test_float32_has_five_digits():
    t = np.float32(T)
    expected = VPSDE().alpha(np.float64(t)), VPSDE().sigma(np.float64(t))
    with jax.enable_x64(False):
        linear = copy(VPSDE())
        got = linear.alpha(t), linear.sigma(t)
    assert got[0].dtype == got[1].dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_the_loop_samples_it():
    """The same states as of the process itself, for data at one point."""
    ends = [
        sample(keys(4), FunctionDenoiser(sde, lambda x, t: jnp.full_like(x, 0.3)), EulerMaruyama(),
               uniform_times(sde, 20, denoise=False), (1,), x_init=jnp.ones((4, 1)), denoise=False)
        for sde in (VPSDE(t_min=0.1), copy(VPSDE(t_min=0.1)))
    ]  # fmt: skip
    np.testing.assert_allclose(*ends, rtol=1e-6)


def test_a_parameter_inside_the_functions_is_not_silently_constant():
    with pytest.raises(Exception, match=r"closed-over|nondiff|[Tt]racer|safe_zip"):
        jax.grad(lambda beta: LinearSDE(lambda t: -0.5 * beta * t, lambda t: beta * t).alpha(0.5))(2.0)


def test_noise_levels_and_rates_are_those_of_the_process():
    linear = copy(VPSDE())
    np.testing.assert_allclose(linear.noise_to_signal(T), VPSDE().noise_to_signal(T), rtol=1e-9)
    np.testing.assert_allclose(linear.log_snr(T), VPSDE().log_snr(T), rtol=1e-9)
    for rate in (linear.drift_rate, linear.squared_diffusion):
        assert jnp.issubdtype(rate(1).dtype, jnp.floating) and rate(1) == rate(1.0)


def test_a_tiny_diffusion_has_its_digits():
    """sigma^2 = 1e-20 t: no absolute tolerance is in the way."""
    sde = LinearSDE(lambda t: 0 * t, lambda t: 1e-20 * (1 + jnp.sin(30 * t)))
    t = np.array([1e-3, 0.4, 1.0])
    np.testing.assert_allclose(sde.sigma(t), 1e-10 * np.sqrt(t + (1 - np.cos(30 * t)) / 30), rtol=1e-8)
