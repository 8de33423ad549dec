"""What holds of every posterior method: noise as a number and as a `Noise`, a y for each example, and what is passed on."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from sde_lib import VPSDE, Ancestral, FunctionDenoiser, Sampler, exact
from sde_lib.inverse import (
    DAPS,
    DDRM,
    DPS,
    MMPS,
    TMPD,
    DDNMPlus,
    Denoising,
    DiffPIR,
    GaussianNoise,
    PiGDM,
    PoissonNoise,
    Projection,
    RePaint,
    Replacement,
    ReSample,
    twisted_sample,
)
from sde_lib.inverse.krylov import gaussian_update
from sde_lib.randomness import split
from tests.sde_lib.inverse.dense import Dense, DenseSpectral, picks, random_orthogonal
from tests.sde_lib.processes import keys

rng = np.random.default_rng(0)
SDE, D, T, S, STD = VPSDE(), 4, 0.5, 0.35, 0.2
SPECTRAL = DenseSpectral(
    event_shape=(D,), u=random_orthogonal(3, 1), s=np.array([2.0, 0.5, 0.05]), v=random_orthogonal(D, 2)
)
DENSE = Dense(event_shape=(D,), matrix=rng.normal(size=(3, D)))
X, Y = rng.normal(size=(3, D)), rng.normal(size=(3, 3))
PRIOR = exact.Gaussian(SDE, 0.4, 0.8)

METHODS = {
    "DDRM": lambda y, noise: DDRM(SPECTRAL, y, noise, 0.7, 0.8),
    "DDNMPlus": lambda y, noise: DDNMPlus(SPECTRAL, y, noise),
    "DAPS": lambda y, noise: DAPS(DENSE, y, noise, ode_steps=2, langevin_steps=2, data_std=0.8),
    "ReSample": lambda y, noise: ReSample(DENSE, y, noise),
    "Replacement": lambda y, noise: Replacement(DENSE, y, relaxation=0.7),
    "Projection": lambda y, noise: Projection(DENSE, y, relaxation=0.7),
}


@pytest.mark.parametrize("kind", METHODS)
def test_a_method_takes_a_y_for_each_example_and_noise_of_either_kind(kind):
    """The third of three is alone what it is among others, with the noise as a number and as a `Noise`."""
    make = METHODS[kind]
    together = make(Y, STD).step((), keys(3), jnp.asarray(X), T, S, PRIOR)[1]
    alone = make(Y[2:], GaussianNoise(STD)).step((), keys(3)[2:], jnp.asarray(X[2:]), T, S, PRIOR)[1]
    np.testing.assert_allclose(alone[0], together[2], rtol=1e-9)
    other = make(Y[:1], STD).step((), keys(3)[2:], jnp.asarray(X[2:]), T, S, PRIOR)[1]
    assert np.abs(other[0] - together[2]).max() > 1e-3


@pytest.mark.parametrize(
    "kind, settings",
    [(TMPD, {}), (PiGDM, {}), (DiffPIR, {}), (DPS, {"zeta": None})],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_a_posterior_takes_a_y_for_each_example_and_noise_of_either_kind(kind, settings):
    t = jnp.array([0.2, 0.5, 0.8])
    together = kind(PRIOR, DENSE, Y, STD, **settings)(X, t)
    alone = kind(PRIOR, DENSE, Y[2:], GaussianNoise(STD), **settings)(X[2:], t[2])
    np.testing.assert_allclose(alone[0], together[2], rtol=1e-9)


@pytest.mark.parametrize("kind", ["DDRM", "DDNMPlus", "DAPS"])
def test_noise_of_several_variances_is_refused_by_name(kind):
    for noise in (PoissonNoise(5.0), np.array([0.1, 0.2, 0.3])):
        with pytest.raises(ValueError, match=f"^{kind} needs noise of one variance for all values, not variances of"):
            METHODS[kind](Y, noise).step((), keys(3), jnp.asarray(X), T, S, PRIOR)


def in_float32(tree):
    return jax.tree.map(lambda leaf: np.float32(leaf) if getattr(leaf, "dtype", None) == np.float64 else leaf, tree)


@pytest.mark.parametrize("kind", METHODS)
def test_a_step_in_float32_stays_in_float32(kind):
    """With singular values in float64 too; nothing is computed here."""
    method, t, s = METHODS[kind](Y.astype(np.float32), 0.2), jnp.float32(T), jnp.float32(S)

    def step(measurement, x):
        return method.replace(measurement=measurement).step((), keys(3), x, t, s, PRIOR)[1]

    for measurement in (in_float32(method.measurement), Denoising(event_shape=(3,))):
        x = jax.ShapeDtypeStruct((3, *measurement.event_shape), jnp.float32)
        assert jax.eval_shape(step, measurement, x) == x


@pytest.mark.parametrize("kind", [TMPD, PiGDM, DiffPIR, DPS, MMPS])
def test_a_posterior_of_float32_is_of_float32(kind):
    x = jax.ShapeDtypeStruct((3, D), jnp.float32)
    posterior = kind(PRIOR, in_float32(DENSE), Y.astype(np.float32), np.float64(0.2))
    assert jax.eval_shape(lambda x: posterior.x0_and_noise(x, T), x) == (x, x)


def test_dps_follows_the_likelihood_of_counts():
    """Of independent pixels, by hand: n^2 dD/du is v n^2 / (v + n^2) and grad log p is counts / light - peak / range."""
    noise, t, std = PoissonNoise(30.0, black=-2.0, white=1.0), 0.4, 0.3
    prior = exact.Gaussian(SDE, 0.1, std)
    counts = np.array([[12.0, 25.0, 3.0, 0.0]])
    posterior = DPS(prior, picks(0, 1, 2, 3, size=D), counts / 10 - 2, noise, zeta=None)
    x0 = np.asarray(prior(X[:1], t))
    n = SDE.noise_to_signal(t)
    expected = (counts / (x0 + 2) - 10) * std**2 * n**2 / (std**2 + n**2)
    np.testing.assert_allclose(posterior(X[:1], t) - x0, expected, rtol=1e-9)
    # A traced noise is not looked at.
    traced = jax.jit(lambda posterior: posterior(X[:1], t))(posterior.replace(measurement_noise=GaussianNoise(0.3)))
    np.testing.assert_allclose(traced, posterior.replace(measurement_noise=0.3)(X[:1], t), rtol=1e-9)


def test_an_expectation_that_fits_y_is_left_as_it_is():
    """The misfit's norm has no slope at 0: of its gradient nothing is left, and no NaN."""
    prior, x = FunctionDenoiser(SDE, lambda x, t: 1.5 + 0.1 * x), jnp.zeros((1, D))
    np.testing.assert_array_equal(DPS(prior, picks(0, 2, size=D), jnp.full((1, 2), 1.5))(x, 0.4), 1.5)


