"""Guidance by two Denoisers: closed forms of Gaussians, one evaluation for two conditions, and the interval of noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sde_lib import (
    DDIM,
    EDMSDE,
    VPSDE,
    ClassifierFree,
    DataPrediction,
    FunctionDenoiser,
    Guided,
    Interval,
    NetworkDenoiser,
    exact,
    karras_times,
    sample,
)
from tests.sde_lib.guidance.cases import LABELS, Net, X, assert_same, gaussian, mixture, of_class_a, processes
from tests.sde_lib.processes import every_sde, keys


@every_sde
@pytest.mark.parametrize("scale", [2.5, np.array([0.0, 0.4, 7.0])], ids=["one", "each"])
def test_guidance_between_gaussians_of_equal_variance_moves_the_mean(sde, scale):
    sde, x, t = processes(sde)
    guided = Guided(gaussian(sde, [1.0, -2.0]), gaussian(sde, [0.5, 3.0]), scale)
    mean = np.array([0.5, 3.0]) + np.reshape(scale, (-1, 1)) * np.array([0.5, -5.0])
    assert_same(guided, exact.Gaussian(sde, mean, 0.5), x, t)


def test_the_scales_derivative_is_the_difference_of_the_two():
    """At 0 and 1 too, where an exact result must not have cost the derivative."""
    sde = VPSDE()
    strong, weak = of_class_a(sde), mixture(sde)
    for scale in (0.0, 0.3, 1.0):
        slope = jax.jacfwd(lambda scale: Guided(strong, weak, scale)(X, 0.5))(scale)
        np.testing.assert_allclose(slope, strong(X, 0.5) - weak(X, 0.5), rtol=1e-12)


@pytest.mark.parametrize("no_condition", [3, np.array([3, 0, 2])], ids=["none", "negative"])
def test_one_evaluation_of_twice_the_batch_is_two(no_condition):
    net, sde = Net(), VPSDE()
    network, scale, t = net.denoiser(sde), np.array([0.0, 1.0, 2.5]), np.array([0.1, 0.5, 0.9])
    others = np.broadcast_to(no_condition, 3)
    twice = Guided(network.replace(condition=LABELS), network.replace(condition=others), scale, 0.7).x0_and_noise(X, t)
    assert net.calls == [(3, 2), (3, 2)]
    once = ClassifierFree(network, LABELS, no_condition, scale, 0.7).x0_and_noise(X, t)
    assert net.calls[2:] == [(6, 2)]
    for got, expected in zip(once, twice, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_conditions_of_several_arrays_are_kept_together():
    class Sees:
        def apply(self, variables, x, noise_level, condition, *, train):
            return x + condition["shift"] * condition["factor"][:, None]

    condition = {"shift": np.arange(6.0).reshape(3, 2), "factor": np.array([1.0, 2.0, 3.0])}
    network = NetworkDenoiser(VPSDE(), DataPrediction(), Sees())
    guided = ClassifierFree(network, condition, {"shift": 1.0, "factor": np.array(0.5)}, 2.0)
    np.testing.assert_allclose(guided(X, 0.5), X + 2 * condition["shift"] * [[1], [2], [3]] - 0.5, rtol=1e-12)


def test_rescaling_gives_each_sample_the_spread_it_is_to_have():
    """std = phi std(strong) + (1 - phi) std(guided), each sample's own, in the direction of the guided x0."""
    sde, x = VPSDE(), np.random.default_rng(3).normal(size=(3, 4, 4, 2))
    strong, weak = gaussian(sde, 1.0, np.linspace(0.1, 2, 32).reshape(4, 4, 2)), gaussian(sde, -0.5, 0.4)
    guided = Guided(strong, weak, 5.0)
    for phi in (1.0, 0.7, np.array([0.0, 0.4, 0.9])):
        x0 = np.asarray(guided.replace(rescale=phi)(x, 0.6)).reshape(3, -1)
        plain, conditional = (np.asarray(d(x, 0.6)).reshape(3, -1) for d in (guided, strong))
        np.testing.assert_allclose(x0.std(1), phi * conditional.std(1) + (1 - phi) * plain.std(1), rtol=1e-12)
        np.testing.assert_allclose(np.ptp(x0 / plain, axis=1), 0, atol=1e-12)


