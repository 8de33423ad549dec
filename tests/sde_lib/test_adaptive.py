"""The adaptive method: its tolerance, and examples that do not disturb each other."""

import diffrax
import numpy as np
import pytest

from sde_lib import VPSDE, Adaptive, FlowSolution, decode, exact, karras_times, sample, uniform_times
from tests.sde_lib.processes import keys, some_sdes
from tests.sde_lib.shared_programs import one_program, shared_mixture

pytestmark = pytest.mark.thorough

SDE = VPSDE(t_min=1e-3)


@some_sdes
def test_error_is_within_the_tolerance(sde):
    """Against the exact flow of a Gaussian, in one solve; a thousand times less tolerance is far less error."""
    denoiser = exact.Gaussian(one_program(sde), mean=0.7, std=0.5)
    start = np.linspace(-2, 2, 7)[:, None] * sde.sigma(sde.t_max)
    expected, times = denoiser.flow(start, sde.t_max, sde.t_min), uniform_times(sde, 1, denoise=False)

    def error(tolerance):
        method = Adaptive(rtol=tolerance, atol=tolerance)
        return np.abs(sample(keys(7), denoiser, method, times, (1,), x_init=start, denoise=False) - expected).max()

    assert error(1e-4) < 1e-3
    assert error(1e-7) < 1e-6


def test_both_tolerances_are_those_of_the_flow():
    """Each far from the other, and the solve is the one that `decode` has of the same two."""
    denoiser, start = exact.Gaussian(SDE, mean=0.7, std=0.5), np.linspace(-2, 2, 7)[:, None]
    for rtol, atol in ((1e-2, 1e-6), (1e-6, 1e-2)):
        times, method = uniform_times(SDE, 1, denoise=False), Adaptive(rtol=rtol, atol=atol)
        found = sample(keys(7), denoiser, method, times, (1,), x_init=start, denoise=False)
        expected = decode(denoiser, start, rtol=rtol, atol=atol).x
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_times_between_the_ends_are_stops_on_the_way():
    denoiser, start = exact.Gaussian(SDE, mean=0.7, std=0.5), np.linspace(-2, 2, 7)[:, None]
    times, method = karras_times(SDE, 3, denoise=False), Adaptive(rtol=1e-8, atol=1e-8)
    states = sample(keys(7), denoiser, method, times, (1,), x_init=start, denoise=False, return_trajectory=True)
    for state, t in zip(states, times, strict=True):
        np.testing.assert_allclose(state, denoiser.flow(start, SDE.t_max, t), atol=1e-7)


def test_an_example_that_cannot_be_solved_costs_the_others_nothing():
    start, times, method = np.array([[0.3, 0.1], [-2.0, 0.0], [1.0, -1.0]]), uniform_times(SDE, 2), Adaptive()
    good = sample(keys(3), shared_mixture(SDE), method, times, (2,), x_init=start)
    bad = sample(keys(3), shared_mixture(SDE).replace(lowest=-1.5), method, times, (2,), x_init=start)
    assert np.isnan(bad[1]).all() and np.isfinite(good).all()
    np.testing.assert_array_equal(bad[::2], good[::2])


def test_tolerances_must_be_positive():
    with pytest.raises(ValueError, match=r"Adaptive: rtol=0\.0 must be more than 0"):
        Adaptive(rtol=0.0)


def test_settings_reach_the_solve(monkeypatch):
    found = []

    def integrate(denoiser, x, start, end, **options):
        found.append((start, end, options))
        return FlowSolution(x + 1, None, None), None

    monkeypatch.setattr("sde_lib.sampling.adaptive.integrate", integrate)
    settings = {"rtol": 0.1, "atol": 0.2, "max_steps": 7, "adjoint": diffrax.RecursiveCheckpointAdjoint()}
    carry, x = Adaptive(**settings).step("carry", keys(2), np.ones((2, 3)), 0.8, 0.3, exact.Gaussian(SDE))
    assert found == [(0.8, 0.3, settings)] and carry == "carry" and (x == 2).all()
    assert Adaptive().nfe(2) is None
