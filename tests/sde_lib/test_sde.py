"""Processes: drift, diffusion, marginals and transitions must be those of one and the same SDE."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from sde_lib import (
    EDMSDE,
    SDE,
    VESDE,
    VPSDE,
    CosineVPSDE,
    CriticallyDampedLangevin,
    DiscreteVP,
    RectifiedFlow,
    SubVPSDE,
)
from tests.sde_lib.processes import EVERY_SDE, SOME_SDES, TrigonometricSDE, every_sde


@jax.jit
def moments(sde, mean, variance, start, end):
    """Mean and variance at `end` of a scalar that has the given ones at `start`, by their own ODEs from f and g."""

    def slope(t, moments, _):
        rate, g = sde.drift(jnp.ones((1,)), t)[0], sde.diffusion(t)
        return jnp.stack([rate * moments[0], 2 * rate * moments[1] + g**2])

    return diffrax.diffeqsolve(
        diffrax.ODETerm(slope),
        diffrax.Dopri8(),
        start,
        end,
        None,
        jnp.stack([mean, variance]),
        stepsize_controller=diffrax.PIDController(rtol=1e-11, atol=1e-14),
        adjoint=diffrax.ForwardMode(),
        max_steps=100_000,
    ).ys[0]


@every_sde
@pytest.mark.parametrize("start, end", [(0.02, 0.3), (0.3, 0.9)])
def test_drift_and_diffusion_carry_the_marginal_from_one_time_to_another(sde, start, end):
    start, end = start * sde.t_max, end * sde.t_max
    mean, std = sde.marginal(jnp.array([1.7]), start)
    got = moments(sde, mean[0], std**2, start, end)
    expected_mean, expected_std = sde.marginal(jnp.array([1.7]), end)
    np.testing.assert_allclose(got, (expected_mean[0], expected_std**2), rtol=1e-7)


@every_sde
def test_transition_is_the_kernel_of_drift_and_diffusion(sde):
    got = moments(sde, *jnp.array([1.7, 0.0]), 0.2, 0.7)
    mean, std = sde.transition(jnp.array([1.7]), 0.2, 0.7)
    np.testing.assert_allclose((mean[0], std**2), got, rtol=1e-7)


@every_sde
def test_transitions_compose(sde):
    """From r to s to t is from r to t: the means' factors multiply, the variances add up."""
    r, s, t = sde.t_min, 0.3 * sde.t_max, 0.9 * sde.t_max
    (first, v_first), (second, v_second) = sde.transition_coefficients(r, s), sde.transition_coefficients(s, t)
    both = sde.transition_coefficients(r, t)
    np.testing.assert_allclose((first * second, second**2 * v_first + v_second), both, rtol=1e-10)


@pytest.mark.parametrize("t", [0.01, 0.4, 1.0])
def test_diffusion_is_the_published_one(t):
    """Song et al. (2021), eq. 11, 12 and 9: beta; beta (1 - exp(-2 int beta)); d sigma^2 / dt."""
    beta, integral = 0.1 + 19.9 * t, 0.1 * t + 19.9 * t**2 / 2
    np.testing.assert_allclose(VPSDE().squared_diffusion(t), beta, rtol=1e-12)
    np.testing.assert_allclose(SubVPSDE().squared_diffusion(t), beta * (1 - np.exp(-2 * integral)), rtol=1e-12)
    ratio = 50 / 0.01
    np.testing.assert_allclose(VESDE().diffusion(t), 0.01 * ratio**t * np.sqrt(2 * np.log(ratio)), rtol=1e-12)
    x = jnp.array([[2.0]])
    for sde in (VPSDE(), SubVPSDE()):
        np.testing.assert_allclose(sde.drift(x, t), -0.5 * beta * x, rtol=1e-12)
    np.testing.assert_array_equal(VESDE().drift(x, t), 0)


@every_sde
def test_time_at_log_snr_inverts_log_snr_in_closed_form_and_by_bisection(sde):
    t = jnp.linspace(sde.t_min, sde.t_max, 50)
    np.testing.assert_allclose(sde.time_at_log_snr(sde.log_snr(t)), t, rtol=1e-9)
    np.testing.assert_allclose(SDE.time_at_log_snr(sde, sde.log_snr(t)), t, rtol=1e-9)


