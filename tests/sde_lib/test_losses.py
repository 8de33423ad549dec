"""Denoising score matching: its expectation has a closed form wherever the Denoiser does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sde_lib import (
    VPSDE,
    DataWeighting,
    EDMWeighting,
    FunctionDenoiser,
    GeometricSigma,
    LikelihoodWeighting,
    LogitNormalTime,
    LogNormalSigma,
    LowDiscrepancyTimes,
    NoiseWeighting,
    UniformLogSNR,
    UniformTime,
    VWeighting,
    denoising_score_matching,
    exact,
)
from sde_lib.randomness import fold_in
from tests.sde_lib.processes import SOME_SDES, keys, some_sdes


@some_sdes
def test_expected_loss_of_the_exact_denoiser_is_the_posterior_variance(sde):
    """For data N(m, s^2): E |D - x0|^2 = s^2 sigma^2 / (alpha^2 s^2 + sigma^2), averaged over uniform times."""
    denoiser = exact.Gaussian(sde, mean=0.4, std=0.5)
    x0 = denoiser.sample(jax.random.key(1), (50_000, 2))
    loss = denoising_score_matching(keys(50_000), denoiser, x0, weighting=DataWeighting(), times=UniformTime())
    t = jnp.linspace(sde.t_min, sde.t_max, 100_001)
    variance = 0.25 * sde.sigma(t) ** 2 / (0.25 * sde.alpha(t) ** 2 + sde.sigma(t) ** 2)
    expected = jnp.trapezoid(variance, t) / (sde.t_max - sde.t_min)
    assert abs(loss.mean() - expected) < 4 * loss.std() / np.sqrt(len(loss))


@some_sdes
def test_the_posterior_mean_has_the_least_loss(sde):
    denoiser = exact.GaussianMixture(sde, np.array([[-1.0], [1.0]]), stds=0.2)
    x0 = denoiser.sample(jax.random.key(1), 40_000)

    @jax.jit
    def loss(offset, scale):
        other = FunctionDenoiser(sde, lambda x, t: offset + scale * denoiser(x, t))
        return denoising_score_matching(keys(40_000), other, x0, weighting=DataWeighting()).mean()

    least = loss(0.0, 1.0)
    assert all(loss(*away) > least for away in [(0.1, 1.0), (-0.1, 1.0), (0.0, 1.2), (0.0, 0.8)])


def test_defaults_are_ddpms_simple_loss_at_uniform_times():
    sde = SOME_SDES[0]
    denoiser, x0 = exact.Gaussian(sde, mean=0.4, std=0.5), np.ones((8, 3))
    explicit = denoising_score_matching(keys(8), denoiser, x0, weighting=NoiseWeighting(), times=UniformTime())
    np.testing.assert_array_equal(denoising_score_matching(keys(8), denoiser, x0), explicit)


@some_sdes
def test_example_i_depends_on_key_i_alone(sde):
    denoiser = exact.Gaussian(sde, mean=0.4, std=0.5)
    x0 = np.random.default_rng(0).normal(size=(8, 3))
    together = denoising_score_matching(keys(8), denoiser, x0)
    alone = jnp.concatenate([denoising_score_matching(keys(8)[i : i + 1], denoiser, x0[i : i + 1]) for i in range(8)])
    np.testing.assert_allclose(together, alone, rtol=1e-12)
    assert len(np.unique(together)) == 8


MISSED = {"mean": 0.1, "std": 0.8}  # what the Denoiser of the next tests takes the data N(0.4, 0.5^2) for


def expected_error(sde, t):
    """E |D - x0|^2 at t in one dimension, for D = m' + k (x - alpha m'): a bias, a gain and noise let through."""
    alpha, sigma = np.asarray(sde.alpha(t)), np.asarray(sde.sigma(t))
    k = alpha * 0.8**2 / (alpha**2 * 0.8**2 + sigma**2)
    return (1 - k * alpha) ** 2 * (0.5**2 + (0.4 - 0.1) ** 2) + k**2 * sigma**2


IMPORTANCE = [
    (UniformTime(), LikelihoodWeighting()),
    (UniformLogSNR(), LikelihoodWeighting()),
    (LogNormalSigma(-1.0, 1.5), NoiseWeighting()),
    (LogitNormalTime(0.0, 2.0), VWeighting()),
]


@pytest.fixture(scope="module")
def weighted_losses():
    """20,000 losses of the wrong Denoiser with importance weights, for each pair of `IMPORTANCE`."""
    with jax.enable_x64(True):
        sde, n = VPSDE(t_min=1e-3), 20_000
        denoiser = exact.Gaussian(sde, **MISSED)
        x0 = exact.Gaussian(sde, 0.4, 0.5).sample(jax.random.key(1), (n, 2))

        @jax.jit
        def losses():
            return [
                denoising_score_matching(keys(n), denoiser, x0, weighting=w, times=times, importance=True)
                for times, w in IMPORTANCE
            ]

        return sde, [np.asarray(loss) for loss in losses()]


@pytest.mark.parametrize("i", range(len(IMPORTANCE)), ids=[type(times).__name__ for times, _ in IMPORTANCE])
def test_importance_weights_keep_the_loss_at_uniform_times(weighted_losses, i):
    """The mean is the quadrature over t of the closed-form error of a Denoiser that is wrong on purpose."""
    sde, losses = weighted_losses
    t = np.linspace(sde.t_min**0.5, sde.t_max**0.5, 20_001) ** 2
    expected = np.trapezoid(IMPORTANCE[i][1](sde, t) * expected_error(sde, t), t) / (sde.t_max - sde.t_min)
    assert abs(losses[i].mean() - expected) < 3.5 * losses[i].std() / np.sqrt(len(losses[i]))
    assert losses[i].std() / np.sqrt(len(losses[i])) < 0.08 * expected


def test_importance_sampling_takes_the_variance_out_of_the_likelihood(weighted_losses):
    uniform, log_snr, *_ = weighted_losses[1]
    assert log_snr.var() < 0.1 * uniform.var()


def test_importance_weights_divide_the_uncertainty_too():
    """The whole of e^{-u} w error + u is what the average over uniform times is taken of."""
    sde = SOME_SDES[0]
    options = {"times": UniformLogSNR(), "log_variance": lambda sde, t: 3.0 * t}
    args = keys(8), exact.Gaussian(sde), np.ones((8, 3))
    t = options["times"](fold_in(keys(8), 0), sde)
    relative = np.exp(UniformLogSNR().log_density(sde, t)) * (sde.t_max - sde.t_min)
    weighted = denoising_score_matching(*args, importance=True, **options)
    np.testing.assert_allclose(weighted * relative, denoising_score_matching(*args, **options), rtol=1e-9)


def test_low_discrepancy_lowers_the_variance_of_a_batch():
    """The mean loss of batches of 32 at even times, against independent ones."""
    sde = VPSDE(t_min=1e-3)
    denoiser, x0 = exact.Gaussian(sde, **MISSED), jnp.ones((32, 256))

    @jax.jit
    def mean_losses(step):
        even = LowDiscrepancyTimes(jax.random.key(step), jnp.arange(32), 32)
        both = [UniformTime(), even]
        step_keys = jax.random.split(jax.random.key(1000 + step), 32)
        return [
            denoising_score_matching(step_keys, denoiser, x0, weighting=DataWeighting(), times=t).mean() for t in both
        ]

    independent, even = np.array([mean_losses(step) for step in range(100)]).T
    assert even.var() < 0.2 * independent.var()
    assert even.mean() == pytest.approx(independent.mean(), abs=4 * independent.std() / 10)


def test_importance_without_a_density_is_an_error():
    with pytest.raises(ValueError, match="GeometricSigma has no density in t, which importance weighting needs"):
        denoising_score_matching(
            keys(8), exact.Gaussian(SOME_SDES[0]), np.ones((8, 3)), times=GeometricSigma(4), importance=True
        )


@pytest.mark.parametrize("weighting", [NoiseWeighting(), EDMWeighting(0.5)], ids=lambda w: type(w).__name__)
def test_examples_are_seen_at_times_and_noise_of_their_own(weighting):
    denoiser = exact.Gaussian(SOME_SDES[0], mean=0.4, std=0.5)
    loss = jax.jit(lambda k: denoising_score_matching(k, denoiser, jnp.ones((4, 3)), weighting=weighting))(keys(4))
    assert len(np.unique(loss)) == 4


def test_the_times_given_are_those_of_the_losses():
    """Data of 0 and a Denoiser that says 1: the loss is the weight, which is the time."""
    denoiser = FunctionDenoiser(VPSDE(), lambda x, t: jnp.ones_like(x))
    loss, t = denoising_score_matching(
        keys(32), denoiser, jnp.zeros((32, 3)), weighting=lambda sde, t: t, times=UniformTime(), return_times=True
    )
    np.testing.assert_allclose(loss, t, rtol=1e-6)
    assert 0.2 < float(t.std()) < 0.4


def test_the_error_is_the_mean_over_all_axes_of_an_image():
    """Of images of any shape: with data of 0 and a Denoiser that says its place, the mean of the squares."""
    places = jnp.arange(24.0).reshape(2, 3, 4)
    denoiser = FunctionDenoiser(VPSDE(), lambda x, t: jnp.broadcast_to(places, x.shape))
    loss = denoising_score_matching(keys(5), denoiser, jnp.zeros((5, 2, 3, 4)), weighting=DataWeighting())
    np.testing.assert_allclose(loss, np.full(5, np.square(np.arange(24)).mean()), rtol=1e-12)
