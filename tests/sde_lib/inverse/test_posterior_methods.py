"""Methods for inverse problems: the law of one step against closed forms, and particles against an exact posterior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import struct

from sde_lib import DDIM, VESDE, VPSDE, Ancestral, FunctionDenoiser, Sampler, exact, log_snr_times, sample
from sde_lib.inverse import (
    DAPS,
    DDNM,
    DDRM,
    JPEG,
    DDNMPlus,
    GaussianNoise,
    Renoise,
    RePaint,
    Replacement,
    ReSample,
    twisted_sample,
)
from sde_lib.inverse.particles import systematic
from sde_lib.randomness import standard_normal
from sde_lib.sampling.predictors import posterior_variance
from tests.sde_lib.inverse.dense import Dense, DenseSpectral, Magnitude, gaussian_posterior, picks, random_orthogonal
from tests.sde_lib.processes import keys

rng = np.random.default_rng(0)
D, N = 4, 20000
T, S = 0.5, 0.35
both_sdes = pytest.mark.parametrize("sde", [VPSDE(), VESDE(sigma_max=20.0)], ids=lambda sde: type(sde).__name__)
MATRIX = rng.normal(size=(2, D))
MEASUREMENT = Dense(event_shape=(D,), matrix=MATRIX)
Y = rng.normal(size=(1, 2))
X = rng.normal(size=(1, D))
X0 = rng.normal(size=(1, D))


@struct.dataclass
class Scaled(Sampler):
    """A step that multiplies x, to see what is done around it."""

    factor: float = 1.0

    def step(self, carry, keys, x, t, s, denoiser):
        return carry, self.factor * x


def knows(sde, x0=X0):
    """The Denoiser of data that are one point."""
    return FunctionDenoiser(sde, function=lambda x, t: jnp.broadcast_to(x0, x.shape))


def run(method, x, denoiser, n=N, t=T, s=S):
    """One step of n copies of x."""
    x = jnp.broadcast_to(x, (n, *x.shape[1:]))
    return np.asarray(
        jax.jit(lambda m, x, k, d: m.step(m.init(x, d, None), k, x, t, s, d)[1])(method, x, keys(n), denoiser)
    )


def assert_law(x, mean, covariance):
    """Mean and covariance, within 5 standard errors of len(x) draws of a Gaussian."""
    n, std = len(x), np.sqrt(np.diag(covariance))
    np.testing.assert_array_less(np.abs(x.mean(0) - mean), 5 * std / np.sqrt(n))
    error = np.abs(np.cov(x.T) - covariance)
    np.testing.assert_array_less(error, 5 * np.sqrt((np.outer(std, std) ** 2 + covariance**2) / n))


@both_sdes
def test_replaced_values_have_the_law_of_y_at_the_step_s_end(sde):
    x = run(Replacement(MEASUREMENT, Y, predictor=Scaled(3.0)), X, knows(sde))
    law = sde.alpha(S) * Y[0], sde.sigma(S) ** 2 * MATRIX @ MATRIX.T
    assert_law(x @ MATRIX.T, *law)
    null = np.eye(D) - np.linalg.pinv(MATRIX) @ MATRIX
    np.testing.assert_allclose(x @ null, np.broadcast_to(3 * X @ null, x.shape), atol=1e-10)


def test_relaxation_goes_part_of_the_way():
    replacement = Replacement(MEASUREMENT, Y, predictor=Scaled())
    whole, part = (run(replacement.replace(relaxation=value), X, knows(VPSDE()), n=3) for value in (1.0, 0.3))
    np.testing.assert_allclose(part - X, 0.3 * (whole - X), rtol=1e-9)


def test_replacement_is_right_where_pixels_are_independent():
    """There the rest of x does not ask about y. All of a run: known pixels are back, the others are the prior's."""
    sde, n = VPSDE(t_min=1e-4), 2000
    mask = Replacement(picks(0, size=2), np.array([[1.3]]))
    x = np.asarray(sample(keys(n), exact.Gaussian(sde, 0.4, 0.8), mask, log_snr_times(sde, 60), (2,)))
    np.testing.assert_allclose(x[:, 0], 1.3, atol=0.06)
    np.testing.assert_allclose([x[:, 1].mean(), x[:, 1].std()], [0.4, 0.8], atol=4 * 0.8 / np.sqrt(n))


