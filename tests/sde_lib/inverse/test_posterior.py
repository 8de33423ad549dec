"""Posterior Denoisers against the exact E[x_0 | x_t, y] of Gaussians, in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from sde_lib import VPSDE, Ancestral, CriticallyDampedLangevin, FunctionDenoiser, Heun, exact, log_snr_times, sample
from sde_lib.inverse import (
    DDNM,
    DPS,
    MMPS,
    TMPD,
    DiffPIR,
    FourierSampling,
    HighDynamicRange,
    ManifoldConstraint,
    Measurement,
    Noise,
    PiGDM,
)
from tests.sde_lib.inverse.assembled import matrix
from tests.sde_lib.inverse.dense import Dense, Magnitude, gaussian_posterior, picks
from tests.sde_lib.processes import EVERY_SDE, every_sde, keys

rng = np.random.default_rng(0)
D, M, B = 4, 2, 3
MATRIX = rng.normal(size=(M, D))
ROOT = rng.normal(size=(D, D))
COVARIANCE = ROOT @ ROOT.T / D + 0.1 * np.eye(D)
MEAN = rng.normal(size=D)
Y = rng.normal(size=(B, M))
X = rng.normal(size=(B, D))
STD = 0.3
MEASUREMENT = Dense(event_shape=(D,), matrix=MATRIX)
PICKS = picks(2, 0, size=D)
STDS = np.array([0.5, 1.0, 2.0, 0.3])
CONVERGED = {"rtol": 1e-13, "max_steps": 20}


@struct.dataclass(kw_only=True)
class Shot(Noise):
    """Noise of a variance that depends on the value."""

    def variance(self, clean):
        return jnp.abs(clean) + 0.1


@struct.dataclass(kw_only=True)
class Constant(Noise):
    """Gaussian noise."""

    std: float

    def variance(self, clean):
        return jnp.square(self.std)

    def log_prob(self, y, clean):
        return jax.scipy.stats.norm.logpdf(y, clean, self.std).sum(1)


def times(sde):
    """A time for each example, where x_t tells much, some and little of the data."""
    return sde.time_at_log_snr(jnp.array([4.0, 0.0, -3.0]))


def exact_means(sde, covariance, matrix, t, std=STD, y=Y):
    return np.stack([gaussian_posterior(MEAN, covariance, matrix, y[i], std, X[i], sde, t[i])[0] for i in range(B)])


@every_sde
def test_mmps_is_exact_for_a_gaussian_of_any_covariance(sde):
    t = times(sde)
    posterior = MMPS(exact.CorrelatedGaussian(sde, MEAN, COVARIANCE), MEASUREMENT, Y, STD, **CONVERGED)
    np.testing.assert_allclose(posterior(X, t), exact_means(sde, COVARIANCE, MATRIX, t), rtol=1e-9)


@every_sde
def test_tmpd_is_exact_where_pixels_are_independent(sde):
    t = times(sde)
    posterior = TMPD(exact.Gaussian(sde, MEAN, STDS), PICKS, Y, STD)
    np.testing.assert_allclose(posterior(X, t), exact_means(sde, np.diag(STDS**2), PICKS.matrix, t), rtol=1e-9)


@every_sde
def test_pigdm_is_exact_where_pixels_are_independent_and_of_its_spread(sde):
    t = times(sde)
    posterior = PiGDM(exact.Gaussian(sde, MEAN, 0.7), MEASUREMENT, Y, STD, data_std=0.7)
    np.testing.assert_allclose(posterior(X, t), exact_means(sde, 0.49 * np.eye(D), MATRIX, t), rtol=1e-9)


def test_noise_may_differ_from_value_to_value():
    """MMPS and TMPD take a standard deviation for each value measured: in units of it, the noise is 1."""
    sde, stds = EVERY_SDE[0], np.array([0.2, 0.7])
    t = times(sde)

    def whitened(covariance, matrix):
        return exact_means(sde, covariance, matrix / stds[:, None], t, std=1.0, y=Y / stds)

    posterior = MMPS(exact.CorrelatedGaussian(sde, MEAN, COVARIANCE), MEASUREMENT, Y, stds, **CONVERGED)
    np.testing.assert_allclose(posterior(X, t), whitened(COVARIANCE, MATRIX), rtol=1e-9)
    posterior = TMPD(exact.Gaussian(sde, MEAN, STDS), PICKS, Y, stds)
    np.testing.assert_allclose(posterior(X, t), whitened(np.diag(STDS**2), PICKS.matrix), rtol=1e-9)


EVERY_POSTERIOR = [(MMPS, CONVERGED), (TMPD, {}), (PiGDM, {}), (DPS, {"zeta": None}), (DiffPIR, {})]
every_posterior = pytest.mark.parametrize(
    "posterior, settings", EVERY_POSTERIOR, ids=lambda v: getattr(v, "__name__", "")
)


def make(posterior, settings, noise=STD, sde=EVERY_SDE[0], y=Y, measurement=MEASUREMENT):
    return posterior(exact.CorrelatedGaussian(sde, MEAN, COVARIANCE), measurement, y, noise, **settings)


@every_posterior
def test_noise_without_bound_gives_the_prior_back(posterior, settings):
    posterior = make(posterior, settings, noise=1e9)
    t = times(posterior.sde)
    np.testing.assert_allclose(posterior(X, t), posterior.denoiser(X, t), rtol=1e-12)


@every_posterior
@pytest.mark.parametrize("sde", [EVERY_SDE[1], CriticallyDampedLangevin()], ids=lambda s: type(s).__name__)
def test_views_agree(posterior, settings, sde):
    """x0 and noise of one evaluation make x again, at a time for all or for each; states of (x, v) too."""
    posterior = make(posterior, settings, sde=sde)
    t = times(sde)
    x = jnp.asarray(rng.normal(size=(B, *sde.state_shape((D,)))))
    x0, noise = posterior.x0_and_noise(x, t)
    np.testing.assert_allclose(x0, posterior(x, t), rtol=1e-12)
    np.testing.assert_allclose(sde.perturb(x0, noise, t), x, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(posterior(x, t[1])[1], x0[1], rtol=1e-10)


def test_mmps_knows_the_data_of_a_state_with_velocity():
    """E[x_0 | z, y] of critically damped Langevin diffusion is that of y = to_data_scale(z), whose law is a process's."""
    sde, other = CriticallyDampedLangevin(), EVERY_SDE[2]
    t, z = times(sde), jnp.asarray(rng.normal(size=(B, D, 2)))
    same = other.time_at_log_snr(sde.log_snr(t))
    expected = make(MMPS, CONVERGED, sde=other)(sde.to_data_scale(z, t) * other.alpha(same)[:, None], same)
    np.testing.assert_allclose(make(MMPS, CONVERGED, sde=sde)(z, t), expected, rtol=1e-8)


