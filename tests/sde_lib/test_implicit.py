"""Implicit and sliced score matching: explicit score matching up to its constant, and estimates of it without bias."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sde_lib import VPSDE, exact, implicit_score_matching, sliced_score_matching
from sde_lib.losses import rademacher
from sde_lib.randomness import standard_normal
from tests.sde_lib.processes import keys

pytestmark = pytest.mark.thorough

SDE = VPSDE(t_min=1e-3)
TRUTH = exact.GaussianMixture(SDE, np.array([[-1.0], [1.5]]), stds=0.4)
MODEL = exact.GaussianMixture(SDE, np.array([[-0.7], [1.0]]), stds=0.6)
A = np.array([[1.0, -0.8], [0.3, 2.0]])


estimates = jax.jit(sliced_score_matching, static_argnames=("score", "probe", "probes", "variance_reduced"))


def linear(x, t):
    """A score with a Jacobian that is not diagonal; its trace is -3 t."""
    return -t * (x @ A.T) + 0.5


def test_it_is_explicit_score_matching_up_to_the_known_constant():
    """E |s - s*|^2 / 2 = E[implicit] + E |s*|^2 / 2 for a mixture, by quadrature over its density."""
    t, x = 0.05, jnp.linspace(-12, 12, 4001)[:, None]

    def expectation(values):
        return jnp.trapezoid(jnp.exp(TRUTH.log_prob(x, t)) * values, x[:, 0])

    @jax.jit
    def objectives():
        s, true = MODEL.score(x, t)[:, 0], TRUTH.score(x, t)[:, 0]
        least, implicit = (implicit_score_matching(denoiser.score, x, t) for denoiser in (TRUTH, MODEL))
        return [expectation(values) for values in (0.5 * (s - true) ** 2, implicit, least, 0.5 * true**2)]

    explicit, implicit, least, constant = objectives()
    np.testing.assert_allclose(explicit, implicit + constant, rtol=1e-9)
    assert explicit > 0.01
    np.testing.assert_allclose(least, -constant, rtol=1e-9)


def test_the_trace_is_that_of_the_hessian_of_the_log_density():
    """For events with several axes, each example at its own time."""
    denoiser = exact.GaussianMixture(SDE, np.random.default_rng(0).normal(size=(3, 2, 2)), stds=0.5)
    x, t = np.random.default_rng(1).normal(size=(4, 2, 2)), jnp.array([0.1, 0.3, 0.5, 0.7])

    def log_prob(flat, t):
        return denoiser.log_prob(flat.reshape(1, 2, 2), t)[0]

    @jax.jit
    def both():
        hessian = jax.vmap(jax.hessian(log_prob))(x.reshape(4, 4), t)
        expected = 0.5 * jnp.square(denoiser.score(x, t)).sum((1, 2)) + jnp.trace(hessian, axis1=1, axis2=2)
        return implicit_score_matching(denoiser.score, x, t), expected

    np.testing.assert_allclose(*both(), rtol=1e-9)


@pytest.mark.parametrize("probe", [rademacher, standard_normal], ids=lambda p: p.__name__)
@pytest.mark.parametrize("variance_reduced", [True, False])
def test_sliced_score_matching_is_unbiased(probe, variance_reduced):
    n, t = 40_000, 0.7
    x = jnp.broadcast_to(jnp.array([0.6, -1.1]), (n, 2))
    exactly = 0.5 * np.square(linear(x[0], t)).sum() - 3 * t
    estimate = estimates(keys(n), linear, x, t, probe=probe, variance_reduced=variance_reduced)
    assert 0 < abs(estimate.mean() - exactly) < 4 * estimate.std() / np.sqrt(n)


def test_variance_falls_with_probes_signs_and_the_exact_square():
    """In closed form: v^T J v has variance (J_01 + J_10)^2 under signs, |J + J^T|^2 / 2 under normals."""
    n, t = 40_000, 0.7
    x = jnp.broadcast_to(jnp.array([0.6, -1.1]), (n, 2))

    def variance(**options):
        return float(estimates(keys(n), linear, x, t, **options).var())

    signs = t**2 * (A[0, 1] + A[1, 0]) ** 2
    assert variance() == pytest.approx(signs, rel=0.05)
    assert variance(probes=5) == pytest.approx(signs / 5, rel=0.05)
    assert variance(probe=standard_normal) == pytest.approx(t**2 * np.square(A + A.T).sum() / 2, rel=0.05)
    assert variance(variance_reduced=False) > signs


def test_its_minimum_over_a_gaussian_is_the_mean_and_std_of_the_samples():
    x = np.array([0.4, -2.0]) + np.array([0.5, 3.0]) * np.random.default_rng(0).normal(size=(500, 2))

    def losses(mean, log_std):
        def score(x, t):
            return -(x - mean) / jnp.exp(2 * log_std)

        sliced = sliced_score_matching(keys(500), score, x, 0.0)  # the Jacobian is diagonal: signs are exact
        return jnp.stack([implicit_score_matching(score, x, 0.0).mean(), sliced.mean()])

    mean, log_std = x.mean(0), np.log(x.std(0))
    for slope in jax.jit(jax.jacrev(losses, (0, 1)))(mean, log_std):
        np.testing.assert_allclose(slope, 0, atol=1e-12)
    losses = jax.jit(losses)
    for change in (0.1, -0.1):
        assert (losses(mean + change, log_std) > losses(mean, log_std)).all()
        assert (losses(mean, log_std + change) > losses(mean, log_std)).all()


def test_gradients_agree_with_finite_differences():
    rng = np.random.default_rng(0)
    weights, direction = rng.normal(size=(2, 3, 3))
    x = rng.normal(size=(5, 3))

    def losses(weights):
        def score(x, t):
            return jnp.tanh(x @ weights) @ weights.T - t * x

        yield implicit_score_matching(score, x, 0.3).mean()
        yield sliced_score_matching(keys(5), score, x, 0.3, probes=2).mean()
        yield sliced_score_matching(keys(5), score, x, 0.3, variance_reduced=False).mean()

    values = jax.jit(lambda weights: jnp.array(list(losses(weights))))
    slope = (jax.jit(jax.jacrev(values))(weights) * direction).sum((1, 2))
    step = 1e-5 * direction
    np.testing.assert_allclose((values(weights + step) - values(weights - step)) / 2e-5, slope, rtol=1e-7)


def test_estimate_i_depends_on_key_i_alone():
    x = np.random.default_rng(0).normal(size=(6, 2))
    together = jax.jit(lambda k: sliced_score_matching(k, linear, x, 0.7, probes=3))(keys(6))
    alone = estimates(keys(6)[4:5], linear, x[4:5], 0.7, probes=3)
    np.testing.assert_allclose(together[4:5], alone, rtol=1e-12)


def test_no_probe_is_an_error():
    with pytest.raises(ValueError, match="sliced_score_matching: probes=0 must be at least 1"):
        sliced_score_matching(keys(1), linear, jnp.ones((1, 2)), 0.5, probes=0)
