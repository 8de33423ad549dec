"""Critically damped Langevin diffusion against its published equations, and through losses and methods."""

import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from sde_lib import (
    DDIM,
    SSCS,
    VPSDE,
    CriticallyDampedLangevin,
    EDMPreconditioning,
    EulerMaruyama,
    ExactDivergence,
    FunctionDenoiser,
    HybridNoiseWeighting,
    HybridWeighting,
    NetworkDenoiser,
    NoiseWeighting,
    ProbabilityFlow,
    Process,
    decode,
    denoising_score_matching,
    elbo,
    exact,
    karras_times,
    log_likelihood,
    log_snr_times,
    sample,
)
from tests.sde_lib.processes import keys

pytestmark = pytest.mark.thorough

SDE = CriticallyDampedLangevin(beta=3.0, mass=0.3, gamma=0.1)
DEFAULT = CriticallyDampedLangevin()
TIMES = [1e-3, 0.1, 0.7]
Z = np.random.default_rng(0).normal(size=(3, 2, 2))


def published(sde):
    """F and G G^T of dz = F z dt + G dw, Dockhorn et al. (2022), eq. 5, with Gamma^2 = 4 M."""
    friction = np.sqrt(4 * sde.mass)
    drift = sde.beta * np.array([[0, 1 / sde.mass], [-1, -friction / sde.mass]])
    return drift, np.diag([0, 2 * friction * sde.beta])


def integrated(sde, mean, covariance, start, end):
    """Mean and covariance of z at `end`, by their ODEs."""
    drift, noise = published(sde)

    def slope(t, moments):
        mean, covariance = moments[:2], moments[2:].reshape(2, 2)
        return np.r_[drift @ mean, (drift @ covariance + covariance @ drift.T + noise).ravel()]

    moments = np.r_[mean, np.ravel(covariance)]
    end = scipy.integrate.solve_ivp(slope, (start, end), moments, "DOP853", rtol=1e-12, atol=1e-15).y[:, -1]
    return end[:2], end[2:].reshape(2, 2)


def kernel(sde, t):
    """a and S of p(z_t | x_0), as arrays, from the ODE."""
    return integrated(sde, [1, 0], np.diag([0, sde.gamma * sde.mass]), 0, t)


def dense(rows):
    return np.array([[float(entry) for entry in row] for row in rows])


@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("sde", [SDE, DEFAULT], ids=["odd", "default"])
def test_kernel_solves_the_moment_equations(sde, t):
    a, s = kernel(sde, t)
    xx, xv, vv = sde.covariance(t)
    np.testing.assert_allclose(sde.mean_coefficients(t), a, rtol=1e-9)
    np.testing.assert_allclose([[xx, xv], [xv, vv]], s, rtol=1e-9)
    factor = dense(sde.cholesky(t))
    np.testing.assert_allclose(factor @ factor.T, s, rtol=1e-9)
    np.testing.assert_allclose(sde.log_snr(t), np.log(a @ np.linalg.solve(s, a)), rtol=1e-9)
    np.testing.assert_allclose(sde.noise_to_signal(t), np.exp(-0.5 * sde.log_snr(t)), rtol=1e-9)


def test_transition_solves_the_moment_equations():
    start = np.array([0.4, -1.1])
    mean, factor = SDE.transition(start[None, None], 0.2, 0.5)
    got = mean[0, 0], dense(factor) @ dense(factor).T
    for value, expected in zip(got, integrated(SDE, start, np.zeros((2, 2)), 0.2, 0.5), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-9)


def test_drift_and_diffusion_are_the_published_ones():
    drift, noise = published(SDE)
    np.testing.assert_allclose(SDE.drift(Z, 0.3), Z @ drift.T, rtol=1e-12)
    np.testing.assert_allclose(SDE.apply_diffusion(Z, 0.3), Z @ np.sqrt(noise), rtol=1e-12)
    np.testing.assert_allclose(SDE.apply_squared_diffusion(Z, 0.3), Z @ noise, rtol=1e-12)