@pytest.mark.parametrize("sde", [EDMSDE(), VESDE(), VPSDE()], ids=lambda sde: type(sde).__name__)
def test_whole_numbers_are_times_too(sde):
    """Rates are derivatives, which integers have none of."""
    for rate in (sde.drift_rate, sde.squared_diffusion):
        assert np.isfinite(rate(1)) and rate(1) == pytest.approx(float(rate(1.0)))
        np.testing.assert_allclose(rate(np.array([1, 2])), rate(np.array([1.0, 2.0])), rtol=1e-12)


@pytest.mark.parametrize("betas", [[0.0, 0.1], [0.1, -0.1], [0.1, 1.0], [0.1, np.nan]])
def test_betas_at_the_ends_of_their_range_are_refused(betas):
    with pytest.raises(ValueError, match=r"betas must lie in \(0, 1\)"):
        DiscreteVP.from_betas(betas)


def test_constant_beta_has_its_time_at_log_snr_too():
    sde = VPSDE(beta_min=5.0, beta_max=5.0)
    np.testing.assert_allclose(sde.time_at_log_snr(sde.log_snr(0.3)), 0.3, rtol=1e-12)


@every_sde
def test_prior_is_the_marginal_at_t_max_of_data_at_the_origin(sde):
    x = jax.vmap(lambda key: sde.prior_sample(key, (2,)))(jax.random.split(jax.random.key(0), 20_000))
    std = sde.marginal(jnp.zeros(1), sde.t_max)[1]
    assert scipy.stats.kstest(np.ravel(x), scipy.stats.norm(scale=std).cdf).pvalue > 0.01
    expected = scipy.stats.norm(scale=std).logpdf(x[:5]).sum(1)
    np.testing.assert_allclose(sde.prior_log_prob(x[:5]), expected, rtol=1e-12)


SMALLEST_TIMES = [
    VPSDE(),
    SubVPSDE(),
    VESDE(),
    CosineVPSDE(t_min=1e-5),
    EDMSDE(),
    RectifiedFlow(t_min=1e-5),
    DiscreteVP.linear(),
    DiscreteVP.cosine(),
]
smallest_times = pytest.mark.parametrize("sde", SMALLEST_TIMES, ids=lambda sde: type(sde).__name__)


@smallest_times
def test_float32_keeps_five_digits_at_the_smallest_times_and_steps(sde):
    """1 - alpha^2 and the kernel's variance are differences of numbers close to 1; steps are those of 1,000."""
    t = np.float32([sde.t_min, 2e-3 * sde.t_max, 0.5 * sde.t_max, sde.t_max])
    s = t - np.float32(1e-3 * sde.t_max)
    exact = [f(np.float64(t)) for f in (sde.alpha, sde.sigma, sde.log_snr, sde.squared_diffusion)]
    exact_variance = sde.transition_coefficients(np.float64(s[1:]), np.float64(t[1:]))[1]
    with jax.enable_x64(False):
        short = [f(t) for f in (sde.alpha, sde.sigma, sde.log_snr, sde.squared_diffusion)]
        short_variance = sde.transition_coefficients(s[1:], t[1:])[1]
    assert short_variance.dtype == np.float32
    np.testing.assert_allclose(short_variance, exact_variance, rtol=3e-4)
    # At alpha close to 0 the digits of 1 - t limit those of any formula.
    conditioning = 2 / (1.001 - t / np.float32(sde.t_max)) if exact[0][-1] < 0.01 else 1
    for value, expected in zip(short, exact, strict=True):
        assert value.dtype == np.float32
        assert (np.abs(value / expected - 1) < 1e-5 * np.maximum(conditioning, 1)).all()


@smallest_times
def test_time_at_log_snr_inverts_log_snr_in_float32(sde):
    """As exactly as float32 holds the log-SNR itself: dt = d log_snr / log_snr', and t's own digits."""
    t = np.float32(np.linspace(sde.t_min, sde.t_max, 50))
    log_snr = sde.log_snr(np.float64(t))
    slope = jax.vmap(jax.grad(sde.log_snr))(np.float64(t))
    with jax.enable_x64(False):
        back = sde.time_at_log_snr(np.float32(log_snr))
    assert back.dtype == np.float32
    assert (np.abs(back - t) < 4e-7 * (t + np.maximum(np.abs(log_snr), 1) / np.abs(slope))).all()


