"""Parameterizations: targets as published, and conversions that lose no more than they must, at every t, in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sde_lib import (
    EDMSDE,
    VESDE,
    VPSDE,
    DataPrediction,
    EDMPreconditioning,
    NetworkDenoiser,
    NoisePrediction,
    RectifiedFlow,
    ScorePrediction,
    SubVPSDE,
    VelocityPrediction,
    VPrediction,
)
from sde_lib.parameterization import convert
from tests.sde_lib.processes import TrigonometricSDE, some_sdes

EVERY_PARAMETERIZATION = [
    NoisePrediction(),
    ScorePrediction(sigma_data=0.5),
    DataPrediction(),
    VPrediction(),
    VelocityPrediction(),
    EDMPreconditioning(0.5),
]
WIDE_RANGES = [
    VPSDE(t_min=1e-5),
    SubVPSDE(t_min=1e-5),
    VESDE(t_min=1e-5, sigma_max=1348.0),
    EDMSDE(),
    RectifiedFlow(t_min=1e-5, t_max=0.9999),
    TrigonometricSDE(t_min=1e-5, t_max=0.999),
]


def rates(sde, t):
    """alpha, sigma and their derivatives, as columns."""
    ones = np.ones_like(t)
    pairs = [jax.jvp(f, (t,), (ones,)) for f in (sde.alpha, sde.sigma)]
    return [np.asarray(a)[:, None] for a in (pairs[0][0], pairs[1][0], pairs[0][1], pairs[1][1])]


def draw(n):
    return np.random.default_rng(0).normal(size=(2, n, 3))


@some_sdes
def test_the_output_is_what_the_table_says(sde):
    t = np.array([sde.t_min, 0.1, 0.5, sde.t_max])
    x0, noise = draw(4)
    alpha, sigma = (np.asarray(f(t))[:, None] for f in (sde.alpha, sde.sigma))
    s, d = sigma / alpha, 0.5
    published = {
        NoisePrediction: noise,
        ScorePrediction: -noise,
        DataPrediction: x0,
        VPrediction: (alpha * noise - sigma * x0) / np.sqrt(alpha**2 + sigma**2),
        VelocityPrediction: jax.jvp(lambda t: sde.perturb(x0, noise, t), (t,), (np.ones(4),))[1],
        EDMPreconditioning: (x0 - d**2 / (s**2 + d**2) * (x0 + s * noise)) / (s * d / np.sqrt(s**2 + d**2)),
    }
    for p in EVERY_PARAMETERIZATION:
        np.testing.assert_allclose(p.output(sde, x0, noise, t), published[type(p)], rtol=1e-8, atol=1e-10)


def condition(parameterization, sde, t):
    """The factors by which x0 and noise magnify rounding of x and of the output; 0 is not beyond their own size.

    For the velocity: the terms of (sigma' x - sigma u) / w and (alpha u - alpha' x) / w at x0 and noise of size 1.
    """
    alpha, sigma, d_alpha, d_sigma = (np.abs(a) for a in rates(sde, t))
    x, u, w = alpha + sigma, d_alpha + d_sigma, alpha * d_sigma + d_alpha * sigma
    zero = np.zeros_like(alpha)
    return {
        NoisePrediction: (sigma / alpha, zero),
        ScorePrediction: (sigma / alpha, zero),
        DataPrediction: (zero, alpha / sigma),
        VPrediction: (zero, zero),
        VelocityPrediction: ((d_sigma * x + sigma * u) / w, (alpha * u + d_alpha * x) / w),
        EDMPreconditioning: (zero, zero),
    }[type(parameterization)]


@pytest.mark.parametrize("sde", WIDE_RANGES, ids=lambda sde: type(sde).__name__)
def test_every_pair_converts_in_float32_at_every_time(sde):
    """A perfect network's output, rounded, becomes another's: the output, x0 and noise keep the digits they can."""
    low, high = sde.noise_to_signal(np.array([sde.t_min, sde.t_max]))
    levels = np.geomspace(low, high, 7)
    t = np.clip(np.asarray(sde.time_at_log_snr(-2 * np.log(levels))), sde.t_min, sde.t_max)
    t[0], t[-1] = sde.t_min, sde.t_max
    t = t.astype(np.float32).astype(np.float64)
    x0, noise = draw(len(t))
    x = np.asarray(sde.perturb(x0, noise, t))
    for one in EVERY_PARAMETERIZATION:
        x0_loss, noise_loss = condition(one, sde, t)
        perfect = np.asarray(one.output(sde, x0, noise, t), np.float32)
        for other in EVERY_PARAMETERIZATION:
            x0_more, noise_more = condition(other, sde, t)
            # JAX's derivative of expm1 is expm1 + 1, so sigma' of VP near t_max has a digit less than sigma.
            velocity = VelocityPrediction() in (one, other)
            bit = (400 if velocity else 40) * np.finfo(np.float32).eps
            expected = np.asarray(other.output(sde, x0, noise, t))
            of_x0 = np.abs(other.output(sde, np.ones_like(x0), np.zeros_like(x0), t))
            of_noise = np.abs(other.output(sde, np.zeros_like(x0), np.ones_like(x0), t))
            with jax.enable_x64(False):
                x32, t32 = x.astype(np.float32), t.astype(np.float32)
                got = convert(perfect, one, other, sde, x32, t32)
                x0_got, noise_got = other.x0_and_noise(lambda *_: got, sde, x32, t32)  # noqa: B023
            assert got.dtype == x0_got.dtype == np.float32
            pair = f"{type(one).__name__} to {type(other).__name__}"
            assert (np.abs(got - expected) < bit * (of_x0 * (1 + x0_loss) + of_noise * (1 + noise_loss))).all(), pair
            assert (np.abs(x0_got - x0) < bit * (1 + x0_loss + x0_more)).all(), pair
            assert (np.abs(noise_got - noise) < bit * (1 + noise_loss + noise_more)).all(), pair


def test_v_and_velocity_hold_where_no_signal_is_left():
    """At t = 1 rectified flow has alpha = 0, where x0 cannot be had from the noise."""
    sde, t = RectifiedFlow(t_max=1.0), np.ones(2)
    x0, noise = draw(2)
    for p in (VPrediction(), VelocityPrediction()):
        got = p.x0_and_noise(lambda *_: p.output(sde, x0, noise, t), sde, noise, t)  # noqa: B023
        np.testing.assert_allclose(got, (x0, noise), rtol=1e-12)


class Recorder:
    """A network that notes what it sees and answers with zeros."""

    def apply(self, variables, x, noise_level, condition, *, train):
        self.seen = np.asarray(x), np.asarray(noise_level)
        return jnp.zeros_like(x)


@pytest.mark.parametrize(
    "parameterization, level",
    [
        (NoisePrediction(), [0.0, 249.75, 999.0]),
        (NoisePrediction(1000.0, -1.0), [-1.0, 249.0, 999.0]),
        (DataPrediction(1000.0, -1.0), [-1.0, 249.0, 999.0]),
        (VPrediction(1000.0, -1.0), [-1.0, 249.0, 999.0]),
        (VPrediction(), [0.0, 249.75, 999.0]),
        (ScorePrediction(), [-np.inf, np.log(1 / 3), np.inf]),
        (ScorePrediction(sigma_scale=0.5), [-np.inf, np.log(1 / 6), np.inf]),
        (ScorePrediction(levels=1000), [999.0, 749.25, 0.0]),
        (VelocityPrediction(), [0.0, 250.0, 1000.0]),
        (VelocityPrediction(time_scale=1.0), [0.0, 0.25, 1.0]),
        (VelocityPrediction(time_scale=999.0, data_last=True), [999.0, 749.25, 0.0]),
    ],
)
def test_networks_see_the_time_of_their_kind(parameterization, level):
    network = Recorder()
    NetworkDenoiser(RectifiedFlow(t_max=1.0), parameterization, network)(jnp.ones((3, 2)), jnp.array([0.0, 0.25, 1.0]))
    np.testing.assert_allclose(network.seen[1], level, atol=1e-9)


@pytest.mark.parametrize("t_max", [0.995, 0.5])
def test_a_networks_own_time_runs_to_1_wherever_the_process_ends(t_max):
    """The data lie at 1 and noise at 0, which a process that ends before does not reach."""
    network, t = Recorder(), jnp.array([0.1, t_max])
    parameterization = VelocityPrediction(time_scale=10.0, data_last=True)
    NetworkDenoiser(RectifiedFlow(t_max=t_max), parameterization, network)(jnp.ones((2, 2)), t)
    np.testing.assert_allclose(network.seen[1], [9.0, 10 * (1 - t_max)], rtol=1e-6)
    network = Recorder()
    NetworkDenoiser(VPSDE(t_max=t_max), ScorePrediction(levels=11), network)(jnp.ones((2, 2)), jnp.array([0.0, t_max]))
    np.testing.assert_allclose(network.seen[1], [10.0, 0.0], atol=1e-6)


@some_sdes
def test_v_gives_the_network_an_input_of_unit_size(sde):
    """x itself for VP, x / sqrt(alpha^2 + sigma^2) in general."""
    network, t = Recorder(), jnp.array([sde.t_min, 0.3, sde.t_max])
    x = np.sqrt(sde.alpha(t) ** 2 + sde.sigma(t) ** 2)[:, None] * np.ones((3, 2))
    NetworkDenoiser(sde, VPrediction(), network)(x, t)
    np.testing.assert_allclose(network.seen[0], 1, rtol=1e-12)


@some_sdes
@pytest.mark.parametrize("std", [0.3, 2.0])
def test_inputs_have_unit_size_for_data_of_the_size_that_is_given(sde, std):
    """x / sqrt(alpha^2 std^2 + sigma^2), of EDM's networks and of the score's; without a size the score's see x itself."""
    t = jnp.array([sde.t_min, 0.3, 0.7 * sde.t_max, sde.t_max])
    x = np.sqrt((sde.alpha(t) * std) ** 2 + sde.sigma(t) ** 2)[:, None] * np.ones((4, 2))
    seen = {}
    for parameterization in (EDMPreconditioning(std), ScorePrediction(std), ScorePrediction(None)):
        network = Recorder()
        NetworkDenoiser(sde, parameterization, network)(x, t)
        seen[parameterization] = network.seen[0]
    np.testing.assert_allclose(seen.pop(ScorePrediction(None)), x, rtol=1e-12)
    for inputs in seen.values():
        np.testing.assert_allclose(inputs, 1, rtol=1e-9)


