"""The recommended sampler: its grids and counts for every number of evaluations, and its error where it is known."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sde_lib import (
    DDIM,
    EDMSDE,
    VPSDE,
    Adams,
    CriticallyDampedLangevin,
    DiscreteVP,
    FunctionDenoiser,
    exact,
    quadratic_times,
    recommended_sampler,
    recommended_times,
    sample,
)
from sde_lib.sampling.recommended import TABLE, _places
from tests.sde_lib.processes import SOME_SDES, TrigonometricSDE, every_sde, keys

ENTRIES = json.loads(TABLE.read_text())["entries"]


def test_every_number_of_evaluations_has_a_grid_and_is_met_exactly():
    """The places rise by more than float32 can lose, up to a thousand evaluations."""
    for n in (*range(1, 121), 1000):
        places = _places(n)
        assert len(places) == n + 1 and recommended_sampler(n).nfe(n) == n
        assert (places[0], places[-1]) == (0, 1) and np.diff(places).min() > 0.1 / n**1.2, n


@pytest.mark.parametrize("n", [1, 6, 120])
@pytest.mark.parametrize("sde", [VPSDE(t_min=1e-3), EDMSDE(), DiscreteVP.linear()], ids=lambda sde: type(sde).__name__)
def test_grids_run_from_t_max_to_clean_data_or_t_min(sde, n):
    for precise in (False, True):
        with jax.enable_x64(precise):
            times, noisy = recommended_times(sde, n), recommended_times(sde, n, denoise=False)
        assert len(times) == len(noisy) == n + 1
        np.testing.assert_allclose([times[0], times[-1], noisy[-1]], [sde.t_max, 0, sde.t_min], rtol=1e-6)
        assert (np.diff(times) < 0).all() and (np.diff(noisy) < 0).all()
        np.testing.assert_array_equal(times[:-1], noisy[:-1])


@pytest.mark.parametrize("evaluations", [1, 2, 5, 12])
def test_the_denoiser_is_evaluated_as_often_as_asked(evaluations):
    calls, sde = [], SOME_SDES[0]

    def counted(x, t):
        jax.debug.callback(lambda: calls.append(1))
        return 0.3 * x

    times = recommended_times(sde, evaluations)
    x = sample(keys(1), FunctionDenoiser(sde, counted), recommended_sampler(evaluations), times, (1,))
    jax.block_until_ready(x)
    jax.effects_barrier()
    assert len(calls) == evaluations


def test_one_evaluation_is_the_denoiser_at_the_largest_time():
    sde = VPSDE(t_min=1e-3)
    denoiser, start = exact.Gaussian(sde, mean=0.7, std=0.5), jnp.array([[0.3], [-1.2]])
    x = sample(keys(2), denoiser, recommended_sampler(1), recommended_times(sde, 1), (1,), x_init=start)
    np.testing.assert_allclose(x, denoiser(start, sde.t_max))
    assert isinstance(recommended_sampler(1), DDIM)


def test_the_grid_depends_on_a_process_by_its_noise_levels_alone():
    """Another clock, and another process with equal levels at both ends."""
    slow, fast = (TrigonometricSDE(t_min=1e-2**power, t_max=0.995**power, bend=1 / power) for power in (1.0, 2.0))
    edm = EDMSDE(t_min=float(slow.noise_to_signal(slow.t_min)), t_max=float(slow.noise_to_signal(slow.t_max)))
    levels = [sde.noise_to_signal(recommended_times(sde, 10, denoise=False)) for sde in (slow, fast, edm)]
    np.testing.assert_allclose(levels[1], levels[0], rtol=1e-6)
    np.testing.assert_allclose(levels[2], levels[0], rtol=1e-6)


def test_the_table_keeps_a_constant_slope_exact_and_uses_no_value_before_it_is_known():
    for entry in ENTRIES:
        n, order = entry["evaluations"], entry["order"]
        assert len(entry["log_lengths"]) == min(n, 12)
        for name, size in (("predictor", order), ("corrector", order + 1)):
            weights = np.asarray(entry.get(name, np.zeros((n, size))))
            assert weights.shape == (n, size)
            np.testing.assert_allclose(weights.sum(1), 0, atol=1e-5)
            assert (weights[np.arange(size) > np.arange(n)[:, None]] == 0).all()


@every_sde
def test_a_wide_gaussian_comes_out_with_its_standard_deviation(sde):
    """From the marginal at t_max to clean data, an affine map: a wrong last step would leave noise or lose variance."""
    denoiser, std = exact.Gaussian(sde, mean=0.2, std=0.9), exact.Gaussian(sde, std=0.9).marginal_std(sde.t_max)
    start = sde.alpha(sde.t_max) * 0.2 + std * jnp.array([[-1.0], [0.0], [1.0]])
    x = sample(keys(3), denoiser, recommended_sampler(12), recommended_times(sde, 12), (1,), x_init=start)
    np.testing.assert_allclose(x[:, 0], [-0.7, 0.2, 1.1], atol=0.02)


# The best of about 200 settings of diffusers, azula, k-diffusion and the official codes, on 2,000 other starts.
PEERS = {"vp": {5: 8.5e-2, 10: 1.8e-2, 20: 7.1e-3}, "edm": {5: 1.8e-1, 10: 3.9e-2, 20: 1.8e-2}}


@pytest.mark.parametrize("process", PEERS)
def test_errors_on_eight_modes_on_a_circle_are_below_the_best_peers(process):
    """Root mean square error per element at t_min; neither the mixture nor the starts were used for the table."""
    sde = {"vp": VPSDE(t_min=1e-3), "edm": EDMSDE()}[process]
    angles = 2 * np.pi * np.arange(8) / 8
    denoiser = exact.GaussianMixture(sde, jnp.asarray(4 * np.stack([np.cos(angles), np.sin(angles)], 1)), stds=0.3)
    x0 = denoiser.sample(jax.random.key(11), 300)
    start = sde.perturb(x0, jax.random.normal(jax.random.key(12), x0.shape), sde.t_max)

    def run(method, times):
        return sample(keys(300), denoiser, method, times, (2,), x_init=start, denoise=False)

    end = run(Adams(5), quadratic_times(sde, 300, denoise=False))
    for n, peer in PEERS[process].items():
        error = run(recommended_sampler(n), recommended_times(sde, n, denoise=False)) - end
        assert np.sqrt(np.mean(error**2)) < peer, n


def test_what_cannot_be_recommended_is_refused():
    with pytest.raises(ValueError, match="evaluations=0 must be at least 1"):
        recommended_sampler(0)
    with pytest.raises(ValueError, match="state of CriticallyDampedLangevin is not the data"):
        recommended_times(CriticallyDampedLangevin(), 10)


def even_lengths(entry, n):
    """The lengths of n steps whose logarithms are linear between the entry's knots, their sum 1."""
    knots = entry["log_lengths"]
    lengths = np.exp(np.interp(np.linspace(0, len(knots) - 1, n), range(len(knots)), knots))
    return lengths / lengths.sum()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: str(entry["evaluations"]))