@struct.dataclass
class Precise(exact.Gaussian):
    """With a noise that keeps its digits, as a network's does."""

    def x0_and_noise(self, x, t):
        n = self.sde.noise_to_signal(t)
        return self(x, t), (x - self.mean) * n / (self.std**2 + n**2)


def test_noise_keeps_its_digits_where_there_is_little_of_it():
    """float32 at sigma = 1e-4 of data of size 1: (x - E[x_0 | x, y]) / sigma would leave it one digit."""
    results = []
    for dtype in (jnp.float32, jnp.float64):
        prior = Precise(EVERY_SDE[5], jnp.asarray(0.5, dtype), jnp.asarray(1.0, dtype))
        x, t, y = jnp.full((1, 2), 1.7, dtype), jnp.asarray(1e-4, dtype), jnp.full((1, 2), 1.6999, dtype)
        posterior = TMPD(prior, Dense(event_shape=(2,), matrix=jnp.eye(2, dtype=dtype)), y, jnp.asarray(1e-3, dtype))
        results.append(posterior.x0_and_noise(x, t)[1])
    np.testing.assert_allclose(*results, rtol=5e-3)


@struct.dataclass(kw_only=True)
class Bent(Measurement):
    """matrix x + bend x^2 of the first values + 0.3; affine without a bend, but by its class of any kind."""

    matrix: jax.Array
    bend: float

    def forward(self, x):
        return x @ self.matrix.T + self.bend * x[:, :M] ** 2 + 0.3


