"""The benchmark of methods: what it compares with, and how it measures."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import methods, peers
from experiments.benchmarks import recommended as fitting
from experiments.benchmarks.methods import Problem, Row
from sde_lib import DDIM, EDMSDE, VPSDE, Adams, DPMSolver, Heun, exact, karras_times, quadratic_times, sample
from sde_lib.sampling.recommended import TABLE, _places
from sde_lib.times import times_at

pytestmark = pytest.mark.thorough

ONE_MODE = Problem("one mode", np.array([[0.7, -0.2]]), 0.5, VPSDE(t_min=1e-3), 64)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def test_the_exact_flow_is_that_of_the_closed_form():
    gaussian, start = exact.Gaussian(ONE_MODE.sde, mean=ONE_MODE.means[0], std=0.5), np.array([[0.3, -1.0], [2.0, 0.5]])
    expected = gaussian.flow(start, ONE_MODE.sde.t_max, ONE_MODE.sde.t_min)
    np.testing.assert_allclose(methods.exact_flow(ONE_MODE.denoiser, jnp.asarray(start)), expected, atol=1e-9)


def test_a_run_is_that_of_sample():
    times, method = quadratic_times(ONE_MODE.sde, 6, denoise=False), DPMSolver(3, "angle")
    keys = jax.random.split(jax.random.key(0), 64)
    expected = sample(keys, ONE_MODE.denoiser, method, times, (2,), x_init=ONE_MODE.start, denoise=False)
    np.testing.assert_allclose(methods.run(method, times, ONE_MODE.start, ONE_MODE.denoiser), expected, rtol=1e-9)


def test_errors_are_those_of_the_method_and_fall_at_its_order():
    row = methods.deterministic(ONE_MODE, "ddim", DDIM(), "quadratic")
    times = quadratic_times(ONE_MODE.sde, 50, denoise=False)
    difference = methods.run(DDIM(), times, ONE_MODE.start, ONE_MODE.denoiser) - ONE_MODE.end
    np.testing.assert_allclose(row.errors[6], np.sqrt((difference**2).mean()))
    assert 1.8 < row.errors[6] / row.errors[7] < 2.2 and row.flips == (0,) * 8
    assert row.medians[7] < row.errors[7]


def test_a_shift_is_a_wasserstein_distance_of_its_length():
    x, shift = np.random.default_rng(0).normal(size=(100, 64)), np.random.default_rng(1).normal(size=64)
    np.testing.assert_allclose(methods.sliced_wasserstein(x, x + shift), np.linalg.norm(shift), rtol=0.2)
    assert methods.sliced_wasserstein(x, np.random.default_rng(2).permutation(x)) == 0


def test_the_best_of_each_column_is_named():
    rows = [
        Row("p", "a", "uniform", (0.5,) * 8, (0.4,) * 8, (0.01,) * 8),
        Row("p", "b", "karras", (0.6,) * 4 + (0.1,) * 4, (0.3,) * 8, (0.0,) * 8),
        Row("p", "c", "uniform", (0.7,) * 8),
        Row("p", "fresh data", "", (0.2,) * 8),
    ]
    lines = methods.best(rows).splitlines()
    assert lines[1] == "    5  5.0e-01  a, uniform  (median 4.0e-01, 1.00 % flips)"
    assert lines[8] == "  100  1.0e-01  b, karras  (median 3.0e-01, 0.00 % flips)"
    assert lines[-2] == "       2.0e-01  fresh data: the floor"
    assert lines[-1].startswith("diffusers is not installed")
    beside = methods.best([*rows, Row("p", "diffusers: x", "table", (0.05,) * 8, (0.04,) * 8, (0.0,) * 8, peer=True)])
    assert beside.splitlines()[1].endswith(
        "1.00 % flips); 5.0e-02  diffusers: x, table  (median 4.0e-02, 0.00 % flips)"
    )
    assert "| b | karras | 6.0e-01 | 6.0e-01 | 6.0e-01 | 6.0e-01 | 1.0e-01 |" in methods.markdown(rows)


def test_the_suite_takes_no_config(fails, tmp_path):
    assert fails("benchmark", "--suite=methods", "--config=configs/digits.py").startswith(
        "--suite=methods takes no config"
    )
    assert "pass --config=configs/digits.py" in fails("benchmark")
    assert fails("benchmark", "--suite=methods", f"--out={tmp_path}/table.txt").endswith("must end in .md")
    assert "is for --suite=methods, inverse and networks" in fails(
        "benchmark", "--config=configs/digits.py", "--out=table.md"
    )


@pytest.fixture
def diffusers():
    return pytest.importorskip("diffusers", reason="the interop extra is not installed")


@pytest.mark.parametrize("process", ["vp", "edm"])
@pytest.mark.parametrize("solver, method", [("dpm_solver++ 1", DDIM()), ("heun", Heun())])
def test_a_method_that_both_libraries_have_gives_the_same(diffusers, process, solver, method):
    """On the same grid, from the same starts, to float32."""
    problem = Problem("one mode", ONE_MODE.means, 0.5, methods.PROCESSES[process], num_samples=64)
    expected = methods.run(method, karras_times(problem.sde, 12, denoise=False), problem.start, problem.denoiser)
    evaluations = 12 * method.evaluations_per_step
    found = peers.run(solver, "karras", evaluations, problem.start, problem.denoiser)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("grid", peers.GRIDS)
def test_diffusers_ends_where_the_flow_does(diffusers, grid):
    """Of second order on every grid: a wrong last level, scale or start would leave an error that does not fall."""
    ends = [peers.run("dpm_solver++ 2", grid, n, ONE_MODE.start, ONE_MODE.denoiser) for n in (100, 200)]
    errors = [np.abs(end - ONE_MODE.end).max() for end in ends]
    assert 3.6 < errors[0] / errors[1] < 4.6


def test_the_recommended_row_counts_every_evaluation():
    """Of the recommended method alone, whose last step ends at t_min: on one Gaussian nearly exact from 10 evaluations."""
    row = methods.recommended(ONE_MODE, 1010)
    assert row.grid == "starts 1010" and row.flips == (0,) * 8 and max(row.errors[2:]) < 3e-3
    other = methods.recommended(ONE_MODE, 1020)
    assert other.errors != row.errors


@pytest.fixture(scope="module")
def held_out():
    with jax.enable_x64(True):
        return fitting.validation(fitting.VALIDATION, fitting.VALIDATION_STARTS)


def test_the_table_of_recommended_samplers_is_what_its_fit_measures(held_out):
    """The error that is stored with an entry is found again on the validation family, by the product's own grid too."""
    for entry in json.loads(TABLE.read_text())["entries"][:2]:
        n = entry["evaluations"]
        np.testing.assert_allclose(fitting.error(entry, held_out), entry["validation_error"], rtol=1e-3)
        np.testing.assert_allclose(fitting._places(jnp.asarray(entry["log_lengths"]), n), _places(n), rtol=1e-12)


