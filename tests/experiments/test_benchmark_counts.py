"""What the benchmarks of methods count: evaluations, steps and starts, with stand-ins for all that computes."""

import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sde_lib
from experiments.benchmarks import inverse, methods, peers

SDE = sde_lib.VPSDE(t_min=1e-3)


class Method:
    """Stands for a method of so many evaluations a step."""

    def __init__(self, evaluations_per_step):
        self.evaluations_per_step = evaluations_per_step


@pytest.fixture
def runs(monkeypatch):
    """The (method, times, start) of each run of the benchmark of methods, which end where they start."""
    made = []

    def run(method, times, x, denoiser):
        made.append((method, np.asarray(times), x))
        return x

    monkeypatch.setattr(methods, "run", run)
    monkeypatch.setattr(methods, "denoise", lambda denoiser, x, t: made.append(float(t)) or x)
    return made


@pytest.fixture
def problem(monkeypatch):
    monkeypatch.setattr(methods, "_compare", lambda problem, x: (0.0, 0.0, 0.0))
    return methods.Problem("one", np.zeros((1, 2)), 0.5, SDE, 4, num_fitted=3)


@pytest.mark.parametrize("each", [1, 2, 3])
def test_a_deterministic_method_makes_as_many_whole_steps_as_its_evaluations_allow(runs, problem, each):
    """From the starts of the problem at t_max to t_min, without a denoising step."""
    row = methods.deterministic(problem, "name", Method(each), "uniform")
    assert (row.problem, row.method, row.grid, row.peer) == ("one", "name", "uniform", False)
    assert [len(times) - 1 for _, times, _ in runs] == [n // each for n in methods.EVALUATIONS]
    for _, times, start in runs:
        np.testing.assert_allclose(times, np.linspace(1, 1e-3, len(times)), rtol=1e-5)
        assert start is problem.start


@pytest.mark.parametrize("each", [1, 2])
def test_a_stochastic_method_ends_with_a_denoising_step_that_counts(runs, problem, each):
    """One evaluation denoises, at t_min; the steps before take the others."""
    row = methods.stochastic(problem, "name", Method(each), "uniform")
    made = list(zip(runs[::2], runs[1::2], strict=True))
    assert [len(times) - 1 for (_, times, _), _ in made] == [(n - 1) // each for n in methods.EVALUATIONS]
    assert [t for _, t in made] == pytest.approx([1e-3] * len(made)) and row.medians == row.flips == ()
    assert row.errors == pytest.approx((methods.sliced_wasserstein(problem.start, problem.data(5)),) * 8)


def test_the_recommended_sampler_makes_every_evaluation_from_the_starts_of_its_seed(runs, problem, monkeypatch):
    def recommended_times(sde, evaluations, denoise=True):
        return np.linspace(1, 1e-3, evaluations + 2 - (not denoise))

    monkeypatch.setattr(methods.sde_lib, "recommended_times", recommended_times)
    monkeypatch.setattr(methods.sde_lib, "recommended_sampler", lambda evaluations: ("method", evaluations))
    row = methods.recommended(problem, 1010)
    assert (row.method, row.grid) == ("recommended", "starts 1010")
    assert [(method, len(times) - 1) for method, times, _ in runs] == [(("method", n), n) for n in methods.EVALUATIONS]
    np.testing.assert_array_equal(runs[0][2], methods.replace(problem, seed=1010).start)
    assert (np.asarray(runs[0][2]) != np.asarray(problem.start)).any()


def test_grids_are_fitted_to_other_starts_than_those_of_the_test(runs, problem, monkeypatch):
    fits = []

    def optimal_times(denoiser, evaluations, keys, shape, **options):
        fits.append((evaluations, len(keys), shape, options))
        return np.linspace(1, 1e-3, evaluations + 1)

    monkeypatch.setattr(methods.sde_lib, "optimal_times", optimal_times)
    method = Method(1)
    assert methods.fitted(problem, "name", method).grid == "fitted"
    assert [fit[:3] for fit in fits] == [(n, 3, (2,)) for n in methods.EVALUATIONS]
    for _, _, _, options in fits:
        assert options["sampler"] is method and options["denoise"] is False and options["x_init"].shape == (3, 2)
        gaps = np.abs(np.asarray(options["x_init"])[:, None] - np.asarray(problem.start)).sum(-1)
        assert gaps.min() > 1e-3


def test_starts_of_a_problem_are_fresh_data_with_their_own_noise():
    """The starts of a seed are its data perturbed with the noise of the next seed; the floor is of seeds 5 and 6."""
    problem = methods.Problem("one", np.array([[3.0, -1.0]]), 0.25, SDE, 5, seed=20)
    x0, noise = problem.data(20), jax.random.normal(jax.random.key(21), (5, 2))
    np.testing.assert_allclose(problem.start, SDE.alpha(1.0) * x0 + SDE.sigma(1.0) * noise, rtol=1e-5)
    expected = methods.sliced_wasserstein(problem.data(5), problem.data(6))
    assert methods.floor(problem).errors == (expected,) * 8 and expected > 0
    np.testing.assert_array_equal(problem.mode(jnp.zeros((3, 2))), [0, 0, 0])


def test_an_error_is_the_root_mean_square_and_its_median_that_of_the_samples(monkeypatch):
    """Samples off by 0, 1 and 2 in both elements, of which the last is at another mode."""
    problem = methods.Problem("two", np.array([[0.0, 0.0], [3.0, 3.0]]), 0.25, SDE, 3)
    problem.__dict__["end"] = jnp.zeros((3, 2))
    found = methods._compare(problem, jnp.asarray([[0.0, 0.0], [1.0, -1.0], [2.0, 2.0]]))
    assert found == pytest.approx((math.sqrt(5 / 3), 1.0, 1 / 3))


def test_noise_of_each_step_is_its_own(monkeypatch):
    """The keys of step i are those of the run folded with i, one for each sample."""
    seen = []
    monkeypatch.setattr(
        methods, "_step", lambda method, carry, keys, x, t, s, denoiser: seen.append(keys) or (carry, x)
    )
    methods.run(SimpleNamespace(init=lambda x, denoiser, times: None), np.linspace(1, 0, 4), np.zeros((2, 1)), None)
    keys = np.stack([np.asarray(jax.random.key_data(keys)) for keys in seen]).reshape(6, -1)
    assert len(np.unique(keys, axis=0)) == 6


# ---- inverse problems ----


@pytest.fixture
def case():
    made = inverse.Case("correlated", "half", 0.5, None, None, num_measurements=2, num_samples=3)
    made.__dict__["y"] = jnp.asarray([[1.0], [2.0]])
    made.__dict__["posteriors"] = ["first", "second"]
    made.__dict__["floor"] = (1.0, 2.0, 1.0)
    made.__dict__["reference"] = np.zeros((2, 3, 16))
    return made


@pytest.mark.parametrize("each", [1, 2])
def test_answers_are_denoised_with_the_last_of_their_evaluations(runs, case, each):
    found = inverse.draw(case, "posterior", Method(each), "uniform", 21)
    ((_, times, start), t) = runs
    assert len(times) - 1 == 20 // each and times[0] == 1 and t == times[-1] == pytest.approx(1e-4)
    assert start is case.start
    np.testing.assert_array_equal(found, np.asarray(start).reshape(2, 3, 16))


def test_each_start_has_its_measurement(case):
    """Three answers to the first, then three to the second; starts are of the prior of the process at t_max."""
    np.testing.assert_array_equal(case.all_y[:, 0], [1, 1, 1, 2, 2, 2])
    many = inverse.Case("p", "m", 0.5, None, None, num_measurements=4, num_samples=250)
    assert np.asarray(many.start).std() == pytest.approx(float(inverse.SDE.sigma(1.0)), rel=0.03)
    assert case.start.shape == (6, 4, 4, 1)


def test_the_oracle_runs_each_posterior_from_its_own_starts(runs, case, monkeypatch):
    monkeypatch.setattr(inverse.Case, "distance", lambda self, x: float(x.shape == (2, 3, 16)))
    monkeypatch.setattr(inverse.Case, "misfit", lambda self, x: 3.0)
    row = inverse.oracle(case)
    assert (row.method, row.distances, row.products, row.claims) == ("exact Denoiser", (1.0,) * 3, 0, True)
    starts = np.concatenate([np.asarray(start) for _, _, start in runs[:4:2]])
    np.testing.assert_array_equal(starts, case.start)
    assert [len(times) for _, times, _ in runs[::2]] == [n for n in inverse.EVALUATIONS for _ in range(2)]
    assert all(method == inverse.FAST for method, _, _ in runs[::2])


def test_particles_are_resampled_and_drawn_at_random(case, monkeypatch):
    """Three answers of 40 particles for each measurement, at as many times as evaluations; 20,000 particles claim most."""
    calls = []

    class Cloud:
        def resample(self, key):
            return jnp.arange(40.0)[:, None, None, None] * jnp.ones((1, 4, 4, 1))

    def twisted_sample(key, prior, measurement, y, noise, times, shape, number, **options):
        calls.append((float(y[0]), noise, len(times) - 1, shape, number, options))
        return Cloud()

    monkeypatch.setattr(inverse, "twisted_sample", twisted_sample)
    drawn = []
    monkeypatch.setattr(inverse.Case, "distance", lambda self, x: drawn.append(x) or 0.0)
    monkeypatch.setattr(inverse.Case, "misfit", lambda self, x: 0.0)
    row = inverse.twisted(case, 40)
    expected = [(y, 0.5, n, (4, 4, 1), 40, {"data_std": 0.5}) for n in inverse.EVALUATIONS for y in (1.0, 2.0)]
    assert calls == expected and (row.method, row.products, row.claims) == ("twisted, 40", 1, False)
    for x in drawn:
        assert x.shape == (2, 3, 16) and all(len(np.unique(of_one[:, 0])) == 3 for of_one in x)
        assert (x[0] != x[1]).any() and (x[0, :, 0] != [0, 1, 2]).any()
    names = [getattr(job, "args", ())[1:] for job in inverse.jobs(case) if job.func is inverse.twisted]
    assert names == [(2_000,)]
    mixture = inverse.Case("mixture", "half", 0.5, None, None)
    assert [job.args[1:] for job in inverse.jobs(mixture) if job.func is inverse.twisted] == [(2_000,), (20_000,)]


def test_the_reference_and_the_floor_are_of_other_draws(monkeypatch):
    monkeypatch.setattr(inverse.Case, "draw", lambda self, seed: np.full((1, 2, 16), float(seed)))
    made = inverse.Case("p", "m", 0.5, None, None)
    assert (made.reference == 2).all()


def test_draws_of_two_posteriors_are_independent():
    """Each has its own key, which is the seed's."""
    asked = []

    class Posterior:
        def sample(self, key, number):
            asked.append(tuple(np.asarray(jax.random.key_data(key)).tolist()))
            return jnp.ones((number, 4, 4, 1))

    made = inverse.Case("p", "m", 0.5, None, None, num_samples=3)
    made.__dict__["posteriors"] = [Posterior(), Posterior()]
    assert made.draw(7).shape == (2, 3, 16)
    made.draw(8)
    assert len(set(asked)) == 4


def test_distances_of_measurements_are_joined_as_squares(monkeypatch):
    monkeypatch.setattr(inverse.methods, "sliced_wasserstein", lambda a, b: float(a[0, 0] - b[0, 0]))
    made = inverse.Case("p", "m", 0.5, None, None)
    made.__dict__["reference"] = np.zeros((2, 3, 16))
    assert made.distance(np.array([1.0, 7.0])[:, None, None] * np.ones((2, 3, 16))) == pytest.approx(5)


# ---- solvers of diffusers ----


@pytest.fixture
def asked(monkeypatch):
    """The noise levels at which the Denoiser of N(0, 0.5^2) is asked; it is computed in numpy."""
    levels = []

    def noise(denoiser, y, s):
        levels.append(float(s))
        return np.asarray(y) * s / (s**2 + 0.25)

    monkeypatch.setattr(peers, "_noise", noise)
    return levels


SOLVERS = {
    "dpm_solver++": ("DPMSolverMultistepScheduler", "sigma_min"), "unipc": ("UniPCMultistepScheduler", "sigma_min"),
    "deis": ("DEISMultistepScheduler", None), "heun": ("HeunDiscreteScheduler", None),
}  # fmt: skip


@pytest.mark.parametrize("name", peers.SOLVERS)
def test_a_solver_of_diffusers_is_what_its_name_says_and_makes_its_evaluations(asked, name):
    """Class, order, last level; from the largest noise level down, never more evaluations than are allowed."""
    pytest.importorskip("diffusers", reason="the interop extra is not installed")
    kind, order = name.partition(" ")[::2]
    sde = methods.PROCESSES["edm"]
    scheduler = peers.SOLVERS[name](sde)
    cls, ending = SOLVERS[kind]
    assert type(scheduler).__name__ == cls and len(scheduler.alphas_cumprod) == 1000
    if order:
        assert scheduler.config.solver_order == int(order)
    if ending:
        assert scheduler.config.final_sigmas_type == ending
    with jax.enable_x64(True):
        x, denoiser = 80.0 * jnp.ones((1, 1)), SimpleNamespace(sde=sde)
        exact = math.sqrt((0.002**2 + 0.25) / (80**2 + 0.25)) * 80
        for grid in peers.GRIDS:
            options = dict(scheduler.config) | peers.GRIDS[grid]
            assert options["use_karras_sigmas"] == (grid == "karras")
            asked.clear()
            end = float(peers.run(name, grid, 41, x, denoiser)[0, 0])
            assert len(asked) == (40 if name == "heun" else 41) and asked[0] == pytest.approx(80, rel=1e-3)
            assert min(asked) >= 0.00199 and max(asked) <= 80.1
            assert end == pytest.approx(exact, rel=0.1)