@both_sdes
def test_renoising_mixes_the_noise_found_with_new(sde):
    """The mean shrinks as the square root of 1 - zeta, and zeta of the variance is new."""
    x = run(Renoise(zeta=0.36), X, knows(sde))
    noise = (X - sde.alpha(T) * X0) / sde.sigma(T)
    assert_law(x, (sde.alpha(S) * X0 + 0.8 * sde.sigma(S) * noise)[0], 0.36 * sde.sigma(S) ** 2 * np.eye(D))


def test_renoising_nothing_is_ddim():
    denoiser = exact.Gaussian(VPSDE(), 0.4, 0.8)
    np.testing.assert_allclose(run(Renoise(zeta=0.0), X, denoiser, n=1), run(DDIM(), X, denoiser, n=1), rtol=1e-12)


SINGULAR = np.array([2.0, 0.5, 0.05])
SPECTRAL = DenseSpectral(event_shape=(D,), u=random_orthogonal(3, 1), s=SINGULAR, v=random_orthogonal(D, 2))
STD_Y = 0.2


def noisy_measurements(n, std=STD_Y):
    """y of X0 (n, 3), and its noise in the spectrum."""
    noise = np.random.default_rng(5).normal(size=(n, 3))
    return np.asarray(SPECTRAL.forward(jnp.asarray(X0))) + std * noise @ SPECTRAL.u.T, noise


def test_the_spectral_measurement_of_these_tests_is_one():
    matrix = SPECTRAL.u @ np.diag(SINGULAR) @ SPECTRAL.v[:, :3].T
    np.testing.assert_allclose(SPECTRAL.forward(jnp.asarray(X0)), X0 @ matrix.T, rtol=1e-12)


@both_sdes
def test_ddnm_plus_draws_from_the_ancestral_kernel(sde):
    """Where the Denoiser is right, y's noise and the step's make up that of p(x_s | x_t, x_0) in every direction."""
    y, _ = noisy_measurements(N)
    x = run(DDNMPlus(SPECTRAL, y, STD_Y), X, knows(sde))
    kernel = Ancestral().step((), keys(1), jnp.asarray(X), T, S, knows(sde))[1]
    std = np.sqrt(posterior_variance(sde, S, T))
    z = jax.vmap(lambda key: jax.random.normal(key, (D,)))(keys(1))
    assert_law(x, (kernel - std * z)[0], std**2 * np.eye(D))


@both_sdes
def test_ddnm_plus_takes_from_y_what_its_noise_allows(sde):
    """Where the Denoiser is wrong by 1 in a direction, 1 - lambda of it is left, and lambda = min(1, std s / (a std_y))."""
    clean = SPECTRAL.forward(jnp.asarray(X0))
    method, wrong = DDNMPlus(SPECTRAL, clean, STD_Y), SPECTRAL.v.sum(1)
    moved = run(method, X, knows(sde, X0 + wrong), n=1) - run(method, X, knows(sde), n=1)
    _, variance = sde.transition_coefficients(S, T)
    of_x0, std = sde.alpha(S) * variance / sde.sigma(T) ** 2, np.sqrt(posterior_variance(sde, S, T))
    left = 1 - np.minimum(1, std * SINGULAR / (of_x0 * STD_Y))
    assert left[0] == 0 < left[2]  # directions of both kinds
    np.testing.assert_allclose(moved[0] @ SPECTRAL.v, of_x0 * np.append(left, 1), atol=1e-9)


def test_ddnm_plus_without_noise_is_the_ancestral_step_of_ddnm():
    denoiser, y = exact.Gaussian(VPSDE(), 0.4, 0.8), noisy_measurements(1)[0]
    mean = DDNM(denoiser, SPECTRAL, y)
    x, kernel = (run(method, X, d) for method, d in ((DDNMPlus(SPECTRAL, y, 0.0), denoiser), (Ancestral(), mean)))
    np.testing.assert_allclose(x.mean(0), kernel.mean(0), atol=5 * kernel.std() / np.sqrt(N))
    np.testing.assert_allclose(x.std(0), kernel.std(0), rtol=5 / np.sqrt(N))


