"""Denoisers: the views agree with the density, and every parameterization gives the same Denoiser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sde_lib import (
    CriticallyDampedLangevin,
    DataPrediction,
    Denoiser,
    EDMPreconditioning,
    FunctionDenoiser,
    NetworkDenoiser,
    NoisePrediction,
    ScorePrediction,
    exact,
)
from sde_lib.denoiser import shifted, with_data_shifted
from sde_lib.sde import expand
from tests.sde_lib.processes import EVERY_SDE, SOME_SDES, keys, some_sdes

MEANS = np.array([[-1.0, 0.5], [2.0, 1.0], [0.3, -2.0]])
X = np.array([[0.3, -0.7], [1.5, 2.0], [-4.0, 0.1]])


def denoisers(sde):
    yield exact.Gaussian(sde, mean=jnp.array([0.4, -1.0]), std=jnp.array([0.5, 2.0]))
    yield exact.GaussianMixture(sde, MEANS, stds=jnp.array([0.2, 0.5, 1.0]), weights=jnp.array([0.5, 0.2, 0.3]))


@some_sdes
@pytest.mark.parametrize("t", [0.05, 0.9])
def test_score_is_the_gradient_of_the_log_density(sde, t):
    for denoiser in denoisers(sde):
        gradient = jax.grad(lambda x: denoiser.log_prob(x, t).sum())(X)  # noqa: B023
        np.testing.assert_allclose(denoiser.score(X, t), gradient, rtol=1e-9, atol=1e-12)


@some_sdes
def test_mixture_density_is_that_of_its_perturbed_samples(sde):
    """The density integrates to 1, and its mean is alpha times the data's."""
    denoiser = exact.GaussianMixture(sde, np.array([[-1.0], [2.0]]), stds=0.3, weights=jnp.array([0.3, 0.7]))
    t = sde.time_at_log_snr(1.0)
    x = jnp.linspace(-20, 20, 20_001)[:, None]
    density = jnp.exp(denoiser.log_prob(x, t))
    np.testing.assert_allclose(jnp.trapezoid(density, x[:, 0]), 1, rtol=1e-9)
    np.testing.assert_allclose(jnp.trapezoid(density * x[:, 0], x[:, 0]), 1.1 * sde.alpha(t), rtol=1e-9)


@some_sdes
def test_mixture_samples_have_the_mixtures_moments(sde):
    denoiser = exact.GaussianMixture(sde, np.array([[-1.0], [2.0]]), stds=0.3, weights=jnp.array([0.3, 0.7]))
    x = denoiser.sample(jax.random.key(0), 40_000)
    variance = 0.3 * 0.7 * 3**2 + 0.3**2
    assert abs(x.mean() - 1.1) < 4 * np.sqrt(variance / len(x))
    assert abs(x.var() - variance) < 0.03


@some_sdes
def test_velocity_is_that_of_the_probability_flow(sde):
    t = jnp.array([0.1, 0.5, 0.8])
    for denoiser in denoisers(sde):
        squared_diffusion = expand(sde.squared_diffusion(t), X)
        expected = sde.drift(X, t) - 0.5 * squared_diffusion * denoiser.score(X, t)
        np.testing.assert_allclose(denoiser.velocity(X, t), expected, rtol=1e-8)


@some_sdes
def test_gaussian_flow_solves_the_probability_flow(sde):
    denoiser = exact.Gaussian(sde, mean=0.4, std=0.5)
    slope = jax.jvp(lambda s: denoiser.flow(X, 0.7, s), (0.3,), (1.0,))[1]
    np.testing.assert_allclose(slope, denoiser.velocity(denoiser.flow(X, 0.7, 0.3), 0.3), rtol=1e-9)
    np.testing.assert_allclose(denoiser.flow(X, 0.7, 0.7), X, rtol=1e-12)


class ExactNetwork:
    """A network whose output is right for a parameterization, given x0 and the noise behind every x."""

    def __init__(self, output, levels):
        self.output, self.levels = output, levels

    def apply(self, variables, x, noise_level, condition, *, train):
        assert not train
        np.testing.assert_allclose(noise_level, self.levels, rtol=1e-6, atol=1e-7)
        return self.output

    def __hash__(self):
        return id(self)