LINEARIZED = [each for each in EVERY_POSTERIOR if each[0] is not DPS]
by_its_tangent = pytest.mark.parametrize("posterior, settings", LINEARIZED, ids=lambda v: getattr(v, "__name__", ""))


@by_its_tangent
@pytest.mark.parametrize("bend", [0.0, 0.7])
def test_a_measurement_that_is_not_linear_counts_as_its_tangent(posterior, settings, bend):
    """At D, another one for each example: A(D) + A'(D) (x - D), whose matrix is known here."""
    bent = Bent(matrix=MATRIX, bend=bend)
    found = make(posterior, settings, measurement=bent)
    t = times(found.sde)
    d = np.asarray(found.denoiser(X, t))
    for i, answer in enumerate(found(X, t)):
        slope = MATRIX + 2 * bend * d[i, :M, None] * np.eye(M, D)
        y = Y[i] - np.asarray(bent.forward(d[i : i + 1]))[0] + slope @ d[i]
        linear = make(posterior, settings, y=y[None], measurement=Dense(event_shape=(D,), matrix=slope))
        np.testing.assert_allclose(answer, linear(X[i : i + 1], t[i])[0], rtol=1e-7)


@pytest.mark.parametrize("posterior", [PiGDM, DiffPIR, MMPS, TMPD])
def test_without_noise_what_no_image_measures_does_not_count(posterior):
    """The tangent of what is clipped is 0 there: the rest is as if that value had not been measured."""
    mean, x, t = jnp.array([[2.0, 0.1, -0.2]]), jnp.zeros((1, 3)), 0.9
    prior = FunctionDenoiser(VPSDE(), function=lambda x, t: mean + 0.1 * x)
    clipped = posterior(prior, HighDynamicRange(scale=1.0), jnp.array([[0.5, 0.4, 0.3]]), 0.0)(x, t)
    seen = posterior(prior, picks(1, 2, size=3), jnp.array([[0.4, 0.3]]), 0.0)(x, t)
    np.testing.assert_allclose(clipped, seen, rtol=1e-12)


@pytest.mark.parametrize("posterior", [PiGDM, DiffPIR, MMPS, TMPD, DPS])
def test_without_noise_saturated_values_leave_the_prior(posterior):
    mean, x = jnp.array([[2.0, -3.0, 1.5]]), jnp.zeros((1, 3))
    prior = FunctionDenoiser(VPSDE(), function=lambda x, t: mean + 0.1 * x)
    saturated = posterior(prior, HighDynamicRange(scale=2.0), jnp.array([[0.5, -1.0, 1.0]]), 0.0)
    np.testing.assert_array_equal(saturated(x, 0.9), prior(x, 0.9))


@pytest.mark.parametrize("posterior", [DDNM, ManifoldConstraint])
def test_measurements_that_are_not_linear_are_refused(posterior):
    with pytest.raises(ValueError, match=f"{posterior.__name__} needs a linear measurement: Magnitude has no `"):
        make(posterior, {}, measurement=Magnitude())


@pytest.mark.parametrize("posterior", [PiGDM, DiffPIR])
def test_noise_of_several_variances_is_refused_where_one_is_needed(posterior):
    message = rf"{posterior.__name__} needs noise of one variance for all values, not variances of shape \(3, 2\)"
    with pytest.raises(ValueError, match=message):
        make(posterior, {}, noise=Shot())(X, 0.5)


@struct.dataclass
class Halved(exact.Gaussian):
    """A prior whose dropout halves what it expects, for examples with a key."""

    keys: jax.Array | None = None

    def __call__(self, x, t):
        return super().__call__(x, t) * (1.0 if self.keys is None else 0.5)

    def training(self, keys):
        return self.replace(keys=keys)