def test_float32_keeps_its_digits_at_small_times():
    t = np.float32([1e-5, 1e-3, 0.1, 1.0])

    def values(t):
        return [*DEFAULT.covariance(t), *DEFAULT.mean_coefficients(t), *DEFAULT.whitened_mean_coefficients(t)]

    exact_values = [*values(np.float64(t)), DEFAULT.log_snr(np.float64(t))]
    with jax.enable_x64(False):
        short = [*values(t), DEFAULT.log_snr(t)]
    for value, expected in zip(short, exact_values, strict=True):
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, expected, rtol=2e-5)


@pytest.mark.parametrize("t", TIMES)
def test_score_is_the_gradient_of_the_density_of_position_and_velocity(t):
    """The density of a mixture, written with numpy from the integrated kernel; its gradient by finite differences."""
    means, weights, std = np.array([[-1.0, 0.5], [2.0, 1.0]]), np.array([0.3, 0.7]), 0.4
    a, s = kernel(SDE, t)
    covariance = s + std**2 * np.outer(a, a)
    z = means[:, :, None] * a + Z[:2] @ np.linalg.cholesky(covariance).T  # where the density is

    def log_density(z):
        logs = np.log(weights)
        for j in range(2):
            logs = logs + [scipy.stats.multivariate_normal(m[j] * a, covariance).logpdf(z[j]) for m in means]
        return scipy.special.logsumexp(logs)

    denoiser = exact.GaussianMixture(SDE, means, stds=std, weights=weights)
    np.testing.assert_allclose(denoiser.log_prob(z, t), [log_density(each) for each in z], rtol=1e-9)
    gradient = jax.grad(lambda z: denoiser.log_prob(z, t).sum())(z)
    np.testing.assert_allclose(denoiser.score(z, t), gradient, rtol=1e-7, atol=1e-8)
    drift, noise = published(SDE)
    np.testing.assert_allclose(denoiser.velocity(z, t), z @ drift.T - 0.5 * gradient @ noise, rtol=1e-7, atol=1e-8)
    gaussian = exact.Gaussian(SDE, mean=0.4, std=0.5)
    inverse = np.linalg.inv(s + 0.25 * np.outer(a, a))
    np.testing.assert_allclose(gaussian.score(z, t), -(z - 0.4 * a) @ inverse, rtol=1e-7)


def test_x0_and_noise_make_the_state_again_for_a_network_that_sees_the_datas_shape():
    seen = []

    class Network:
        def apply(self, variables, x, noise_level, condition, *, train):
            seen.append(x.shape)
            return jnp.tanh(x)

    t, denoiser = np.array(TIMES), NetworkDenoiser(SDE, EDMPreconditioning(0.5), Network())
    x0, noise = denoiser.x0_and_noise(Z, t)
    assert seen == [(3, 2)]
    np.testing.assert_allclose(SDE.perturb(x0, noise, t), Z, rtol=1e-9)
    np.testing.assert_allclose(SDE.noise_from_x0(Z, x0, t), noise, rtol=1e-6)
    # EDM's preconditioning, on y by weighted least squares of z = a x_0 + error of covariance S.
    for i in range(3):
        a, s = kernel(SDE, t[i])
        snr = a @ np.linalg.solve(s, a)
        y = Z[i] @ np.linalg.solve(s, a) / snr
        total = 0.25 + 1 / snr
        np.testing.assert_allclose(
            x0[i], 0.25 / total * y + 0.5 / np.sqrt(snr * total) * np.tanh(y / total**0.5), rtol=1e-7
        )


def test_perturbed_data_have_the_kernels_law():
    z = SDE.perturb(jnp.full((40_000, 1), 0.8), jax.random.normal(jax.random.key(0), (40_000, 1, 2)), 0.2)[:, 0]
    a, s = kernel(SDE, 0.2)
    whitened = np.linalg.solve(np.linalg.cholesky(s), (z - 0.8 * a).T)
    assert scipy.stats.kstest(whitened.ravel(), scipy.stats.norm.cdf).pvalue > 0.01
    assert abs(np.corrcoef(whitened)[0, 1]) < 4 / np.sqrt(40_000)