@struct.dataclass
class Told(Sampler):
    """A method that keeps what it is told, to see what is passed on."""

    evaluations_per_step = 3

    def init(self, x, denoiser, times):
        return {"x": x, "times": times, "denoiser": denoiser, "steps": ()}

    def step(self, carry, keys, x, t, s, denoiser):
        return {**carry, "steps": (*carry["steps"], (t, s, denoiser))}, x + 1

    def finish(self, carry, x, t, denoiser):
        return (carry, x, t, denoiser)


@struct.dataclass
class Corrector:
    evaluations_per_step = 5

    def correct(self, keys, x, t, denoiser):
        return x


@pytest.mark.parametrize(
    "method, evaluations",
    [
        (Replacement(DENSE, Y, Told()), 3),
        (Projection(DENSE, Y, Told()), 3),
        (Projection(DENSE, Y, Told(), Corrector()), 8),
        (RePaint(Told(), resamplings=2, substeps=4), 24),
        (RePaint(Replacement(DENSE, Y, Told()), resamplings=1, substeps=2), 6),
    ],
)
def test_a_method_around_another_passes_on_what_it_is_told(method, evaluations):
    times = np.array([1.0, 0.5, 0.0])
    carry = method.init(X, PRIOR, times)
    assert carry["x"] is X and carry["times"] is times and carry["denoiser"] is PRIOR
    assert method.evaluations_per_step == evaluations and method.nfe(11) == 10 * evaluations + 1
    if not isinstance(method, RePaint):
        carry, _ = method.step(carry, keys(3), X, T, S, PRIOR)
        assert carry["steps"] == ((T, S, PRIOR),) and carry["x"] is X
    if isinstance(method, Replacement):
        assert method.finish(carry, X, S, PRIOR) == (carry, X, S, PRIOR)


def test_replacement_is_of_what_the_predictor_has_made():
    """And of the noise at the step's end: with as good as none the step is known."""
    sde = SDE.replace(t_min=1e-9)
    x, _ = Replacement(DENSE, Y, Told(), relaxation=0.3).step({"steps": ()}, keys(3), X, T, 1e-12, PRIOR)[::-1]
    moved = X + 1
    expected = moved + 0.3 * (Y - moved @ DENSE.matrix.T) @ np.linalg.pinv(DENSE.matrix).T
    np.testing.assert_allclose(x, expected, atol=20 * float(sde.sigma(1e-12)))


