"""Fit of the table of recommended samplers, `sde_lib/sampling/recommended.json`, to a family of mixtures.

    python -m experiments.benchmarks.recommended --out=sde_lib/sampling/recommended.json

The family: mixtures of 2 to 10 modes in 1 to 128 dimensions (on circles, grids, lines, spheres, simplices, in cubes,
Gaussian clouds and clusters) with spreads from 0.4 to 4, standard deviations of 0.04 to 0.35 of the spread and weights equal
or not, each under the noise levels of one of six processes. Neither of the mixtures that `methods.py` tests with is among
them. A second family of other seeds is held out; its error is stored with each entry of the table.

For each number of evaluations n the log-lengths of the grid's steps and, up to `MOST_WEIGHTS` evaluations, additions to the
weights of `Adams` minimize over the family

    mean over problems of  1/2 log(rms error of plain starts) + 1/2 log(rms error of hard starts)

at t_min, against the exact probability flow. The logarithm makes problems of every scale count alike; errors beyond 30 times
the median of their kind are damped. Hard starts lie near the border between modes, where the flow magnifies a disturbance
most: their errors decide how many samples end in another mode.

Every mixture is reduced exactly to the plane of its means and one coordinate across, which stands for all others.
Everything runs in float64 on one core; the whole table takes about an hour.
"""

import argparse
import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jax import Array
from tqdm import tqdm

import sde_lib
from experiments.benchmarks.methods import exact_flow
from sde_lib.sampling.recommended import log_lengths
from sde_lib.times import times_at

FAMILY, HELD_OUT = (21, 96), (22, 64)  # seed and number of problems
PLAIN, HARD, CANDIDATES = 12, 12, 500  # starts of each problem, and those that the hard ones are chosen from
MODES = COORDINATES = 10
KNOTS = 12
MOST_WEIGHTS = 20
DATA_STD = 0.5
EVALUATIONS = (*range(2, MOST_WEIGHTS + 1), 35, 50, 100)

# (largest, smallest) sigma / alpha: VP, EDM, VE, rectified flow, and two more
LEVELS = ((152.2, 0.01047), (80.0, 0.002), (50.0, 0.01), (199.0, 0.001), (60.0, 0.005), (157.0, 0.01))


class Problems(NamedTuple):
    """Mixtures under processes, stacked: axis 0 of every array is the problem's.

    Attributes:
        denoiser: exact, of (P, K, d) means.
        start: (P, B, d), at t_max.
        end: (P, B, d), where the probability flow takes the starts at t_min.
        share: (P, d), of each coordinate in the mean square over the unreduced dimensions.
    """

    denoiser: sde_lib.exact.GaussianMixture
    start: Array
    end: Array
    share: Array


def random_mixture(rng: np.random.Generator) -> tuple[np.ndarray, float, np.ndarray]:
    """Means (K, D), the standard deviation and the weights (K,) of one mixture of the family."""
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
    return means, std, weights


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


def stack(mixtures: list[tuple[np.ndarray, float, np.ndarray]], levels: list[tuple[float, float]]):
    """The Denoiser of all mixtures under EDM's process between these levels, and the shares (P, d)."""
    planes, shares = (np.stack(arrays) for arrays in zip(*(reduced(means) for means, _, _ in mixtures), strict=True))
    weights = np.full((len(mixtures), MODES), 1e-300)
    for row, (_, _, given) in zip(weights, mixtures, strict=True):
        row[: len(given)] = given
    high, low = (jnp.asarray(level) for level in zip(*levels, strict=True))
    sde = sde_lib.EDMSDE(t_min=low, t_max=high)
    stds = jnp.asarray([std for _, std, _ in mixtures])
    return sde_lib.exact.GaussianMixture(sde, jnp.asarray(planes), stds, jnp.asarray(weights)), jnp.asarray(shares)


def starts(rng: np.random.Generator, denoiser: sde_lib.exact.GaussianMixture, share: Array, count: int) -> Array:
    """Draws of the exact marginal at t_max, (P, count, d); 0 in coordinates that no data has."""
    problems = len(denoiser.means)
    modes = [rng.choice(MODES, count, p=np.asarray(weights / weights.sum())) for weights in denoiser.weights]
    means = np.take_along_axis(np.asarray(denoiser.means), np.stack(modes)[..., None], 1)
    std = np.hypot(denoiser.stds, denoiser.sde.t_max)[:, None, None]
    noise = rng.normal(size=(problems, count, COORDINATES)) * (np.asarray(share) > 0)[:, None]
    return jnp.asarray(means + std * noise)


