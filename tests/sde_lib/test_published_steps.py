"""One step of each method, to the last digit: as its paper writes it, where `test_sampling.py` has orders and limits."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from sde_lib import (
    DDIM,
    EDMSDE,
    VESDE,
    VPSDE,
    Ancestral,
    AnnealedLangevin,
    DiscreteVP,
    EulerMaruyama,
    FunctionDenoiser,
    Heun,
    Langevin,
    PredictorCorrector,
    ReverseDiffusion,
    exact,
    karras_times,
)
from sde_lib.randomness import fold_in, split, standard_normal
from tests.sde_lib.processes import TrigonometricSDE, keys

X = np.array([[0.4, -1.2], [1.7, 0.2]])
CHAIN = DiscreteVP.linear(50, 1e-3, 0.2)
BETAS = np.linspace(1e-3, 0.2, 50)
ALPHA_BARS = np.cumprod(1 - BETAS)


def step(method, denoiser, x, t, s):
    return method.step(method.init(x, denoiser, jnp.array([t, s, 0.0])), keys(len(x)), x, t, s, denoiser)[1]


@pytest.mark.parametrize("k", [2, 17, 50])
def test_steps_of_ddpms_chain(k):
    """From k to k - 1: Song et al. (2021), eq. 46, and Ho et al. (2020), eq. 11 with the posterior's variance, eq. 7."""
    t, s = jnp.float64(k / 50), jnp.float64((k - 1) / 50)
    beta, alpha_bar, before = BETAS[k - 1], ALPHA_BARS[k - 1], ALPHA_BARS[k - 2]
    denoiser = exact.Gaussian(CHAIN, mean=0.3, std=0.5)
    z, noise = standard_normal(keys(2), jnp.asarray(X)), denoiser.noise(X, t)
    score = -noise / np.sqrt(1 - alpha_bar)
    reverse_diffusion = (2 - np.sqrt(1 - beta)) * X + beta * score + np.sqrt(beta) * z
    np.testing.assert_allclose(step(ReverseDiffusion(), denoiser, X, t, s), reverse_diffusion, rtol=1e-9)
    mean = (X - beta / np.sqrt(1 - alpha_bar) * noise) / np.sqrt(1 - beta)
    ancestral = mean + np.sqrt(beta * (1 - before) / (1 - alpha_bar)) * z
    np.testing.assert_allclose(step(Ancestral(), denoiser, X, t, s), ancestral, rtol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.3, 0.5, 1.0])
def test_ddim_adds_a_share_eta_of_the_posteriors_noise(eta):
    """Song, Meng and Ermon (2021), eq. 12 and 16, over ten steps of the chain at once."""
    t, s, late, early = jnp.float64(0.8), jnp.float64(0.6), ALPHA_BARS[39], ALPHA_BARS[29]
    denoiser = exact.Gaussian(CHAIN, mean=0.3, std=0.5)
    x0, noise = denoiser.x0_and_noise(X, t)
    std = eta * np.sqrt((1 - early) / (1 - late) * (1 - late / early))
    expected = np.sqrt(early) * x0 + np.sqrt(1 - early - std**2) * noise
    expected += std * standard_normal(keys(2), jnp.asarray(X))
    np.testing.assert_allclose(step(DDIM(eta), denoiser, X, t, s), expected, rtol=1e-9)


def test_steps_of_smlds_chain():
    """Between two levels of sigma: Song et al. (2021), eq. 43 (reverse diffusion) and eq. 47 (ancestral sampling)."""
    sde, t, s = VESDE(sigma_min=0.01, sigma_max=20.0), jnp.float64(0.7), jnp.float64(0.6)
    high, low = (0.01 * 2000**time for time in (0.7, 0.6))
    denoiser = exact.Gaussian(sde, mean=0.3, std=0.5)
    z, score = standard_normal(keys(2), jnp.asarray(X)), denoiser.score(X, t)
    moved, variance = X + (high**2 - low**2) * score, high**2 - low**2
    np.testing.assert_allclose(step(ReverseDiffusion(), denoiser, X, t, s), moved + np.sqrt(variance) * z, rtol=1e-9)
    ancestral = moved + np.sqrt(low**2 * variance / high**2) * z
    np.testing.assert_allclose(step(Ancestral(), denoiser, X, t, s), ancestral, rtol=1e-9)


def test_euler_maruyama_has_the_rates_of_the_start():
    sde, t, s = VPSDE(beta_min=0.2, beta_max=8.0), jnp.float64(0.7), jnp.float64(0.6)
    beta, denoiser = 0.2 + 7.8 * 0.7, exact.Gaussian(sde, mean=0.3, std=0.5)
    drift = -0.5 * beta * X - beta * denoiser.score(X, t)
    expected = X - 0.1 * drift + np.sqrt(0.1 * beta) * standard_normal(keys(2), jnp.asarray(X))
    np.testing.assert_allclose(step(EulerMaruyama(), denoiser, X, t, s), expected, rtol=1e-9)


