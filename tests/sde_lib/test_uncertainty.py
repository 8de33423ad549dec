"""Learned uncertainty: u(t) goes to the logarithm of the expected weighted error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sde_lib import EDMSDE, EDMWeighting, FunctionDenoiser, LearnedLogVariance, denoising_score_matching, exact
from tests.sde_lib.processes import SOME_SDES, keys

pytestmark = pytest.mark.thorough

SDE = SOME_SDES[0]
STD = 0.5


def posterior_variance(t):
    """The expected squared error of the exact Denoiser of N(0, STD^2)."""
    alpha, sigma = SDE.alpha(t), SDE.sigma(t)
    return STD**2 * sigma**2 / (alpha**2 * STD**2 + sigma**2)


def test_the_loss_is_least_at_the_log_of_the_expected_weighted_error():
    denoiser, t = exact.Gaussian(SDE, 0.0, STD), 0.4
    x0 = STD * np.random.default_rng(0).normal(size=(20_000, 2))

    @jax.jit
    def loss(u=None):
        options = {} if u is None else {"log_variance": lambda sde, t: jnp.full_like(t, u)}
        return denoising_score_matching(
            keys(20_000), denoiser, x0, weighting=EDMWeighting(0.7), times=lambda k, _: jnp.full(k.shape, t), **options
        ).mean()

    best = float(jnp.log(EDMWeighting(0.7)(SDE, t) * posterior_variance(t)))
    assert float(jnp.log(loss(None))) == pytest.approx(best, abs=0.03)
    value_and_slope = jax.jit(jax.value_and_grad(loss))
    assert abs(value_and_slope(jnp.log(loss(None)))[1]) < 1e-12
    np.testing.assert_allclose(value_and_slope(best)[0], 1 + best, atol=0.03)
    assert min(value_and_slope(best + change)[0] for change in (0.3, -0.3)) > 1 + best + 0.02


def test_the_learned_log_variance_finds_it_at_every_time():
    """Trained on the loss by natural gradient: u follows the closed form."""
    denoiser, n = exact.Gaussian(SDE, 0.0, STD), 3000
    x0 = STD * np.random.default_rng(0).normal(size=(n, 8))
    u = LearnedLogVariance.init(12)
    np.testing.assert_array_equal(u(SDE, jnp.array([0.1, 0.9])), 0)

    def loss(weights):
        log_variance = LearnedLogVariance(weights)
        return denoising_score_matching(
            keys(n), denoiser, x0, weighting=lambda sde, t: jnp.ones_like(t), log_variance=log_variance
        ).mean()

    t = jnp.linspace(SDE.t_min, SDE.t_max, 200)
    features = np.asarray(jax.vmap(lambda w: LearnedLogVariance(w)(SDE, t))(jnp.eye(12))).T
    metric = np.linalg.inv(features.T @ features / len(t) + 1e-6 * np.eye(12))
    weights, gradient = u.weights, jax.jit(jax.grad(loss))
    for _ in range(30):
        weights = weights - metric @ gradient(weights)
    t = jnp.linspace(0.02, 0.98, 25)
    np.testing.assert_allclose(LearnedLogVariance(weights)(SDE, t), jnp.log(posterior_variance(t)), atol=0.15)


def test_features_by_hand():
    """The first of one has frequency 0; of three the last has the upper sixth of the normal distribution's, at c = 1."""
    process, t = EDMSDE(), jnp.exp(4.0 * jnp.array([0.0, 1.0]))  # log(sigma / alpha) / 4 = c = 0 and 1
    np.testing.assert_allclose(LearnedLogVariance(jnp.array([0.7]))(process, t), 0.7 * np.sqrt(2), rtol=1e-12)
    phase = 2 * 0.6180339887498949 - 1
    features = np.sqrt(2 / 3) * np.cos(2 * np.pi * np.array([phase, 0.967421566101701 + phase]))
    np.testing.assert_allclose(LearnedLogVariance(jnp.array([0.0, 0.0, 1.0]))(process, t), features, rtol=1e-9)


def test_it_does_not_move_the_minimum_of_the_denoiser():
    """The gradient in the Denoiser is that of the weight w e^{-u}."""
    x0, u = np.random.default_rng(0).normal(size=(6, 2)), LearnedLogVariance(jnp.linspace(-1, 2, 5))

    def gradient(**options):
        def loss(a):
            denoiser = FunctionDenoiser(SDE, lambda x, t: a * x)
            return denoising_score_matching(keys(6), denoiser, x0, **options).sum()

        return jax.jit(jax.grad(loss))(0.3)

    weighted = gradient(weighting=lambda sde, t: jnp.exp(sde.log_snr(t) - u(sde, t)))
    np.testing.assert_allclose(gradient(log_variance=u), weighted, rtol=1e-12)


def test_no_features_is_an_error():
    with pytest.raises(ValueError, match="channels=0 must be at least 1"):
        LearnedLogVariance.init(0)
