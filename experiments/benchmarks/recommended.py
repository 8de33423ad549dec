"""Fit of the table of recommended samplers, `sde_lib/sampling/recommended.json`, to a family of mixtures.

    python -m experiments.benchmarks.recommended --out=sde_lib/sampling/recommended.json

The family: random mixtures of 2 to 10 modes, with spreads from 0.4 to 4, standard deviations of 0.04 to 0.35 of the spread
and weights equal or not; half of them in 20 to 128 dimensions (in cubes, Gaussian clouds, on spheres), half on circles,
grids, lines and in clusters of few dimensions or many. Each is under VP's or EDM's noise levels. For each number of
evaluations the entry is kept that has the least error on a validation family, circles in the plane and cubes in 32 to 128
dimensions: of the fits to the families of several seeds, and of the entry that is in the file. An entry that adds more
noise than `FLAT` to a flat area of an image is not kept. Neither of the mixtures that `methods.py` tests with is in a
family.

For each number of evaluations L-BFGS fits the log-lengths of the grid's steps and the scale `data_std`, from equal steps,
and then with them, up to `WEIGHTS` evaluations, additions to the weights of `Adams`. It minimizes the mean over the family
of the logarithm of the error at t_min against the exact probability flow, which counts problems of every scale alike.

Where a small change of the start changes the mode that a sample ends in, errors of the middle of the run are amplified; for
all other samples they are forgotten. A plain mean of squares would be decided by the few most sensitive samples, and jumps
where one of them changes its mode. So the error has two parts: the mean square over the most sensitive starts, each
divided by its sensitivity, the factor by which a run amplifies the square of a change of the start; and the plain mean
square over the other starts.

Every mixture is reduced exactly to the plane of its means and one coordinate across, which stands for all others.
Everything runs in float64, from nothing but the seeds; a fit takes some five minutes on one core.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jax import Array

import sde_lib
from experiments.files import strict_json
from sde_lib.times import times_at

FAMILIES, VALIDATION = (4242, 5151), 99  # seeds
PROBLEMS = 24
CANDIDATES, LEFT_OUT, SENSITIVE, OTHERS = 2000, 5, 60, 60  # starts of a problem: drawn; most sensitive, not used; used
VALIDATION_STARTS = 500
SHARE = 0.6  # of the sensitive starts in the objective
ITERATIONS, ROUNDS = 60, 3
MODES = COORDINATES = 10
FLAT = 0.025  # standard deviation, 3 levels of 8 bits
KNOTS = 12
WEIGHTS = 20
EVALUATIONS = (5, 8, 10, 15, 20, 35)
LEVELS = ((152.2, 0.010486), (80.0, 0.002))  # (largest, smallest) sigma / alpha: VP, EDM


class Mixture(NamedTuple):
    """Means (K, D), the standard deviation and the weights (K,) of a mixture, and how the means were drawn."""

    kind: str
    means: np.ndarray
    std: float
    weights: np.ndarray


class Problems(NamedTuple):
    """Mixtures under processes, stacked: axis 0 of every array is the problem's.

    Attributes:
        denoiser: exact, of (P, K, d) means.
        start: (P, B, d), at t_max.
        end: (P, B, d), where the probability flow takes the starts at t_min.
        share: (P, d), of each coordinate in the mean square over the unreduced dimensions.
        sensitivity: (P, B), the factor by which a run amplifies the square of a small change of the start.
    """

    denoiser: sde_lib.exact.GaussianMixture
    start: Array
    end: Array
    share: Array
    sensitivity: Array


def random_mixture(rng: np.random.Generator) -> Mixture:
    """One mixture of the family, of any kind."""
    kind = rng.choice(["cube", "gauss", "circle", "grid", "line", "simplex", "cluster", "sphere"])
    k, size = int(rng.integers(2, MODES + 1)), round(np.exp(rng.uniform(0, np.log(128))))
    spread = np.exp(rng.uniform(np.log(0.4), np.log(4)))
    if kind == "circle":
        k, size = int(rng.integers(3, MODES + 1)), max(size, 2)
        angles = 2 * np.pi * (np.arange(k) + rng.uniform()) / k
        means = np.zeros((k, size))
        means[:, :2] = 1.4 * spread * np.stack([np.cos(angles), rng.uniform(0.4, 1) * np.sin(angles)], 1)
        means = means[:, : 2 if rng.uniform() < 0.6 else size]
    elif kind == "grid":
        side = int(rng.integers(2, 4))
        means = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2) - (side - 1) / 2
        means *= spread / means.std()
    elif kind == "line":
        means = np.linspace(-1, 1, k)[:, None] * 1.7 * spread
    elif kind == "cube":
        means = rng.uniform(-1, 1, (k, size)) * spread
    elif kind == "gauss":
        means = rng.normal(size=(k, size)) * spread
    elif kind == "sphere":
        means = rng.normal(size=(k, size))
        means *= spread * np.sqrt(size) / np.linalg.norm(means, axis=1, keepdims=True)
    elif kind == "simplex":
        size = max(size, 2)
        means = np.eye(min(k, size), size) * spread * np.sqrt(size)
    else:
        centres = rng.normal(size=(3, size)) * spread
        means = centres[rng.integers(0, 3, k)] + rng.normal(size=(k, size)) * spread / 4
    std = spread * np.exp(rng.uniform(np.log(0.04), np.log(0.35)))
    weights = rng.dirichlet(np.full(len(means), 3.0)) if rng.uniform() < 0.5 else np.full(len(means), 1 / len(means))
    return Mixture(kind, means, std, weights)


def reduced(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The means (MODES, COORDINATES) within their own plane, filled up with zeros, and the share of each coordinate."""
    offsets = means - means.mean(0)
    _, values, axes = np.linalg.svd(offsets, full_matrices=False)
    rank, size = int((values > 1e-9 * values.max()).sum()), means.shape[1]
    plane = np.zeros((MODES, COORDINATES))
    plane[: len(means), :rank] = offsets @ axes[:rank].T
    share = np.zeros(COORDINATES)
    share[:rank], share[rank] = 1 / size, (size - rank) / size
    return plane, share


