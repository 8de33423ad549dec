"""Exponential integrators: their orders on every process, their limits, float32, and the grids that suit them."""

import importlib
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from sde_lib import (
    DDIM,
    DEIS,
    VESDE,
    VPSDE,
    Ancestral,
    DPMSolver,
    Heun,
    SinglestepDPMSolver,
    SubVPSDE,
    UniPC,
    exact,
    optimal_times,
    quadratic_times,
    sample,
    uniform_times,
)
from sde_lib.sampling.exponential import VARIABLES, data_kernel, half_log_snr, lagrange, quadrature
from tests.sde_lib.processes import SOME_SDES, every_sde, keys, some_sdes
from tests.sde_lib.shared_programs import gaussian_error

pytestmark = pytest.mark.thorough

# Method, order, and the numbers of steps between which its error is seen to fall at that order.
ORDERS = [
    (DPMSolver(1), 1, (64, 128)),
    (DPMSolver(2), 2, (128, 256)),
    (DPMSolver(3), 3, (256, 512)),
    (DPMSolver(2, "angle"), 2, (128, 256)),
    (UniPC(1), 2, (128, 256)),
    (UniPC(2), 3, (256, 512)),
    (UniPC(2, "time"), 3, (512, 1024)),
    (DEIS(1), 1, (64, 128)),
    (DEIS(2), 2, (64, 128)),
    (DEIS(3), 3, (128, 256)),
    (DEIS(2, corrected=True), 3, (64, 128)),
    (SinglestepDPMSolver(1), 1, (64, 128)),
    (SinglestepDPMSolver(2), 2, (64, 128)),
    (SinglestepDPMSolver(3), 3, (512, 1024)),
]


def gaussian(sde):
    """An exact Denoiser, starts, and where the exact probability flow takes them."""
    denoiser = exact.Gaussian(sde, mean=0.7, std=0.5)
    start = np.linspace(-2, 2, 7)[:, None] * sde.sigma(sde.t_max)
    return denoiser, start, denoiser.flow(start, sde.t_max, sde.t_min)


def run(denoiser, method, times, start):
    return sample(keys(len(start)), denoiser, method, times, start.shape[1:], x_init=start, denoise=False)


@pytest.mark.parametrize("method, order, steps", ORDERS, ids=str)
@every_sde
def test_error_falls_at_the_methods_order(sde, method, order, steps):
    errors = [gaussian_error(sde, quadratic_times, method, n) for n in steps]
    np.testing.assert_allclose(np.log2(errors[0] / errors[1]), order, atol=0.15)


def test_unipc_of_order_3_is_better_still():
    """Its corrector is of order 4, which the first steps, that know less, do not quite let through."""
    denoiser, start, expected = gaussian(SOME_SDES[0])
    ends = [run(denoiser, UniPC(3), quadratic_times(SOME_SDES[0], n, denoise=False), start) for n in (64, 128)]
    errors = [np.sqrt(np.mean((end - expected) ** 2)) for end in ends]
    assert np.log2(errors[0] / errors[1]) > 3.5


@some_sdes
@pytest.mark.parametrize("method", [DPMSolver(1), DEIS(1), SinglestepDPMSolver(1)], ids=str)
def test_order_1_is_ddim(sde, method):
    denoiser, start, _ = gaussian(sde)
    t, s = jnp.float64(0.8), jnp.float64(0.35)
    _, expected = DDIM().step((), keys(7), start, t, s, denoiser)
    _, x = method.step(method.init(start, denoiser, jnp.array([t, s])), keys(7), start, t, s, denoiser)
    np.testing.assert_allclose(x, expected, rtol=1e-9)


@some_sdes
def test_the_stochastic_step_of_order_1_is_ancestral(sde):
    """tau = 1 is the reverse-time SDE, whose exact step for a constant Denoiser draws from p(x_s | x_t, x_0)."""
    denoiser, start, _ = gaussian(sde)
    t, s, method = jnp.float64(0.8), jnp.float64(0.35), DPMSolver(1, tau=1.0)
    _, expected = Ancestral().step((), keys(7), start, t, s, denoiser)
    _, x = method.step(method.init(start, denoiser, jnp.array([t, s])), keys(7), start, t, s, denoiser)
    np.testing.assert_allclose(x, expected, rtol=1e-9)