def test_in_training_the_prior_s_dropout_is_on():
    prior, t = Halved(EVERY_SDE[0], MEAN, 0.7), 0.4
    posterior = make(DDNM, {}).replace(denoiser=prior)
    trained = posterior.training(keys(B))
    assert trained.denoiser.keys is not None
    np.testing.assert_array_equal(trained(X, t), posterior.replace(denoiser=prior.training(keys(B)))(X, t))
    assert np.abs(trained(X, t) - posterior(X, t)).max() > 0.1
    np.testing.assert_array_equal(trained.y, Y)


def test_sampling_with_mmps_reaches_the_posterior():
    """Its flow, of second order, carries the exact marginals to the posterior's mean and covariance."""
    sde, n = VPSDE(t_min=1e-3), 3000
    posterior = make(MMPS, CONVERGED, sde=sde, y=Y[:1])
    x = sample(keys(n), posterior, Heun(), log_snr_times(sde, 24), (D,))
    mean, covariance = gaussian_posterior(MEAN, COVARIANCE, MATRIX, Y[0], STD)
    scale = np.linalg.cholesky(np.linalg.inv(covariance))
    z = (np.asarray(x) - mean) @ scale
    np.testing.assert_allclose(z.mean(0), 0, atol=4 / np.sqrt(n))
    np.testing.assert_allclose(np.cov(z.T), np.eye(D), atol=5 / np.sqrt(n))


@pytest.mark.parametrize("noise", [0.0, Constant(std=0.0), np.array([0.3, 0.0])], ids=["number", "noise", "values"])
def test_a_likelihood_without_noise_is_refused(noise):
    with pytest.raises(ValueError, match=r"^DPS with zeta=None needs measurement noise of more than 0"):
        make(DPS, {"zeta": None}, noise=noise)(X, 0.5)
    assert np.isfinite(make(DPS, {}, noise=noise)(X, 0.5)).all()  # the normalized step has no use for the noise


def test_sample_i_depends_on_its_key_and_measurement_alone():
    posterior = make(MMPS, {}, y=Y)
    grid = log_snr_times(posterior.sde, 6)
    x = sample(keys(B), posterior, Heun(), grid, (D,))
    alone = sample(keys(B)[1:2], posterior.replace(y=Y[1:2]), Heun(), grid, (D,))
    np.testing.assert_allclose(alone[0], x[1], rtol=1e-10)


def test_dps_is_the_gradient_of_the_likelihood_where_noise_is_more_than_doubt():
    """With zeta=None: its correction is the exact one, but for a factor 1 + (A Cov A^T) / s^2."""
    sde, std = EVERY_SDE[0], 1e3
    t, prior = times(sde), exact.CorrelatedGaussian(sde, MEAN, COVARIANCE)
    correction = exact_means(sde, COVARIANCE, MATRIX, t, std=std) - prior(X, t)
    posterior = DPS(prior, MEASUREMENT, Y, std, zeta=None)
    np.testing.assert_allclose(posterior(X, t) - prior(X, t), correction, rtol=2e-5)
    of_noise = posterior.replace(measurement_noise=Constant(std=std))
    np.testing.assert_allclose(of_noise(X, t) - prior(X, t), correction, rtol=2e-5)


@pytest.mark.parametrize("sde", [EVERY_SDE[1], EVERY_SDE[2], EVERY_SDE[6]], ids=lambda sde: type(sde).__name__)
def test_dps_moves_an_ancestral_step_by_the_published_length(sde):
    """A step of 1 / N in t with the Denoiser of zeta and N, against the prior's, less zeta / |r| grad_x |r|^2."""
    n, zeta, t = 1e6, 0.4, 0.5
    prior = exact.CorrelatedGaussian(sde, MEAN, COVARIANCE)

    def step(denoiser):
        return Ancestral().step((), keys(B), X, t, t - 1 / n, denoiser)[1]

    def square(x):
        return jnp.square(Y - MEASUREMENT.forward(prior(x, t))).sum(1)

    gradient = jax.grad(lambda x: square(x).sum())(jnp.asarray(X))
    moved = step(DPS(prior, MEASUREMENT, Y, zeta=zeta, steps=n)) - step(prior)
    np.testing.assert_allclose(moved, -zeta / jnp.sqrt(square(X))[:, None] * gradient, rtol=1e-4)