def test_prior_is_the_kernel_at_t_max_of_data_at_the_origin():
    z = np.array(jax.vmap(lambda key: SDE.prior_sample(key, (2,)))(keys(20_000)))
    law = scipy.stats.multivariate_normal([0, 0], kernel(SDE, 1.0)[1])
    np.testing.assert_allclose(SDE.prior_log_prob(z[:5]), law.logpdf(z[:5]).sum(1), rtol=1e-9)
    np.testing.assert_allclose(np.cov(z.reshape(-1, 2).T), law.cov, atol=0.02)


def test_hybrid_weightings_are_the_published_objectives():
    """|noise_v - noise_v_hat|^2 and |score_v - score_v_hat|^2 of some wrong Denoiser, computed from the kernel itself."""
    t, n = 0.3, 6
    denoiser = FunctionDenoiser(SDE, lambda z, t: 0.3 + 0.5 * z[..., 0])
    x0 = np.random.default_rng(1).normal(size=(n, 4))

    def loss(weighting):
        times = lambda keys, sde: jnp.full(keys.shape, t)  # noqa: E731
        return denoising_score_matching(keys(n), denoiser, x0, weighting=weighting, times=times)

    key_noise = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys(n))
    noise = np.array(jax.vmap(lambda key: jax.random.normal(key, (4, 2)))(key_noise))
    a, s = kernel(SDE, t)
    factor = np.linalg.cholesky(s)
    z = x0[..., None] * a + noise @ factor.T
    x0_hat = 0.3 + 0.5 * z[..., 0]
    noise_hat = np.linalg.solve(factor, (z - x0_hat[..., None] * a).reshape(-1, 2).T).T.reshape(z.shape)
    error = ((noise - noise_hat) ** 2).mean(1)
    np.testing.assert_allclose(loss(HybridNoiseWeighting()), error[:, 1], rtol=1e-8)
    np.testing.assert_allclose(loss(NoiseWeighting()), error.sum(1), rtol=1e-8)
    score_error = ((noise - noise_hat) @ np.linalg.inv(factor))[..., 1]
    np.testing.assert_allclose(loss(HybridWeighting()), (score_error**2).mean(1), rtol=1e-8)


def test_training_finds_a_gaussians_mean():
    x0 = 0.8 + 0.1 * jax.random.normal(jax.random.key(0), (256, 1))

    def loss(mean, keys):
        denoiser = exact.Gaussian(DEFAULT, mean=mean, std=0.1)
        return denoising_score_matching(keys, denoiser, x0, weighting=HybridNoiseWeighting()).mean()

    @jax.jit
    def train(mean):
        steps = jax.random.split(jax.random.key(1), (200, 256))
        return jax.lax.scan(lambda m, k: (m - 0.05 * jax.grad(loss)(m, k), None), mean, steps)[0]

    assert abs(train(jnp.float64(0.0)) - x0.mean()) < 0.02


@pytest.mark.parametrize("method", [EulerMaruyama(), SSCS(), SSCS(order=2)], ids=str)
def test_methods_reach_the_mixture(method):
    """Kolmogorov-Smirnov at the statistical floor of 4,000 samples, from the prior."""
    weights, means, std = np.array([0.3, 0.7]), np.array([[-1.0], [1.5]]), 0.3
    denoiser = exact.GaussianMixture(DEFAULT, means, stds=std, weights=weights)
    x = sample(keys(4000), denoiser, method, karras_times(DEFAULT, 300), (1,))
    assert x.shape == (4000, 1)

    def distribution_function(x):
        return (weights * scipy.stats.norm.cdf(x[:, None], means[:, 0], std)).sum(1)

    assert scipy.stats.kstest(x[:, 0], distribution_function).pvalue > 0.01