@both_sdes
@pytest.mark.parametrize("eta, eta_b", [(0.85, 0.9), (0.4, 0.5)])
def test_ddrm_keeps_the_marginals(sde, eta, eta_b):
    """Where the Denoiser is right, x_s is x_0 and noise of time s, given x_0, in every direction, for any y and x_t."""
    std_y = 0.45 * float(sde.noise_to_signal(S))  # of the second direction nearly all of the noise of x_s
    y, seen = noisy_measurements(N, std_y)
    noise = np.random.default_rng(6).normal(size=(N, D))
    x_t = sde.perturb(jnp.asarray(X0), jnp.asarray(noise), T)
    x = run(DDRM(SPECTRAL, y, std_y, eta, eta_b), x_t, knows(sde))
    assert_law(x, sde.alpha(S) * X0[0], sde.sigma(S) ** 2 * np.eye(D))

    # What it owes to the noise of y and to that of x_t, as correlations.
    n_s = sde.noise_to_signal(S)
    z = (x / sde.alpha(S) - X0) / n_s @ SPECTRAL.v
    w = std_y / SINGULAR
    left = np.sqrt(1 - eta**2)
    of_y = np.where(n_s < w, left, eta_b * w / n_s)
    assert 0 < (n_s < w).sum() < 3  # directions of both kinds
    np.testing.assert_allclose((z[:, :3] * seen).mean(0), of_y, atol=5 / np.sqrt(N))
    np.testing.assert_allclose((z * (noise @ SPECTRAL.v)).mean(0), [0, 0, 0, left], atol=5 / np.sqrt(N))


def test_ddrm_takes_from_y_what_its_noise_allows():
    """What is left of an error of the Denoiser, of 1 in each direction."""
    sde, eta, eta_b = VPSDE(), 0.85, 0.9
    clean = SPECTRAL.forward(jnp.asarray(X0))
    x_t, wrong = sde.alpha(T) * X0, SPECTRAL.v.sum(1)
    method = DDRM(SPECTRAL, clean, STD_Y, eta, eta_b)
    moved = run(method, x_t, knows(sde, X0 + wrong), n=1) - run(method, x_t, knows(sde), n=1)
    n_s, n_t, w = sde.noise_to_signal(S), sde.noise_to_signal(T), STD_Y / SINGULAR
    left = np.sqrt(1 - eta**2)
    expected = np.append(np.where(n_s < w, 1 - left * n_s / w, 1 - eta_b), 1 - left * n_s / n_t)
    np.testing.assert_allclose(moved[0] @ SPECTRAL.v, sde.alpha(S) * expected, atol=1e-9)


@both_sdes
def test_repaint_goes_back_by_the_forward_kernel(sde):
    """Around a method that halves x, twice for each of 3 jumps: 1/4 down, a and v up."""
    x = run(RePaint(Scaled(0.5), resamplings=3, substeps=2), X, knows(sde))
    a, v = sde.transition_coefficients(S, T)
    mean, variance = X[0] / 4, 0.0
    for _ in range(2):
        mean, variance = a * mean / 4, (a**2 * variance + v) / 16
    assert_law(x, mean, variance * np.eye(D))


@struct.dataclass
class Recorder(Sampler):
    """A step that leaves x as it is and keeps, in its carry, x, what it draws, and its times."""

    calls: int = struct.field(pytree_node=False, default=1)

    def init(self, x, denoiser, times):
        return jnp.zeros((self.calls, 2, *x.shape)), jnp.zeros((self.calls, 2)), 0

    def step(self, carry, keys, x, t, s, denoiser):
        records, times, i = carry
        drawn = jnp.stack([x, standard_normal(keys, x)])
        return (records.at[i].set(drawn), times.at[i].set(jnp.stack([t, s])), i + 1), x