def test_samples_of_equal_values_are_not_rescaled():
    """Their standard deviation is 0; neither values nor derivatives become NaN."""
    guided = Guided(gaussian(VPSDE(), 1.0, 0.5), gaussian(VPSDE(), -0.5, 0.4), 5.0)
    for x in (np.array([[0.3], [-1.2]]), np.array([[0.3, 0.3], [-1.2, -1.2]])):
        np.testing.assert_allclose(guided.replace(rescale=0.7)(x, 0.6), guided(x, 0.6), rtol=1e-12)
        slope = jax.grad(lambda x: guided.replace(rescale=0.7)(x, 0.6).sum())(x)
        assert np.isfinite(slope).all()


def counted(denoiser, calls):
    """The same Denoiser, which notes the times at which it is run (which tracing does not)."""

    def function(x, t):
        jax.debug.callback(lambda t: calls.append(float(t)), t)
        return denoiser(x, t)

    return FunctionDenoiser(denoiser.sde, function)


def test_outside_of_the_interval_guidance_is_not_evaluated():
    sde, inner, outer = VPSDE(), [], []
    strong = of_class_a(sde)
    guided = Guided(strong, counted(mixture(sde), inner), 3.0)
    interval = Interval(guided, counted(strong, outer), 0.2, 2.0)
    levels = np.array([0.05, 0.2, 0.21, 1.0, 1.99, 2.01, 50.0])
    times = sde.time_at_log_snr(-2 * jnp.log(levels * (1 + 1e-9 * np.array([0, -1, 0, 0, 0, 0, 0]))))
    for t in times:
        inner.clear(), outer.clear()
        result = jax.block_until_ready(interval(X, t))
        jax.effects_barrier()
        inside = 0.2 < sde.noise_to_signal(t) <= 2.0
        assert (len(inner), len(outer)) == ((1, 0) if inside else (0, 1))
        np.testing.assert_allclose(result, (Guided(strong, mixture(sde), 3.0) if inside else strong)(X, t), rtol=1e-12)
    each = interval.replace(denoiser=Guided(strong, mixture(sde), 3.0), outside=strong)(X, times[1:4])
    expected = [
        strong(X, times[1])[0],
        *(Guided(strong, mixture(sde), 3.0)(X, t)[i + 1] for i, t in enumerate(times[2:4])),
    ]
    np.testing.assert_allclose(each, expected, rtol=1e-12)


def test_the_intervals_ends():
    """Open below and closed above, as published; and NaN of the one that is not asked does no harm."""
    sde = EDMSDE()
    nan = FunctionDenoiser(sde, lambda x, t: jnp.full_like(x, jnp.nan))
    interval = Interval(nan, gaussian(sde, 0.0), 0.5, 2.0)
    asked = [bool(jnp.isnan(interval(X, jnp.float64(t))).all()) for t in (0.5, 0.5000001, 2.0, 2.0000001)]
    assert asked == [False, True, True, False]
    by_row = jnp.isnan(interval(X, jnp.array([0.5, 2.0, 2.1])))
    np.testing.assert_array_equal(by_row, [[False] * 2, [True] * 2, [False] * 2])


def test_an_interval_for_each_example():
    """Bounds (B,) at one time and at a time for each; NaN of the Denoiser that is not asked does no harm."""
    sde, low, high = EDMSDE(), np.array([0.5, 0.0, 0.5, 2.0]), np.array([2.0, 1.0, 1.5, np.inf])
    nan = FunctionDenoiser(sde, lambda x, t: jnp.full_like(x, jnp.nan))
    x = np.ones((4, 2))
    for t, inside in ((1.5, [True, False, True, False]), (np.array([0.5, 0.5, 1.6, 9.0]), [False, True, False, True])):
        for view in ("__call__", "noise"):
            asked = jnp.isnan(getattr(Interval(nan, gaussian(sde, 0.0), low, high), view)(x, t))
            np.testing.assert_array_equal(asked, np.stack([inside, inside], 1))
            other = jnp.isnan(getattr(Interval(gaussian(sde, 0.0), nan, low, high), view)(x, t))
            np.testing.assert_array_equal(other, ~asked)


def test_a_run_pays_for_guidance_within_the_interval_only():
    sde, calls = VPSDE(t_min=1e-3), []
    strong, times = of_class_a(sde), karras_times(sde, 12)
    guided = Guided(strong, counted(mixture(sde), calls), 3.0)
    jax.block_until_ready(sample(keys(4), Interval(guided, strong, 0.2, 2.0), DDIM(), times, (2,)))
    jax.effects_barrier()
    levels = sde.noise_to_signal(times[:-1])
    inside = (levels > 0.2) & (levels <= 2.0)
    assert 1 < inside.sum() < 10
    np.testing.assert_allclose(sorted(calls), times[:-1][inside][::-1], rtol=1e-6)
