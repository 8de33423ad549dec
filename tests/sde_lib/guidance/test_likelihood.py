"""Guidance by log-likelihoods: exact classifiers of a mixture, and energies of Gaussian data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from sde_lib import VPSDE, ClassifierGuidance, EnergyGuidance, Mixture, NetworkClassifier, exact
from sde_lib.struct import Struct
from tests.sde_lib.guidance.cases import (
    CLD,
    LABELS,
    MEANS,
    STDS,
    LogProbabilityOfA,
    Near,
    X,
    Z,
    assert_same,
    gaussian,
    mixture,
    of_class_a,
    processes,
)
from tests.sde_lib.processes import EVERY_SDE, every_sde


@struct.dataclass
class Linear(Struct):
    """x0 -> slope . x0, a log-likelihood that tilts a Gaussian."""

    slope: jax.Array

    def __call__(self, x0):
        return x0 @ self.slope


@every_sde
def test_an_exact_classifier_gives_the_conditional_denoiser(sde):
    sde, x, t = processes(sde)
    guided = ClassifierGuidance(mixture(sde), LogProbabilityOfA(mixture(sde), of_class_a(sde)), 1.0)
    assert_same(guided, of_class_a(sde), x, t)


def test_an_exact_classifier_of_states_with_velocities():
    joint, conditional = mixture(CLD), of_class_a(CLD)
    guided = ClassifierGuidance(joint, LogProbabilityOfA(joint, conditional), 1.0)
    assert_same(guided, conditional, Z, np.array([0.1, 0.4, 0.9]))


def test_a_function_or_a_method_is_a_log_likelihood_too():
    sde = VPSDE()
    a, b = gaussian(sde, 1.0), gaussian(sde, -1.0, 0.7)
    by_method = jax.jit(lambda guided: guided.score(X, 0.5))(ClassifierGuidance(a, b.log_prob, 2.0))
    np.testing.assert_allclose(by_method, a.score(X, 0.5) + 2 * b.score(X, 0.5), rtol=1e-10)
    plain = jax.jit(lambda guided: guided.score(X, 0.5))(ClassifierGuidance(a, lambda x, t: 3 * x[:, 1], 2.0))
    np.testing.assert_allclose(plain, a.score(X, 0.5) + np.array([0.0, 6.0]), rtol=1e-10)


def test_plain_functions_pass_through_a_compiled_program():
    """Of an energy and of a mixture's densities too, and what they close over."""
    sde, slope = VPSDE(), np.array([0.7, -1.2])
    a, b = gaussian(sde, 1.0), gaussian(sde, -1.0)
    run = jax.jit(lambda denoiser: denoiser(X, 0.5))
    energy = run(EnergyGuidance(a, lambda x0: x0 @ slope, 1.5, data_std=0.5))
    np.testing.assert_allclose(energy, exact.Gaussian(sde, 1.0 + 0.25 * 1.5 * slope, 0.5)(X, 0.5), rtol=1e-10)
    even = run(Mixture((a, b), None, lambda x, t: 0 * x))
    np.testing.assert_allclose(even, (a(X, 0.5) + b(X, 0.5)) / 2, rtol=1e-12)


class Posterior:
    """A network that is the exact classifier of a mixture's modes; it sees 2 x and 999 t."""

    def apply(self, variables, x, noise_level, condition, *, train):
        assert condition is None and not train
        return variables._log_joint(x / 2, noise_level / 999)[0] + 7.0


def test_a_network_guides_each_example_to_its_label():
    sde, t = VPSDE(), np.array([0.1, 0.5, 0.9])
    classifier = NetworkClassifier(Posterior(), mixture(sde), LABELS, lambda x, t: (2 * x, 999 * t))
    guided = ClassifierGuidance(mixture(sde), classifier, 1.0)
    modes = exact.Gaussian(sde, mean=MEANS[LABELS], std=STDS[LABELS][:, None])
    assert_same(guided, modes, X, t)
    probability = np.exp(np.stack([classifier.replace(labels=k)(X, t) for k in range(4)]))
    np.testing.assert_allclose(probability.sum(0), 1, rtol=1e-12)


