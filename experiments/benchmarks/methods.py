"""How accurate the sampling methods are, against the number of evaluations, where the answer is known.

Two mixtures with exact Denoisers, each under VP (beta 0.1 to 20, t from 1 to 1e-3) and EDM (sigma 80 to 0.002):

    circle    8 modes on a circle of radius 4 in the plane, standard deviation 0.3
    narrow    10 modes in 64 dimensions, means uniform in [-1, 1], standard deviation 0.1

Deterministic methods start where the data are at t_max and are compared at t_min with the probability flow, solved to
1e-11: the root mean square error per element; beside it the median over samples and the share of samples that land in
another mode, because one flip in 2,000 samples of `narrow` adds 0.017. Stochastic methods end with the denoising step and
are compared with fresh data: the sliced Wasserstein distance, beside that of two sets of fresh data, which is the floor.

The recommended sampler for each number of evaluations, whose table (`recommended.py`) was chosen on other mixtures, has one
row for each of five sets of starts. No starts here were used to choose methods or grids.

Everything runs in float64. Each method's step is compiled once for all grids and numbers of steps. Where diffusers is
installed (the `interop` extra) its solvers run beside ours, in rows of their own: `peers.py`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

import sde_lib
from experiments.benchmarks import peers
from sde_lib import SDE, Denoiser, Sampler
from sde_lib.randomness import fold_in

EVALUATIONS = (5, 8, 10, 15, 20, 35, 50, 100)
NUM_SAMPLES = 2_000
NUM_PROJECTIONS = 128
STARTS = (1000, 1010, 1020, 1030, 1040)  # seeds of the starts; the next number is that of their noise

PROCESSES: dict[str, SDE] = {
    "vp": sde_lib.VPSDE(t_min=1e-3),
    "edm": sde_lib.EDMSDE(t_min=0.002, t_max=80.0),
}

GRIDS: dict[str, Callable[..., Array]] = {
    "uniform": sde_lib.uniform_times,
    "karras": sde_lib.karras_times,
    "log_snr": sde_lib.log_snr_times,
    "quadratic": sde_lib.quadratic_times,
}

DETERMINISTIC: dict[str, Sampler] = {
    "probability_flow": sde_lib.ProbabilityFlow(),
    "ddim": sde_lib.DDIM(),
    "heun": sde_lib.Heun(),
    "dpm_solver 2": sde_lib.DPMSolver(2),
    "dpm_solver 3": sde_lib.DPMSolver(3),
    "dpm_solver 2 angle": sde_lib.DPMSolver(2, "angle"),
    "dpm_solver 3 angle": sde_lib.DPMSolver(3, "angle"),
    "dpm_solver_singlestep 2": sde_lib.SinglestepDPMSolver(2),
    "dpm_solver_singlestep 3": sde_lib.SinglestepDPMSolver(3),
    "unipc 2": sde_lib.UniPC(2),
    "unipc 3": sde_lib.UniPC(3),
    "unipc 2 angle": sde_lib.UniPC(2, "angle"),
    "unipc 3 angle": sde_lib.UniPC(3, "angle"),
    "unipc 3 time": sde_lib.UniPC(3, "time"),
    "deis 2": sde_lib.DEIS(2),
    "deis 3": sde_lib.DEIS(3),
    "deis 3 angle corrected": sde_lib.DEIS(3, "angle", corrected=True),
}

FITTED: dict[str, Sampler] = {name: DETERMINISTIC[name] for name in ("unipc 2 angle", "deis 3 angle corrected")}

STOCHASTIC: dict[str, Sampler] = {
    "euler_maruyama": sde_lib.EulerMaruyama(),
    "reverse_diffusion": sde_lib.ReverseDiffusion(),
    "ancestral": sde_lib.Ancestral(),
    "predictor_corrector": sde_lib.PredictorCorrector(),
    "heun churn 10": sde_lib.Heun(churn=10.0),
    "ddim eta 0.5": sde_lib.DDIM(eta=0.5),
    "dpm_solver 2 tau 1": sde_lib.DPMSolver(2, tau=1.0),
    "dpm_solver 2 angle tau 0.5": sde_lib.DPMSolver(2, "angle", tau=0.5),
    "unipc 2 angle tau 0.5": sde_lib.UniPC(2, "angle", tau=0.5),
}


@dataclass(frozen=True)
class Problem:
    """A mixture under a process: what it starts from, and where the probability flow takes it."""

    name: str
    means: np.ndarray
    std: float
    sde: SDE
    num_samples: int
    seed: int = STARTS[0]
    num_fitted: int = 64  # starts that grids are fitted to

    @cached_property
    def denoiser(self) -> sde_lib.exact.GaussianMixture:
        """The exact one."""
        return sde_lib.exact.GaussianMixture(self.sde, jnp.asarray(self.means), stds=self.std)

    def data(self, seed: int) -> Array:
        """Fresh data, (N, D)."""
        return self.denoiser.sample(jax.random.key(seed), self.num_samples)

    @cached_property
    def start(self) -> Array:
        """The data at t_max, (N, D)."""
        x0 = self.data(self.seed)
        return self.sde.perturb(x0, jax.random.normal(jax.random.key(self.seed + 1), x0.shape), self.sde.t_max)

    @cached_property
    def end(self) -> Array:
        """Where the probability flow takes the start at t_min, (N, D), to 1e-11."""
        return exact_flow(self.denoiser, self.start)

    def mode(self, x: Array) -> np.ndarray:
        """The number of the nearest mode, (N,)."""
        return np.asarray(((x[:, None] - self.denoiser.means) ** 2).sum(-1).argmin(1))


def problems() -> Iterator[Problem]:
    """The four of the module's text."""
    angles = 2 * np.pi * np.arange(8) / 8
    mixtures = {
        "circle": (4 * np.stack([np.cos(angles), np.sin(angles)], 1), 0.3, 256),
        "narrow": (np.random.default_rng(0).uniform(-1, 1, (10, 64)), 0.1, 64),
    }
    for mixture, (means, std, num_fitted) in mixtures.items():
        for process, sde in PROCESSES.items():
            yield Problem(f"{mixture}, {process}", means, std, sde, NUM_SAMPLES, num_fitted=num_fitted)