def test_ddnm_takes_what_is_measured_from_y_and_the_rest_from_the_denoiser():
    posterior = make(DDNM, {})
    t = times(posterior.sde)
    x0, prior = posterior(X, t), posterior.denoiser(X, t)
    null = np.eye(D) - np.linalg.pinv(MATRIX) @ MATRIX
    np.testing.assert_allclose(MEASUREMENT.forward(x0), Y, rtol=1e-9)
    np.testing.assert_allclose(x0 @ null, prior @ null, rtol=1e-9)


def test_diffpir_is_exact_for_data_of_unbounded_spread():
    sde = EVERY_SDE[0]
    t = times(sde)
    posterior = DiffPIR(exact.Gaussian(sde, MEAN, 1e5), MEASUREMENT, Y, STD)
    np.testing.assert_allclose(posterior(X, t), exact_means(sde, 1e10 * np.eye(D), MATRIX, t), rtol=1e-6)
    # A strength of 4 counts the noise of y twice.
    stronger = posterior.replace(strength=4.0)
    np.testing.assert_allclose(stronger(X, t), exact_means(sde, 1e10 * np.eye(D), MATRIX, t, std=2 * STD), rtol=1e-6)


def test_diffpir_without_noise_is_ddnm():
    t = times(EVERY_SDE[0])
    np.testing.assert_allclose(make(DiffPIR, {}, noise=0.0)(X, t), make(DDNM, {})(X, t), rtol=1e-9)


@pytest.mark.parametrize("jacobian", [jax.jacfwd, jax.jacrev])
def test_the_derivative_of_mmps_is_the_posterior_covariance(jacobian):
    """Through the solve, either way: sigma^2 / alpha dE[x_0 | x, y]/dx = Cov[x_0 | x, y]."""
    sde, t = EVERY_SDE[0], 0.3
    posterior = make(MMPS, CONVERGED, y=Y[:1])
    covariance = sde.sigma(t) ** 2 / sde.alpha(t) * jacobian(lambda x: posterior(x[None], t)[0])(jnp.asarray(X[0]))
    exactly = gaussian_posterior(MEAN, COVARIANCE, MATRIX, Y[0], STD, X[0], sde, t)[1]
    np.testing.assert_allclose(covariance, exactly, rtol=1e-8, atol=1e-10)


def linear(sde, jacobian):
    """A Denoiser with n^2 dD/du = jacobian at every time, as no data have it unless that is a covariance."""

    def denoise(x, t):
        return sde.to_data_scale(x, t) @ jacobian.T / sde.noise_to_signal(t) ** 2

    return FunctionDenoiser(sde, function=denoise)


def test_mmps_counts_what_is_no_covariance_as_variance():
    """A part of the Jacobian that is skew, and a negative eigenvalue, which passes 0 where s^2 is as large: by hand."""
    sde, t, s = EVERY_SDE[0], 0.4, 0.3
    c, e = 2.0, 0.2
    prior = linear(sde, np.array([[c, e], [-e, -(s**2)]]))
    x, y = rng.normal(size=(1, 2)), rng.normal(size=(1, 2))
    misfit = y - prior(x, t)
    weights = misfit / np.array([c + e + s**2, e + s**2])
    correction = MMPS(prior, picks(0, 1, size=2), y, s, max_steps=4)(x, t) - prior(x, t)
    np.testing.assert_allclose(correction, weights @ np.array([[c, e], [-e, -(s**2)]]), rtol=1e-9)