@functools.partial(jax.jit, static_argnames=("n", "order"))
def run(denoiser, start: Array, lengths: Array, weights: dict[str, Array], *, n: int, order: int) -> Array:
    """Ends (P, B, d) of n evaluations of `Adams` from the starts, on the grid of these log-lengths (n,)."""
    places = jnp.append(0.0, jnp.cumsum(jax.nn.softmax(lengths)))
    method = sde_lib.Adams(order, data_std=DATA_STD, **weights)

    def one(denoiser, start):
        times = times_at(denoiser.sde, places, denoise=False)
        keys = jax.random.split(jax.random.key(0), len(start))
        return sde_lib.sample(keys, denoiser, method, times, (COORDINATES,), x_init=start, denoise=False)

    return jax.vmap(one)(denoiser, start)


def square_errors(ends: Array, problems: Problems) -> Array:
    """Mean square over the unreduced dimensions, (P, B)."""
    return ((ends - problems.end) ** 2 * problems.share[:, None]).sum(-1)


def family(seed: int, count: int) -> Problems:
    """`count` problems, each with `PLAIN` plain starts followed by `HARD` hard ones."""
    rng = np.random.default_rng(seed)
    mixtures = []
    while len(mixtures) < count:
        mixture = random_mixture(rng)
        if np.linalg.matrix_rank(mixture[0] - mixture[0].mean(0)) < COORDINATES:
            mixtures.append(mixture)
    levels = [LEVELS[i] for i in rng.integers(len(LEVELS), size=count)]
    denoiser, share = stack(mixtures, levels)
    plain, drawn = starts(rng, denoiser, share, PLAIN), starts(rng, denoiser, share, CANDIDATES)
    fine = functools.partial(run, denoiser, lengths=jnp.zeros(60), weights={}, n=60, order=4)
    base, growth = fine(start=drawn), 0.0
    for _ in range(2):
        disturbance = rng.normal(size=drawn.shape) * (np.asarray(share) > 0)[:, None]
        moved = fine(start=drawn + 1e-5 * denoiser.sde.t_max[:, None, None] * disturbance)
        growth += ((moved - base) ** 2 * share[:, None]).sum(-1)
    hardest = jnp.argsort(-growth, 1)[:, :HARD, None]
    start = jnp.concatenate([plain, jnp.take_along_axis(drawn, hardest, 1)], 1)
    return Problems(denoiser, start, jax.jit(jax.vmap(exact_flow))(denoiser, start), share)


def by_kind(squares: Array) -> Array:
    """Those of plain and of hard starts, (2, P, B)."""
    return jnp.stack([squares[:, :PLAIN], squares[:, PLAIN:]])


def objective(squares: Array, limits: Array) -> Array:
    """The objective of the module's text, for square errors (P, B), damped beyond `limits` (2, P)."""
    kinds = by_kind(squares)
    return 0.5 * jnp.log((kinds / (1 + kinds / limits[..., None])).mean(2) + 1e-18).mean()


def limits_of(squares: Array) -> Array:
    """Square errors beyond which a problem's starts are damped, (2, P)."""
    return 900 * jnp.median(by_kind(squares), 2)


def order_of(n: int) -> int:
    """The predictor's order."""
    return 2 if n <= 5 else 3 if n <= 10 else 4


def completed(free: Array, n: int, size: int) -> Array:
    """Weights (n, size) whose rows sum to 0, from those of all values but the newest; 0 for values not known yet."""
    known = jnp.arange(1, size) <= jnp.arange(n)[:, None]
    others = jnp.where(known, free, 0)
    return jnp.concatenate([-others.sum(1, keepdims=True), others], 1)


def _model(parameters: dict[str, Array], n: int, order: int) -> tuple[Array, dict[str, Array]]:
    """The log-lengths (n,) and the added weights."""
    knots = parameters["log_lengths"]
    lengths = jnp.interp(jnp.linspace(0, 1, n), jnp.linspace(0, 1, len(knots)), knots)
    sizes = {"predictor": order, "corrector": order + 1}
    return lengths, {name: completed(parameters[name], n, sizes[name]) for name in sizes if name in parameters}