@jax.jit
def exact_flow(denoiser: Denoiser, x: Array) -> Array:
    """x (N, D) carried from t_max to t_min along the probability flow, each example solved to 1e-11 by Dormand-Prince 8.

    In y = x / alpha and half the log-SNR, where the flow is dy / dlambda = D - y.
    """
    sde = denoiser.sde
    first, last = (0.5 * sde.log_snr(jnp.asarray(t, x.dtype)) for t in (sde.t_max, sde.t_min))

    def slope(half_log_snr, y, _):
        t = sde.time_at_log_snr(2 * half_log_snr)
        return denoiser((sde.alpha(t) * y)[None], t)[0] - y

    def solve(y):
        return diffrax.diffeqsolve(
            diffrax.ODETerm(slope),
            diffrax.Dopri8(),
            first,
            last,
            None,
            y,
            stepsize_controller=diffrax.PIDController(rtol=1e-11, atol=1e-12),
            adjoint=diffrax.ForwardMode(),
            max_steps=100_000,
        ).ys[0]

    return sde.alpha(sde.t_min) * jax.vmap(solve)(x / sde.alpha(sde.t_max))


@jax.jit
def denoise(denoiser: Denoiser, x: Array, t: Array) -> Array:
    """The step that ends a run."""
    return denoiser(x, t)


@jax.jit
def _step(method, carry, keys, x, t, s, denoiser):
    return method.step(carry, keys, x, t, s, denoiser)


