"""Methods: orders of convergence, what the last step leaves, and the distribution that stochastic methods reach."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import struct

from sde_lib import (
    DDIM,
    DEIS,
    Adams,
    Adaptive,
    Ancestral,
    AnnealedLangevin,
    DPMSolver,
    EulerMaruyama,
    FunctionDenoiser,
    Heun,
    Langevin,
    PredictorCorrector,
    ProbabilityFlow,
    ReverseDiffusion,
    Sampler,
    SinglestepDPMSolver,
    UniPC,
    denoising_score_matching,
    exact,
    karras_times,
    sample,
    uniform_times,
)
from sde_lib.sampling.sample import _sample
from tests.sde_lib.processes import EVERY_SDE, SOME_SDES, TrigonometricSDE, keys, some_sdes
from tests.sde_lib.shared_programs import gaussian_error, one_program

pytestmark = pytest.mark.devices

EVERY_METHOD = [
    EulerMaruyama(),
    ReverseDiffusion(),
    Ancestral(),
    DDIM(eta=0.5),
    Heun(),
    Heun(churn=10.0),
    Langevin(steps=3),
    PredictorCorrector(),
    PredictorCorrector(predictor=DDIM(), corrector=Langevin(snr=0.1, steps=2)),
    ProbabilityFlow(),
    AnnealedLangevin(),
    DPMSolver(3, lower_order_final=True),
    UniPC(2, "angle", tau=0.5),
    DEIS(3),
    Adams(3),
    SinglestepDPMSolver(3, tau=1.0),
    Adaptive(),
]

every_method = pytest.mark.parametrize("method", EVERY_METHOD, ids=str)
METHODS_OF_EVERY_SDE = [EulerMaruyama(), ReverseDiffusion(), PredictorCorrector()]
METHODS_OF_ONE_SDE = [Ancestral(), DDIM(eta=0.5), Heun(churn=20.0)]
stochastic = pytest.mark.parametrize(
    "sde, method",
    [(sde, method) for sde in SOME_SDES for method in METHODS_OF_EVERY_SDE]
    + [(SOME_SDES[0], method) for method in METHODS_OF_ONE_SDE],
    ids=lambda value: type(value).__name__,
)


@pytest.mark.parametrize(
    "method, order, steps",
    [(DDIM(), 1, (512, 1024)), (ProbabilityFlow(), 1, (512, 1024)), (Heun(), 2, (256, 512))],
    ids=str,
)
@pytest.mark.parametrize(
    "sde, grid",
    [(sde, uniform_times) for sde in EVERY_SDE] + [(EVERY_SDE[2], karras_times), (EVERY_SDE[5], karras_times)],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_error_falls_at_the_methods_order(sde, grid, method, order, steps):
    errors = [gaussian_error(sde, grid, method, n) for n in steps]
    np.testing.assert_allclose(np.log2(errors[0] / errors[1]), order, atol=0.15)


@some_sdes
@pytest.mark.parametrize("method", [DDIM(), Heun()], ids=str)
def test_variance_after_the_last_step_is_the_datas(sde, method):
    """The whole run on a Gaussian is an affine map of the start, so two starts tell it exactly: no noise may be left.

    The start has the marginal's spread at t_max, not the prior's, so that the method alone is judged.
    """
    denoiser = exact.Gaussian(one_program(sde), mean=0.7, std=0.5)
    start = jnp.array([[0.0], [1.0]]) * denoiser.marginal_std(sde.t_max) + sde.alpha(sde.t_max) * 0.7
    low, high = sample(keys(2), denoiser, method, karras_times(sde, 2000), (1,), x_init=start)
    # The denoising step maps the marginal at t_min to the posterior means, whose variance is less than the data's
    # by the factor alpha^2 s^2 / (alpha^2 s^2 + sigma^2) at t_min.
    signal, noise = (sde.alpha(sde.t_min) * 0.5) ** 2, sde.sigma(sde.t_min) ** 2
    np.testing.assert_allclose(high - low, 0.5 * np.sqrt(signal / (signal + noise)), rtol=2.5e-3)
    np.testing.assert_allclose(low, 0.7, rtol=1e-3)


@stochastic
def test_stochastic_methods_reach_the_mixture(sde, method):
    """Kolmogorov-Smirnov against the exact distribution function, at the statistical floor of 4,000 samples."""
    weights, means, std = np.array([0.3, 0.7]), np.array([[-1.0], [1.5]]), 0.3
    denoiser = exact.GaussianMixture(one_program(sde), means, stds=std, weights=weights)
    start = sde.alpha(sde.t_max) * denoiser.sample(jax.random.key(1), 4000)
    start += sde.sigma(sde.t_max) * jax.random.normal(jax.random.key(2), start.shape)
    x = sample(keys(4000), denoiser, method, karras_times(sde, 300), (1,), x_init=start)

    def distribution_function(x):
        return (weights * scipy.stats.norm.cdf(x[:, None], means[:, 0], std)).sum(1)

    assert scipy.stats.kstest(x[:, 0], distribution_function).pvalue > 0.01


@some_sdes
def test_langevin_alone_finds_the_data(sde):
    """Annealed slowly; the step's bias of some snr^2 remains."""
    denoiser = exact.Gaussian(one_program(sde), mean=0.4, std=0.5)
    x = sample(keys(1000), denoiser, Langevin(snr=0.16, steps=20), karras_times(sde, 200), (1,))
    np.testing.assert_allclose((x.mean(), x.std()), (0.4, 0.5), atol=0.05)