@pytest.mark.parametrize("index, expected", [(0, 1e-4), (499, 0.0100400400400), (999, 0.02)])
def test_discrete_vp_has_ddpms_table_at_the_knots(index, expected):
    """x_{i+1} given x_i is N(sqrt(1 - beta_i) x_i, beta_i), and alpha_bar is the product, written out here in float64."""
    sde, t = DiscreteVP.linear(), (index + 1) / 1000
    if index:
        scale, variance = sde.transition_coefficients(index / 1000, t)
        np.testing.assert_allclose((scale**2, variance), (1 - expected, expected), rtol=1e-10)
    alpha_bar = np.prod([1 - (1e-4 + i * (0.02 - 1e-4) / 999) for i in range(index + 1)])
    np.testing.assert_allclose((sde.alpha(t) ** 2, sde.sigma(t) ** 2), (alpha_bar, 1 - alpha_bar), rtol=1e-11)


@pytest.mark.parametrize(
    "index, beta, alpha_bar", [(0, 0.0015, 0.9985), (499, 0.0079451567, 0.11584447), (999, 0.0195, 0.00014230386)]
)
def test_discrete_vp_has_latent_diffusions_table_at_the_knots(index, beta, alpha_bar):
    """Of DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.0015, beta_end=0.0195), diffusers 0.42.1."""
    sde, t = DiscreteVP.scaled_linear(), (index + 1) / 1000
    np.testing.assert_allclose(sde.alpha(t) ** 2, alpha_bar, rtol=1e-4)  # theirs is a float32 product of a thousand
    if index:
        np.testing.assert_allclose(sde.transition_coefficients(index / 1000, t)[1], beta, rtol=1e-6)


def test_discrete_vp_equals_the_table_at_every_knot_in_both_precisions():
    betas = np.random.default_rng(0).uniform(1e-3, 0.5, 40)
    sde, alpha_bar, t = DiscreteVP.from_betas(betas), np.cumprod(1 - betas), np.arange(1, 41) / 40
    np.testing.assert_allclose(sde.marginal(np.ones(40), t), (alpha_bar**0.5, (1 - alpha_bar) ** 0.5), rtol=1e-12)
    with jax.enable_x64(False):
        short = sde.marginal(np.ones(40, np.float32), np.float32(t))
    np.testing.assert_allclose(short, (alpha_bar**0.5, (1 - alpha_bar) ** 0.5), rtol=1e-5)


@pytest.mark.parametrize("sde", [DiscreteVP.linear(20, 0.01, 0.5), DiscreteVP.cosine(20)])
def test_discrete_vp_falls_between_its_knots_and_has_no_kink(sde):
    """Finite differences across each knot agree from both sides, the first included; g^2 > 0 down to t = 0."""
    knots, step = np.arange(1, 20) / 20, 1e-7
    left = (sde.log_snr(knots) - sde.log_snr(knots - step)) / step
    right = (sde.log_snr(knots + step) - sde.log_snr(knots)) / step
    np.testing.assert_allclose(left, right, rtol=2e-5)
    assert (np.diff(sde.log_snr(np.linspace(1e-4, 1, 2001))) < 0).all()
    assert (sde.squared_diffusion(np.linspace(1e-4, 1, 2001)) > 0).all()


def test_cosine_table_has_the_published_betas():
    """The published code's first and last betas of 1,000, and before the clip the continuous schedule at the knots."""
    sde, t = DiscreteVP.cosine(), np.array([1, 250, 999]) / 1000
    np.testing.assert_allclose(sde.sigma(0.001) ** 2, 4.128422482e-05, rtol=1e-6)
    np.testing.assert_allclose(sde.transition_coefficients(0.999, 1.0)[1], 0.999, rtol=1e-9)
    np.testing.assert_allclose(sde.alpha(t), CosineVPSDE().alpha(t), rtol=1e-9)
    assert (sde.t_min, sde.t_max) == (0.001, 1.0)


@pytest.mark.parametrize("make", [DiscreteVP.linear, DiscreteVP.cosine, DiscreteVP.scaled_linear])
def test_discrete_vp_keeps_the_times_that_it_is_given(make):
    assert (make(50, t_min=0.004, t_max=0.8).t_min, make(50, t_min=0.004, t_max=0.8).t_max) == (0.004, 0.8)
    assert (make(50).t_min, make(50).t_max) == (0.02, 1.0)


def test_betas_outside_0_and_1_are_refused():
    with pytest.raises(ValueError, match=r"betas must lie in \(0, 1\), not in \[0.1, 1\]"):
        DiscreteVP.from_betas([0.1, 1.0])
    with pytest.raises(ValueError, match=r"at least 2 betas, not an array of shape \(1,\)"):
        DiscreteVP.from_betas([0.1])
    with pytest.raises(
        ValueError, match=r"num_steps=20 must be at least 21, or the published last beta, .* is 1 and no"
    ):
        DiscreteVP.linear(20)
    with pytest.raises(ValueError, match="num_steps=19 must be at least 20"):
        DiscreteVP.scaled_linear(19)
    with pytest.raises(ValueError, match="num_steps=1 must be at least 2"):
        DiscreteVP.linear(1, 0.1, 0.2)