def test_repaint_draws_anew_in_each_round_and_substep():
    """6 draws of the inner steps and 2 of the ways up, of 2 examples: all different, and none correlated."""
    sde, resamplings, substeps = VPSDE(), 3, 2
    method = RePaint(Recorder(calls=6), resamplings=resamplings, substeps=substeps)
    x = jnp.broadcast_to(X, (2, *X.shape[1:]))
    x = jnp.tile(x, (1, 500))
    (records, times, count), _ = method.step(method.init(x, knows(sde), None), keys(2), x, T, S, knows(sde))
    assert count == 6
    middle = (T + S) / 2
    np.testing.assert_allclose(times, [[T, middle], [middle, S]] * 3)
    a, v = sde.transition_coefficients(S, T)
    up = [(records[i, 0] - a * records[i - 1, 0]) / jnp.sqrt(v) for i in (2, 4)]
    draws = np.concatenate([records[:, 1].reshape(12, -1), np.stack(up).reshape(4, -1)])
    correlation = np.corrcoef(draws) - np.eye(16)
    np.testing.assert_array_less(np.abs(correlation), 5 / np.sqrt(draws.shape[1]))


def test_repaint_brings_the_rest_of_the_image_into_agreement():
    """One long jump: resampled often, known pixels tell the others, of a Gaussian of strong correlation, what y says.

    The end of the chain of resamplings is not the posterior itself; y's weight in the unknown pixel tells the two apart
    from `Replacement` alone, which has hardly any.
    """
    sde = VPSDE(t_min=1e-3)
    prior = exact.CorrelatedGaussian(sde, np.zeros(2), np.array([[1.0, 0.95], [0.95, 1.0]]))
    weights = []
    for resamplings in (1, 30):
        ends = [
            sample(
                keys(300),
                prior,
                RePaint(Replacement(picks(0, size=2), np.array([[y]])), resamplings=resamplings),
                log_snr_times(sde, 12),
                (2,),
            )[:, 1].mean()
            for y in (-1.0, 1.0)
        ]
        weights.append((ends[1] - ends[0]) / 2)
    assert weights[0] < 0.8
    np.testing.assert_allclose(weights[1], 0.95, atol=0.06)


DAPS_LINEAR = DAPS(
    picks(0, size=2), np.array([[1.1]]), 0.3, ode_steps=1, langevin_steps=600, step_size=0.05, data_std=0.8
)


@both_sdes
def test_daps_draws_from_the_posterior_at_the_step_s_end(sde):
    """x_0 given x_t and y, exact for independent pixels of the spread given, and noise of time s."""
    x_t, n = np.array([[0.3, -0.6]]), 4000
    x = run(DAPS_LINEAR, x_t, exact.Gaussian(sde, 0.4, 0.8), n=n)
    matrix = np.array([[1.0, 0.0]])
    mean, covariance = gaussian_posterior(
        np.full(2, 0.4), 0.64 * np.eye(2), matrix, np.array([1.1]), 0.3, x_t[0], sde, T
    )
    assert_law(x, sde.alpha(S) * mean, sde.alpha(S) ** 2 * covariance + sde.sigma(S) ** 2 * np.eye(2))


def test_daps_langevin_dynamics_have_the_posterior_s_width():
    """The data alone, whose width the noise of a step hides; n is published as r where data_std is not given."""
    sde = VESDE(sigma_max=20.0)
    x0 = jnp.broadcast_to(jnp.array([[0.3, -0.6]]), (4000, 2))
    x = DAPS_LINEAR.replace(data_std=jnp.inf).draw_data(keys(4000), x0, T, knows(sde))
    n = sde.noise_to_signal(T)
    precision = 1 / n**2 + np.array([1 / 0.09, 0])
    np.testing.assert_allclose(x.mean(0), [(0.3 / n**2 + 1.1 / 0.09) / precision[0], -0.6], atol=0.03)
    np.testing.assert_allclose(x.std(0), precision**-0.5, rtol=0.05)