def stack(mixtures: list[Mixture], levels: list[tuple[float, float]]) -> tuple[sde_lib.exact.GaussianMixture, Array]:
    """The Denoiser of all mixtures under EDM's process between these levels, and the shares (P, d)."""
    planes, shares = (
        np.stack(arrays) for arrays in zip(*(reduced(mixture.means) for mixture in mixtures), strict=True)
    )
    weights = np.full((len(mixtures), MODES), 1e-300)
    for row, mixture in zip(weights, mixtures, strict=True):
        row[: len(mixture.weights)] = mixture.weights
    high, low = (jnp.asarray(level) for level in zip(*levels, strict=True))
    sde = sde_lib.EDMSDE(t_min=low, t_max=high)
    stds = jnp.asarray([mixture.std for mixture in mixtures])
    return sde_lib.exact.GaussianMixture(sde, jnp.asarray(planes), stds, jnp.asarray(weights)), jnp.asarray(shares)


def starts(rng: np.random.Generator, denoiser: sde_lib.exact.GaussianMixture, share: Array, count: int) -> Array:
    """Draws of the exact marginal at t_max, (P, count, d); 0 in coordinates that no data has."""
    problems = len(denoiser.means)
    modes = [rng.choice(MODES, count, p=np.asarray(weights / weights.sum())) for weights in denoiser.weights]
    means = np.take_along_axis(np.asarray(denoiser.means), np.stack(modes)[..., None], 1)
    std = np.hypot(denoiser.stds, denoiser.sde.t_max)[:, None, None]
    noise = rng.normal(size=(problems, count, COORDINATES)) * (np.asarray(share) > 0)[:, None]
    return jnp.asarray(means + std * noise)


def _run(denoiser, start: Array, method: sde_lib.Sampler, places: Array) -> Array:
    """Ends (P, B, d) of a deterministic method on the grid of these places."""

    def one(denoiser, start):
        times = times_at(denoiser.sde, places, denoise=False)
        keys = jax.random.split(jax.random.key(0), len(start))
        return sde_lib.sample(keys, denoiser, method, times, (COORDINATES,), x_init=start, denoise=False)

    return jax.vmap(one)(denoiser, start)


