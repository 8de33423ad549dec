"""The reverse-time SDE: any solver takes it, and it leads back through the forward process's marginals."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sde_lib import EDMSDE, VPSDE, CriticallyDampedLangevin, RectifiedFlow, exact, reverse

pytestmark = pytest.mark.thorough

SDES = [VPSDE(t_min=1e-3), EDMSDE(), RectifiedFlow(t_min=1e-3)]
MEAN, STD = 0.7, 0.5


@pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
def test_flow_by_diffrax_is_the_gaussians_exact_flow(sde):
    denoiser = exact.Gaussian(sde, mean=MEAN, std=STD)
    backward = reverse(sde, denoiser)
    x = np.linspace(-2, 2, 5)[:, None] * sde.sigma(sde.t_max)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, x, _: backward.flow(x, t)), diffrax.Tsit5(), sde.t_max, sde.t_min, None, x,
        stepsize_controller=diffrax.PIDController(rtol=1e-9, atol=1e-9), max_steps=100_000,
    )  # fmt: skip
    np.testing.assert_allclose(solution.ys[0], denoiser.flow(x, sde.t_max, sde.t_min), rtol=1e-6, atol=1e-7)


def simulated(drift, noise_of, x, start, end, n, key):
    """Euler-Maruyama from start to end (which may be earlier), with steps even in t."""
    dt = (end - start) / n

    def step(x, index):
        t = start + index * dt
        noise = jax.random.normal(jax.random.fold_in(key, index), x.shape)
        return x + dt * drift(x, t) + jnp.sqrt(abs(dt)) * noise_of(noise, t), None

    return jax.lax.scan(step, x, jnp.arange(n))[0]


def assert_moments(x, mean, std):
    """Within four standard errors, and the 1 % that the discretization may add."""
    n = len(x)
    assert abs(x.mean() - mean) < 4 * std / np.sqrt(n) + 0.01 * std
    assert abs(x.std() - std) < 4 * std / np.sqrt(2 * n) + 0.01 * std


def test_reverse_and_forward_simulation_agree_at_several_times():
    """Both have the exact marginals on the way: forward from data, backward from the forward run's end, for any lambda."""
    sde, times, n = VPSDE(t_min=1e-3), [0.7, 0.4, 0.15], 20_000
    denoiser = exact.Gaussian(sde, mean=MEAN, std=STD)
    forward = jax.jit(lambda x, s, t, key: simulated(sde.drift, sde.apply_diffusion, x, s, t, 200, key))
    back = jax.jit(
        lambda reversed, x, s, t, key: simulated(reversed.drift, reversed.apply_diffusion, x, s, t, 200, key)
    )
    x0, noise = denoiser.sample(jax.random.key(0), (n, 1)), jax.random.normal(jax.random.key(9), (n, 1))
    x, start = sde.perturb(x0, noise, sde.t_min), sde.t_min
    for i, t in enumerate(times[::-1]):
        x, start = forward(x, start, t, jax.random.key(i + 1)), t
        assert_moments(x, sde.alpha(t) * MEAN, denoiser.marginal_std(t))
    for stochasticity in (0.0, 0.5, 1.0):
        y, start = x, times[0]
        for i, t in enumerate(times[1:]):
            y, start = back(reverse(sde, denoiser, stochasticity), y, start, t, jax.random.key(i + 10)), t
            assert_moments(y, sde.alpha(t) * MEAN, denoiser.marginal_std(t))


def test_stochasticity_0_is_the_flow_and_1_the_reverse_time_sde():
    sde, x, t = VPSDE(), jnp.array([[0.3], [-1.0]]), jnp.array([0.2, 0.8])
    denoiser = exact.Gaussian(sde, mean=MEAN, std=STD)
    np.testing.assert_allclose(reverse(sde, denoiser, 0.0).drift(x, t), denoiser.velocity(x, t), rtol=1e-9)
    beta = (0.1 + 19.9 * t)[:, None]
    expected = -0.5 * beta * x - beta * denoiser.score(x, t)
    np.testing.assert_allclose(reverse(sde, denoiser).drift(x, t), expected, rtol=1e-9)
    np.testing.assert_allclose(reverse(sde, denoiser, 0.5).diffusion(t), 0.5 * jnp.sqrt(0.1 + 19.9 * t), rtol=1e-9)


def test_flow_of_critically_damped_langevin_keeps_the_gaussians_law():
    """The flow is affine, so three states tell it: it must carry the mean and covariance at t_max to those at t_min."""
    sde = CriticallyDampedLangevin(t_min=1e-2)
    backward = reverse(sde, exact.Gaussian(sde, mean=MEAN, std=STD))
    z = jnp.array([[[0.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]]])
    end = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, z, _: backward.flow(z, t)), diffrax.Tsit5(), sde.t_max, sde.t_min, None, z,
        stepsize_controller=diffrax.PIDController(rtol=1e-9, atol=1e-9), max_steps=100_000,
    ).ys[0][:, 0]  # fmt: skip
    matrix = (end[1:] - end[0]).T

    def law(t):
        a, (xx, xv, vv) = np.array(sde.mean_coefficients(t)), sde.covariance(t)
        return MEAN * a, np.array([[xx, xv], [xv, vv]]) + STD**2 * np.outer(a, a)

    (mean, covariance), (mean_end, covariance_end) = law(sde.t_max), law(sde.t_min)
    np.testing.assert_allclose(end[0] + matrix @ mean, mean_end, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(matrix @ covariance @ matrix.T, covariance_end, rtol=1e-6)


def test_the_process_that_is_given_has_the_drift_and_the_denoiser_the_score():
    """Two processes, told apart by their rates; the stochasticity reaches each of the four functions that depend on it."""
    sde, other, x, t = VPSDE(beta_min=1.0, beta_max=3.0), VPSDE(), jnp.array([[0.3], [-1.0]]), jnp.array([0.2, 0.8])
    denoiser, beta = exact.Gaussian(other, mean=MEAN, std=STD), (1 + 2 * t)[:, None]
    for stochasticity in (0.0, 0.7, 1.0, 2.0):
        backward = reverse(sde, denoiser, stochasticity)
        expected = -0.5 * beta * x - 0.5 * (1 + stochasticity**2) * beta * denoiser.score(x, t)
        np.testing.assert_allclose(backward.drift(x, t), expected, rtol=1e-9)
        np.testing.assert_allclose(backward.diffusion(t), stochasticity * jnp.sqrt(beta[:, 0]), rtol=1e-9)
        np.testing.assert_allclose(backward.apply_diffusion(x, t), stochasticity * jnp.sqrt(beta) * x, rtol=1e-9)
        np.testing.assert_allclose(backward.flow(x, t), denoiser.velocity(x, t), rtol=1e-12)