def target(parameterization, sde, x0, noise, t):
    """What the table in `parameterization`'s docstring says the output and the noise level are."""
    s = np.asarray(sde.sigma(t) / sde.alpha(t))
    if isinstance(parameterization, EDMPreconditioning):
        d = parameterization.sigma_data
        c_skip = (d**2 / (s**2 + d**2))[:, None]
        c_out = (s * d / np.sqrt(s**2 + d**2))[:, None]
        return (x0 - c_skip * (x0 + s[:, None] * noise)) / c_out, np.log(s) / 4
    kinds = {
        NoisePrediction: (noise, 999 * t),
        DataPrediction: (x0, 999 * t),
        ScorePrediction: (-noise, np.log(s)),  # sigma times the score of p(x_t | x0)
    }
    return kinds[type(parameterization)]


@some_sdes
@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize(
    "parameterization",
    [NoisePrediction(), DataPrediction(), ScorePrediction(), ScorePrediction(sigma_data=0.5), EDMPreconditioning(0.5)],
    ids=lambda p: type(p).__name__,
)
def test_every_parameterization_gives_the_same_denoiser(sde, parameterization, precision):
    """Exact outputs give exact x0 and noise; in float32 each keeps the digits that x itself holds of it."""
    t = np.array([sde.t_min, 0.1, 0.5, 0.9 * sde.t_max])
    rng = np.random.default_rng(0)
    x0, noise = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    output, levels = target(parameterization, sde, x0, noise, t)
    alpha, sigma = (np.asarray(f(t))[:, None] for f in (sde.alpha, sde.sigma))
    with jax.enable_x64(precision == "float64"):
        x0, noise, output, t = (np.asarray(a, precision) for a in (x0, noise, output, t))
        network = ExactNetwork(output, levels)
        denoiser = NetworkDenoiser(sde, parameterization, network)
        x = np.asarray(alpha * x0 + sigma * noise, precision)
        got_x0, got_noise = denoiser.x0_and_noise(x, t)
    rounding = 50 * np.finfo(precision).eps
    assert (np.abs(got_x0 - x0) < rounding * (1 + sigma / alpha)).all()
    assert (np.abs(got_noise - noise) < rounding * (1 + alpha / sigma)).all()


@some_sdes
def test_edm_preconditioning_gives_input_and_target_of_unit_variance(sde):
    std, t = 0.6, np.array([sde.t_min, 0.3, sde.t_max])
    x0, noise = np.random.default_rng(0).normal(size=(2, 3, 100_000)) * np.array([std, 1])[:, None, None]
    seen = []

    class Recorder(ExactNetwork):
        def apply(self, variables, x, noise_level, condition, *, train):
            seen.append(x)
            return jnp.zeros_like(x)

    x = sde.perturb(x0, noise, t)
    NetworkDenoiser(sde, EDMPreconditioning(std), Recorder(None, None))(x, t)
    output, _ = target(EDMPreconditioning(std), sde, x0, noise, t)
    np.testing.assert_allclose(np.std(seen[0], axis=1), 1, rtol=0.02)
    np.testing.assert_allclose(np.std(output, axis=1), 1, rtol=0.02)


def test_training_turns_dropout_on_with_one_key_an_example():
    class Dropout(ExactNetwork):
        def apply(self, variables, x, noise_level, condition, *, train, dropout_keys=None):
            return x if not train else jax.vmap(lambda k, v: v * jax.random.bernoulli(k))(dropout_keys, x)

    denoiser = NetworkDenoiser(SOME_SDES[0], DataPrediction(), Dropout(None, None))
    x = jnp.ones((64, 1))
    np.testing.assert_array_equal(denoiser(x, 0.5), x)
    expected = jax.vmap(jax.random.bernoulli)(keys(64))[:, None]
    np.testing.assert_array_equal(denoiser.training(keys(64))(x, 0.5), expected)


def test_function_denoiser_has_all_views():
    sde = SOME_SDES[0]
    gaussian = exact.Gaussian(sde, mean=0.4, std=0.5)
    denoiser = FunctionDenoiser(sde, gaussian)
    np.testing.assert_allclose(denoiser.score(X, 0.5), gaussian.score(X, 0.5))