@pytest.mark.parametrize("method", [DPMSolver(3), UniPC(2, "angle"), DEIS(2, "angle"), SinglestepDPMSolver(2)], ids=str)
def test_one_noise_schedule_is_as_good_as_another(method):
    """On x / alpha against log-SNR all processes are one: equal noise levels, equal results."""
    ends = []
    for sde in (VPSDE(t_min=1e-2), SubVPSDE(), VESDE(sigma_max=200.0)):
        log_snr = jnp.linspace(-6.0, 4.0, 11)
        denoiser, times = exact.GaussianMixture(sde, np.array([[-1.0], [1.5]]), stds=0.3), sde.time_at_log_snr(log_snr)
        start = sde.alpha(times[0]) * np.linspace(-30, 30, 7)[:, None]
        ends.append(run(denoiser, method, times, start) / sde.alpha(times[-1]))
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-7)
    np.testing.assert_allclose(ends[2], ends[0], rtol=1e-7)


@pytest.mark.parametrize("tau", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("h", [1e-4, 0.3, 9.0])
def test_integrals_are_those_of_a_general_quadrature(tau, h):
    nodes, rate = np.array([0.0, -0.4 * h, -1.1 * h]), 1 + tau**2
    u, weights = quadrature(jnp.float64(h))
    mine = lagrange(u, jnp.asarray(nodes), jnp.ones(3, bool)) @ (weights * data_kernel(u, h, tau))
    for k in range(3):
        others = np.delete(nodes, k)

        def integrand(v, k=k, others=others):
            return rate * np.exp(-rate * (h - v)) * np.prod((v - others) / (nodes[k] - others))

        np.testing.assert_allclose(mine[k], scipy.integrate.quad(integrand, 0, h, epsabs=0, epsrel=1e-11)[0], rtol=1e-8)
    np.testing.assert_allclose(mine.sum(), -np.expm1(-rate * h), rtol=1e-10)


STOCHASTIC = [DPMSolver(2, tau=1.0), UniPC(2, "angle", tau=0.7), SinglestepDPMSolver(3, tau=1.0)]


@pytest.mark.parametrize("method", STOCHASTIC, ids=str)
def test_few_stochastic_steps_reach_the_mixture(method):
    """30 steps pass the Kolmogorov-Smirnov test of 4,000 samples; ancestral sampling, of order 1, fails it with as many."""
    sde, weights, means, std = SOME_SDES[0], np.array([0.3, 0.7]), np.array([[-1.0], [1.5]]), 0.3
    denoiser = exact.GaussianMixture(sde, means, stds=std, weights=weights)
    start = sde.perturb(denoiser.sample(jax.random.key(1), 4000), jax.random.normal(jax.random.key(2), (4000, 1)), 1.0)

    def distribution_function(x):
        return (weights * scipy.stats.norm.cdf(x[:, None], means[:, 0], std)).sum(1)

    x = run(denoiser, method, quadratic_times(sde, 30, denoise=False), start)
    assert scipy.stats.kstest(x[:, 0], distribution_function).pvalue > 0.01
    x = run(denoiser, Ancestral(), quadratic_times(sde, 30, denoise=False), start)
    assert scipy.stats.kstest(x[:, 0], distribution_function).pvalue < 0.01


def test_the_weak_error_of_stochastic_steps_falls_with_their_order():
    """The standard deviation of samples of a Gaussian, 200,000 of them: floor 0.002 of it."""
    sde = SOME_SDES[0]
    denoiser = exact.Gaussian(sde, mean=0.0, std=0.5)
    start = denoiser.marginal_std(1.0) * jax.random.normal(jax.random.key(0), (200_000, 1))

    def error(method, n):
        x = run(denoiser, method, quadratic_times(sde, n, denoise=False), start)
        return abs(float(x.std() / denoiser.marginal_std(sde.t_min)) - 1)

    first = [error(DPMSolver(1, tau=1.0), n) for n in (32, 64)]
    second = [error(DPMSolver(2, tau=1.0), n) for n in (32, 64)]
    assert 1.6 < first[0] / first[1] < 2.6
    assert second[1] < first[1] / 3 and second[0] / second[1] > 2.8


@pytest.mark.parametrize(
    "method", [DPMSolver(3), UniPC(3, "angle"), DEIS(3), DEIS(3, "angle", corrected=True)], ids=str
)  # fmt: skip
def test_many_steps_in_float32_lose_no_digits(method):
    """Published DEIS-3 is off by 0.15 at 1,600 steps, where its coefficients cancel."""
    with jax.enable_x64(False):
        denoiser, start, expected = gaussian(VPSDE(t_min=1e-3))
        x = run(denoiser, method, quadratic_times(denoiser.sde, 1600, denoise=False), start.astype(np.float32))
        assert x.dtype == jnp.float32
        np.testing.assert_allclose(x, expected, atol=2e-4)


def test_lower_order_final_ends_with_steps_of_orders_2_and_1():
    sde = SOME_SDES[0]
    denoiser, start, _ = gaussian(sde)
    times = quadratic_times(sde, 6)
    method = DPMSolver(3, lower_order_final=True)
    states = sample(keys(7), denoiser, method, times, (1,), x_init=start, return_trajectory=True)
    _, expected = DDIM().step((), keys(7), states[-3], times[-3], times[-2], denoiser)
    np.testing.assert_allclose(states[-2], expected, rtol=1e-9)
    plain = sample(keys(7), denoiser, DPMSolver(3), times, (1,), x_init=start, return_trajectory=True)
    np.testing.assert_array_equal(plain[:-3], states[:-3])
    assert np.abs(plain[-3] - states[-3]).min() > 1e-9


def test_a_quadratic_grid_is_quadratic_for_vp_and_has_its_noise_levels_elsewhere():
    sde = VPSDE(t_min=0.01)
    np.testing.assert_allclose(quadratic_times(sde, 10), [*np.linspace(1, 0.1, 10) ** 2, 0], rtol=1e-6)
    other = VESDE(sigma_min=float(sde.noise_to_signal(0.01)), sigma_max=float(sde.noise_to_signal(1.0)), t_min=0.0)
    levels = [sde.log_snr(quadratic_times(sde, 10)[:-1]), other.log_snr(quadratic_times(other, 10)[:-1])]
    np.testing.assert_allclose(levels[1], levels[0], atol=1e-8)


def test_a_fitted_grid_is_better_on_starts_it_has_not_seen():
    """Eight modes on a circle: with 8 steps the error falls to less than a half, and no answer was known beforehand."""
    sde, angles = VPSDE(t_min=1e-3), 2 * np.pi * np.arange(8) / 8
    denoiser = exact.GaussianMixture(sde, 4 * np.stack([np.cos(angles), np.sin(angles)], 1), stds=0.3)
    method = UniPC(2, "angle")
    fitted = optimal_times(denoiser, 8, keys(32, seed=1), (2,), sampler=method, iterations=8, denoise=False)
    assert fitted.shape == (9,) and fitted[0] == 1 and fitted[-1] == sde.t_min and (np.diff(fitted) < 0).all()
    start = jax.random.normal(jax.random.key(5), (300, 2))
    expected = run(denoiser, UniPC(3), quadratic_times(sde, 400, denoise=False), start)

    def error(times):
        return np.sqrt(np.mean((run(denoiser, method, times, start) - expected) ** 2))

    assert error(fitted) < 0.5 * error(quadratic_times(sde, 8, denoise=False))
    assert error(fitted) < 0.1 * error(uniform_times(sde, 8, denoise=False))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: DPMSolver(order=4), "DPMSolver: order=4 must be one of 1, 2, 3"),
        (lambda: UniPC(variable="rho"), "UniPC: variable='rho' must be one of log_snr, angle, time"),
        (lambda: DPMSolver(tau=-0.5), "DPMSolver: tau=-0.5 must be at least 0"),
        (lambda: SinglestepDPMSolver(order=0), "order=0 must be one of 1, 2, 3"),
        (lambda: DDIM(eta=-1.0), "DDIM: eta=-1.0 must be at least 0"),
        (lambda: Heun(churn=-1.0), "Heun: churn=-1.0 must be at least 0"),
    ],
)
def test_numbers_that_are_not_allowed_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@every_sde
def test_variables_of_the_polynomial_are_functions_of_the_noise_level(sde):
    """Half the log-SNR, arctan(sigma / alpha) and the time, of lambda = log(alpha / sigma)."""
    t = jnp.linspace(sde.t_min, sde.t_max, 5)
    half = jnp.log(sde.alpha(t) / sde.sigma(t))
    np.testing.assert_allclose(half_log_snr(sde, t), half, rtol=1e-9, atol=1e-9)
    expected = {"log_snr": half, "angle": np.arctan2(sde.sigma(t), sde.alpha(t)), "time": t}
    assert VARIABLES.keys() == expected.keys()
    for name, variable in VARIABLES.items():
        np.testing.assert_allclose(variable(sde, half), expected[name], rtol=1e-7)