@jax.jit
def correct(method, keys, x, t, denoiser):
    return method.correct(keys, x, t, denoiser)


@some_sdes
@pytest.mark.parametrize("norm", ["process", "sample", "batch"])
def test_langevin_steps_have_the_lengths_of_their_norms(sde, norm):
    """One correction from a known state: step = 2 (snr |z| / |score|)^2, with |z| / |score| as documented."""
    denoiser = exact.Gaussian(one_program(sde), mean=0.0, std=1.0)
    t, x = 0.5, np.random.default_rng(0).normal(size=(6, 40))
    score = denoiser.score(x, t)
    moved = correct(Langevin(snr=0.1, norm=norm), keys(6), x, t, denoiser)
    noise = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 0), (40,)))(keys(6))
    norms = [np.linalg.norm(a, axis=1) for a in (noise, score)]
    ratio = {
        "process": sde.sigma(t),
        "sample": (norms[0] / norms[1])[:, None],
        "batch": norms[0].mean() / norms[1].mean(),
    }[norm]
    step = 2 * (0.1 * ratio) ** 2
    np.testing.assert_allclose(moved, x + step * score + np.sqrt(2 * step) * noise, rtol=1e-9)


def test_an_unknown_norm_is_named():
    with pytest.raises(ValueError, match="norm='median' must be one of process, sample, batch"):
        Langevin(norm="median")


@some_sdes
def test_ddim_keeps_a_point_on_its_line(sde):
    """Data at one point: x_s = alpha_s x0 + sigma_s noise with the noise that x_t has, exactly."""
    denoiser = FunctionDenoiser(sde, lambda x, t: jnp.full_like(x, 0.3))
    noise = np.linspace(-1, 1, 5)[:, None]
    t, s = jnp.float64(0.8), jnp.float64(0.35)
    _, x_s = DDIM().step((), keys(5), sde.perturb(jnp.full((5, 1), 0.3), noise, t), t, s, denoiser)
    np.testing.assert_allclose(x_s, sde.perturb(jnp.full((5, 1), 0.3), noise, s), rtol=1e-9)


@some_sdes
def test_ancestral_is_ddim_with_eta_1_and_draws_from_the_posterior(sde):
    """For data at one point the posterior p(x_s | x_t, x_0) is the forward bridge: Bayes' rule with the two kernels."""
    denoiser = FunctionDenoiser(sde, lambda x, t: jnp.full_like(x, 0.3))
    t, s = jnp.float64(0.8), jnp.float64(0.35)
    x_t = jnp.full((20_000, 1), 0.9)
    _, x_s = Ancestral().step((), keys(20_000), x_t, t, s, denoiser)
    _, other = DDIM(eta=1.0).step((), keys(20_000), x_t, t, s, denoiser)
    np.testing.assert_allclose(x_s, other, rtol=1e-9)
    scale, variance = sde.transition_coefficients(s, t)
    precision = 1 / sde.sigma(s) ** 2 + scale**2 / variance
    mean = (sde.alpha(s) * 0.3 / sde.sigma(s) ** 2 + scale * 0.9 / variance) / precision
    assert scipy.stats.kstest(x_s[:, 0], scipy.stats.norm(mean, precision**-0.5).cdf).pvalue > 0.01