def test_cosine_edm_and_rectified_flow_are_the_published_ones():
    """Nichol and Dhariwal, eq. 17; Karras et al., table 1: dx = sqrt(2 t) dw; Liu et al.: velocity noise - x_0."""
    t = np.array([0.01, 0.4, 0.9])
    bar = [np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2 for u in (t, 0.0)]
    np.testing.assert_allclose(CosineVPSDE().alpha(t) ** 2, bar[0] / bar[1], rtol=1e-12)
    np.testing.assert_allclose(CosineVPSDE().sigma(t) ** 2, 1 - bar[0] / bar[1], rtol=1e-12)
    np.testing.assert_allclose(EDMSDE().diffusion(t), np.sqrt(2 * t), rtol=1e-12)
    x0, noise, sde = np.full((3, 1), 0.3), np.ones((3, 1)), RectifiedFlow()
    velocity = sde.velocity_from_x0_and_noise(sde.perturb(x0, noise, t), x0, noise, t)
    np.testing.assert_allclose(velocity, noise - x0, rtol=1e-12)


def test_positional_numbers_are_the_processes_own():
    assert VPSDE(0.2, 10.0).beta_max == 10.0
    assert VESDE(0.02, 30.0).sigma_min == 0.02


@every_sde
def test_the_time_at_a_log_snr_has_the_derivative_of_the_inverse_function(sde):
    t = jnp.array([0.03, 0.3, 0.8])
    forth, back = (jax.vmap(jax.grad(function)) for function in (sde.log_snr, sde.time_at_log_snr))
    np.testing.assert_allclose(forth(t) * back(sde.log_snr(t)), 1, rtol=1e-9)


def test_the_time_at_a_log_snr_follows_the_process_s_own_numbers():
    """Where it is found by bisection: in both modes, and it stays where it is clipped."""
    log_snr, step = jnp.array([-20.0, -3.0, 0.0, 4.0, 30.0]), 1e-6

    def times(bend):
        return TrigonometricSDE(t_min=1e-2, t_max=0.99, bend=bend).time_at_log_snr(log_snr)

    difference = (times(1.3 + step) - times(1.3 - step)) / (2 * step)
    assert (np.asarray(difference) != 0).tolist() == [False, True, True, True, False]
    for jacobian in (jax.jacfwd, jax.jacrev):
        np.testing.assert_allclose(jacobian(times)(1.3), difference, rtol=1e-7)


def test_betas_are_a_vector():
    with pytest.raises(ValueError, match=r"a vector of at least 2 betas, not an array of shape \(2, 2\)"):
        DiscreteVP.from_betas(np.full((2, 2), 0.1))


@pytest.mark.parametrize("n", [50, 400])
@pytest.mark.parametrize("given", [(None, None), (1e-3, None), (None, 0.3), (2e-3, 0.25)])
@pytest.mark.parametrize("power, make, published", [
    (1.0, DiscreteVP.linear, (1e-4, 0.02)), (2.0, DiscreteVP.scaled_linear, (0.0015, 0.0195)),
])  # fmt: skip
def test_a_table_of_n_steps_scales_the_betas_that_are_not_given(n, given, power, make, published):
    """Every beta of the chain, evenly spaced, or its square root."""
    first, last = (1000 / n * usual if beta is None else beta for beta, usual in zip(given, published, strict=True))
    betas = np.linspace(first ** (1 / power), last ** (1 / power), n) ** power
    t = np.arange(1, n + 1) / n
    np.testing.assert_allclose(make(n, *given).alpha(t) ** 2, np.cumprod(1 - betas), rtol=1e-9)


@pytest.mark.parametrize("n, offset, limit", [(40, 0.008, 0.999), (40, 0.03, 0.999), (60, 0.008, 0.4)])
def test_a_cosine_table_has_its_own_offset_and_limit(n, offset, limit):
    bar = np.cos((np.arange(n + 1) / n + offset) / (1 + offset) * np.pi / 2) ** 2
    betas = np.minimum(1 - bar[1:] / bar[:-1], limit)
    found = DiscreteVP.cosine(n, offset, limit).alpha(np.arange(1, n + 1) / n)
    np.testing.assert_allclose(found**2, np.cumprod(1 - betas), rtol=1e-9)


