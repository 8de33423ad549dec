"""The loss of a noise-conditional classifier, and what its network sees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sde_lib
from sde_lib.randomness import split, standard_normal

SDE = sde_lib.VPSDE(t_min=1e-3)
X0 = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
LABELS = np.array([0, 2, 1, 1, 0])
TIMES = sde_lib.UniformLogSNR()


def keys():
    return jax.random.split(jax.random.key(3), 5)


class Linear:
    """Logits W x plus the noise level; dropout adds a draw of the example's key."""

    weights = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)

    def apply(self, variables, x, noise_level, condition, *, train, dropout_keys=None):
        assert condition is None and (dropout_keys is not None) == train
        logits = x @ (variables * self.weights) + noise_level[:, None] * jnp.arange(3.0)
        return logits if not train else logits + jax.vmap(lambda key: jax.random.normal(key, (3,)))(dropout_keys)


def expected(train=False):
    """The cross-entropy in numpy, at the times and noise that denoising score matching draws of the keys."""
    key_time, key_noise, key_network = split(keys(), 3)
    t = TIMES(key_time, SDE)
    x = np.asarray(SDE.perturb(X0, standard_normal(key_noise, X0), t), np.float64)
    logits = x @ (2 * Linear.weights) + np.asarray(t)[:, None] * np.arange(3)
    if train:
        logits = logits + np.asarray(jax.vmap(lambda key: jax.random.normal(key, (3,)))(key_network))
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return -log_probs[np.arange(5), LABELS], logits, t


@pytest.mark.parametrize("train", [False, True])
def test_cross_entropy_of_the_class_of_noisy_data(train):
    classifier = sde_lib.NetworkClassifier(Linear(), jnp.float32(2), None)
    found = sde_lib.noisy_classification(keys(), classifier, SDE, X0, jnp.asarray(LABELS), times=TIMES, train=train)
    for array, known in zip(found, expected(train), strict=True):
        np.testing.assert_allclose(array, known, rtol=2e-5, atol=1e-5)
    one = sde_lib.noisy_classification(keys()[2:3], classifier, SDE, X0[2:3], jnp.array([1]), times=TIMES, train=train)
    np.testing.assert_allclose(one[0], found[0][2:3], rtol=1e-6)


def test_its_minimum_is_the_posterior_of_the_class():
    """Of two Gaussians at +-1 the log-odds of the classes are 2 alpha x / (sigma^2 + alpha^2 s^2)."""
    std, n = 0.5, 20_000
    labels = np.arange(n) % 2
    x0 = (2 * labels - 1 + std * np.random.default_rng(0).normal(size=n))[:, None].astype(np.float32)

    class Bayes:
        def apply(self, scale, x, t, condition, *, train):
            variance = SDE.sigma(t) ** 2 + (std * SDE.alpha(t)) ** 2
            odds = scale * 2 * SDE.alpha(t) / variance * x[:, 0]
            return jnp.stack([jnp.zeros_like(odds), odds], 1)

    def mean(scale):
        many = jax.random.key(0)
        classifier = sde_lib.NetworkClassifier(Bayes(), scale, None)
        return sde_lib.noisy_classification(
            jax.random.split(many, n), classifier, SDE, x0, jnp.asarray(labels), times=TIMES
        )[0].mean()

    slope, curvature = jax.grad(mean)(1.0), jax.grad(jax.grad(mean))(1.0)
    assert abs(slope / curvature) < 0.08 and curvature > 0


@pytest.mark.parametrize(
    "parameterization, seen",
    [
        (sde_lib.NoisePrediction(), lambda x, t, s: (x, 999 * t)),
        (sde_lib.ScorePrediction(), lambda x, t, s: (None, np.log(s))),
        (sde_lib.EDMPreconditioning(sigma_data=0.5), lambda x, t, s: (None, np.log(s) / 4)),
    ],
    ids=["noise", "score", "edm"],
)
def test_inputs_are_those_of_the_network(parameterization, seen):
    """They are what `x0_and_noise` gives the network, which here returns them as its output."""
    t = jnp.array([0.2, 0.7, 0.9, 0.1, 0.5])
    given = []

    def network(x, level):
        given.append((x, level))
        return x

    parameterization.x0_and_noise(network, SDE, X0, t)
    x, level = parameterization.inputs(SDE, jnp.asarray(X0), t)
    np.testing.assert_array_equal(x, given[0][0])
    known_x, known_level = seen(X0, np.asarray(t), np.asarray(SDE.noise_to_signal(t)))
    np.testing.assert_allclose(level, known_level, rtol=1e-5)
    if known_x is not None:
        np.testing.assert_allclose(x, known_x, rtol=1e-6)