@functools.partial(jax.jit, static_argnames=("n", "order"))
def _value_and_gradient(parameters, problems: Problems, limits: Array, *, n: int, order: int):
    def penalized(parameters):
        lengths, weights = _model(parameters, n, order)
        squares = square_errors(run(problems.denoiser, problems.start, lengths, weights, n=n, order=order), problems)
        smooth = 1e-3 * (jnp.diff(parameters["log_lengths"], 2) ** 2).sum()
        return objective(squares, limits) + smooth + 3e-3 * sum((added**2).sum() for added in weights.values())

    return jax.value_and_grad(penalized)(parameters)


def fit(n: int, problems: Problems, knots: np.ndarray, iterations: int) -> dict[str, np.ndarray]:
    """The fitted parameters for n evaluations, from a grid: first the grid alone, then the weights with it."""
    order = order_of(n)
    parameters = {"log_lengths": log_lengths(knots, min(n, KNOTS))}
    for rounds, weights in ((2, False), (2, True)):
        if weights:
            if n > MOST_WEIGHTS:
                break
            parameters |= {"predictor": np.zeros((n, order - 1)), "corrector": np.zeros((n, order))}
        for _ in range(rounds):
            lengths, added = _model(parameters, n, order)
            ends = run(problems.denoiser, problems.start, lengths, added, n=n, order=order)
            parameters = _minimize(parameters, problems, limits_of(square_errors(ends, problems)), n, order, iterations)
    return parameters


def _minimize(parameters, problems: Problems, limits: Array, n: int, order: int, iterations: int):
    flat, unravel = jax.flatten_util.ravel_pytree(parameters)

    def function(flat):
        value, gradient = _value_and_gradient(unravel(flat), problems, limits, n=n, order=order)
        return float(value), np.asarray(jax.flatten_util.ravel_pytree(gradient)[0])

    options = {"maxiter": iterations, "maxcor": 30}
    return unravel(scipy.optimize.minimize(function, flat, jac=True, method="L-BFGS-B", options=options).x)


def error(entry: dict[str, Any], problems: Problems) -> float:
    """The exponential of an entry's objective: the geometric mean of rms errors over problems and kinds of starts."""
    n, order = entry["evaluations"], entry["order"]
    weights = {name: jnp.asarray(entry[name]) for name in ("predictor", "corrector") if name in entry}
    lengths = jnp.asarray(log_lengths(np.asarray(entry["log_lengths"]), n))
    squares = square_errors(run(problems.denoiser, problems.start, lengths, weights, n=n, order=order), problems)
    return float(jnp.exp(objective(squares, limits_of(squares))))


def entry_of(n: int, parameters: dict[str, np.ndarray], held_out: Problems) -> dict[str, Any]:
    """The table's entry, with its error on the held-out family."""
    order = order_of(n)
    _, weights = _model(parameters, n, order)
    knots = np.asarray(parameters["log_lengths"])
    entry = {
        "evaluations": n,
        "order": order,
        "data_std": DATA_STD,
        "log_lengths": np.round(knots - knots[0], 5).tolist(),
    }
    entry |= {name: np.round(np.asarray(added), 6).tolist() for name, added in weights.items()}
    return entry | {"held_out_error": float(f"{error(entry, held_out):.4g}")}


def text(entries: list[dict[str, Any]]) -> str:
    """The JSON file, one line for each entry."""
    lines = ",\n".join(json.dumps(entry) for entry in sorted(entries, key=lambda entry: entry["evaluations"]))
    return f'{{"entries": [\n{lines}\n]}}\n'


def main(arguments: list[str] | None = None) -> None:
    """Fits the entries and writes the file."""
    parser = argparse.ArgumentParser(description="Fit the table of recommended samplers to a family of mixtures.")
    parser.add_argument("--out", type=Path, required=True, help="JSON file; entries of other numbers are kept")
    parser.add_argument("--evaluations", type=int, nargs="*", default=EVALUATIONS, help="numbers to fit (default: all)")
    parser.add_argument("--iterations", type=int, default=40, help="of each of four minimizations (default 40)")
    options = parser.parse_args(arguments)
    entries = {}
    if options.out.exists():
        entries = {entry["evaluations"]: entry for entry in json.loads(options.out.read_text())["entries"]}
    with jax.enable_x64(True):
        problems, held_out = family(*FAMILY), family(*HELD_OUT)
        for n in tqdm(options.evaluations, unit="entry"):
            nearest = min(entries, key=lambda m: abs(np.log(m / n)), default=None)
            knots = np.zeros(KNOTS) if nearest is None else np.asarray(entries[nearest]["log_lengths"])
            entries[n] = entry_of(n, fit(n, problems, knots, options.iterations), held_out)
            options.out.write_text(text(list(entries.values())))


if __name__ == "__main__":
    main()
