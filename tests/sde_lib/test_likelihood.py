"""Log-likelihood: against closed forms, and the standard error against the errors made."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from sde_lib import VPSDE, ExactDivergence, FlowSolution, Hutchinson, Status, exact, log_likelihood
from tests.sde_lib.processes import SOME_SDES, every_sde, keys
from tests.sde_lib.shared_programs import MEANS, shared_mixture, symmetric_sample

pytestmark = pytest.mark.thorough


def true_log_prob(denoiser, x, z):
    """The flow's density from the data's: where it starts from the prior instead of p_{t_max}, it differs at z."""
    sde = denoiser.sde
    return denoiser.log_prob(x, sde.t_min) + sde.prior_log_prob(z) - denoiser.log_prob(z, sde.t_max)


@every_sde
@pytest.mark.parametrize("means, std", [(np.zeros((2, 2)), 0.4), (MEANS, 0.3)], ids=["gaussian", "mixture"])
def test_bits_per_dim_are_those_of_the_closed_form(sde, means, std):
    x, truth = symmetric_sample(sde, means, std), exact.GaussianMixture(sde, means, stds=std)
    found = log_likelihood(None, shared_mixture(sde, means, std), x, divergence=ExactDivergence())
    bit_per_dim = 2 * np.log(2)
    np.testing.assert_allclose(found.log_prob, true_log_prob(truth, x, found.z), atol=3e-4 * bit_per_dim)
    # Over data, the prior's difference from p_{t_max} is below a thousandth of a bit too.
    assert abs(found.log_prob.mean() - truth.log_prob(x, sde.t_min).mean()) < 1e-3 * bit_per_dim
    assert (found.status == Status.SOLVED).all() and (found.standard_error == 0).all()


@pytest.fixture(scope="module")
def many_estimates():
    """One example in 12 dimensions, 400 sets of 8 probes."""
    with jax.enable_x64(True):
        axes = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))[0]
        covariance = jnp.asarray(axes * np.geomspace(0.05, 2.0, 12) @ axes.T)
        denoiser = exact.CorrelatedGaussian(VPSDE(t_min=1e-3), 0.0, covariance)
        truth = exact.CorrelatedMixture(denoiser.sde, jnp.zeros((1, 12)), covariance[None])
        x = jnp.broadcast_to(jnp.linspace(-0.4, 0.6, 12), (400, 12))
        estimates = {
            kind: log_likelihood(keys(400), denoiser, x, divergence=Hutchinson(8, kind))
            for kind in ("rademacher", "gaussian")
        }
        return estimates, true_log_prob(truth, x[:1], estimates["gaussian"].z[:1])[0]


@pytest.mark.parametrize("distribution", ["rademacher", "gaussian"])
def test_the_standard_error_covers_the_truth_as_often_as_it_should(many_estimates, distribution):
    estimates, truth = many_estimates[0][distribution], many_estimates[1]
    error = estimates.log_prob - truth
    assert np.std(error) > 0.05  # much more than the solver's error
    assert abs(error.mean()) < 4 * np.std(error) / np.sqrt(400)
    for level in (0.5, 0.9):
        covered = np.abs(error) < scipy.stats.t(7).ppf(0.5 + level / 2) * estimates.standard_error
        assert scipy.stats.binomtest(int(covered.sum()), 400, level).pvalue > 1e-3, (level, covered.mean())


def test_signs_have_less_variance_than_normal_probes(many_estimates):
    estimates = many_estimates[0]
    assert np.std(estimates["rademacher"].log_prob) < 0.9 * np.std(estimates["gaussian"].log_prob)


def test_probes_come_from_the_examples_own_key(many_estimates):
    """Equal examples with other keys have other estimates."""
    assert len(np.unique(many_estimates[0]["rademacher"].log_prob)) > 350


def test_one_probe_knows_no_standard_error():
    assert np.isnan(Hutchinson(1).standard_error(jnp.ones((5, 1)))).all()


@pytest.mark.parametrize("num_probes", [2, 3, 8])
def test_the_standard_error_is_that_of_a_mean_of_few(num_probes):
    """scipy's, which divides by n - 1."""
    estimates = np.random.default_rng(0).normal(size=(5, num_probes))
    found = Hutchinson(num_probes).standard_error(jnp.asarray(estimates))
    np.testing.assert_allclose(found, scipy.stats.sem(estimates, axis=1), rtol=1e-12)


@pytest.mark.parametrize("chunk", [2, 3, 64])
def test_exact_divergence_is_the_trace_in_any_chunks(chunk):
    matrix = np.random.default_rng(0).normal(size=(6, 6))
    found = ExactDivergence(chunk)(lambda u: (matrix @ u.ravel()).reshape(2, 3), jnp.zeros((2, 3)), None)
    np.testing.assert_allclose(found, [np.trace(matrix)], rtol=1e-12)


def test_an_example_whose_denoiser_breaks_leaves_the_others_intact():
    whole = shared_mixture(SOME_SDES[0])
    x = symmetric_sample(SOME_SDES[0]).at[2].set(9.0)
    found = log_likelihood(None, whole.replace(highest=8.0), x, divergence=ExactDivergence())
    expected = log_likelihood(None, whole, x, divergence=ExactDivergence())
    np.testing.assert_array_equal(np.isnan(found.log_prob), np.arange(8) == 2)
    np.testing.assert_array_equal(found.status, np.where(np.arange(8) == 2, Status.NO_STEP, Status.SOLVED))
    others = np.arange(8) != 2
    np.testing.assert_allclose(found.log_prob[others], expected.log_prob[others], rtol=1e-10)