def laws_step(method, monkeypatch):
    """(denoiser, t, s) -> the step's values (7, 2) at (z, two draws of noise) = 0 and at the six unit vectors.

    For a Gaussian a step is affine in (z, noise), so these values give the law of its result to rounding.
    """

    def step(vector, t, s, denoiser):
        noises = iter([vector[2:4].reshape(1, 1, 2), vector[4:6].reshape(1, 1, 2)])
        with monkeypatch.context() as patch:
            for module in ("critically_damped", "predictors"):
                patch.setattr(f"sde_lib.sampling.{module}.standard_normal", lambda keys, x: next(noises))
            return method.step((), keys(1), vector[:2].reshape(1, 1, 2), t, s, denoiser)[1].ravel()

    vectors = jnp.concatenate([jnp.zeros((1, 6)), jnp.eye(6)])
    return jax.jit(lambda denoiser, t, s: jax.vmap(step, (0, None, None, None))(vectors, t, s, denoiser))


def weak_error(step, denoiser, times):
    """Of the mean and variance of x at times[-1], from the exact law at times[0]."""
    sde = denoiser.sde
    a, s = kernel(sde, times[0])
    mean, covariance = denoiser.mean * a, s + denoiser.std**2 * np.outer(a, a)
    for t, s in itertools.pairwise(times):
        offset, *columns = np.asarray(step(denoiser, t, s))
        matrix = (np.array(columns) - offset).T
        mean = offset + matrix[:, :2] @ mean
        covariance = matrix[:, :2] @ covariance @ matrix[:, :2].T + matrix[:, 2:] @ matrix[:, 2:].T
    a, s = kernel(sde, times[-1])
    return np.abs(mean[0] - denoiser.mean * a[0]) + np.abs(covariance[0, 0] - s[0, 0] - (denoiser.std * a[0]) ** 2)


def test_weak_error_of_the_splitting_falls_at_its_order_and_beats_euler_maruyama(monkeypatch):
    euler, first, second = (laws_step(method, monkeypatch) for method in (EulerMaruyama(), SSCS(), SSCS(order=2)))
    times = log_snr_times(DEFAULT, 160, denoise=False)
    narrow = exact.Gaussian(DEFAULT, mean=0.7, std=0.5)
    for step, order in ((first, 1), (second, 2)):
        errors = [weak_error(step, narrow, times[::every]) for every in (2, 1)]
        np.testing.assert_allclose(np.log2(errors[0] / errors[1]), order, atol=0.15)
    # At equal evaluations the second order wins.
    others = min(weak_error(euler, narrow, times[::2]), weak_error(first, narrow, times[::2]))
    assert weak_error(second, narrow, times[::4]) < 0.7 * others
    # On data of unit variance, which half of the splitting keeps, either wins by far: 20 steps.
    unit = exact.Gaussian(DEFAULT, mean=0.0, std=1.0)
    others = 0.05 * weak_error(euler, unit, times[::8])
    assert weak_error(first, unit, times[::8]) < others and weak_error(second, unit, times[::8]) < others


def two_modes():
    return exact.GaussianMixture(DEFAULT, np.array([[0.5, 0.3], [-0.5, -0.3]]), stds=0.3)


def test_likelihood_of_position_and_velocity_is_that_of_the_closed_form():
    """Along the probability flow of both, where only the velocity feels the score; and back to where it came from."""
    denoiser = two_modes()
    x0 = denoiser.sample(jax.random.key(0), 8)
    z = DEFAULT.perturb(x0, jax.random.normal(jax.random.key(1), (8, 2, 2)), DEFAULT.t_min)
    found = log_likelihood(None, denoiser, z, divergence=ExactDivergence())
    # The flow starts from the prior instead of p_{t_max}.
    difference = DEFAULT.prior_log_prob(found.z) - denoiser.log_prob(found.z, DEFAULT.t_max)
    np.testing.assert_allclose(found.log_prob, denoiser.log_prob(z, DEFAULT.t_min) + difference, atol=2e-3)
    np.testing.assert_allclose(decode(denoiser, found.z).x, z, atol=2e-4)


