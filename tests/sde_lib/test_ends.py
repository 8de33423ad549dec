"""Processes and time grids that no computation can run on are refused, with the noise level and the time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sde_lib import (
    DDIM,
    EDMSDE,
    SDE,
    VESDE,
    VPSDE,
    CosineVPSDE,
    CriticallyDampedLangevin,
    DiscreteVP,
    RectifiedFlow,
    SubVPSDE,
    check_ends,
    check_times,
    decode,
    elbo,
    encode,
    exact,
    karras_times,
    log_likelihood,
    log_snr_times,
    quadratic_times,
    sample,
    uniform_times,
)  # fmt: skip
from tests.sde_lib.processes import every_sde, keys

UNUSABLE = [
    (RectifiedFlow(t_max=1.0), r"RectifiedFlow: sigma / alpha is inf at t=1, its largest time: .* at most 1.05e\+06"),
    (CosineVPSDE(t_max=1.0), "CosineVPSDE: sigma / alpha is inf at t=1"),
    (DiscreteVP.linear(4000, 1e-4, 0.02), r"DiscreteVP: sigma / alpha is 6.\d+e\+08 at t=1"),
    (VESDE(sigma_max=1e8), r"VESDE: sigma / alpha is 1e\+08 at t=1"),
    (VPSDE(beta_max=200.0), r"VPSDE: sigma / alpha is 5.32e\+21 at t=1"),
    (VPSDE(beta_max=2000.0), "VPSDE: sigma / alpha is inf at t=1"),
    (RectifiedFlow(t_min=0.0), "RectifiedFlow: sigma / alpha is 0 at t=0, its smallest time: .* at least 1.2e-07"),
    (EDMSDE(t_min=1e-8), "EDMSDE: sigma / alpha is 1e-08 at t=1e-08"),
    (SubVPSDE(t_min=1e-7), "SubVPSDE: sigma / alpha is 1e-08 at t=1e-07"),
    (VESDE(sigma_min=0.0), "VESDE: sigma / alpha is (0|nan)"),
    (VESDE(sigma_min=50.0, sigma_max=0.01), "VESDE: sigma / alpha must rise with t, but is 50 at t=1e-05 and 3"),
    (VESDE(sigma_min=5.0, sigma_max=5.0), "VESDE: sigma / alpha must rise with t, but is 5 at t=1e-05 and 5 at t=1"),
    (VPSDE(t_min=1.5), "VPSDE: t_min=1.5 must be less than t_max=1"),
    (VPSDE(t_min=1.0), "VPSDE: t_min=1 must be less than t_max=1"),
    (VPSDE(beta_min=float("nan")), "VPSDE: sigma / alpha is nan at t=1e-05, because alpha=nan: it must be finite"),
    (RectifiedFlow(t_max=1.5), "RectifiedFlow: sigma / alpha is -.*, because alpha=-.*: it must be positive"),
    (RectifiedFlow(t_max=0.9999999), "RectifiedFlow: sigma / alpha is .*e.* at t=0.9999999, its largest time"),
    (EDMSDE(t_max=float("nan")), "EDMSDE: sigma / alpha is nan"),
]


@pytest.fixture
def float32():
    with jax.enable_x64(False):
        yield


@pytest.mark.parametrize("sde, message", UNUSABLE, ids=lambda value: type(value).__name__)
def test_a_process_without_usable_ends_is_refused(float32, sde, message):
    with pytest.raises(ValueError, match=message):
        check_ends(sde)


def test_a_process_whose_noise_level_turns_back_is_refused(float32):
    class Turning(SDE):
        def alpha(self, t):
            return jnp.ones_like(t)

        def sigma(self, t):
            return 0.01 + t + 0.3 * jnp.sin(6 * jnp.pi * t)

    with pytest.raises(
        ValueError, match=r"Turning: sigma / alpha must rise with t, .* 0\.398 at t=0\.0937591 and 0\.347"
    ):
        check_ends(Turning())


@every_sde
def test_the_librarys_processes_are_usable(float32, sde):
    ends = check_ends(sde)
    np.testing.assert_allclose(ends, [sde.noise_to_signal(sde.t_min), sde.noise_to_signal(sde.t_max)], rtol=1e-5)
    check_times(karras_times(sde, 18), sde)


def test_the_smallest_published_times_and_longest_chains_are_usable(float32):
    """score_sde's 1e-5 for all its processes, its VE of 1,348, and iDDPM's 4,000 steps with their last one."""
    largest = [check_ends(sde).largest for sde in (
        VPSDE(), SubVPSDE(), VESDE(sigma_max=2 * 1348.0), DiscreteVP.cosine(4000), CriticallyDampedLangevin(),
    )]  # fmt: skip
    np.testing.assert_allclose(largest, [152.2, 152.2, 2696, 81165, 247.6], rtol=1e-3)


def test_float64_carries_more():
    assert check_ends(VESDE(sigma_max=1e8)).largest == pytest.approx(1e8)
    with pytest.raises(ValueError, match=r"at most 5\.63e\+14"):
        check_ends(VPSDE(beta_max=200.0))


@pytest.mark.parametrize("grid", [uniform_times, karras_times, log_snr_times, quadratic_times])
def test_no_grid_is_made_of_an_unusable_process(grid):
    with pytest.raises(ValueError, match="CosineVPSDE: sigma / alpha is inf at t=1"):
        grid(CosineVPSDE(t_max=1.0), 5)


def test_nothing_is_computed_on_an_unusable_process():
    """The same check under jit, where the process is a constant of the program."""
    denoiser, times, x = exact.Gaussian(RectifiedFlow(t_max=1.0)), jnp.array([1.0, 0.5, 0.0]), jnp.ones((1, 2))
    calls = [
        lambda: sample(keys(1), denoiser, DDIM(), times, (2,)),
        lambda: jax.eval_shape(lambda keys: sample(keys, denoiser, DDIM(), np.array([1.0, 0.5, 0.0]), (2,)), keys(1)),
        lambda: encode(denoiser, x),
        lambda: decode(denoiser, x),
        lambda: log_likelihood(keys(1), denoiser, x),
        lambda: elbo(keys(1), denoiser, x),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="RectifiedFlow: sigma / alpha is inf at t=1"):
            call()


def test_a_grid_within_the_usable_times_samples():
    """As an edit's, which starts below t_max."""
    check_times(jnp.array([0.6, 0.3, 0.0]), RectifiedFlow(t_max=1.0))