@both_sdes
def test_daps_langevin_steps_and_the_step_s_end_draw_independently(sde):
    """Two Langevin steps from the estimate, by hand: each shrinks what is before it, and all three draws add up."""
    x0, y, std, size = np.array([[0.3, -0.6]]), np.array([[1.1]]), 0.3, 0.4
    method = DAPS(picks(0, size=2), y, std, ode_steps=1, langevin_steps=2, step_size=size)
    x = run(method, x0, knows(sde, x0))
    n = sde.noise_to_signal(T)
    h = size / (1 / n**2 + 1 / std**2)
    left = 1 - h * np.array([1 / n**2 + 1 / std**2, 1 / n**2])
    pull = h * np.array([(1.1 - 0.3) / std**2, 0])
    mean, variance = x0[0] + pull * (1 + left), 2 * h * (1 + left**2)
    assert_law(x, sde.alpha(S) * mean, np.diag(sde.alpha(S) ** 2 * variance + sde.sigma(S) ** 2))


def test_daps_measurement_may_be_of_any_kind():
    """|x|^2 of a point far from 0: Langevin dynamics find one that fits y, to its noise."""
    daps = DAPS(Magnitude(), np.array([[4.0]]), 0.1, langevin_steps=400, step_size=0.02)
    x = daps.draw_data(keys(500), jnp.full((500, 1), 1.5), 0.9, knows(VPSDE(), np.array([[1.5]])))
    np.testing.assert_allclose(x**2, 4, atol=0.5)
    np.testing.assert_allclose((x**2).std(), 0.1, rtol=0.15)


@both_sdes
def test_daps_estimate_is_the_end_of_the_flow(sde):
    """At order 1 in the steps; one step is the Denoiser's mean."""
    denoiser, x = exact.Gaussian(sde, 0.4, 0.8), jnp.asarray(X)
    estimates = [DAPS_LINEAR.replace(ode_steps=n).estimate(x, T, denoiser) for n in (1, 20, 40)]
    np.testing.assert_allclose(estimates[0], denoiser(x, T), rtol=1e-12)
    end = denoiser(denoiser.flow(x, T, sde.t_min), sde.t_min)
    errors = [np.abs(estimate - end).max() for estimate in estimates[1:]]
    np.testing.assert_allclose(np.log2(errors[0] / errors[1]), 1, atol=0.1)


@both_sdes
def test_resample_draws_from_the_product_of_two_gaussians(sde):
    """Around the fitted data, with the variance of time s, and around DDIM's step, with gamma times the ancestral one."""
    x = run(ReSample(MEASUREMENT, Y, gamma=3.0), X, knows(sde))
    fitted = X0 + (Y - X0 @ MATRIX.T) @ np.linalg.pinv(MATRIX).T
    ddim = run(DDIM(), X, knows(sde), n=1)
    precisions = 1 / sde.sigma(S) ** 2, 1 / (3 * posterior_variance(sde, S, T))
    mean = (precisions[0] * sde.alpha(S) * fitted + precisions[1] * ddim) / sum(precisions)
    assert_law(x, mean[0], np.eye(D) / sum(precisions))


def test_resample_fits_y_as_far_as_its_noise_goes():
    """No further than a misfit of the noise's size; to the nearest image where there is none."""
    x0 = jnp.asarray(rng.normal(size=(3, D)))
    exactly = ReSample(MEASUREMENT, Y).fit(x0)
    np.testing.assert_allclose(exactly, x0 + (Y - x0 @ MATRIX.T) @ np.linalg.pinv(MATRIX).T, rtol=1e-9)
    # Conjugate gradients need as many steps as there are values.
    np.testing.assert_allclose(ReSample(MEASUREMENT, Y, fit_steps=2).fit(x0), exactly, rtol=1e-9)
    misfit = jnp.linalg.norm(Y - x0 @ MATRIX.T, axis=1)
    # The noise of two values is as large as the misfit of one example, which is between the others'.
    middle = jnp.median(misfit)
    fitted = ReSample(MEASUREMENT, Y, middle * (1 + 1e-9) / np.sqrt(2)).fit(x0)
    moved = np.abs(fitted - x0).max(1) > 0
    np.testing.assert_array_equal(moved, misfit > middle)
    one_step = ReSample(MEASUREMENT, Y, fit_steps=1).fit(x0)
    np.testing.assert_allclose(fitted[moved], one_step[moved], rtol=1e-9)
    # Values that are not measured have no noise: with them it goes as far.
    among_others = Dense(event_shape=(D,), matrix=np.concatenate([MATRIX, np.zeros((3, D))]))
    padded = ReSample(among_others, np.pad(Y, ((0, 0), (0, 3))), middle * (1 + 1e-9) / np.sqrt(2)).fit(x0)
    np.testing.assert_allclose(padded, fitted, rtol=1e-9)