def test_gradient_is_the_score_at_t_min():
    sde = SOME_SDES[0]
    denoiser = exact.Gaussian(sde, mean=0.4, std=0.5)
    x = jnp.array([[0.2], [0.9]])

    def total(x):
        found = log_likelihood(
            None, denoiser, x, divergence=ExactDivergence(), max_steps=64, adjoint=diffrax.RecursiveCheckpointAdjoint()
        )
        # The prior instead of p_{t_max}, as in `true_log_prob`.
        return (found.log_prob - sde.prior_log_prob(found.z) + denoiser.log_prob(found.z, sde.t_max)).sum()

    np.testing.assert_allclose(jax.grad(total)(x), denoiser.score(x, sde.t_min), atol=2e-3)


def test_wrong_keys_are_refused():
    denoiser, x = exact.Gaussian(SOME_SDES[0]), jnp.zeros((2, 3))
    with pytest.raises(ValueError, match="there are 3 keys: 2 examples need one each"):
        log_likelihood(keys(3), denoiser, x)
    with pytest.raises(ValueError, match="Hutchinson is random: pass keys"):
        log_likelihood(None, denoiser, x)
    with pytest.raises(ValueError, match="typed keys"):
        log_likelihood(jax.random.PRNGKey(0), denoiser, x)
    with pytest.raises(ValueError, match="num_probes=0"):
        log_likelihood(keys(2), denoiser, x, divergence=Hutchinson(0))
    with pytest.raises(ValueError, match=r"distribution='normal' is unknown: choose from \['gaussian', 'rademacher'\]"):
        log_likelihood(keys(2), denoiser, x, divergence=Hutchinson(distribution="normal"))


@pytest.fixture
def integrations(monkeypatch):
    """What the flow is asked for, without compilation; it ends at 2 x after 7 evaluations, with 2 integrals."""
    found = []

    def integrate(denoiser, x, start, end, **options):
        found.append({"x": x, "start": start, "end": end, **options})
        count = len(x)
        solution = FlowSolution(2 * x, jnp.full(count, 7), jnp.arange(count))
        return solution, jnp.stack([jnp.arange(count) + 0.5, jnp.arange(count) + 2.5], 1)

    monkeypatch.setattr("sde_lib.likelihood.integrate", integrate)
    with jax.disable_jit():
        yield found


def test_settings_of_a_likelihood_reach_the_solve(integrations):
    sde, x = VPSDE(t_min=0.125), jnp.ones((2, 3))
    settings = {"rtol": 0.1, "atol": 0.2, "max_steps": 7, "adjoint": diffrax.RecursiveCheckpointAdjoint()}
    divergence = Hutchinson(2, "gaussian")
    found = log_likelihood(keys(2), exact.Gaussian(sde), x, divergence=divergence, **settings)
    call = integrations.pop()
    probes = call.pop("probes")
    expected = [jax.random.normal(key, (2, 3)) for key in keys(2)]
    np.testing.assert_array_equal(probes, expected)
    np.testing.assert_array_equal(call.pop("x"), x)
    assert call == {"start": 0.125, "end": 1.0, **settings, "divergence": divergence}
    # log prior at the end, N(0, sigma(1)^2) of 2 in three dimensions, and the mean of the estimates.
    log_prior = 3 * scipy.stats.norm(scale=sde.sigma(1.0)).logpdf(2.0)
    np.testing.assert_allclose(found.log_prob, log_prior + np.array([1.5, 2.5]), rtol=1e-12)
    np.testing.assert_allclose(found.standard_error, [1.0, 1.0], rtol=1e-12)
    assert (found.z == 2).all() and found.nfe.tolist() == [7, 7] and found.status.tolist() == [0, 1]


def test_the_divergence_is_by_default_that_of_four_random_signs(integrations):
    log_likelihood(keys(2), exact.Gaussian(VPSDE()), jnp.ones((2, 3)))
    assert integrations[0]["divergence"] == Hutchinson(4, "rademacher")
    assert integrations[0]["probes"].shape == (2, 4, 3) and set(np.unique(integrations[0]["probes"])) == {-1.0, 1.0}


def test_the_exact_divergence_draws_nothing_and_checks_the_keys_that_it_is_given(integrations):
    args = exact.Gaussian(VPSDE()), jnp.ones((2, 3))
    log_likelihood(keys(2), *args, divergence=ExactDivergence())
    assert integrations[0]["probes"] is None
    with pytest.raises(ValueError, match="there are 3 keys: 2 examples need one each"):
        log_likelihood(keys(3), *args, divergence=ExactDivergence())


@pytest.mark.parametrize("distribution", ["rademacher", "gaussian"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_probes_and_divergences_have_the_type_of_the_state(distribution, dtype):
    x = jnp.zeros((2, 3), dtype)
    divergence = Hutchinson(5, distribution)
    probes = divergence.probes(jax.random.key(0), x)
    assert probes.dtype == dtype and probes.shape == (5, 2, 3)
    matrix = np.random.default_rng(0).normal(size=(6, 6)).astype(dtype)
    estimates = divergence(lambda u: (matrix @ u.ravel()).reshape(2, 3), x, probes)
    flat = np.asarray(probes, float).reshape(5, 6)
    np.testing.assert_allclose(estimates, np.einsum("pi,ij,pj->p", flat, matrix, flat), rtol=1e-4)
    assert estimates.dtype == dtype
    np.testing.assert_array_equal(ExactDivergence().standard_error(jnp.ones((4, 1))), np.zeros(4))