def family(seed: int, count: int) -> Problems:
    """The problems of a seed, with `count` starts each."""
    rng, mixtures = np.random.default_rng(seed), []
    while len(mixtures) < PROBLEMS:
        mixture = random_mixture(rng)
        modes, size = mixture.means.shape
        if len(mixtures) < PROBLEMS // 2:
            fits = mixture.kind in ("cube", "gauss", "sphere") and size >= 20 and modes >= 6
        else:
            fits = mixture.kind in ("circle", "grid", "line", "cluster") and modes >= 4
        if fits and np.linalg.matrix_rank(mixture.means - mixture.means.mean(0)) < COORDINATES:
            mixtures.append(mixture)
    denoiser, share = stack(mixtures, [LEVELS[i % 2] for i in range(PROBLEMS)])
    return _solved(rng, denoiser, share, count)


def validation(seed: int, count: int) -> Problems:
    """Circles in the plane and cubes in 32 to 128 dimensions, half each, with `count` starts each."""
    rng, mixtures = np.random.default_rng(seed), []
    for i in range(PROBLEMS):
        k, size = (10, int(rng.integers(32, 129))) if i < PROBLEMS // 2 else (int(rng.integers(6, 11)), 2)
        if i < PROBLEMS // 2:
            spread, ratio = rng.uniform(0.4, 1), rng.uniform(0.1, 0.3)
            mixture = Mixture(
                "cube", rng.uniform(-1, 1, (k, size)) * spread * np.sqrt(3), spread * ratio, np.ones(k) / k
            )
        else:
            spread, ratio = rng.uniform(1.5, 3), rng.uniform(0.07, 0.15)
            angles = 2 * np.pi * (np.arange(k) + rng.uniform()) / k
            means = spread * np.sqrt(2) * np.stack([np.cos(angles), np.sin(angles)], 1)
            mixture = Mixture("circle", means, spread * ratio, np.ones(k) / k)
        mixtures.append(mixture)
    denoiser, share = stack(mixtures, [LEVELS[i % 2] for i in range(PROBLEMS)])
    return _solved(rng, denoiser, share, count)


def _solved(rng: np.random.Generator, denoiser: sde_lib.exact.GaussianMixture, share: Array, count: int) -> Problems:
    """Problems with `count` starts each, their ends and sensitivities."""
    start = starts(rng, denoiser, share, count)
    end = jax.jit(_run)(denoiser, start, sde_lib.Adams(5), jnp.linspace(0, 1, 301))
    return Problems(denoiser, start, end, share, sensitivity(rng, denoiser, start, share))


def sensitivity(rng: np.random.Generator, denoiser: sde_lib.exact.GaussianMixture, start: Array, share: Array) -> Array:
    """The mean square per element by which runs from `start` change, over that of the change in units of t_max, (P, B)."""
    run, method, places = jax.jit(_run), sde_lib.Adams(5), jnp.linspace(0, 1, 61)
    plain, found = run(denoiser, start, method, places), 0.0
    for _ in range(2):
        change = 1e-5 * rng.normal(size=start.shape) * (np.asarray(share) > 0)[:, None]
        changed = run(denoiser, start + change * denoiser.sde.t_max[:, None, None], method, places)
        found += ((changed - plain) ** 2 * share[:, None]).sum(-1) / 2e-10
    return found