OPTIMAL_TIMES = importlib.import_module("sde_lib.sampling.optimal_times")


@pytest.fixture
def runs(monkeypatch):
    """The runs that a fit asks for, each of which is said to end at its method's order and its own number of times."""
    found = []

    def sample(keys, denoiser, method, times, event_shape, **options):
        found.append((keys, denoiser, method, times, event_shape, options))
        return jnp.array([float(getattr(method, "order", 0)), len(times)])

    monkeypatch.setattr(OPTIMAL_TIMES, "sample", sample)
    return found


@pytest.mark.parametrize("method", [DPMSolver(2), None], ids=str)
@pytest.mark.parametrize(
    "denoise, knots, free", [(True, 3, 3), (True, 4, 4), (True, 9, 4), (False, 3, 3), (False, 9, 5)]
)
def test_a_fit_of_a_grid_minimizes_the_distance_from_the_long_run(runs, monkeypatch, denoise, knots, free, method):
    """With one number for each knot, or for each step before the denoising one: the logarithms of the steps' lengths."""
    minimized, parameters = [], jnp.linspace(-0.4, 0.7, free)

    def least_squares(residual, solver, start, **options):
        minimized.append((residual(parameters, None), solver, start, options))
        return SimpleNamespace(value=parameters)

    monkeypatch.setattr(OPTIMAL_TIMES.optimistix, "least_squares", least_squares)
    sde, start = VPSDE(t_min=0.1), jnp.ones((2, 3))
    denoiser = exact.Gaussian(sde)
    options = {"x_init": start, "reference_steps": 30, "knots": knots, "iterations": 7, "denoise": denoise}
    times = optimal_times(denoiser, 5, keys(2), (3,), sampler=method, **options)
    steps = 4 if denoise else 5
    lengths = np.exp(np.interp(np.linspace(0, 1, steps), np.linspace(0, 1, free), parameters))
    places = np.cumsum([0, *lengths / lengths.sum()])
    np.testing.assert_allclose(times[: steps + 1], (1 + (0.1**0.5 - 1) * places) ** 2, rtol=1e-6)
    assert len(times) == 6 and (times[-1] == 0) == denoise

    [(residual, _, initial, settings)] = minimized
    (_, _, reference, fine, *_), (_, _, fitted, coarse, *_) = runs
    method = UniPC(order=3, variable="angle") if method is None else method
    assert (reference, fitted) == (UniPC(order=3), method) and residual.tolist() == [method.order - 3, 6 - 31]
    np.testing.assert_array_equal(fine, quadratic_times(sde, 30, denoise=denoise))
    np.testing.assert_array_equal(coarse, times)
    np.testing.assert_array_equal(initial, np.zeros(free))
    assert settings["max_steps"] == 7 and not settings["throw"] and settings["options"] == {"jac": "fwd"}
    for asked, model, _, _, event_shape, rest in runs:
        assert model is denoiser and event_shape == (3,) and rest == {"x_init": start, "denoise": denoise}
        np.testing.assert_array_equal(jax.random.key_data(asked), jax.random.key_data(keys(2)))


@pytest.mark.parametrize("denoise", [True, False])
def test_a_fit_without_a_free_step_is_the_quadratic_grid(runs, denoise):
    sde = VPSDE(t_min=0.1)
    n = 2 if denoise else 1
    found = optimal_times(exact.Gaussian(sde), n, keys(2), (3,), denoise=denoise)
    np.testing.assert_array_equal(found, quadratic_times(sde, n, denoise=denoise))
    np.testing.assert_array_equal(runs[0][3], quadratic_times(sde, 200, denoise=denoise))
