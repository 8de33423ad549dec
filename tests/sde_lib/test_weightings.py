"""Weightings: published losses, written on their own outputs, are the x_0 error under a weighting, example by example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from sde_lib import (
    EDMSDE,
    SDE,
    VESDE,
    VPSDE,
    DataWeighting,
    DiscreteTime,
    EDMPreconditioning,
    EDMWeighting,
    FunctionDenoiser,
    GeometricSigma,
    LikelihoodWeighting,
    LogitNormalTime,
    LogNormalSigma,
    MinSNRWeighting,
    NoiseWeighting,
    PerLogSNR,
    RectifiedFlow,
    ScoreWeighting,
    SigmoidWeighting,
    SoftMinSNRWeighting,
    SubVPSDE,
    UniformLogSNR,
    UniformTime,
    VelocityPrediction,
    VelocityWeighting,
    VPrediction,
    VWeighting,
    denoising_score_matching,
)
from sde_lib.sde import expand
from tests.sde_lib.processes import TrigonometricSDE, keys, some_sdes

pytestmark = pytest.mark.thorough

VP, SUBVP, VE = VPSDE(t_min=1e-3), SubVPSDE(t_min=1e-2), VESDE(t_min=0.0)
COSINE = TrigonometricSDE(t_min=1e-2, t_max=0.99)
EDM, STRAIGHT = EDMSDE(), RectifiedFlow(t_min=1e-3, t_max=0.999)


@struct.dataclass
class Draw:
    """What one evaluation of the loss saw, as columns: data, noise, the Denoiser's answer, and the process's numbers."""

    t: np.ndarray
    x0: np.ndarray
    noise: np.ndarray
    x: np.ndarray
    d: np.ndarray
    alpha: np.ndarray
    sigma: np.ndarray

    @property
    def noise_hat(self):
        return (self.x - self.alpha * self.d) / self.sigma

    @property
    def score_hat(self):
        return -self.noise_hat / self.sigma

    @property
    def snr(self):
        return self.alpha**2 / self.sigma**2


def evaluate(sde, weighting, times):
    """The loss of six examples of four dimensions, and what it saw."""
    seen = {}

    def wrong(x, t):
        seen.update(x=np.asarray(x), t=np.asarray(t))
        return 0.3 * jnp.sin(x) + 0.1 * x

    x0 = np.random.default_rng(0).normal(size=(6, 4))
    loss = denoising_score_matching(keys(6), FunctionDenoiser(sde, wrong), x0, weighting=weighting, times=times)
    x, t = seen["x"], seen["t"]
    alpha, sigma = (np.asarray(expand(f(t), x)) for f in (sde.alpha, sde.sigma))
    return np.asarray(loss), Draw(t[:, None], x0, (x - alpha * x0) / sigma, x, np.asarray(wrong(x, t)), alpha, sigma)


def beta(t):
    return 0.1 + 19.9 * t


def edm_output(x0, x, s, sigma_data=0.5):
    c_skip = sigma_data**2 / (s**2 + sigma_data**2)
    return (x0 - c_skip * x) / (s * sigma_data / np.sqrt(s**2 + sigma_data**2))


PUBLISHED = {
    "DDPM simple": (VP, NoiseWeighting(), DiscreteTime(100), lambda d: (d.noise_hat - d.noise) ** 2),
    "SMLD": (VE, NoiseWeighting(), GeometricSigma(10), lambda d: d.sigma**2 * (d.score_hat + d.noise / d.sigma) ** 2),
    "score_sde VE": (VE, NoiseWeighting(), UniformTime(), lambda d: (d.sigma * d.score_hat + d.noise) ** 2),
    "score_sde sub-VP": (SUBVP, NoiseWeighting(), UniformTime(), lambda d: (d.sigma * d.score_hat + d.noise) ** 2),
    "score_sde likelihood": (
        *(VP, LikelihoodWeighting(), UniformTime()),
        lambda d: beta(d.t) * (d.score_hat + d.noise / d.sigma) ** 2,
    ),
    "score": (SUBVP, ScoreWeighting(), UniformTime(), lambda d: (d.score_hat + d.noise / d.sigma) ** 2),
    "VDM": (
        *(VP, LikelihoodWeighting(), UniformTime()),
        lambda d: (
            -jax.vmap(jax.grad(lambda t: VP.alpha(t) ** 2 / VP.sigma(t) ** 2))(d.t[:, 0])[:, None] * (d.d - d.x0) ** 2
        ),
    ),
    "progressive distillation": (
        *(COSINE, VWeighting(), UniformTime()),
        lambda d: (d.alpha * d.noise_hat - d.sigma * d.d - (d.alpha * d.noise - d.sigma * d.x0)) ** 2,
    ),
    "EDM": (
        *(EDM, EDMWeighting(0.5), LogNormalSigma()),
        lambda d: (d.t**2 + 0.5**2) / (d.t * 0.5) ** 2 * (d.d - d.x0) ** 2,
    ),
    "EDM's output": (
        *(EDM, EDMWeighting(0.5), LogNormalSigma()),
        lambda d: (edm_output(d.d, d.x, d.t) - edm_output(d.x0, d.x, d.t)) ** 2,
    ),
    "min-SNR of noise": (
        *(VP, MinSNRWeighting(5.0), DiscreteTime(100)),
        lambda d: np.minimum(d.snr, 5.0) / d.snr * (d.noise_hat - d.noise) ** 2,
    ),
    "min-SNR of v": (
        *(VP, MinSNRWeighting(2.0), UniformTime()),
        lambda d: (
            np.minimum(d.snr, 2.0)
            / (d.snr + 1)
            * (d.alpha * d.noise_hat - d.sigma * d.d - (d.alpha * d.noise - d.sigma * d.x0)) ** 2
        ),
    ),
    "HDiT": (
        *(EDM, SoftMinSNRWeighting(4.0), LogNormalSigma()),
        lambda d: (
            (d.t * 0.5) ** 2 / (d.t**2 + 0.5**2) ** 2 * (edm_output(d.d, d.x, d.t) - edm_output(d.x0, d.x, d.t)) ** 2
        ),
    ),
    "VDM++ sigmoid": (
        *(VP, PerLogSNR(SigmoidWeighting(-1.0)), UniformTime()),
        lambda d: beta(d.t) / d.sigma**2 / (1 + np.e * d.snr) * (d.noise_hat - d.noise) ** 2,
    ),
    "VDM++ sigmoid, in log-SNR": (
        *(VP, SigmoidWeighting(-1.0), UniformLogSNR()),
        lambda d: 1 / (1 + np.e * d.snr) * (d.noise_hat - d.noise) ** 2,
    ),
    "rectified flow": (
        *(STRAIGHT, VelocityWeighting(), UniformTime()),
        lambda d: ((d.x - d.d) / d.t - (d.noise - d.x0)) ** 2,
    ),
    "SD3": (
        *(STRAIGHT, VelocityWeighting(), LogitNormalTime()),
        lambda d: ((d.x - d.d) / d.t - (d.noise - d.x0)) ** 2,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_losses_are_pairs_of_weighting_and_times(name):
    """Mean over dimensions; the half-sum of score_sde and VDM is dimensions / 2 times that."""
    sde, weighting, times, published = PUBLISHED[name]
    loss, draw = evaluate(sde, weighting, times)
    squares = published(draw)
    np.testing.assert_allclose(loss, squares.mean(1), rtol=1e-8)
    np.testing.assert_allclose(loss * 4 / 2, 0.5 * squares.sum(1), rtol=1e-8)


def test_published_times_are_those_of_the_paper():
    """The noise levels that the losses above were taken at."""
    _, smld = evaluate(VE, NoiseWeighting(), GeometricSigma(10))
    levels = np.geomspace(0.01, 50.0, 10)
    assert np.abs(np.log(smld.sigma / levels)).min(1).max() < 1e-9 and len(np.unique(smld.sigma.round(9))) > 2
    _, ddpm = evaluate(VP, NoiseWeighting(), DiscreteTime(100))
    np.testing.assert_allclose(100 * ddpm.t, np.round(100 * ddpm.t), atol=1e-9)


@some_sdes
def test_a_network_output_under_its_own_weighting_has_weight_one(sde):
    """|error of the output|^2 = w |error of x_0|^2, for each output and the weighting of its name."""
    t = jnp.array([0.02, 0.3, 0.9])
    x0, error, noise = np.random.default_rng(0).normal(size=(3, 3, 2))
    x = sde.perturb(x0, noise, t)
    d = x0 + error
    noise_hat = (x - expand(sde.alpha(t), x) * d) / expand(sde.sigma(t), x)
    for parameterization, weighting in [
        (VPrediction(), VWeighting()),
        (VelocityPrediction(), VelocityWeighting()),
        (EDMPreconditioning(0.7), EDMWeighting(0.7)),
    ]:
        output_error = parameterization.output(sde, d, noise_hat, t) - parameterization.output(sde, x0, noise, t)
        np.testing.assert_allclose(output_error**2, weighting(sde, t)[:, None] * error**2, rtol=1e-7)


@some_sdes
def test_soft_weightings_have_the_limits_of_their_names(sde):
    """Soft-min-SNR lies below min-SNR, by half at the corner; the sigmoid is the same function with gamma = e^bias."""
    t = jnp.linspace(sde.t_min, sde.t_max, 50)
    soft, hard = SoftMinSNRWeighting(3.0)(sde, t), MinSNRWeighting(3.0)(sde, t)
    assert (soft < hard * (1 + 1e-12)).all() and (soft >= hard / 2).all()
    corner = sde.time_at_log_snr(jnp.log(3.0))
    np.testing.assert_allclose(SoftMinSNRWeighting(3.0)(sde, corner), 1.5, rtol=1e-6)
    np.testing.assert_allclose(SigmoidWeighting(np.log(3.0))(sde, t), soft, rtol=1e-9)
    np.testing.assert_allclose(LikelihoodWeighting()(sde, t), PerLogSNR(NoiseWeighting())(sde, t), rtol=1e-9)


@struct.dataclass
class AnySNR(SDE):
    """A stand-in whose log-SNR is the time itself."""

    def log_snr(self, t):
        return -t


@pytest.mark.parametrize("weighting", [MinSNRWeighting(), SoftMinSNRWeighting(), SigmoidWeighting(), VWeighting()])
def test_bounded_weightings_keep_their_digits_at_any_noise_in_float32(weighting):
    expected = weighting(AnySNR(), jnp.array([-80.0, 0.0, 80.0, 700.0]))
    with jax.enable_x64(False):
        weights = weighting(AnySNR(), jnp.array([-80.0, 0.0, 80.0, jnp.inf]))
    np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-37)


def test_data_weighting_is_one():
    np.testing.assert_array_equal(DataWeighting()(VP, jnp.array([0.1, 0.2])), [1, 1])


@pytest.mark.parametrize("make", [MinSNRWeighting, SoftMinSNRWeighting, EDMWeighting], ids=lambda m: m.__name__)
def test_bad_numbers_are_named(make):
    with pytest.raises(ValueError, match=f"{make.__name__}: .*=-1.0 must be more than 0"):
        make(-1.0)
    jax.jit(lambda w: w(VP, jnp.array(0.5)))(make(1.0))  # numbers that are traced pass