@some_sdes
def test_reverse_diffusion_inverts_the_forward_step_to_first_order(sde):
    """Its mean is the reverse-time SDE's: the difference to Euler-Maruyama's falls with the square of the step."""
    denoiser = exact.Gaussian(sde, mean=0.7, std=0.5)
    x, t = jnp.array([[0.4], [-1.0]]), jnp.float64(0.6)

    def difference(dt):
        a, b = (m.step((), keys(2), x, t, t - dt, denoiser)[1] for m in (EulerMaruyama(), ReverseDiffusion()))
        return np.abs(np.mean([a[0] - b[0], a[1] - b[1]]))

    # The noise terms differ by O(dt^1.5) at most, the means by O(dt^2).
    assert difference(1e-4) / difference(2.5e-5) > 4**1.4


def test_heun_with_18_steps_costs_35():
    assert Heun().nfe(18) == 35
    assert PredictorCorrector(corrector=Langevin(steps=2)).nfe(100) == 3 * 99 + 1


def test_one_program_serves_every_weight_and_number():
    """A new mean, process constant, eta or start compiles nothing; the loop is not unrolled."""
    traces = []

    @struct.dataclass
    class Counting(exact.Gaussian):
        def __call__(self, x, t):
            traces.append(1)
            return super().__call__(x, t)

    for shift in (0.0, 0.5):
        sde = TrigonometricSDE(t_min=1e-2, t_max=0.99, bend=1.0 + shift)
        sample(keys(4), Counting(sde, mean=shift, std=0.5 + shift), DDIM(eta=shift), uniform_times(sde, 50), (1,))
    assert len(traces) <= 4  # the body of the loop (which JAX may trace twice) and the denoising step
    before = _sample._cache_size()
    sample(keys(4, seed=1), Counting(sde, mean=2.0, std=0.1), DDIM(eta=0.9), uniform_times(sde, 50), (1,))
    assert _sample._cache_size() == before


@pytest.mark.parametrize("method", [Ancestral(), Heun(churn=10.0), PredictorCorrector()], ids=str)
def test_every_number_of_every_sample_has_noise_of_its_own(method):
    sde = SOME_SDES[0]
    x = sample(keys(3), exact.Gaussian(sde, mean=0.4, std=0.5), method, karras_times(sde, 4), (2,))
    assert len(np.unique(x)) == 6


def test_trajectory_starts_at_the_start_and_ends_at_the_sample():
    sde = SOME_SDES[0]
    denoiser, times = exact.Gaussian(sde, mean=0.4, std=0.5), karras_times(sde, 10)
    start = np.array([[0.3], [-0.8]])
    states = sample(keys(2), denoiser, DDIM(), times, (1,), x_init=start, return_trajectory=True)
    assert len(states) == len(times)
    np.testing.assert_array_equal(states[0], start)
    np.testing.assert_allclose(states[-1], sample(keys(2), denoiser, DDIM(), times, (1,), x_init=start))
    np.testing.assert_allclose(states[4], DDIM().step((), keys(2), states[3], times[3], times[4], denoiser)[1])


@pytest.mark.thorough
@pytest.mark.parametrize("method", [m for m in EVERY_METHOD if not isinstance(m, Adaptive)], ids=str)
def test_gradients_through_sampling_agree_with_finite_differences(method):
    """Under jit and vmap, over processes of different shapes at once: by the process's own number and the Denoiser's."""

    def end(bend, std):
        sde = TrigonometricSDE(t_min=1e-2, t_max=0.99, bend=bend)
        return sample(keys(3), exact.Gaussian(sde, mean=0.4, std=std), method, karras_times(sde, 4), (2,)).sum()

    bends, stds, step = jnp.array([1.0, 1.3]), jnp.array([0.5, 0.8]), 1e-5
    gradients = jax.jit(jax.vmap(jax.grad(end, (0, 1))))(bends, stds)
    ends = jax.jit(jax.vmap(end))
    by_bend = (ends(bends + step, stds) - ends(bends - step, stds)) / (2 * step)
    by_std = (ends(bends, stds + step) - ends(bends, stds - step)) / (2 * step)
    np.testing.assert_allclose(gradients, [by_bend, by_std], rtol=1e-6, atol=1e-7)