def test_resample_allows_noise_where_either_side_is_zero():
    """Values of y that are 0, or an image that measures as 0, have noise: a misfit below it is left as it is."""
    x0, std = jnp.asarray(X0), 2 * float(jnp.abs(X0 @ MATRIX.T).max())
    np.testing.assert_array_equal(ReSample(MEASUREMENT, 0 * Y, std).fit(x0), x0)
    np.testing.assert_array_equal(ReSample(MEASUREMENT, Y, 2 * np.abs(Y).max()).fit(0 * x0), 0)


def test_resample_measurement_may_be_of_any_kind():
    x = ReSample(Magnitude(), np.array([[4.0, 0.25]])).fit(jnp.array([[1.5, -1.0]]))
    np.testing.assert_allclose(x, [[2.0, -0.5]], rtol=1e-9)


def test_resample_goes_the_whole_way_again_after_a_shortened_step():
    """|x|^2 = 1 from 0.1: the tangent's step to 5.05 is halved twice to 1.3375; from there Newton's steps are whole."""
    first = 0.1 + 0.99 / 0.2 / 4
    second = (first + 1 / first) / 2
    for steps, expected in ((2, 0.1), (3, first), (4, second), (5, (second + 1 / second) / 2)):
        x = ReSample(Magnitude(), np.array([[1.0]]), fit_steps=steps).fit(jnp.array([[0.1]]))
        np.testing.assert_allclose(x, [[expected]], rtol=1e-9)


BLOCK = np.random.default_rng(2).uniform(-0.5, 0.5, (1, 8, 8, 1))


@pytest.mark.parametrize(
    "measurement, y, x0, nearest",
    [
        (Magnitude(), [[4.0]], [[0.1]], 0.0),  # the tangent's step from 0.1 leads to 20
        (JPEG(quality=10.0), BLOCK, -BLOCK, float(jnp.square(BLOCK - JPEG(quality=10.0).forward(BLOCK)).sum())),
    ],
    ids=["magnitude", "jpeg"],
)
def test_resample_goes_downhill_where_a_measurement_bends(measurement, y, x0, nearest):
    """From step to step, and most of the way; rounded coefficients, whose nearest are those of y, are reached in part."""
    x0, y = jnp.asarray(x0), jnp.asarray(y)

    def misfit(x):
        return float(jnp.square(y - measurement.forward(x)).sum())

    found = [misfit(x0)] + [misfit(ReSample(measurement, y, fit_steps=n).fit(x0)) for n in range(1, 16)]
    assert (np.diff(found) <= 1e-12).all()
    assert found[-1] < nearest + 0.5 * (found[0] - nearest)


def test_resample_without_bound_is_renoising_of_ddnm():
    denoiser = exact.Gaussian(VPSDE(), 0.4, 0.8)
    x, renoised = (
        run(method, X, d, n=3)
        for method, d in (
            (ReSample(MEASUREMENT, Y, gamma=1e12), denoiser),
            (Renoise(zeta=1.0), DDNM(denoiser, MEASUREMENT, Y)),
        )
    )
    np.testing.assert_allclose(x, renoised, atol=1e-5)


def test_samples_of_resample_fit_y():
    sde = VPSDE(t_min=1e-7)
    x = sample(keys(3), exact.Gaussian(sde, 0.4, 0.8), ReSample(MEASUREMENT, Y), log_snr_times(sde, 40), (D,))
    np.testing.assert_allclose(x @ MATRIX.T, np.broadcast_to(Y, (3, 2)), atol=2e-3)