def test_velocity_of_rectified_flow_is_noise_minus_data():
    sde, t = RectifiedFlow(t_max=1.0), np.array([0.1, 0.9])
    x0, noise = draw(2)
    np.testing.assert_allclose(VelocityPrediction().output(sde, x0, noise, t), noise - x0, rtol=1e-12)
    other = VelocityPrediction(data_last=True)
    np.testing.assert_allclose(other.output(sde, x0, noise, t), x0 - noise, rtol=1e-12)
    got = other.x0_and_noise(lambda *_: x0 - noise, sde, np.asarray(sde.perturb(x0, noise, t)), t)
    np.testing.assert_allclose(got, (x0, noise), rtol=1e-12)


@pytest.mark.parametrize("make", [NoisePrediction, DataPrediction, VPrediction], ids=lambda make: make.__name__)
def test_input_and_time_of_a_network_on_any_process(make):
    """x, or x / r for v, and scale t + offset; the output becomes x0 and noise as the table says."""
    sde, t, x = VESDE(sigma_max=3.0), jnp.array([0.2, 0.9]), draw(2)[0]
    network = Recorder()
    x0, noise = make(7.0, 0.5).x0_and_noise(
        lambda *seen: network.apply(None, *seen, None, train=False) + 0.3, sde, x, t
    )
    sigma = np.asarray(sde.sigma(t))[:, None]
    r = np.sqrt(1 + sigma**2) if make is VPrediction else 1.0
    np.testing.assert_allclose(network.seen[0], x / r, rtol=1e-12)
    np.testing.assert_allclose(network.seen[1], 7 * t + 0.5, rtol=1e-12)
    np.testing.assert_allclose(x0 + sigma * noise, x, rtol=1e-9)
    expected = {NoisePrediction: noise, DataPrediction: x0, VPrediction: (noise - sigma * x0) / r}
    np.testing.assert_allclose(expected[make], np.full((2, 3), 0.3), rtol=1e-9)