@pytest.mark.parametrize("steps", [2, 4])
def test_daps_flow_has_the_levels_of_edm(steps):
    """rho = 7 between the noise at t and at t_min; each step is DDIM's, and the last is the Denoiser's mean."""
    seen = []

    def function(x, t):
        seen.append(float(SDE.noise_to_signal(t)))
        return 0.3 * x

    method = DAPS(DENSE, Y, STD, ode_steps=steps)
    found = method.estimate(jnp.asarray(X), jnp.asarray(T), FunctionDenoiser(SDE, function))
    n = np.linspace(SDE.noise_to_signal(T) ** (1 / 7), SDE.noise_to_signal(SDE.t_min) ** (1 / 7), steps) ** 7
    np.testing.assert_allclose(seen, n, rtol=1e-6)
    x, alphas = X, 1 / np.sqrt(1 + n**2)
    for i in range(steps - 1):
        noise = (x - alphas[i] * 0.3 * x) / (alphas[i] * n[i])
        x = alphas[i + 1] * (0.3 * x + n[i + 1] * noise)
    np.testing.assert_allclose(found, 0.3 * x, rtol=1e-5)


def test_particles_are_right_for_a_chain_of_three_steps():
    """Of one pixel the chain is Gaussian, however coarse: its evidence, mean and variance in closed form.

    The twist is for data of another spread, so that all weights count.
    """
    mean, spread, y, std, n = 0.4, 0.8, 1.3, 0.5, 20000
    times = np.array([0.5, 0.2, 0.08, 0.0])
    found = twisted_sample(
        keys(1)[0],
        exact.Gaussian(SDE, mean, spread),
        picks(0, size=1),
        np.array([y]),
        std,
        times,
        (1,),
        n,
        data_std=0.5,
    )

    def denoise(t):  # D = slope x + rest
        alpha, sigma = float(SDE.alpha(t)), float(SDE.sigma(t))
        gain = spread**2 * alpha / (alpha**2 * spread**2 + sigma**2)
        return gain, mean - gain * alpha * mean

    m, v = 0.0, 1.0
    for t, s in itertools.pairwise(times[:-1]):
        (alpha_t, alpha_s), (sigma_t, sigma_s) = SDE.alpha(np.array([t, s])), SDE.sigma(np.array([t, s]))
        a = alpha_t / alpha_s
        b = sigma_t**2 - a**2 * sigma_s**2
        of_x, of_x0 = a * sigma_s**2 / sigma_t**2, alpha_s * b / sigma_t**2
        slope, rest = denoise(t)
        m, v = (of_x + of_x0 * slope) * m + of_x0 * rest, (of_x + of_x0 * slope) ** 2 * v + b * sigma_s**2 / sigma_t**2
    slope, rest = denoise(times[-2])
    m, v = slope * m + rest, slope**2 * v
    evidence = -0.5 * ((y - m) ** 2 / (v + std**2) + np.log(2 * np.pi * (v + std**2)))
    weights, x = np.exp(found.log_weights), np.asarray(found.x)[:, 0]
    effective = 1 / (weights**2).sum()
    assert weights.sum() == pytest.approx(1) and effective > 2000
    posterior_variance = v * std**2 / (v + std**2)
    np.testing.assert_allclose(found.log_evidence, evidence, atol=5 / np.sqrt(effective))
    average = weights @ x
    np.testing.assert_allclose(
        average, m + v / (v + std**2) * (y - m), atol=5 * np.sqrt(posterior_variance / effective)
    )
    np.testing.assert_allclose(weights @ (x - average) ** 2, posterior_variance, rtol=5 * np.sqrt(2 / effective))
    np.testing.assert_allclose(found.resample(keys(2)[1]).mean(), average, atol=0.01)


def test_the_ancestral_step_is_the_predictor_of_replacement():
    replaced = Replacement(picks(0, size=D), np.ones((1, 1)))
    assert isinstance(replaced.predictor, Ancestral)
    x = replaced.step((), keys(3), jnp.asarray(X), T, S, PRIOR)[1]
    expected = Ancestral().step((), split(keys(3), 2)[0], jnp.asarray(X), T, S, PRIOR)[1]
    np.testing.assert_allclose(x[:, 1:], expected[:, 1:], rtol=1e-12)


def test_the_krylov_space_of_an_ill_conditioned_update_stays_orthogonal_in_float32():
    """Variances of 1 to 1e-5 with noise of 1e-6 for four images, against numpy's solves in float64."""
    draws, size, variance = np.random.default_rng(0), 20, 1e-6
    turns = np.linalg.qr(draws.normal(size=(4, size, size)))[0]
    covariances, misfit = (turns * np.geomspace(1, 1e-5, size)) @ turns.mT, draws.normal(size=(4, size))
    expected = np.stack(
        [c @ np.linalg.solve(c + variance * np.eye(size), r) for c, r in zip(covariances, misfit, strict=True)]
    )

    @jax.jit
    def update(covariances, misfit):
        product = lambda v: jnp.einsum("bij,bj->bi", covariances, v)  # noqa: E731
        return gaussian_update(product, lambda x: x, lambda y: y, jnp.float32(variance), misfit, 1e-30, size)

    found = update(jnp.float32(covariances), jnp.float32(misfit))
    assert found.dtype == jnp.float32
    errors = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert errors.mean() < 6e-3