WEIGHTS, MEANS, WIDTH = np.array([0.3, 0.5, 0.2]), np.array([[1.0, 0.5], [-0.5, -1.0], [0.2, 1.2]]), 0.3


def mixture_posterior(y, std):
    """Log-evidence, mean and covariance of the mixture given y, the first pixel with noise."""
    of_y = WIDTH**2 + std**2
    log_joint = np.log(WEIGHTS) - 0.5 * ((y - MEANS[:, 0]) ** 2 / of_y + np.log(2 * np.pi * of_y))
    means = MEANS + np.array([WIDTH**2 / of_y, 0]) * (y - MEANS[:, :1])
    each = np.diag([WIDTH**2 * std**2 / of_y, WIDTH**2])
    weights = scipy.special.softmax(log_joint)
    mean = weights @ means
    return (
        scipy.special.logsumexp(log_joint),
        mean,
        each + np.einsum("k,ki,kj->ij", weights, means - mean, means - mean),
    )


@both_sdes
def test_particles_reach_the_mixture_s_posterior_and_evidence(sde):
    """Within standard errors, over runs of their own; of a chain so fine that its own error is less."""
    y, std, n_runs = np.array([0.3]), 0.4, 24
    denoiser = exact.GaussianMixture(sde.replace(t_min=1e-3), MEANS, WIDTH, WEIGHTS)
    grid = log_snr_times(denoiser.sde, 150)

    def moments(key):
        particles = twisted_sample(key, denoiser, picks(0, size=2), y, std, grid, (2,), 256)
        weights = jnp.exp(particles.log_weights)
        mean = weights @ particles.x
        square = jnp.einsum("k,ki,kj->ij", weights, particles.x, particles.x)
        resampled = particles.resample(jax.random.fold_in(key, 1))
        return particles.log_evidence, mean, square, resampled.mean(0)

    log_evidence, means, squares, resampled = jax.lax.map(moments, keys(n_runs))
    expected_evidence, mean, covariance = mixture_posterior(y, std)

    def assert_near(runs, expected):
        error = np.abs(np.mean(runs, 0) - expected)
        np.testing.assert_array_less(error, 4 * np.std(runs, 0) / np.sqrt(n_runs) + 0.01)

    assert_near(np.exp(log_evidence), np.exp(expected_evidence))
    assert_near(means, mean)
    assert_near(resampled, mean)
    assert_near(squares, covariance + np.outer(mean, mean))


def test_systematic_resampling_keeps_each_particle_its_share_of_times():
    """K w on average over keys, and never more than 1 from it."""
    weights = np.array([0.34, 0.03, 0.25, 0.2, 0.18])
    places = jax.vmap(systematic, (0, None))(keys(4000), 3.0 + jnp.log(weights))
    counts = np.asarray(jax.vmap(lambda p: jnp.bincount(p, length=5))(places))
    assert np.abs(counts - 5 * weights).max() < 1
    fraction = 5 * weights % 1
    np.testing.assert_array_less(
        np.abs(counts.mean(0) - 5 * weights), 4.5 * np.sqrt(fraction * (1 - fraction) / 4000) + 1e-12
    )


def test_particles_are_drawn_anew_below_the_threshold_and_not_above():
    """A twist for other data leaves the weights uneven: without resampling few particles count, with it many."""
    denoiser = exact.Gaussian(VPSDE(t_min=1e-3), 0.4, 0.8)
    grid, n = log_snr_times(denoiser.sde, 30), 200
    effective = [
        1 / jnp.exp(2 * twisted_sample(
            keys(1)[0], denoiser, picks(0, 1, size=2), np.array([2.0, -1.0]), 0.1, grid, (2,), n,
            data_std=0.1, threshold=threshold,
        ).log_weights).sum()
        for threshold in (0.0, 0.9)
    ]  # fmt: skip
    assert effective[0] < 0.25 * n < effective[1]