@pytest.mark.parametrize(
    "times, message",
    [
        ([1.0, np.nan, np.nan, 0.0], r"times must be finite, but times\[1\] is nan \(of 4 times, 2 are not finite\)"),
        ([np.inf, 0.5, 0.0], r"times must be finite, but times\[0\] is inf"),
        ([1.0, 0.5, 0.5, 0.0], r"times\[1\]=0.5 is followed by the same number in float64: take fewer steps"),
        ([1.0, 0.5, 0.7, 0.0], r"times\[1\]=0.5 is followed by times\[2\]=0.7"),
    ],
)
def test_a_grid_that_is_no_grid_is_named(times, message):
    with pytest.raises(ValueError, match=message):
        sample(keys(1), exact.Gaussian(VPSDE()), DDIM(), jnp.array(times), (1,))


def test_more_steps_than_float32_has_times_are_refused(float32):
    sde = RectifiedFlow(t_min=1e-3, t_max=0.99999)
    check_times(log_snr_times(sde, 50), sde)
    with pytest.raises(ValueError, match="is followed by the same number in float32: take fewer steps"):
        check_times(log_snr_times(sde, 5000), sde)


@every_sde
def test_rho_of_infinity_is_log_snr_times_and_large_rho_comes_near(sde):
    for infinite in (np.inf, jnp.inf * jnp.ones(())):
        np.testing.assert_allclose(karras_times(sde, 18, rho=infinite), log_snr_times(sde, 18), rtol=1e-5)
    traced = jax.jit(lambda rho: karras_times(sde, 18, rho))
    for rho in (np.inf, 7.0):
        np.testing.assert_allclose(traced(rho), karras_times(sde, 18, rho), rtol=1e-5)
    np.testing.assert_allclose(karras_times(sde, 18, rho=1e9), log_snr_times(sde, 18), rtol=1e-6)


def test_every_positive_rho_has_digits_in_float32(float32):
    """Of EDM's noise levels, by the published formula in float64."""
    sde, i = EDMSDE(), np.linspace(0, 1, 17)
    for rho in (0.1, 0.5, 1.0, 7.0, 100.0, 1e4, 1e7):
        expected = (80 ** (1 / rho) + i[:-1] * (0.002 ** (1 / rho) - 80 ** (1 / rho))) ** rho
        np.testing.assert_allclose(karras_times(sde, 17, rho)[:-2], expected, rtol=3e-5)


@pytest.mark.parametrize("rho", [0.0, -7.0, float("nan"), -float("inf")])
def test_other_rho_is_refused(rho):
    with pytest.raises(ValueError, match=r"karras_times: rho=.* must be more than 0"):
        karras_times(VPSDE(), 18, rho)


def test_power_is_positive():
    with pytest.raises(ValueError, match=r"power=-2\.0 must be more than 0"):
        quadratic_times(VPSDE(), 18, -2.0)
    with pytest.raises(ValueError, match="power=inf must be finite"):
        quadratic_times(VPSDE(), 18, float("inf"))


EPS = float(np.finfo(np.float64).eps)