def test_an_entry_of_the_table_is_read_whole(entry):
    """Order, standard deviation, weights and lengths of steps at its own number of evaluations."""
    n = entry["evaluations"]
    method = recommended_sampler(n)
    assert (method.order, method.data_std, method.corrected) == (entry["order"], entry["data_std"], True)
    for name in ("predictor", "corrector"):
        assert (getattr(method, name) is None) == (name not in entry)
        if name in entry:
            np.testing.assert_array_equal(getattr(method, name), entry[name])
    np.testing.assert_allclose(np.diff(_places(n)), even_lengths(entry, n), rtol=1e-9)


NUMBERS = [entry["evaluations"] for entry in ENTRIES]


@pytest.mark.parametrize("n", sorted({2, 4, 6, 9, 12, 18, 27, 36, 90} - set(NUMBERS)))
def test_between_entries_lengths_are_interpolated_by_the_logarithm_of_the_number(n):
    """Ratios of steps are geometric means of both; beyond the ends of the table they are those of its end."""
    below = max((i for i, m in enumerate(NUMBERS) if m < n), default=0)
    above = min((i for i, m in enumerate(NUMBERS) if m > n), default=len(NUMBERS) - 1)
    share = np.interp(np.log(n), np.log(NUMBERS), range(len(NUMBERS))) - below
    first, last = (even_lengths(ENTRIES[i], n) for i in (below, above))
    expected = (first / first[0]) ** (1 - share) * (last / last[0]) ** share
    lengths = np.diff(_places(n))
    np.testing.assert_allclose(lengths / lengths[0], expected, rtol=1e-9)
    method = recommended_sampler(n)
    assert (method.order, method.data_std) == (ENTRIES[below]["order"], ENTRIES[below]["data_std"])
    assert method.predictor is None and method.corrector is None


def test_times_are_the_places_in_the_root_of_the_time_of_the_published_process():
    sde = VPSDE(t_min=1e-2)
    for n in (5, 7):
        expected = (1 - 0.9 * _places(n)) ** 2
        np.testing.assert_allclose(recommended_times(sde, n, denoise=False), expected, rtol=1e-6)
    for n in (0, -1):
        with pytest.raises(ValueError, match=f"evaluations={n} must be at least 1"):
            recommended_times(sde, n)