def chosen(problems: Problems, left_out: int = LEFT_OUT, sensitive: int = SENSITIVE, others: int = OTHERS) -> Problems:
    """The most sensitive starts but the first few, and then others, spread evenly over the ranks of the rest."""
    ranks = jnp.argsort(-problems.sensitivity, axis=1)
    first, rest = ranks[:, left_out : left_out + sensitive], ranks[:, left_out + sensitive :]
    rows = jnp.concatenate([first, rest[:, :: max(rest.shape[1] // others, 1)][:, :others]], 1)
    start, end = (jnp.take_along_axis(array, rows[..., None], 1) for array in (problems.start, problems.end))
    return problems._replace(start=start, end=end, sensitivity=jnp.take_along_axis(problems.sensitivity, rows, 1))


def _squares(problems: Problems, method: sde_lib.Sampler, places: Array) -> Array:
    """Mean square errors per element at t_min, (P, B)."""
    ends = _run(problems.denoiser, problems.start, method, places)
    return ((ends - problems.end) ** 2 * problems.share[:, None]).sum(-1)


_squares_compiled = jax.jit(_squares)


def _sampler(entry: dict[str, Any], n: int, order: int) -> tuple[sde_lib.Sampler, Array]:
    """The method and the places of an entry of numbers or of arrays."""
    weights = {name: jnp.asarray(entry[name]) for name in ("predictor", "corrector") if name in entry}
    method = sde_lib.Adams(order, data_std=jnp.asarray(entry["data_std"]), **weights)
    return method, _places(jnp.asarray(entry["log_lengths"]), n)


def _mean_squares(entry: dict[str, Any], problems: Problems) -> Array:
    """The mean square error per element of an entry of the table, (P,)."""
    return _squares_compiled(problems, *_sampler(entry, entry["evaluations"], entry["order"])).mean(1)


def error(entry: dict[str, Any], problems: Problems) -> float:
    """Geometric mean over the problems of an entry's root mean square error."""
    return float(jnp.exp(0.5 * jnp.log(_mean_squares(entry, problems) + 1e-30).mean()))


def _places(knots: Array, n: int) -> Array:
    """The places (n + 1,) of a grid with these log-lengths at even knots, as `recommended_times` has them."""
    lengths = jnp.exp(jnp.interp(jnp.linspace(0, 1, n), jnp.linspace(0, 1, len(knots)), knots))
    return jnp.append(0.0, jnp.cumsum(lengths) / lengths.sum()).at[-1].set(1.0)


def order_of(n: int) -> int:
    """The predictor's order."""
    return 2 if n <= 5 else 3 if n <= 10 else 4


def completed(free: Array) -> Array:
    """Weights (n, size) whose rows sum to 0, from those of all values but the newest; 0 for values not known yet."""
    n, others = free.shape
    known = jnp.where(np.arange(1, others + 1) <= np.arange(n)[:, None], free, 0)
    return jnp.concatenate([-known.sum(1, keepdims=True), known], 1)


def _unpacked(vector: Array, n: int) -> dict[str, Array]:
    """The log-lengths, the scale and, in a longer vector, the additions to the weights."""
    knots, order = min(n, KNOTS), order_of(n)
    entry = {"log_lengths": vector[:knots] - vector[0], "data_std": jnp.exp(vector[knots])}
    if len(vector) > knots + 1:
        predictor, corrector = jnp.split(vector[knots + 1 :], [n * (order - 1)])
        entry["predictor"] = completed(predictor.reshape(n, order - 1))
        entry["corrector"] = completed(corrector.reshape(n, order))
    return entry


def objective(vector: Array, problems: Problems, n: int, sensitive: int = SENSITIVE) -> Array:
    """The mean log-error that the fit minimizes, with small penalties on bends of the grid and on additions to the weights.

    Args:
        vector: log-lengths at the knots, the logarithm of `data_std` and perhaps the free additions to the weights.
        problems: as `chosen` returns them.
        n: evaluations.
        sensitive: how many of the starts, which come first, are the sensitive ones.
    """
    entry = _unpacked(vector, n)
    squares = _squares(problems, *_sampler(entry, n, order_of(n)))
    relative = problems.sensitivity / problems.sensitivity[:, :1]
    parts = [(squares / relative)[:, :sensitive].mean(1), squares[:, sensitive:].mean(1)]
    errors = 0.5 * jnp.log(jnp.stack(parts) + 1e-26).mean(1)
    penalty = (jnp.diff(entry["log_lengths"], 2) ** 2).sum() + (vector[min(n, KNOTS) + 1 :] ** 2).sum()
    return SHARE * errors[0] + (1 - SHARE) * errors[1] + 1e-3 * penalty


_slope = jax.jit(jax.value_and_grad(objective), static_argnums=2)


def fit(n: int, problems: Problems, iterations: int = ITERATIONS, rounds: int = ROUNDS) -> dict[str, Any]:
    """The entry for n evaluations.

    Args:
        n: evaluations.
        problems: of a family, all its starts.
        iterations: of L-BFGS, for the grid and in each round.
        rounds: for grid and weights together.
    """
    problems, knots, order = chosen(problems), min(n, KNOTS), order_of(n)

    def value(vector):
        found, slope = _slope(jnp.asarray(vector), problems, n)
        finite = np.isfinite(found) & np.isfinite(slope).all()
        return (float(found), np.asarray(slope)) if finite else (1e3, np.zeros_like(slope))

    def minimized(vector):
        options = {"maxiter": iterations, "maxfun": round(1.4 * iterations), "maxcor": 30, "ftol": 1e-9}
        result = scipy.optimize.minimize(value, vector, jac=True, method="L-BFGS-B", options=options)
        print(f"{n} evaluations: objective {result.fun:.4f} after {result.nfev} evaluations", flush=True)
        return result.x

    vector = minimized(np.append(np.zeros(knots), np.log(0.5)))
    if n <= WEIGHTS:
        vector = np.append(vector, np.zeros(n * (2 * order - 1)))
        for _ in range(rounds):
            vector = minimized(vector)
    entry = {name: np.asarray(array) for name, array in _unpacked(jnp.asarray(vector), n).items()}
    digits = {"log_lengths": 5, "data_std": 5}
    rounded = {name: np.round(array, digits.get(name, 6)).tolist() for name, array in entry.items()}
    return {"evaluations": n, "order": order} | rounded


def text(entries: list[dict[str, Any]]) -> str:
    """The JSON file, one line for each entry."""
    lines = ",\n".join(
        strict_json.dumps(entry, indent=None) for entry in sorted(entries, key=lambda entry: entry["evaluations"])
    )
    return f'{{"entries": [\n{lines}\n]}}\n'


def flat_error(entry: dict[str, Any]) -> float:
    """The noise that is added to data that are -1 everywhere: the larger root mean square error of the two processes."""
    mixture = Mixture("point", np.zeros((1, 1)), 1e-3, np.ones(1))
    denoiser, share = stack([mixture] * 2, list(LEVELS))
    denoiser = denoiser.replace(means=denoiser.means.at[:, 0, 0].set(-1))
    start = starts(np.random.default_rng(0), denoiser, share, 1000)
    mean, sde = denoiser.means[:, :1], denoiser.sde
    slope = jnp.hypot(1e-3, sde.t_min) / jnp.hypot(1e-3, sde.t_max)
    end = mean + slope[:, None, None] * (start - mean)
    problems = Problems(denoiser, start, end, share, sensitivity=jnp.ones(start.shape[:2]))
    return float(jnp.sqrt(_mean_squares(entry, problems)).max())


def best(entries: list[dict[str, Any]], problems: Problems) -> dict[str, Any]:
    """The entry with the least error on the problems, with that error as `validation_error`; flat areas come first."""
    measured = [entry | {"validation_error": float(f"{error(entry, problems):.4g}")} for entry in entries]
    return min(measured, key=lambda entry: (flat_error(entry) > FLAT, entry["validation_error"]))


def main(arguments: list[str] | None = None) -> None:
    """Fits the entries and writes the file."""
    parser = argparse.ArgumentParser(description="Fit the table of recommended samplers to families of mixtures.")
    parser.add_argument(
        "--out", type=Path, required=True, help="JSON file; an entry in it is replaced by one with a smaller error"
    )
    parser.add_argument("--evaluations", type=int, nargs="*", default=EVALUATIONS, help="numbers to fit (default: all)")
    parser.add_argument("--families", type=int, nargs="*", default=FAMILIES, help="seeds (default: two); none measures")
    options = parser.parse_args(arguments)
    entries = {}
    if options.out.exists():
        entries = {entry["evaluations"]: entry for entry in json.loads(options.out.read_text())["entries"]}
    if missing := [n for n in options.evaluations if not options.families and n not in entries]:
        parser.error(f"--families: {options.out} has no entry for {', '.join(map(str, missing))} evaluations")
    with jax.enable_x64(True):
        families = [family(seed, CANDIDATES) for seed in options.families]
        held_out = validation(VALIDATION, VALIDATION_STARTS)
        for n in options.evaluations:
            candidates = [fit(n, problems) for problems in families] + ([entries[n]] if n in entries else [])
            entries[n] = best(candidates, held_out)
            print(f"{n} evaluations: validation error {entries[n]['validation_error']:.4g}", flush=True)
            options.out.write_text(text(list(entries.values())))


if __name__ == "__main__":
    main()