class Sees:
    """A network of two classes whose logits show what it is given: x, the noise level and the variables."""

    def apply(self, variables, x, noise_level, condition, *, train):
        assert noise_level.shape == (len(x),) and condition is None and not train
        return jnp.stack([variables * x[:, 0], noise_level], 1)


def test_a_classifier_of_noisy_data_sees_the_state_and_the_time():
    """Without `inputs` as they are, at a time for all and for each; log-softmax of its logits at the label."""
    for t in (0.3, np.array([0.1, 0.5, 0.9])):
        logits = np.stack([2 * X[:, 0], np.broadcast_to(t, 3)], 1)
        log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        for labels in (0, 1, np.array([1, 0, 1])):
            found = NetworkClassifier(Sees(), 2.0, jnp.asarray(labels))(X, t)
            np.testing.assert_allclose(found, log_probs[np.arange(3), labels], rtol=1e-12)
        halved = NetworkClassifier(Sees(), 2.0, jnp.asarray(1), lambda x, t: (x / 2, 3 * t))(X, t)
        logits = np.stack([X[:, 0], np.broadcast_to(3 * t, 3)], 1)
        np.testing.assert_allclose(halved, logits[:, 1] - np.log(np.exp(logits).sum(1)), rtol=1e-12)


@jax.jit
def energy_score_and_gradient(sde, x, t):
    p, near = mixture(sde), Near(jnp.array([0.5, 1.0]))
    gradient = jax.grad(lambda x: (p.log_prob(x, t) + 2.5 * near(p(x, t))).sum())(x)
    return EnergyGuidance(p, near, 2.5).score(x, t), gradient


@every_sde
def test_an_energys_gradient_is_that_of_the_energy_of_the_expected_data(sde):
    score, gradient = energy_score_and_gradient(*processes(sde))
    np.testing.assert_allclose(score, gradient, rtol=1e-8, atol=1e-8)


@every_sde
@pytest.mark.parametrize("through_denoiser", [True, False])
def test_a_linear_energy_tilts_a_gaussian_exactly(sde, through_denoiser):
    """N(m, s^2) exp(b x0) is N(m + s^2 b, s^2) to a factor; draws change nothing."""
    sde, x, t = processes(sde)
    slope, std = np.array([0.7, -1.2]), 0.6
    prior = gaussian(sde, [0.4, 1.0], std)
    draws = np.random.default_rng(0).normal(size=(4, 2))
    tilted = exact.Gaussian(sde, mean=np.array([0.4, 1.0]) + std**2 * 1.5 * slope, std=std)
    for options in ({}, {"draws": draws}):
        guided = EnergyGuidance(prior, Linear(slope), 1.5, data_std=std, through_denoiser=through_denoiser, **options)
        assert_same(guided, tilted, x, t)


@pytest.mark.parametrize("through_denoiser", [True, False])
@pytest.mark.parametrize("sde, x", [(EVERY_SDE[1], X[:, :1]), (CLD, Z[:, :1])], ids=["SubVPSDE", "velocities"])
def test_draws_of_the_posterior_give_the_exact_likelihood(sde, x, through_denoiser):
    """A Gaussian's posterior is Gaussian, and a Gaussian measurement's posterior known; the draws are its quantiles."""
    t = np.array([0.1, 0.4, 0.9])
    mean, std, value, variance = 0.4, 0.6, 1.3, 0.2
    draws = jax.scipy.stats.norm.ppf((np.arange(4000) + 0.5) / 4000)[:, None]
    prior = gaussian(sde, mean, std)
    guided = EnergyGuidance(
        prior, Near(np.array([value]), variance), draws=draws, data_std=std, through_denoiser=through_denoiser
    )
    precision = 1 / std**2 + 1 / variance
    posterior = exact.Gaussian(sde, (mean / std**2 + value / variance) / precision, precision**-0.5)
    assert_same(guided, posterior, x, t, rtol=1e-3, atol=1e-3)