@both_sdes
def test_weights_stay_even_where_the_twist_is_the_likelihood(sde):
    """Data N(mean, data_std^2 I), any A: psi_t is p(y | x_t), so that the chain itself is that of the posterior."""
    denoiser = exact.Gaussian(sde.replace(t_min=1e-3), 0.4, 0.7)
    grid, n = log_snr_times(denoiser.sde, 200), 400
    found = twisted_sample(keys(1)[0], denoiser, MEASUREMENT, Y[0], 0.3, grid, (D,), n, data_std=0.7)
    assert 1 / jnp.exp(2 * found.log_weights).sum() > 0.9 * n
    mean, covariance = gaussian_posterior(np.full(D, 0.4), 0.49 * np.eye(D), MATRIX, Y[0], 0.3)
    np.testing.assert_allclose(
        found.resample(keys(2)[1]).mean(0), mean, atol=5 * np.sqrt(np.diag(covariance).max() / n)
    )


def test_particles_take_noise_of_several_variances():
    """In the twist their mean counts, in the last weights each."""
    stds = np.array([0.2, 1.2])
    denoiser = exact.Gaussian(VPSDE(t_min=1e-3), 0.4, 0.8)
    found = twisted_sample(
        keys(1)[0], denoiser, picks(0, 1, size=2), np.ones(2), stds, log_snr_times(denoiser.sde, 60), (2,), 4000
    )
    gain = 0.64 / (0.64 + stds**2)
    weights = np.exp(found.log_weights)
    np.testing.assert_allclose(weights @ found.x, 0.4 + gain * 0.6, atol=0.06)
    np.testing.assert_allclose(weights @ found.x**2 - (weights @ found.x) ** 2, 0.64 * (1 - gain), rtol=0.15)


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: Replacement(Magnitude(), Y),
            "Replacement needs a linear measurement: Magnitude has no `pseudo_inverse`",
        ),
        (lambda: DDRM(MEASUREMENT, Y), "DDRM needs a spectral measurement: Dense has no `singular_values`"),
        (lambda: DDNMPlus(MEASUREMENT, Y), "DDNMPlus needs a spectral measurement: Dense has no `singular_values`"),
        (
            lambda: run(DDRM(SPECTRAL, np.zeros((1, 3)), np.ones(3)), X, knows(VPSDE()), n=1),
            r"DDRM needs noise of one variance for all values, not variances of shape \(3,\)",
        ),
        (
            lambda: DAPS(MEASUREMENT, Y, 0.0).draw_data(keys(1), X0, T, knows(VPSDE())),
            "^DAPS needs measurement noise of more than 0",
        ),
        (
            lambda: twisted_sample(
                keys(1)[0], knows(VPSDE()), MEASUREMENT, Y[0], GaussianNoise(0.0), np.array([0.5, 0.2, 0.0]), (D,), 4
            ),
            "^twisted_sample needs measurement noise of more than 0",
        ),
        (lambda: ReSample(MEASUREMENT, Y, gamma=0.0), "ReSample: gamma=0.0 must be more than 0"),
        (lambda: RePaint(Scaled(), resamplings=0), "RePaint: resamplings=0 must be at least 1"),
    ],
)
def test_what_a_method_cannot_take_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_evaluations_are_counted():
    repaint = RePaint(Replacement(MEASUREMENT, Y), resamplings=5, substeps=3)
    assert repaint.nfe(11) == 10 * 15 + 1
    assert DAPS_LINEAR.replace(ode_steps=4).nfe(11) == 10 * 4 + 1


@pytest.mark.parametrize(
    "method",
    [RePaint(Replacement(picks(1, size=D), np.ones((1, 1))), resamplings=2), DDRM(SPECTRAL, np.ones((1, 3)), STD_Y),
     DAPS(SPECTRAL, np.ones((1, 3)), STD_Y, langevin_steps=5), ReSample(SPECTRAL, np.ones((1, 3)), STD_Y)],
    ids=lambda method: type(method).__name__,
)  # fmt: skip
def test_sample_i_depends_on_its_key_alone(method):
    denoiser = exact.Gaussian(VPSDE(), 0.4, 0.8)
    grid = log_snr_times(denoiser.sde, 4)
    x = sample(keys(3), denoiser, method, grid, (D,))
    np.testing.assert_allclose(sample(keys(3)[2:], denoiser, method, grid, (D,))[0], x[2], rtol=1e-10)