def test_a_grid_that_does_not_fit_denoise_is_refused():
    sde = SOME_SDES[0]
    denoiser = exact.Gaussian(sde)
    with pytest.raises(ValueError, match=r"times end at 0\.001: append a 0"):
        sample(keys(1), denoiser, DDIM(), uniform_times(sde, 4, denoise=False), (1,))
    with pytest.raises(ValueError, match="with denoise=False the last time must be positive"):
        sample(keys(1), denoiser, DDIM(), uniform_times(sde, 4), (1,), denoise=False)
    with pytest.raises(ValueError, match=r"x_init has shape \(2, 1\)"):
        sample(keys(1), denoiser, DDIM(), uniform_times(sde, 4), (1,), x_init=jnp.ones((2, 1)))
    with pytest.raises(ValueError, match="at least 2 times"):
        sample(keys(1), denoiser, DDIM(), jnp.zeros(1), (1,))
    with pytest.raises(ValueError, match=r"times must decrease, but times\[1\]=0\.5 is followed by times\[2\]=0\.6"):
        sample(keys(1), denoiser, DDIM(), jnp.array([1.0, 0.5, 0.6, 0.0]), (1,))
    with pytest.raises(ValueError, match=r"times start at 1\.5, beyond the process's t_max=1"):
        sample(keys(1), denoiser, DDIM(), jnp.array([1.5, 0.5, 0.0]), (1,))
    with pytest.raises(ValueError, match="keys must be a vector of typed keys"):
        sample(jax.random.key(0), denoiser, DDIM(), uniform_times(sde, 4), (1,))


@struct.dataclass
class Toy(TrigonometricSDE):
    """A process that no other file knows."""

    def sigma(self, t):
        return 2 * jnp.sin(0.5 * jnp.pi * t)


TOY = Toy(t_min=1e-2, t_max=0.99)


@functools.cache
def toy_mean():
    """The data's mean, 0.8, as gradient descent on the loss finds it."""
    x0 = 0.8 + 0.1 * jax.random.normal(jax.random.key(0), (256, 1))

    def loss(mean, keys):
        return denoising_score_matching(keys, exact.Gaussian(TOY, mean=mean, std=0.1), x0).mean()

    @jax.jit
    def train(mean):
        steps = jax.random.split(jax.random.key(1), (200, 256))
        return jax.lax.scan(lambda m, k: (m - 0.05 * jax.grad(loss)(m, k), None), mean, steps)[0]

    return float(train(jnp.float64(0.0)))


@functools.cache
def toy_samples(method, steps):
    """500 samples of the trained toy; the first eight again, each alone on a device; and the evaluations one took."""
    calls, gaussian = [], exact.Gaussian(TOY, mean=toy_mean(), std=0.1)

    def counted(x, t):
        jax.debug.callback(lambda: calls.append(1))
        return gaussian(x, t)

    times = karras_times(TOY, steps)
    together = sample(keys(500), gaussian, method, times, (2,))
    draw = jax.pmap(lambda keys: sample(keys, FunctionDenoiser(TOY, counted), method, times, (2,)))
    alone = draw(keys(500)[:8, None])
    jax.block_until_ready(alone)
    jax.effects_barrier()
    return together, alone[:, 0], len(calls) / 8


def steps_of(method):
    return 2 if isinstance(method, Adaptive) else 100


@every_method
def test_a_toy_sde_trains_and_samples(method):
    """Training finds the data's mean, and samples by every method have it."""
    assert abs(toy_mean() - 0.8) < 0.03
    together, _, _ = toy_samples(method, steps_of(method))
    # Langevin dynamics alone are far from done after 300 corrections.
    assert abs(together.mean() - 0.8) < (0.2 if str(method).startswith("Langevin") else 0.05)


@every_method
def test_sample_i_depends_on_key_i_alone(method):
    """It is the same among 500 on one device and alone on each of eight."""
    together, alone, _ = toy_samples(method, steps_of(method))
    np.testing.assert_allclose(together[:8], alone, rtol=1e-9)
    assert len(np.unique(np.asarray(together), axis=0)) == 500


@every_method
def test_nfe_is_the_number_of_calls(method):
    _, _, calls = toy_samples(method, steps_of(method))
    fixed = method.nfe(steps_of(method))
    assert calls == fixed if fixed else 20 < calls < 200


def test_a_method_written_in_a_notebook_samples():
    @struct.dataclass
    class Mine(Sampler):
        def step(self, carry, keys, x, t, s, denoiser):
            return carry, x + (s - t) * denoiser.velocity(x, t)

    sde = SOME_SDES[0]
    x = sample(keys(4000), exact.Gaussian(sde, mean=0.4, std=0.5), Mine(), uniform_times(sde, 400), (1,))
    assert scipy.stats.kstest(x[:, 0], scipy.stats.norm(0.4, 0.5).cdf).pvalue > 0.01