def test_sensitivity_is_the_square_by_which_a_run_amplifies_a_change():
    """For one Gaussian, whose flow is affine, the square of its slope."""
    sde = EDMSDE(t_min=jnp.array([0.002]), t_max=jnp.array([80.0]))
    denoiser = exact.GaussianMixture(sde, jnp.zeros((1, 1, 10)), jnp.array([0.5]), jnp.ones((1, 1)))
    start = jnp.full((1, 1000, 10), 3.0)
    found = fitting.sensitivity(np.random.default_rng(0), denoiser, start, jnp.full((1, 10), 0.1))
    slope = np.hypot(0.5, 0.002) / np.hypot(0.5, 80)
    np.testing.assert_allclose(found.mean(), (slope * 80) ** 2, rtol=0.05)


def test_an_entry_that_adds_noise_to_flat_areas_is_not_kept(held_out, monkeypatch):
    """The error of a point at -1 is that of `sample`; above the limit an entry loses to one below it."""
    entries = {entry["evaluations"]: entry for entry in json.loads(TABLE.read_text())["entries"]}
    assert all(fitting.flat_error(entry) < 0.025 for entry in entries.values())
    noisy, plain = entries[8], {"evaluations": 8, "order": 3, "data_std": 0.5, "log_lengths": [0.0] * 8}
    weights = {name: np.asarray(noisy[name]) for name in ("predictor", "corrector")}
    method, errors = Adams(noisy["order"], data_std=noisy["data_std"], **weights), []
    for high, low in ((152.2, 0.010486), (80.0, 0.002)):
        sde = EDMSDE(t_min=low, t_max=high)
        denoiser, x = (
            exact.Gaussian(sde, mean=-1.0, std=1e-3),
            -1 + high * jax.random.normal(jax.random.key(0), (1000, 1)),
        )
        times = times_at(sde, jnp.asarray(_places(8)), denoise=False)
        keys = jax.random.split(jax.random.key(1), 1000)
        ends = sample(keys, denoiser, method, times, (1,), x_init=x, denoise=False)
        errors.append(np.sqrt(np.mean((ends - denoiser.flow(x, high, low)) ** 2)))
    np.testing.assert_allclose(fitting.flat_error(noisy), max(errors), rtol=0.1)
    assert fitting.best([plain, noisy], held_out)["data_std"] == noisy["data_std"]
    monkeypatch.setattr(fitting, "FLAT", 0.002)
    assert fitting.best([plain, noisy], held_out)["data_std"] == plain["data_std"]


