"""Moving averages of the weights: closed forms, and the decays that EDM2's published code gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.learning import averaging


def averaged(rule, values):
    """The average after all the updates, from a start that is far away."""

    def update(ema, step_and_value):
        step, value = step_and_value
        return ema + rule(step) * (value - ema), None

    return jax.jit(lambda v: jax.lax.scan(update, 100.0, (jnp.arange(len(v)), v))[0])(jnp.asarray(values, jnp.float32))


def power_weights(gamma, n):
    """What each of n updates has of the integral of t ** gamma."""
    edges = np.linspace(0, 1, n + 1) ** (gamma + 1)
    return np.diff(edges)


@pytest.mark.parametrize("std", [0.05, 0.1, 0.25, 12**-0.5])
def test_power_weighs_updates_by_a_power_of_their_time(std):
    gamma = averaging.power_exponent(std)
    values = np.random.default_rng(0).normal(size=300)
    expected = power_weights(gamma, 300) @ values
    np.testing.assert_allclose(averaged(averaging.power(std), values), expected, atol=2e-5)
    # The width of the profile, in units of the training's length, is what was asked for.
    n = 20_000
    weights, times = power_weights(gamma, n), (np.arange(n) + 0.5) / n
    mean = weights @ times
    np.testing.assert_allclose(np.sqrt(weights @ (times - mean) ** 2), std, rtol=1e-5)


def test_the_widest_power_counts_all_updates_alike():
    values = np.random.default_rng(0).normal(size=100)
    np.testing.assert_allclose(averaged(averaging.power(averaging.LARGEST_STD), values), values.mean(), atol=1e-6)


@pytest.mark.parametrize(
    "std, gamma, shares",
    [
        (0.05, 16.972198602303447, [1.0, 0.9999961110788947, 0.017820493703343487, 1.7972046089775873e-05]),
        (0.1, 6.937203937601809, [1.0, 0.9959199683403498, 0.007909727354921126, 7.937176406902502e-06]),
        (0.2, 1.8262137798958404, [1.0, 0.8589981281548356, 0.0028236338553706553, 2.826211199291606e-06]),
    ],
)
def test_power_has_the_published_decays(std, gamma, shares):
    """1 - power_function_beta(std, 2048 n, 2048) at n = 1, 2, 1000 and 1,000,000, and std_to_exp(std), of
    https://github.com/NVlabs/edm2/blob/4bf8162f601bcc09472ce8a32dd0cbe8889dc8fc/training/phema.py."""
    np.testing.assert_allclose(averaging.power_exponent(std), gamma, rtol=1e-9)
    ours = averaging.power(std)(jnp.array([0, 1, 999, 999_999]))
    np.testing.assert_allclose(ours, shares, rtol=2e-6)


@pytest.mark.parametrize("std", [0, -0.1, 0.3])
def test_power_names_a_width_that_no_power_has(std):
    with pytest.raises(ValueError, match=r"more than 0 and at most 0\.2887"):
        averaging.power(std)


def test_half_life_halves():
    """128 images are 8 updates of 16: what was 1 before them counts 1/2 after, 1/4 after twice as many."""
    rule = averaging.half_life(128, 0, 16)
    for updates, kept in ((8, 0.5), (16, 0.25)):
        np.testing.assert_allclose(averaged(rule, np.zeros(updates)), 100 * kept, rtol=1e-6)


def test_half_life_is_at_most_the_ramp_times_the_images_seen():
    """After n updates of 512 it is 0.05 * 512 n images, until that is 500,000; the first update is taken whole."""
    shares = averaging.half_life(500_000, 0.05, 512)(jnp.array([0, 1, 100, 19_531, 19_532, 1_000_000]))
    seen = np.array([0.05, 5, 976.55, 500_000 / 512, 500_000 / 512])  # half-lives in updates
    np.testing.assert_allclose(shares, [1, *(1 - 0.5 ** (1 / seen))], rtol=1e-5)


def test_constant_takes_the_same_share_at_every_step():
    np.testing.assert_allclose(averaged(averaging.constant(0.9), np.zeros(5)), 100 * 0.9**5, rtol=1e-6)


def test_warmup_counts_the_updates_before():
    shares = averaging.warmup(0.9)(jnp.array([0, 1, 70, 80, 81, 1000]))
    np.testing.assert_allclose(shares, [9 / 10, 9 / 11, 9 / 80, 0.1, 0.1, 0.1], rtol=1e-5)


@pytest.mark.parametrize("rule", [averaging.warmup, averaging.constant])
def test_a_decay_is_at_least_0_and_less_than_1(rule):
    for decay in (-1e-9, 1.0, 1.5):
        with pytest.raises(ValueError, match=r"the decay must be in \[0, 1\), got "):
            rule(decay)
    np.testing.assert_allclose(rule(0)(jnp.array([0, 5, 1000])), 1)
    assert float(rule(0.9999)(jnp.array(10**7))) == pytest.approx(1e-4, rel=1e-3)


@pytest.mark.parametrize(
    "images, ramp, message", [(0, 0.1, "more than 0 images"), (-1, 0, "more than 0"), (8, -0.1, "at least 0")]
)
def test_a_half_life_is_of_some_images_and_a_ramp_not_negative(images, ramp, message):
    with pytest.raises(ValueError, match=message):
        averaging.half_life(images, ramp, 4)
    np.testing.assert_allclose(averaging.half_life(1e-3, 0, 4)(jnp.array([0, 9])), 1)
    np.testing.assert_allclose(averaging.half_life(4, 0, 4)(jnp.array(0)), 0.5)


def test_the_widest_power_is_allowed_and_has_an_exponent_of_0():
    assert pytest.approx(1 / np.sqrt(12)) == averaging.LARGEST_STD
    assert averaging.power_exponent(averaging.LARGEST_STD) == pytest.approx(0, abs=1e-6)
    assert averaging.power_exponent(0.2886751345948129) >= 0
    with pytest.raises(ValueError, match="at most"):
        averaging.power_exponent(averaging.LARGEST_STD + 1e-6)


@pytest.mark.parametrize(
    "rule, refused, allowed",
    [
        (averaging.warmup, [(1.0,), (-1e-9,), (2.0,)], [(0.0,), (0.999,)]),
        (averaging.constant, [(1.0,), (-1e-9,), (2.0,)], [(0.0,), (0.999,)]),
        (averaging.half_life, [(0, 0.05, 8), (-1, 0.05, 8), (8, -1e-9, 8)], [(1, 0.0, 8), (1e-3, 5.0, 8)]),
        (averaging.power, [(0.0,), (-0.1,), (0.2888,)], [(1e-3,), (averaging.LARGEST_STD,)]),
    ],
)
def test_numbers_of_a_rule_lie_within_its_bounds(rule, refused, allowed):
    """Each share of a rule within them lies in [0, 1]; a constant one has the shape of its numbers."""
    for numbers in refused:
        with pytest.raises(ValueError, match=r"^the (decay|half-life|ramp|relative width) must be "):
            rule(*numbers)
    for numbers in allowed:
        shares = np.asarray([rule(*numbers)(n) for n in (0, 1, 10, 10**6)])
        assert ((shares >= 0) & (shares <= 1)).all()
        if rule is averaging.constant:
            np.testing.assert_allclose(shares, 1 - numbers[0], rtol=1e-6)
    many = averaging.constant(0.75)(np.arange(3))
    assert many.shape == (3,) and many.dtype == np.float32
