"""The variational bound: its closed form for a Gaussian, tightness, and that it is a bound."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from sde_lib import VPSDE, Quantization, elbo, exact
from sde_lib.randomness import fold_in
from sde_lib.variational_bound import _estimate
from tests.sde_lib.processes import SOME_SDES, every_sde, keys
from tests.sde_lib.shared_programs import MEANS, shared_mixture

pytestmark = pytest.mark.thorough

STD = 0.4


def bound_in_closed_form(sde, x0):
    """The three terms for the exact Denoiser of N(0, STD^2 I), integrated by hand over w = STD^2 snr."""
    size, square = x0.shape[1], np.square(x0).sum(1)
    alpha, sigma = sde.alpha(sde.t_max), sde.sigma(sde.t_max)
    prior = 0.5 * (alpha / sigma) ** 2 * square

    def primitive(t):
        w = STD**2 * np.exp(sde.log_snr(t))
        return size * (np.log1p(w) + 1 / (1 + w)) - square / STD**2 / (1 + w)

    diffusion = 0.5 * (primitive(sde.t_min) - primitive(sde.t_max))
    s = np.exp(-0.5 * sde.log_snr(sde.t_min))
    return prior, diffusion, np.full(len(x0), size * 0.5 * (1 + np.log(2 * np.pi * s**2)))


X0 = np.array([[0.0, 0.0], [0.3, -0.5], [0.4, 0.4], [-0.9, 0.1], [1.0, -1.0], [0.2, 0.0], [-0.4, 0.3], [0.1, -0.6]])


def evaluate(sde, means, std, x0=X0):
    return elbo(
        keys(8), shared_mixture(sde, means, std), jnp.asarray(x0), num_times=256, num_estimates=32, data_std=0.5
    )


@every_sde
def test_terms_are_those_of_the_closed_form(sde):
    found = evaluate(sde, np.zeros((2, 2)), STD)
    prior, diffusion, reconstruction = bound_in_closed_form(sde, X0)
    np.testing.assert_allclose(found.prior, prior, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.reconstruction, reconstruction, rtol=1e-12)
    deviations = (found.diffusion - diffusion) / found.standard_error
    assert np.abs(deviations).max() < 5 and found.standard_error.max() < 0.02
    np.testing.assert_allclose(found.log_prob, -(found.prior + found.diffusion + found.reconstruction), rtol=1e-9)


def model_std(sde):
    """Of the model's density at the exact Denoiser of N(0, STD^2): the reverse SDE from the prior, then the last step."""
    start, end = (STD**2 * sde.alpha(t) ** 2 + sde.sigma(t) ** 2 for t in (sde.t_min, sde.t_max))
    slope = sde.alpha(sde.t_max) / sde.alpha(sde.t_min) * start / end  # of x_{t_min} on x_{t_max}
    variance = start + slope**2 * (sde.sigma(sde.t_max) ** 2 - end)
    return np.sqrt((variance + sde.sigma(sde.t_min) ** 2) / sde.alpha(sde.t_min) ** 2)


@every_sde
def test_never_better_than_the_models_likelihood_and_tight_but_for_the_last_step(sde):
    truth = scipy.stats.norm(scale=model_std(sde)).logpdf(X0).sum(1)
    gap = truth + sum(bound_in_closed_form(sde, X0))
    assert (gap > 0).all() and gap.max() < 1e-2
    found = evaluate(sde, np.zeros((2, 2)), STD)
    assert (np.abs(found.log_prob - truth) < gap + 5 * found.standard_error).all()


def test_at_the_clean_datas_likelihood_as_t_min_falls():
    sde = VPSDE(t_min=1e-5)
    truth = scipy.stats.norm(scale=STD).logpdf(X0).sum(1)
    found = evaluate(sde, np.zeros((2, 2)), STD)
    # What is left is the prior's difference from p_{t_max}.
    assert np.abs(truth + sum(bound_in_closed_form(sde, X0))).max() < 1e-3
    assert (np.abs(found.log_prob - truth) < 1e-3 + 5 * found.standard_error).all()


@every_sde
def test_of_a_mixture_is_close_below_its_likelihood(sde):
    found = evaluate(sde, MEANS, 0.3, X0)
    std = np.sqrt(0.3**2 + 2 * sde.noise_to_signal(sde.t_min) ** 2)
    truth = np.log(sum(0.5 * scipy.stats.norm(m, std).pdf(X0).prod(1) for m in MEANS))
    gap, error = truth - found.log_prob, 5 * found.standard_error
    assert (gap > -2e-3 - error).all()  # the prior's difference from p_{t_max}: 1e-3
    assert (gap < 5e-3 + error).all() and found.standard_error.max() < 0.05