def test_derivatives_of_mmps_agree_in_both_modes_on_a_mixture():
    """There C depends on x too, and reverse mode takes a cotangent for both unknowns of the solve."""
    prior = exact.GaussianMixture(EVERY_SDE[0], np.stack([MEAN, -MEAN]), np.array([0.4, 0.8]))
    posterior = MMPS(prior, MEASUREMENT, Y[:1], STD, rtol=1e-13, max_steps=M)

    @jax.jit
    def derivatives(x, d):
        evaluate = lambda x: posterior(x[None], 0.3)[0]  # noqa: E731
        return (
            jax.jvp(evaluate, (x,), (d,))[1],
            jax.jacrev(evaluate)(x),
            jax.vmap(evaluate)(x + 1e-5 * jnp.stack([d, -d])),
        )

    forward, reverse, ends = derivatives(X[0], X[1])
    np.testing.assert_allclose(reverse @ X[1], forward, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(forward, (ends[0] - ends[1]) / 2e-5, rtol=1e-5, atol=1e-7)


def test_one_step_of_mmps_is_the_steepest_descent_of_conjugate_gradients():
    """For any Jacobian, since one direction shows no error."""
    sde, t, jacobian = EVERY_SDE[0], 0.4, rng.normal(size=(D, D)) + 3 * np.eye(D)
    prior = linear(sde, jacobian)
    misfit = Y[:1] - prior(X[:1], t) @ MATRIX.T
    image = misfit @ MATRIX @ jacobian @ MATRIX.T + STD**2 * misfit
    weights = misfit * (misfit @ misfit.T) / (misfit @ image.T)
    correction = MMPS(prior, MEASUREMENT, Y[:1], STD, max_steps=1)(X[:1], t) - prior(X[:1], t)
    np.testing.assert_allclose(correction, weights @ MATRIX @ jacobian, rtol=1e-9)


def test_mmps_solves_in_as_many_steps_as_there_are_values():
    """Where the covariance is right; and no fewer."""
    t = times(EVERY_SDE[0])
    errors = [
        np.abs(make(MMPS, {"rtol": 1e-13, "max_steps": steps})(X, t) - exact_means(EVERY_SDE[0], COVARIANCE, MATRIX, t))
        for steps in (1, M)
    ]
    assert errors[0].max() > 1e-3 and errors[1].max() < 1e-12


K_MASK = np.array([[1, 0, 1, 0, 0], [0, 0, 1, 1, 0], [0, 1, 1, 0, 1], [0, 1, 0, 1, 1]], bool)  # some k without -k


@pytest.mark.parametrize("std", [0.1, 0.02, 0.0])
def test_tmpd_is_exact_in_the_k_space_of_stationary_images(std):
    """Row sums of the published method cancel there: row k and row -k of a real image's imaginary parts are opposite."""
    sde, shape, n, t = EVERY_SDE[0], (4, 5, 1), 0.7, 0.4
    frequencies = np.abs(np.fft.fftfreq(4))[:, None] + np.abs(np.fft.fftfreq(5))
    transform = np.fft.fft2(np.eye(20).reshape(20, 4, 5), norm="ortho").reshape(20, 20)
    covariance = (transform.conj().T @ np.diag(1 / (1 + 20 * frequencies.ravel())) @ transform).real
    measurement, prior = FourierSampling(event_shape=shape, mask=K_MASK), exact.CorrelatedGaussian(sde, 0.1, covariance)
    draws = np.random.default_rng(1)
    x, y = draws.normal(size=(1, *shape)), measurement.forward(draws.normal(size=(1, *shape)))
    y += std * draws.normal(size=y.shape)
    t = sde.time_at_log_snr(-2 * jnp.log(n))
    a = matrix(measurement)
    of_x0 = np.linalg.inv(np.linalg.inv(covariance) + np.eye(20) / n**2)
    d = np.asarray(prior(x, t)).ravel()
    gain = of_x0 @ a.T @ np.linalg.pinv(a @ of_x0 @ a.T + std**2 * np.eye(len(a)), rcond=1e-10)
    expected = d + gain @ (np.asarray(y).ravel() - a @ d)
    assert np.abs(expected - d).max() > 0.3
    np.testing.assert_allclose(np.ravel(TMPD(prior, measurement, y, std)(x, t)), expected, atol=1e-10)


@pytest.mark.parametrize("misfit", [[1.0, 1.0], [1.0, -1.0]], ids=["sum", "difference"])
@pytest.mark.parametrize("shared", [0.9, 0.3])
def test_tmpd_takes_no_more_than_the_variance_along_its_weights(misfit, shared):
    """Of two values of covariance -0.9 the row sums are 0.1; the variance of the difference is 1.9: exact along both."""
    sde, t, s = EVERY_SDE[0], 0.4, 0.2
    covariance, misfit = np.array([[1.0, -shared], [-shared, 1.0]]), np.array([misfit])
    prior = linear(sde, covariance)
    x = rng.normal(size=(1, 2))
    found = TMPD(prior, picks(0, 1, size=2), prior(x, t) + misfit, s)(x, t) - prior(x, t)
    expected = misfit @ np.linalg.solve(covariance + s**2 * np.eye(2), covariance)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_mmps_rests_once_its_residual_is_below_the_tolerance():
    """The residuals of conjugate gradients, by numpy: one tolerance between the second and the third stops after three."""
    sde, t = EVERY_SDE[0], 0.4
    prior, y = linear(sde, COVARIANCE), rng.normal(size=(1, D))
    whole, measurement = COVARIANCE + STD**2 * np.eye(D), picks(*range(D), size=D)
    misfit = (y - prior(X[:1], t))[0]
    krylov = np.stack([np.linalg.matrix_power(whole, k) @ misfit for k in range(D)], 1)
    residuals = []
    for k in range(1, D):
        basis = np.linalg.qr(krylov[:, :k])[0]
        v = basis @ np.linalg.solve(basis.T @ whole @ basis, basis.T @ misfit)
        residuals.append(np.linalg.norm(misfit - whole @ v) / np.linalg.norm(misfit))
    assert residuals[2] < 0.8 * residuals[1]

    def solved(rtol, max_steps):
        return np.asarray(MMPS(prior, measurement, y, STD, rtol=rtol, max_steps=max_steps)(X[:1], t))

    for rtol in (0.95 * residuals[1], 1.05 * residuals[2]):
        np.testing.assert_allclose(solved(rtol, D), solved(1e-300, 3), rtol=1e-9)
    np.testing.assert_allclose(solved(1.05 * residuals[1], D), solved(1e-300, 2), rtol=1e-9)


def test_tmpd_counts_what_rows_and_columns_differ_by_as_variance():
    sde, t, s = EVERY_SDE[0], 0.4, 0.3
    jacobian = np.array([[1.0, 0.5, 0.0], [-0.1, 0.2, -2.0], [0.0, 0.0, 0.7]])
    prior = linear(sde, jacobian)
    x, y = rng.normal(size=(1, 3)), rng.normal(size=(1, 3))
    sums = np.array([1.5, -1.9, 0.7]), np.array([0.9, 0.7, -1.3])
    of_y = np.abs(sums[0] + sums[1]) / 2 + np.sqrt(np.mean((sums[0] - sums[1]) ** 2)) + s**2
    correction = TMPD(prior, picks(0, 1, 2, size=3), y, s)(x, t) - prior(x, t)
    np.testing.assert_allclose(correction, (y - prior(x, t)) / of_y @ jacobian, rtol=1e-9)


def test_manifold_constraint_takes_from_dps_what_is_not_measured():
    t = times(EVERY_SDE[0])
    x0, dps = make(ManifoldConstraint, {"zeta": 0.3})(X, t), make(DPS, {"zeta": 0.3})(X, t)
    null = np.eye(D) - np.linalg.pinv(MATRIX) @ MATRIX
    np.testing.assert_allclose(MEASUREMENT.forward(x0), Y, rtol=1e-9)
    np.testing.assert_allclose(x0 @ null, dps @ null, rtol=1e-9)


def test_manifold_constraint_is_exact_without_noise_where_pixels_are_independent():
    sde = EVERY_SDE[0]
    t = times(sde)
    posterior = ManifoldConstraint(exact.Gaussian(sde, MEAN, STDS), PICKS, Y)
    np.testing.assert_allclose(
        posterior(X, t), exact_means(sde, np.diag(STDS**2), PICKS.matrix, t, std=1e-6), rtol=1e-6
    )


def test_samples_under_the_manifold_constraint_fit_y():
    sde = VPSDE(t_min=1e-3)
    posterior = make(ManifoldConstraint, {}, sde=sde)
    x = sample(keys(B), posterior, Ancestral(), log_snr_times(sde, 30), (D,))
    np.testing.assert_allclose(MEASUREMENT.forward(x), Y, rtol=1e-9)
