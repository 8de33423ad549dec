"""Time grids: the published formulas, exact ends, and the clean end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sde_lib import VESDE, VPSDE, karras_times, log_snr_times, quadratic_times, uniform_times
from sde_lib.times import _number_of_points, times_at
from tests.sde_lib.processes import some_sdes

GRIDS = [uniform_times, karras_times, log_snr_times, quadratic_times]


def test_karras_times_are_edms_noise_levels():
    """Karras et al. (2022), eq. 5, with sigma_min 0.002, sigma_max 80, rho 7 and a final 0."""
    sde = VESDE(sigma_min=0.002, sigma_max=80.0, t_min=0.0)
    i = np.arange(18)
    expected = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    times = karras_times(sde, 18)
    np.testing.assert_allclose(sde.sigma(times[:-1]), expected, rtol=1e-9)
    assert times[-1] == 0


@some_sdes
def test_grids_are_even_in_what_they_name(sde):
    np.testing.assert_allclose(np.diff(uniform_times(sde, 10)[:-1], 2), 0, atol=1e-12)
    np.testing.assert_allclose(np.diff(sde.log_snr(log_snr_times(sde, 10)[:-1]), 2), 0, atol=1e-6)
    np.testing.assert_allclose(np.diff(sde.noise_to_signal(karras_times(sde, 10)[:-1]) ** (1 / 7), 2), 0, atol=1e-8)


@pytest.mark.parametrize("power", [1.0, 2.0, 3.5])
def test_a_grid_of_any_power_is_even_in_that_root(power):
    """Of the time of `VPSDE()`; and `times_at` goes as far along it as its places say."""
    sde = VPSDE(t_min=1e-3)
    roots = quadratic_times(sde, 9, power)[:-1] ** (1 / power)
    np.testing.assert_allclose(np.diff(roots, 2), 0, atol=1e-7)
    np.testing.assert_allclose((roots[0], roots[-1]), [1.0, 1e-3 ** (1 / power)], rtol=1e-6)
    places = np.array([0.0, 0.2, 0.9, 1.0])
    times = times_at(sde, places, power, denoise=False)
    np.testing.assert_allclose(times ** (1 / power), 1 + (1e-3 ** (1 / power) - 1) * places, rtol=1e-5)


@some_sdes
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("n", [1, 2, 18])
def test_n_steps_run_from_t_max_through_t_min_to_clean_data(sde, grid, n):
    times = grid(sde, n)
    assert len(times) == n + 1
    assert (times[0], times[-1]) == (sde.t_max, 0)  # one step is the denoising step, from t_max
    assert n == 1 or times[-2] == sde.t_min
    noisy = grid(sde, n, denoise=False)
    assert (len(noisy), noisy[0], noisy[-1]) == (n + 1, sde.t_max, sde.t_min)
    assert (np.diff(times) < 0).all() and (np.diff(noisy) < 0).all()


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="at least 1 step, not 0"):
        uniform_times(VESDE(), 0)


def test_the_most_steps_are_those_of_float32():
    """One more is refused before any array is made."""
    assert _number_of_points(2**24, True) == 2**24 and _number_of_points(2**24, False) == 2**24 + 1
    for grid in GRIDS:
        with pytest.raises(ValueError, match="has at most 16777216 steps, not 16777217"):
            grid(VPSDE(), 2**24 + 1)


@pytest.mark.parametrize("rho", [0.7, 7.0, np.inf])
def test_a_traced_rho_makes_the_grid_of_the_number(rho):
    sde = VPSDE(t_min=1e-3)
    traced = jax.jit(lambda rho: karras_times(sde, 5, rho, denoise=False))(rho)
    np.testing.assert_allclose(traced, karras_times(sde, 5, rho, denoise=False), rtol=1e-9)


def test_places_are_those_of_the_quadratic_grid_unless_a_power_is_given():
    sde, places = VPSDE(t_min=1e-2), jnp.array([0.0, 0.3, 1.0])
    np.testing.assert_allclose(times_at(sde, places, denoise=False), (1 - 0.9 * places) ** 2, rtol=1e-6)
    np.testing.assert_allclose(times_at(sde, places), [*(1 - 0.9 * places) ** 2, 0], rtol=1e-6)