def run(method: Sampler, times: Array, x: Array, denoiser: Denoiser) -> Array:
    """`sample` from x (N, D) with its loop in Python: one program for all grids. Makes every step of the grid."""
    carry = method.init(x, denoiser, times)
    keys = jax.random.split(jax.random.key(0), len(x))
    for i in range(len(times) - 1):
        carry, x = _step(method, carry, fold_in(keys, i), x, times[i], times[i + 1], denoiser)
    return x


def sliced_wasserstein(a: Array, b: Array) -> float:
    """The 2-Wasserstein distance of a and b (N, D) along fixed random directions, root mean square over them.

    Times sqrt(D), so that a shift by v is a distance of about |v|.
    Source: Bonneel et al. (2015), https://doi.org/10.1007/s10851-014-0506-3.
    """
    directions = np.random.default_rng(0).normal(size=(a.shape[1], NUM_PROJECTIONS))
    directions /= np.linalg.norm(directions, axis=0)
    gap = np.sort(np.asarray(a) @ directions, axis=0) - np.sort(np.asarray(b) @ directions, axis=0)
    return float(np.sqrt((gap**2).mean() * a.shape[1]))


@dataclass(frozen=True)
class Row:
    """One method on one grid: its error with at most each number of evaluations of `EVALUATIONS`."""

    problem: str
    method: str
    grid: str
    errors: tuple[float, ...]
    medians: tuple[float, ...] = ()
    flips: tuple[float, ...] = ()
    peer: bool = False


def _row(problem: Problem, name: str, grid: str, ends: list[Array], peer: bool = False) -> Row:
    """The row of a deterministic method that ended there."""
    found = [_compare(problem, x) for x in ends]
    return Row(problem.name, name, grid, *(tuple(values) for values in zip(*found, strict=True)), peer)


def deterministic(problem: Problem, name: str, method: Sampler, grid: str) -> Row:
    """The errors of a deterministic method."""
    ends = []
    for evaluations in EVALUATIONS:
        steps = evaluations // method.evaluations_per_step
        times = GRIDS[grid](problem.sde, steps, denoise=False)
        ends.append(run(method, times, problem.start, problem.denoiser))
    return _row(problem, name, grid, ends)


def peer(problem: Problem, name: str, grid: str, run_all: Callable[[Array, Denoiser], list[Array]]) -> Row:
    """The errors of another library's method."""
    return _row(problem, f"diffusers: {name}", grid, run_all(problem.start, problem.denoiser), peer=True)


def _compare(problem: Problem, x: Array) -> tuple[float, float, float]:
    squares = np.asarray((x - problem.end) ** 2).mean(1)
    flips = (problem.mode(x) != problem.mode(problem.end)).mean()
    return float(np.sqrt(squares.mean())), float(np.sqrt(np.median(squares))), float(flips)


def fitted(problem: Problem, name: str, method: Sampler) -> Row:
    """The errors of a deterministic method on grids fitted to the Denoiser, with starts that are not the test's."""
    ends = []
    start = replace(problem, num_samples=problem.num_fitted, seed=2).start
    keys = jax.random.split(jax.random.key(4), len(start))
    for evaluations in EVALUATIONS:
        times = sde_lib.optimal_times(
            problem.denoiser, evaluations, keys, start.shape[1:], sampler=method, x_init=start, denoise=False
        )
        ends.append(run(method, times, problem.start, problem.denoiser))
    return _row(problem, name, "fitted", ends)


def recommended(problem: Problem, seed: int) -> Row:
    """The errors of the recommended sampler, which needs no fit, from the starts of a seed."""
    problem = replace(problem, seed=seed)
    ends = []
    for evaluations in EVALUATIONS:
        times = sde_lib.recommended_times(problem.sde, evaluations, denoise=False)
        ends.append(run(sde_lib.recommended_sampler(evaluations), times, problem.start, problem.denoiser))
    return _row(problem, "recommended", f"starts {seed}", ends)