def test_the_noise_levels_at_the_limits_are_usable_and_those_beyond_are_not():
    """sigma / alpha from eps to 1 / (8 eps), of EDM's process, whose times are its levels."""
    ends = check_ends(EDMSDE(t_min=EPS, t_max=1 / (8 * EPS)))
    assert ends == (EPS, 1 / (8 * EPS))
    for beyond in ({"t_min": 0.999 * EPS}, {"t_max": 1.001 / (8 * EPS)}):
        with pytest.raises(ValueError, match="EDMSDE: sigma / alpha is"):
            check_ends(EDMSDE(**beyond))


@pytest.mark.parametrize(
    "sde, hint",
    [
        # (1 - t) 152 = t; beta_max = 200: 99.95 t^2 / 2 + 0.05 t = log(152) gives 0.316.
        (RectifiedFlow(t_max=1.0), "choose less noise or a smaller t_max; it is 152 near t=0.993$"),
        (VPSDE(beta_max=200.0), "a smaller t_max; it is 152 near t=0.316$"),
        (VESDE(sigma_min=200.0, sigma_max=1e8), "choose less noise or a smaller t_max$"),
    ],
)
def test_a_process_that_rises_too_far_names_the_time_of_a_usual_level(float32, sde, hint):
    with pytest.raises(ValueError, match=hint):
        check_ends(sde)


@pytest.mark.parametrize("log_snr, tolerance", [(2.0, 2e-4), (-4.0, 4e-4), (0.1, 1e-4)])
def test_rounding_may_raise_the_log_snr_by_a_ten_thousandth(log_snr, tolerance):
    """Of its size, or of 1 where that is more: at one of the times, where the process hardly changes."""

    class Bumped(SDE):
        bump: float = 0.0

        def alpha(self, t):
            return jnp.ones_like(t)

        def sigma(self, t):
            return jnp.exp(-0.5 * (log_snr - 1e-9 * t + self.bump * (jnp.abs(t - 0.5) < 0.01)))

    check_ends(Bumped(bump=0.98 * tolerance))
    with pytest.raises(ValueError, match="Bumped: sigma / alpha must rise with t"):
        check_ends(Bumped(bump=1.02 * tolerance))


@pytest.mark.parametrize("t_max", [0.9, 1.0])
def test_a_grid_may_exceed_t_max_by_rounding(t_max):
    """By a part of 1e-5."""
    sde = VPSDE(t_max=t_max)
    check_times(np.array([t_max * (1 + 0.9e-5), 0.5, 0.0]), sde)
    with pytest.raises(ValueError, match=f"times start at .*, beyond the process's t_max={t_max:g}"):
        check_times(np.array([t_max * (1 + 1.1e-5), 0.5, 0.0]), sde)


def test_the_last_noisy_time_of_a_grid_is_the_one_that_is_checked():
    """The last of all without a denoising step, else the last but one, which may be the first too."""
    low = r"sigma / alpha is 1e-17 at t=1e-17, its smallest time"
    for times, denoise in (([1.0, 1e-17], False), ([1.0, 0.5, 1e-17], False), ([1.0, 1e-17, 0.0], True)):
        with pytest.raises(ValueError, match=low):
            check_times(np.array(times), EDMSDE(), denoise=denoise)
    check_times(np.array([1.0, 1e-3]), EDMSDE(), denoise=False)
    check_times(np.array([1.0, 0.0]), EDMSDE())


def test_times_that_are_one_number_in_the_type_of_the_computation_are_refused(float32):
    with pytest.raises(ValueError, match=r"times\[1\]=0.5 is followed by the same number in float32"):
        check_times(np.array([1.0, 0.5 + 1e-12, 0.5, 0.0]), VPSDE())


def test_the_ends_are_those_of_the_times_that_are_given():
    """The process's own where none is; none at all where the process or a time is traced."""
    sde = EDMSDE(t_min=0.5, t_max=8.0)
    for given, expected in [
        ((), (0.5, 8)),
        ((2.0,), (2, 8)),
        ((None, 4.0), (0.5, 4)),
        ((1.0, 3.0), (1, 3)),
        ((3.0, 3.0), (3, 3)),
    ]:
        np.testing.assert_allclose(check_ends(sde, *given), expected, rtol=1e-12)
    with pytest.raises(ValueError, match="EDMSDE: t_min=3 must be less than t_max=2"):
        check_ends(sde, 3.0, 2.0)
    with pytest.raises(ValueError, match="EDMSDE: t_min=9 must be less than t_max=8"):
        check_ends(sde, 9.0)
    found = []
    jax.eval_shape(
        lambda t: found.append((check_ends(sde.replace(t_max=t)), check_ends(sde, t), check_ends(sde, 1.0, t))), 1.0
    )
    assert found == [(None, None, None)]
