"""The exact posterior of a mixture given a linear measurement, against integrals over a grid of the plane."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sde_lib import VPSDE, exact
from tests.sde_lib.processes import some_sdes

SDE = VPSDE(t_min=1e-3)
MEANS = np.array([[-1.0, 0.5], [0.8, 1.0], [0.3, -1.2]])
COVARIANCES = np.array([[[0.4, 0.25], [0.25, 0.3]], [[0.2, -0.1], [-0.1, 0.5]], [[0.3, 0.0], [0.0, 0.1]]])
WEIGHTS = np.array([0.5, 0.2, 0.3])
MATRIX = np.array([[1.0, 0.4], [-0.3, 0.9], [0.2, 0.1]])
Y = np.array([0.2, -0.4, 0.3])
STD = np.array([0.7, 0.9, 0.5])

# The plane, in steps that are small beside every standard deviation: sums over it are integrals to 1e-9 or better.
GRID = np.stack(np.meshgrid(np.linspace(-7, 7, 561), np.linspace(-7, 7, 561), indexing="ij"), -1).reshape(-1, 2)


def prior(sde=SDE):
    return exact.CorrelatedMixture(sde, jnp.asarray(MEANS), jnp.asarray(COVARIANCES), jnp.asarray(WEIGHTS))


def density(x):
    """The mixture's, written with the inverses of its covariances."""
    total = 0
    for mean, covariance, weight in zip(MEANS, COVARIANCES, WEIGHTS, strict=True):
        square = ((x - mean) @ np.linalg.inv(covariance) * (x - mean)).sum(-1)
        total += weight * np.exp(-0.5 * square) / (2 * np.pi * np.sqrt(np.linalg.det(covariance)))
    return total


def likelihood(x):
    return np.exp(-0.5 * (((Y - x @ MATRIX.T) / STD) ** 2).sum(-1))


def moments(weights):
    """Mean and covariance over the grid."""
    weights = weights / weights.sum()
    mean = weights @ GRID
    return mean, (weights[:, None] * (GRID - mean)).T @ (GRID - mean)


def moments_of(mixture):
    """The same of a mixture, by the law of total covariance."""
    weights, means = np.asarray(mixture.weights), np.asarray(mixture.means)
    mean = weights @ means
    return mean, np.einsum("k,kij->ij", weights, mixture.covariances) + (weights * (means - mean).T) @ (means - mean)


def test_the_posterior_is_that_of_bayes_rule():
    """Its density at every point of the plane, in ratio to prior times likelihood: one constant, the evidence."""
    posterior = prior().given(MATRIX, Y, STD)
    ratio = density(GRID) * likelihood(GRID)
    inside = ratio > 1e-8 * ratio.max()
    log_prob = posterior.replace(sde=VPSDE(t_min=1e-12)).log_prob(jnp.asarray(GRID[inside]), 1e-12)
    np.testing.assert_allclose(np.exp(log_prob), ratio[inside] / (ratio.sum() * 0.025**2), rtol=1e-6)
    for found, expected in zip(moments_of(posterior), moments(ratio), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-12)


def test_one_standard_deviation_stands_for_all():
    one, many = (prior().given(MATRIX, Y, std) for std in (0.6, np.full(3, 0.6)))
    jax.tree.map(np.testing.assert_array_equal, one, many)


@some_sdes
def test_the_denoiser_of_the_posterior_is_the_mean_given_state_and_measurement(sde):
    t, x = float(sde.time_at_log_snr(0.5)), np.array([[0.3, -0.7], [1.5, 0.4]])
    found = prior(sde).given(MATRIX, Y, STD)(jnp.asarray(x), t)
    for row, state in zip(found, x, strict=True):
        state = np.exp(-0.5 * ((state - sde.alpha(t) * GRID) ** 2).sum(-1) / sde.sigma(t) ** 2)
        np.testing.assert_allclose(row, moments(density(GRID) * likelihood(GRID) * state)[0], rtol=1e-7)


@pytest.mark.parametrize("t", [0.05, 0.9])
def test_score_is_the_gradient_of_the_log_density(t):
    x, denoiser = jnp.asarray(GRID[::40_000]), prior()
    gradient = jax.grad(lambda x: denoiser.log_prob(x, t).sum())(x)
    np.testing.assert_allclose(denoiser.score(x, t), gradient, rtol=1e-9, atol=1e-12)


def test_round_and_equal_components_are_the_isotropic_mixture():
    t, x = jnp.array([0.1, 0.5, 0.9]), jnp.asarray(GRID[::120_000])
    wide = exact.CorrelatedMixture(SDE, jnp.asarray(MEANS), 0.09 * jnp.broadcast_to(jnp.eye(2), (3, 2, 2)))
    np.testing.assert_allclose(wide(x, t), exact.GaussianMixture(SDE, jnp.asarray(MEANS), 0.3)(x, t), rtol=1e-9)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["equal", "unequal"])
def test_round_components_of_several_sizes_are_the_isotropic_mixture(weights):
    """Density and posterior mean; a component's normalization has the power of the dimension."""
    t, x, stds = jnp.array([0.02, 0.1, 0.5, 0.9]), jnp.asarray(GRID[::100_000][:4]), np.array([0.2, 0.7, 1.3])
    covariances = stds[:, None, None] ** 2 * jnp.eye(2)
    correlated = exact.CorrelatedMixture(SDE, jnp.asarray(MEANS), covariances, weights)
    isotropic = exact.GaussianMixture(SDE, jnp.asarray(MEANS), stds, weights)
    np.testing.assert_allclose(isotropic(x, t), correlated(x, t), rtol=1e-9)
    np.testing.assert_allclose(isotropic.log_prob(x, t), correlated.log_prob(x, t), rtol=1e-9)


def test_samples_have_the_mixtures_moments():
    """Of a posterior of images of one row, two channels, along which nothing is unknown: the covariance is singular."""
    images = exact.CorrelatedMixture(SDE, MEANS.reshape(3, 1, 1, 2), COVARIANCES, WEIGHTS)
    posterior = images.given(np.array([[1.0, 0.0]]), np.array([0.2]), 0.0)
    x = np.asarray(posterior.sample(jax.random.key(0), 40_000))
    assert x.shape == (40_000, 1, 1, 2)
    np.testing.assert_allclose(x[:, 0, 0, 0], 0.2, atol=1e-7)
    mean, covariance = moments_of(posterior.replace(means=posterior.means.reshape(3, 2)))
    np.testing.assert_allclose(x[:, 0, 0, 1].mean(), mean[1], atol=4 * np.sqrt(covariance[1, 1] / len(x)))
    np.testing.assert_allclose(x[:, 0, 0, 1].var(), covariance[1, 1], rtol=0.03)