def test_the_sensitive_starts_come_first_and_the_others_are_spread_over_the_rest(held_out):
    ranks = np.argsort(-np.asarray(held_out.sensitivity), 1)
    few = fitting.chosen(held_out, left_out=5, sensitive=10, others=20)
    for p in (0, 7):
        rows = [*ranks[p, 5:15], *ranks[p, 15:495:24]]
        np.testing.assert_array_equal(few.start[p], held_out.start[p, np.array(rows)])
        np.testing.assert_array_equal(few.end[p], held_out.end[p, np.array(rows)])


def test_the_fit_lowers_the_error_and_its_objective_is_the_mean_log_error(held_out):
    """Of the grid of equal steps: the objective by hand from the errors; a short fit lowers the held-out error."""
    n = 5
    few = fitting.chosen(held_out, left_out=0, sensitive=40, others=60)
    equal = {"evaluations": n, "order": 2, "data_std": 0.5, "log_lengths": [0.0] * n}
    squares = fitting._squares(few, Adams(2), jnp.linspace(0, 1, n + 1))
    relative = few.sensitivity / few.sensitivity[:, :1]
    expected = 0.6 * np.log(np.sqrt((squares / relative)[:, :40].mean(1))).mean()
    expected += 0.4 * np.log(np.sqrt(squares[:, 40:].mean(1))).mean()
    start = np.append(np.zeros(n), np.log(0.5))
    np.testing.assert_allclose(fitting.objective(jnp.asarray(start), few, n, 40), expected, rtol=1e-9)
    once = fitting.fit(n, held_out, iterations=4, rounds=1)
    found = fitting.best([equal, once, equal], held_out)
    assert fitting.error(once, held_out) == pytest.approx(found["validation_error"], rel=1e-3)
    assert found["validation_error"] < 0.9 * fitting.error(equal, held_out)


def test_a_reduced_mixture_has_the_errors_of_the_whole():
    """Projection onto the plane of the means and one coordinate across changes no posterior mean within them."""
    rng = np.random.default_rng(0)
    mixture = fitting.Mixture("cube", rng.normal(size=(4, 30)), 0.3, np.array([0.1, 0.2, 0.3, 0.4]))
    denoiser, share = fitting.stack([mixture], [(80.0, 0.002)])
    np.testing.assert_allclose(share.sum(1), 1)
    planes = np.asarray(denoiser.means)[0, :4]
    distances = [np.linalg.norm(m[:, None] - m, axis=-1) for m in (mixture.means, planes)]
    np.testing.assert_allclose(distances[1], distances[0], rtol=1e-9)
    np.testing.assert_allclose(np.asarray(share)[0, [0, 3]], [1 / 30, 27 / 30])