def test_a_short_table_of_given_betas_is_no_concern_of_the_published_ones():
    """The published last beta of 5 steps would be 4; the first alone may be the published."""
    for make in (DiscreteVP.linear, DiscreteVP.scaled_linear):
        sde = make(5, beta_last=0.5)
        np.testing.assert_allclose(sde.transition_coefficients(0.8, 1.0)[1], 0.5, rtol=1e-9)


@pytest.mark.parametrize("beta_min, beta_max", [(0.4, 7.0), (1.5, 1.5)])
@pytest.mark.parametrize("make", [VPSDE, SubVPSDE], ids=lambda make: make.__name__)
def test_variance_preserving_moments_are_those_of_any_linear_beta(make, beta_min, beta_max):
    """log alpha is minus half of the area under beta, by the trapezoidal rule, which is exact."""
    t = np.array([0.01, 0.4, 1.0])
    area = t * (beta_min + beta_min + t * (beta_max - beta_min)) / 2
    sde, variance = make(beta_min, beta_max), 1 - np.exp(-area)
    np.testing.assert_allclose(sde.alpha(t), np.exp(-area / 2), rtol=1e-12)
    np.testing.assert_allclose(sde.sigma(t), variance if make is SubVPSDE else np.sqrt(variance), rtol=1e-12)


@every_sde
def test_log_snrs_beyond_the_process_have_the_times_of_its_ends_by_bisection(sde):
    """In float32 too, whatever the type of the ends."""
    beyond = np.array([1e3, float(sde.log_snr(sde.t_min)) + 1, float(sde.log_snr(sde.t_max)) - 1, -1e3])
    expected = [sde.t_min, sde.t_min, sde.t_max, sde.t_max]
    np.testing.assert_array_equal(SDE.time_at_log_snr(sde, beyond), expected)
    short = SDE.time_at_log_snr(sde.replace(t_min=np.float64(sde.t_min)), beyond.astype(np.float32))
    assert short.dtype == np.float32
    np.testing.assert_allclose(short, expected, rtol=1e-6)


def test_the_velocity_of_the_state_needs_the_rates_of_both_scales():
    """alpha' x0 + sigma' noise along the path of one x0 and noise, by finite differences."""
    x0, noise, t, h = np.full((2, 1), 0.3), np.full((2, 1), -1.2), np.array([0.3, 0.6]), 1e-6
    for sde in (VPSDE(), SubVPSDE(), VESDE(), TrigonometricSDE()):
        slope = (sde.perturb(x0, noise, t + h) - sde.perturb(x0, noise, t - h)) / (2 * h)
        x = sde.perturb(x0, noise, t)
        np.testing.assert_allclose(sde.velocity_from_x0_and_noise(x, x0, noise, t), slope, rtol=1e-7)


WHOLE = [*EVERY_SDE, DiscreteVP.cosine(20)]


@pytest.mark.parametrize("sde", WHOLE, ids=lambda sde: type(sde).__name__)
def test_scales_of_whole_numbers_are_those_of_the_times(sde):
    for name in ("alpha", "sigma", "log_alpha", "log_snr", "noise_to_signal"):
        function = getattr(sde, name)
        for whole in (np.array([0, 1]), 1, jnp.array(1)):
            found, expected = function(whole), function(np.asarray(whole, float))
            assert jnp.issubdtype(np.asarray(found).dtype, jnp.floating), name
            np.testing.assert_array_equal(found, expected, err_msg=name)


@pytest.mark.parametrize("sde", [*SOME_SDES, CriticallyDampedLangevin()], ids=lambda sde: type(sde).__name__)
def test_states_in_float32_stay_so_whatever_the_default_type(sde):
    x0, t = jnp.full((2, 3), 0.3, jnp.float32), jnp.array([0.3, 0.6], jnp.float32)
    noise = jnp.ones((2, *sde.state_shape((3,))), jnp.float32)
    x = sde.perturb(x0, noise, t)
    found = [
        x, sde.drift(x, t), sde.apply_diffusion(noise, t), sde.apply_squared_diffusion(noise, t),
        sde.to_data_scale(x, t), sde.noise_from_x0(x, x0, t), sde.noise_from_data_scale(x, x0, t),
        sde.score_from_noise(noise, t), sde.velocity_from_x0_and_noise(x, x0, noise, t), sde.clean_state(x0),
        sde.clean_data(x), sde.log_prob_beyond_data_scale(x, t), sde.transition(x, 0.5 * t, t)[0],
    ]  # fmt: skip
    assert [value.dtype for value in found] == [jnp.float32] * len(found)