def stochastic(problem: Problem, name: str, method: Sampler, grid: str) -> Row:
    """The distances of a stochastic method, from starts drawn from the prior's place: the data at t_max."""
    data, errors = problem.data(5), []
    for evaluations in EVALUATIONS:
        steps = (evaluations - 1) // method.evaluations_per_step + 1
        times = GRIDS[grid](problem.sde, steps)
        x = run(method, times[:-1], problem.start, problem.denoiser)
        errors.append(sliced_wasserstein(denoise(problem.denoiser, x, times[-2]), data))
    return Row(problem.name, name, grid, tuple(errors))


def floor(problem: Problem) -> Row:
    """The distance between two sets of fresh data."""
    distance = sliced_wasserstein(problem.data(5), problem.data(6))
    return Row(problem.name, "fresh data", "", (distance,) * len(EVALUATIONS))


def jobs(problem: Problem) -> list[Callable[[], Row]]:
    """One for each row of a problem: deterministic methods (`medians` and `flips` given), then stochastic ones."""
    return [
        *(partial(deterministic, problem, *each, grid) for each in DETERMINISTIC.items() for grid in GRIDS),
        *(partial(recommended, problem, seed) for seed in STARTS),
        *(partial(fitted, problem, *each) for each in FITTED.items()),
        *(partial(peer, problem, *solver) for solver in peers.rows(EVALUATIONS)),
        *(partial(stochastic, problem, *each, grid) for each in STOCHASTIC.items() for grid in GRIDS),
        partial(floor, problem),
    ]


def benchmark() -> Iterator[Row]:
    """All rows, as they are found."""
    for job in tqdm([job for problem in problems() for job in jobs(problem)], unit="row", desc="methods"):
        with jax.enable_x64(True):
            yield job()


def _cells(values: tuple[float, ...]) -> str:
    return " | ".join(f"{value:.1e}" for value in values)


def _sections(rows: list[Row]) -> Iterator[tuple[str, list[Row]]]:
    """(title, rows) of each problem, the deterministic methods first."""
    for problem in dict.fromkeys(row.problem for row in rows):
        mine = [row for row in rows if row.problem == problem]
        yield f"{problem}: root mean square error to the probability flow", [row for row in mine if row.medians]
        yield f"{problem}: sliced Wasserstein distance to fresh data", [row for row in mine if not row.medians]


def markdown(rows: list[Row]) -> str:
    """A table for each problem and kind of method, one line for each method and grid."""
    lines = []
    for title, mine in _sections(rows):
        lines += [f"### {title}", "", f"| method | grid | {' | '.join(map(str, EVALUATIONS))} |"]
        lines += ["|---|---|" + "---|" * len(EVALUATIONS)]
        lines += [f"| {row.method} | {row.grid} | {_cells(row.errors)} |" for row in mine] + [""]
    return "\n".join(lines)


def best(rows: list[Row]) -> str:
    """For each problem and number of evaluations the method and grid of the least error, with the median and flips.

    Beside it that of the other library, where it was measured.
    """
    lines = []
    for title, mine in _sections(rows):
        lines.append(title)
        for i, evaluations in enumerate(EVALUATIONS):
            line = f"  {evaluations:3d}  {_least([row for row in mine if row.grid and not row.peer], i)}"
            if rivals := [row for row in mine if row.peer]:
                line += f"; {_least(rivals, i)}"
            lines.append(line)
        if not mine[-1].grid:
            lines.append(f"       {mine[-1].errors[0]:.1e}  {mine[-1].method}: the floor")
    if not any(row.peer for row in rows):
        lines.append("diffusers is not installed, so it was not measured beside: pip install -e '.[interop]'")
    return "\n".join(lines)


def _least(rows: list[Row], i: int) -> str:
    row = min(rows, key=lambda row: row.errors[i])
    text = f"{row.errors[i]:.1e}  {row.method}, {row.grid}"
    return f"{text}  (median {row.medians[i]:.1e}, {100 * row.flips[i]:.2f} % flips)" if row.medians else text