def test_a_network_is_given_all_that_the_denoiser_holds():
    """Weights, condition and keys as they are, and one noise level per example of a single time."""
    seen = {}

    class Everything(ExactNetwork):
        def apply(self, variables, x, noise_level, condition, **mode):
            seen.update(mode, variables=variables, condition=condition, noise_level=noise_level)
            return x

    x, condition = jnp.ones((3, 2)), {"some": jnp.array([4, 5, 6]), "other": jnp.eye(3)}
    denoiser = NetworkDenoiser(SOME_SDES[0], DataPrediction(), Everything(None, None), {"w": 1.5}, condition)
    np.testing.assert_array_equal(denoiser(x, 0.5), x)
    assert seen.pop("variables") == {"w": 1.5} and seen.pop("condition") is condition
    np.testing.assert_allclose(seen.pop("noise_level"), np.full(3, 999 * 0.5))
    assert seen == {"train": False}
    of_training = keys(3)
    denoiser.replace(condition=None).training(of_training)(x, 0.5)
    assert seen["condition"] is None
    assert seen["train"] is True and seen["dropout_keys"] is of_training


def test_draws_of_a_mixture_have_the_type_of_its_means():
    for dtype in ("float32", "float64"):
        denoiser = exact.GaussianMixture(SOME_SDES[0], jnp.zeros((2, 3), dtype), stds=np.array([0.0, 0.5], dtype))
        x = denoiser.sample(jax.random.key(0), 64)
        assert x.dtype == dtype and x.shape == (64, 3)
        still = np.asarray((x == 0).all(1))
        assert 10 < still.sum() < 54 and np.abs(np.asarray(x)[~still]).min() > 0  # a half of them of the width 0


@pytest.mark.parametrize("sde", [*EVERY_SDE, CriticallyDampedLangevin()], ids=lambda sde: type(sde).__name__)
def test_a_shift_moves_the_data_of_a_state_or_what_is_expected_of_it(sde):
    """`to_data_scale` moves by as much as the data; and the expected data and noise still make the same state."""
    rng, t = np.random.default_rng(0), np.array([0.2, 0.5, 0.8])
    x0, shift = jnp.asarray(rng.normal(size=(2, 3, 2)))
    noise = jnp.asarray(rng.normal(size=(3, *sde.state_shape((2,)))))
    x = sde.perturb(x0, noise, t)
    moved = with_data_shifted(sde, x, shift, t)
    np.testing.assert_allclose(sde.to_data_scale(moved, t), sde.to_data_scale(x, t) + shift, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(moved, sde.perturb(x0 + shift, noise, t), rtol=1e-9, atol=1e-12)
    data, other = shifted(sde, x, x0, noise, shift, t)
    np.testing.assert_allclose(data, x0 + shift, rtol=1e-12)
    np.testing.assert_allclose(sde.perturb(data, other, t), x, rtol=1e-7, atol=1e-9)


def test_the_posterior_variance_of_normal_data_adds_precisions():
    """Of a level and a standard deviation: 1 / (1 / n^2 + 1 / s^2), with the limits of each."""
    for n, s, expected in [(3.0, 4.0, 5.76), (2.0, np.inf, 4.0), (np.inf, 2.0, 4.0), (0.5, 0.5, 0.125)]:
        np.testing.assert_allclose(exact.isotropic_variance(n, s), expected, rtol=1e-12)


class _ByExpectation(Denoiser):
    def __call__(self, x, t):
        return exact.Gaussian(self.sde, 1.0, 0.5)(x, t)


class _ByX0AndNoise(Denoiser):
    def x0_and_noise(self, x, t):
        return exact.Gaussian(self.sde, 1.0, 0.5).x0_and_noise(x, t)


@some_sdes
@pytest.mark.parametrize("view", ["__call__", "x0_and_noise", "noise", "score", "velocity"])
def test_either_of_two_methods_defines_a_denoiser(sde, view):
    x, t = np.random.default_rng(0).normal(size=(4, 3)), 0.4
    expected = getattr(exact.Gaussian(sde, 1.0, 0.5), view)(x, t)
    for made in (_ByExpectation(sde), _ByX0AndNoise(sde)):
        jax.tree.map(np.testing.assert_array_equal, getattr(made, view)(x, t), expected)