@pytest.mark.parametrize(
    "method, time", [(Langevin(snr=0.2, steps=2), 0.6), (AnnealedLangevin(snr=0.3, steps=3), 0.6)], ids=str
)
def test_langevin_corrects_at_the_smaller_time_with_fresh_noise(method, time):
    """Song and Ermon (2019), algorithm 1, with the step 2 (snr sigma)^2."""
    sde, x = VESDE(sigma_min=0.01, sigma_max=20.0), X
    denoiser, length = exact.Gaussian(sde, mean=0.3, std=0.5), 2 * (method.snr * 0.01 * 2000**time) ** 2
    for i in range(method.steps):
        noise = standard_normal(fold_in(keys(2), i), jnp.asarray(X))
        x = x + length * denoiser.score(x, time) + np.sqrt(2 * length) * noise
    np.testing.assert_allclose(step(method, denoiser, X, jnp.float64(0.7), jnp.float64(0.6)), x, rtol=1e-9)


def test_the_corrector_corrects_at_the_larger_time():
    """Song et al. (2021), algorithm 2: at its time first, then the predictor's step; here of no noise, so without keys."""
    sde, t, s = VESDE(sigma_min=0.01, sigma_max=20.0), jnp.float64(0.7), jnp.float64(0.6)
    denoiser = exact.Gaussian(sde, mean=0.3, std=0.5)
    corrected = Langevin(snr=0.2).correct(fold_in(keys(2), 0), jnp.asarray(X), t, denoiser)
    expected = step(DDIM(), denoiser, corrected, t, s)
    np.testing.assert_allclose(
        step(PredictorCorrector(DDIM(), Langevin(snr=0.2)), denoiser, X, t, s), expected, rtol=1e-9
    )


@pytest.mark.parametrize(
    "churn, low, high, factor",
    [
        (0.4, 0.0, math.inf, 1 + 0.4 / 5),
        (2.0, 0.0, math.inf, 1 + 2.0 / 5),
        (2.1, 0.0, math.inf, math.sqrt(2)),
        (1e3, 0.0, math.inf, math.sqrt(2)),
        (1e3, 3.0, 3.0, math.sqrt(2)),
        (1e3, 3.1, math.inf, 1.0),
        (1e3, 0.0, 2.9, 1.0),
        (0.0, 0.0, math.inf, 1.0),
    ],
)
def test_churn_raises_the_noise_level_as_edm_does(churn, low, high, factor):
    """Karras et al. (2022), algorithm 2: sigma_hat = (1 + gamma) sigma, and noise of the missing variance, times S_noise."""
    seen = []

    def denoise(x, t):
        seen.append((np.asarray(x), float(jnp.ravel(t)[0])))
        return 0.5 * x

    sde = EDMSDE()
    method, times = Heun(churn, churn_min=low, churn_max=high, churn_noise=1.1), karras_times(sde, 5)
    carry = method.init(jnp.asarray(X), None, times)
    method.step(carry, keys(2), jnp.asarray(X), jnp.float64(3.0), jnp.float64(1.0), FunctionDenoiser(sde, denoise))
    (x, t), (_, end) = seen
    assert t == pytest.approx(3.0 * factor, rel=1e-9) and end == 1.0
    added = 1.1 * 3.0 * np.sqrt(factor**2 - 1) * standard_normal(keys(2), jnp.asarray(X))
    np.testing.assert_allclose(x, X + added, rtol=1e-9)


def test_heun_is_the_trapezoidal_rule_in_the_noise_level():
    """Karras et al. (2022), algorithm 1: d = (x - D(x, sigma)) / sigma at both ends."""
    sde = EDMSDE()
    denoiser = exact.GaussianMixture(sde, np.array([[1.0, 0.5], [-1.0, 0.0]]), stds=0.4)
    slope = (X - denoiser(X, 3.0)) / 3.0
    euler = X + (1.0 - 3.0) * slope
    expected = X + (1.0 - 3.0) * 0.5 * (slope + (euler - denoiser(euler, 1.0)) / 1.0)
    np.testing.assert_allclose(step(Heun(), denoiser, X, jnp.float64(3.0), jnp.float64(1.0)), expected, rtol=1e-9)


def test_a_predictor_keeps_what_it_carries_behind_a_corrector():
    """Heun's churn is a share of the grid's number of steps, which its carry holds."""
    sde, corrector, x = EDMSDE(), Langevin(snr=0.1), jnp.asarray(X)
    predictor, times = Heun(churn=1.0), karras_times(sde, 5)
    both, denoiser = PredictorCorrector(predictor, corrector), exact.Gaussian(sde, mean=0.3, std=0.5)
    t, s = jnp.float64(3.0), jnp.float64(1.0)
    carry, found = both.step(both.init(x, denoiser, times), keys(2), x, t, s, denoiser)
    first, second = split(keys(2), 2)
    corrected = corrector.correct(first, x, t, denoiser)
    own, expected = predictor.step(predictor.init(x, denoiser, times), second, corrected, t, s, denoiser)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert carry == own == pytest.approx(1 / 5)
    assert both.evaluations_per_step == 3 and both.nfe(5) == 13


def test_churn_has_no_room_at_the_largest_time_of_a_process_that_ends_there():
    """Where the time of the raised noise level is clipped nothing is added, and the step is that without churn."""
    sde = TrigonometricSDE(t_min=1e-2, t_max=0.9)
    denoiser, t, s = exact.Gaussian(sde, mean=0.3, std=0.5), jnp.float64(0.9), jnp.float64(0.6)
    churned, plain = (step(Heun(churn), denoiser, jnp.asarray(X), t, s) for churn in (0.5, 0.0))
    np.testing.assert_allclose(churned, plain, rtol=1e-9)