def test_the_probability_flow_by_euler_steps_is_of_order_1():
    denoiser = two_modes()
    start = jax.vmap(lambda key: DEFAULT.prior_sample(key, (2,)))(keys(8))
    truth = decode(denoiser, start, rtol=1e-9, atol=1e-9).x
    errors = []
    for steps in (512, 1024):
        times = log_snr_times(DEFAULT, steps, denoise=False)
        end = sample(keys(8), denoiser, ProbabilityFlow(), times, (2,), x_init=start, denoise=False)
        errors.append(np.sqrt(np.square(end - truth).mean()))
    np.testing.assert_allclose(np.log2(errors[0] / errors[1]), 1, atol=0.15)


def test_trajectory_and_start_have_the_states_shape():
    denoiser, times = exact.Gaussian(DEFAULT, mean=0.4, std=0.5), karras_times(DEFAULT, 5)
    start = jnp.ones((2, 3, 2))
    states = sample(keys(2), denoiser, SSCS(), times, (3,), x_init=start, return_trajectory=True)
    np.testing.assert_array_equal(states[0], start)
    end = denoiser(states[-2], times[-2])
    np.testing.assert_allclose(states[-1], np.stack([end, np.zeros_like(end)], -1))
    np.testing.assert_array_equal(DEFAULT.clean_data(states[-1]), states[-1, ..., 0])


def test_what_does_not_fit_is_named():
    gaussian = exact.Gaussian(DEFAULT)
    with pytest.raises(ValueError, match=r"no scalar alpha\(t\).*SSCS, EulerMaruyama, ProbabilityFlow"):
        sample(keys(1), gaussian, DDIM(), karras_times(DEFAULT, 4), (1,))
    with pytest.raises(ValueError, match="no scalar alpha"):
        elbo(keys(1), gaussian, jnp.ones((1, 1)))
    assert not hasattr(DEFAULT, "squared_diffusion")
    with pytest.raises(ValueError, match="whose state has a velocity, not VPSDE"):
        sample(keys(1), exact.Gaussian(VPSDE()), SSCS(), karras_times(VPSDE(), 4), (1,))
    with pytest.raises(ValueError, match="order=3 is not implemented: choose 1 or 2"):
        sample(keys(1), gaussian, SSCS(order=3), karras_times(DEFAULT, 4), (1,))
    with pytest.raises(ValueError, match=r"keys and event_shape require \(1, 1, 2\)"):
        sample(keys(1), gaussian, SSCS(), karras_times(DEFAULT, 4), (1,), x_init=jnp.ones((1, 1)))


@pytest.mark.parametrize("weighting", [HybridNoiseWeighting(), HybridWeighting()], ids=lambda w: type(w).__name__)
def test_hybrid_weightings_are_for_a_process_with_a_velocity(weighting):
    with pytest.raises(
        ValueError, match="Weighting needs CriticallyDampedLangevin, whose state has a velocity, not VPSDE"
    ):
        weighting(VPSDE(), jnp.array([0.5]))


def test_every_method_of_a_process_is_defined():
    """Nothing inherited raises NotImplementedError, and nothing of scalar processes is inherited."""
    z, x, t = jnp.ones((3, 2, 2)), jnp.ones((3, 2)), 0.5
    arguments = {
        "time_at_log_snr": (0.3,), "drift": (z, t), "apply_diffusion": (z, t), "apply_squared_diffusion": (z, t),
        "marginal": (x, t), "perturb": (x, z, t), "diffuse": (z, z, 0.2, t), "prior_sample": (keys(1)[0], (2,)),
        "prior_log_prob": (z,), "state_shape": ((2,),), "clean_state": (x,), "clean_data": (z,), "to_data_scale": (z, t),
        "log_prob_beyond_data_scale": (z, t), "noise_from_x0": (z, x, t), "noise_from_data_scale": (z, x, t),
        "score_from_noise": (z, t), "velocity_from_x0_and_noise": (z, x, z, t),
    }  # fmt: skip
    names = [name for name, value in vars(Process).items() if inspect.isfunction(value) and not name.startswith("_")]
    assert arguments.keys() < set(names)
    for name in names:
        if name != "replace":
            getattr(DEFAULT, name)(*arguments.get(name, (t,)))
    assert not any(hasattr(DEFAULT, name) for name in ("alpha", "sigma", "log_alpha", "drift_rate", "diffusion"))