def test_standard_error_is_that_of_repeats():
    sde = SOME_SDES[0]
    x0 = jnp.broadcast_to(X0[1], (400, 2))
    found = elbo(keys(400), exact.Gaussian(sde, std=STD), x0, num_times=4, num_estimates=16)
    np.testing.assert_allclose(jnp.sqrt(jnp.square(found.standard_error).mean()), found.log_prob.std(), rtol=0.15)
    truth = -sum(bound_in_closed_form(sde, X0[1:2]))[0]
    covered = np.abs(found.log_prob - truth) < scipy.stats.t(15).ppf(0.95) * found.standard_error
    assert scipy.stats.binomtest(int(covered.sum()), 400, 0.9).pvalue > 1e-3, covered.mean()


def test_of_levels_is_their_probability():
    """Three images of two pixels, with the noise at t_min far below a bin: tight."""
    quantization = Quantization.filling(-1.0, 1.0, num_levels=8)
    images, weights = jnp.array([[1, 6], [2, 6], [7, 0]]), jnp.array([0.5, 0.2, 0.3])
    law = exact.GaussianMixture(VPSDE(t_min=1e-4), quantization.centre(images), stds=0.0, weights=weights)
    found = elbo(keys(3), law, images, quantization=quantization, num_times=256, num_estimates=32, data_std=0.01)
    deviations = (found.log_prob - jnp.log(weights)) / found.standard_error
    assert np.abs(deviations).max() < 4 and found.standard_error.max() < 0.15, (deviations, found.standard_error)


def test_example_i_depends_on_key_i_alone():
    denoiser = exact.Gaussian(SOME_SDES[0], std=STD)
    together, alone = elbo(keys(8), denoiser, X0), elbo(keys(8)[3:4], denoiser, X0[3:4])
    np.testing.assert_allclose(together.log_prob[3], alone.log_prob[0], rtol=1e-10)


def test_misuse_is_refused():
    denoiser, levels = exact.Gaussian(SOME_SDES[0]), jnp.zeros((8, 2), jnp.uint8)
    with pytest.raises(ValueError, match="uint8 without quantization"):
        elbo(keys(8), denoiser, levels)
    with pytest.raises(ValueError, match="float64 with quantization"):
        elbo(keys(8), denoiser, X0, quantization=Quantization.filling(-1, 1))
    with pytest.raises(ValueError, match="there are 7 keys"):
        elbo(keys(7), denoiser, X0)
    with pytest.raises(ValueError, match="num_times=0"):
        elbo(keys(8), denoiser, X0, num_times=0)
    with pytest.raises(ValueError, match="elbo: data_std=0 must be more than 0"):
        elbo(keys(8), denoiser, X0, data_std=0)


def test_the_bound_is_the_mean_of_independent_estimates_and_their_standard_error():
    """Of each term; scipy's standard error, which divides by n - 1."""
    denoiser = exact.Gaussian(SOME_SDES[0], mean=0.2, std=STD)
    found = elbo(keys(8), denoiser, X0, num_times=3, num_estimates=3, data_std=0.7)
    estimate = jax.jit(lambda keys: _estimate(keys, denoiser, jnp.asarray(X0), None, 0.7, 3))
    terms = np.array([estimate(fold_in(keys(8), i)) for i in range(3)])  # (estimates, terms, examples)
    for value, expected in zip((found.prior, found.diffusion, found.reconstruction), terms.mean(0), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-9)
    np.testing.assert_allclose(found.log_prob, -terms.sum(1).mean(0), rtol=1e-9)
    np.testing.assert_allclose(found.standard_error, scipy.stats.sem(terms.sum(1), axis=0), rtol=1e-6)
    assert (found.standard_error > 0).all()


@pytest.mark.parametrize("data_std", [STD, 0.1])
def test_the_control_variate_takes_all_noise_out_at_the_mean_of_normal_data(data_std):
    """There the error is share |noise|^2, share = (w / (1 + w))^2 with w = data_std^2 snr, whose mean is share d."""
    sde = SOME_SDES[0]
    means, x0 = np.zeros((2, 2)), jnp.zeros((8, 2))
    found = elbo(keys(8), shared_mixture(sde, means, data_std), x0, num_times=256, num_estimates=32, data_std=data_std)
    w = data_std**2 * np.exp(sde.log_snr(np.array([sde.t_max, sde.t_min])))
    expected = np.diff(np.log1p(w) + 1 / (1 + w))[0]  # d / 2 times the integral of (w / (1 + w))^2 over log w, d = 2
    np.testing.assert_allclose(found.diffusion, expected, rtol=1e-3)
    assert found.standard_error.max() < 1e-3 * expected


def test_the_bound_of_data_in_float32_stays_so():
    found = elbo(keys(2), exact.Gaussian(SOME_SDES[0]), jnp.zeros((2, 3), jnp.float32), num_times=2, num_estimates=2)
    assert [value.dtype for value in jax.tree.leaves(found)] == [jnp.float32] * 5
