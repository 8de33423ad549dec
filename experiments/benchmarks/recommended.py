"""Search for the table of recommended samplers, `sde_lib/sampling/recommended.json`, on a family of mixtures.

    python -m experiments.benchmarks.recommended --out=sde_lib/sampling/recommended.json

The family: random mixtures of 2 to 10 modes, with spreads from 0.4 to 4, standard deviations of 0.04 to 0.35 of the spread
and weights equal or not; half of them in 20 to 128 dimensions (in cubes, Gaussian clouds, on spheres), half on circles,
grids, lines and in clusters of few dimensions or many. Each is under VP's or EDM's noise levels. Neither of the mixtures
that `methods.py` tests with is among them, and a second family of another seed is held out.

For each number of evaluations the log-lengths of the grid's steps, the scale `data_std`, and with `WEIGHTS` evaluations or
fewer the additions to the weights of `Adams`, minimize over the family the mean of log(root mean square error at t_min)
against the exact probability flow: samples that end in another mode included, and problems of every scale alike. That error
jumps where a sample changes its mode, so the search is a random one: mutations of the five best, from the entry in the file
or from equal steps. The entries of the file were first fitted by gradients to a smaller family and then by this search.

Every mixture is reduced exactly to the plane of its means and one coordinate across, which stands for all others.
Everything runs in float64; 300 candidates for one number of evaluations take some five minutes on one core.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

import sde_lib
from experiments import strict_json
from sde_lib.sampling.recommended import log_lengths
from sde_lib.times import times_at

FAMILY, HELD_OUT = 4242, 4343  # seeds
PROBLEMS, STARTS, HELD_OUT_STARTS = 24, 1500, 100
MODES = COORDINATES = 10
KNOTS = 12
WEIGHTS = 5
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
    """

    denoiser: sde_lib.exact.GaussianMixture
    start: Array
    end: Array
    share: Array


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


def _run(denoiser, start: Array, method: sde_lib.Method, places: Array) -> Array:
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
    start = starts(rng, denoiser, share, count)
    end = jax.jit(_run)(denoiser, start, sde_lib.Adams(5), jnp.linspace(0, 1, 301))
    return Problems(denoiser, start, end, share)


@jax.jit
def _mean_log_error(problems: Problems, method: sde_lib.Method, places: Array) -> Array:
    squares = (
        (_run(problems.denoiser, problems.start, method, places) - problems.end) ** 2 * problems.share[:, None]
    ).sum(-1)
    return 0.5 * jnp.log(squares.mean(1) + 1e-30).mean()


def error(entry: dict[str, Any], problems: Problems) -> float:
    """Geometric mean over the problems of an entry's root mean square error."""
    n = entry["evaluations"]
    weights = {name: jnp.asarray(entry[name]) for name in ("predictor", "corrector") if name in entry}
    method = sde_lib.Adams(entry["order"], data_std=jnp.asarray(entry["data_std"]), **weights)
    lengths = np.exp(log_lengths(np.asarray(entry["log_lengths"]), n))
    places = jnp.asarray(np.append(0, np.cumsum(lengths)) / lengths.sum())
    return float(jnp.exp(_mean_log_error(problems, method, places)))


def order_of(n: int) -> int:
    """The predictor's order."""
    return 2 if n <= 8 else 3 if n <= 10 else 4


def equal_steps(n: int) -> dict[str, Any]:
    """The entry of the quadratic grid without additions to the weights."""
    return {"evaluations": n, "order": order_of(n), "data_std": 0.5, "log_lengths": [0.0] * min(n, KNOTS)}


def completed(free: np.ndarray) -> np.ndarray:
    """Weights (n, size) whose rows sum to 0, from those of all values but the newest; 0 for values not known yet."""
    n, others = free.shape
    known = np.where(np.arange(1, others + 1) <= np.arange(n)[:, None], free, 0)
    return np.concatenate([-known.sum(1, keepdims=True), known], 1)


def _vector(entry: dict[str, Any]) -> np.ndarray:
    """The free numbers of an entry."""
    n, order = entry["evaluations"], entry["order"]
    parts = [entry["log_lengths"], [np.log(entry["data_std"])]]
    if n <= WEIGHTS:
        for name, size in (("predictor", order), ("corrector", order + 1)):
            parts.append(np.asarray(entry.get(name, np.zeros((n, size))))[:, 1:].ravel())
    return np.concatenate(parts)


def _entry(vector: np.ndarray, like: dict[str, Any]) -> dict[str, Any]:
    """The entry of these numbers, rounded as in the file."""
    n, order, knots = like["evaluations"], like["order"], len(like["log_lengths"])
    lengths = np.round(vector[:knots] - vector[0], 5).tolist()
    entry = {
        "evaluations": n,
        "order": order,
        "data_std": round(float(np.exp(vector[knots])), 5),
        "log_lengths": lengths,
    }
    if n <= WEIGHTS:
        free, split = vector[knots + 1 :], n * (order - 1)
        entry["predictor"] = np.round(completed(free[:split].reshape(n, order - 1)), 6).tolist()
        entry["corrector"] = np.round(completed(free[split:].reshape(n, order)), 6).tolist()
    return entry


def search(entry: dict[str, Any], problems: Problems, candidates: int) -> dict[str, Any]:
    """The best entry of a random search: mutations of the five best so far, starting from the entry."""
    n, knots = entry["evaluations"], len(entry["log_lengths"])
    rng, best = np.random.default_rng(n), [(error(entry, problems), _vector(entry))]
    for _ in tqdm(range(candidates), desc=f"{n} evaluations", leave=False):
        vector, other = (best[i][1] for i in rng.integers(len(best), size=2))
        step = rng.normal(size=len(vector)) * (rng.uniform(size=len(vector)) < 0.4)
        step[:knots] += rng.normal() * np.linspace(-1, 1, knots) * (rng.uniform() < 0.3)
        step[knots + 1 :] *= 0.3  # the additions to the weights are smaller numbers than log-lengths
        vector = (
            vector + rng.uniform() * (rng.uniform() < 0.4) * (other - vector) + rng.choice([0.04, 0.15, 0.3]) * step
        )
        vector[knots] = np.clip(vector[knots], np.log(0.25), np.log(1.2))
        found = error(_entry(vector, entry), problems)
        if np.isfinite(found):
            best = sorted([*best, (found, vector)], key=lambda pair: pair[0])[:5]
    return _entry(best[0][1], entry)


def text(entries: list[dict[str, Any]]) -> str:
    """The JSON file, one line for each entry."""
    lines = ",\n".join(
        strict_json.dumps(entry, indent=None) for entry in sorted(entries, key=lambda entry: entry["evaluations"])
    )
    return f'{{"entries": [\n{lines}\n]}}\n'


def main(arguments: list[str] | None = None) -> None:
    """Searches for the entries and writes the file."""
    parser = argparse.ArgumentParser(
        description="Search for the table of recommended samplers on a family of mixtures."
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file; the search starts from its entries")
    parser.add_argument(
        "--evaluations", type=int, nargs="*", default=EVALUATIONS, help="numbers to search (default: all)"
    )
    parser.add_argument("--candidates", type=int, default=300, help="for each number; 0 measures the entries anew")
    options = parser.parse_args(arguments)
    entries = {}
    if options.out.exists():
        entries = {entry["evaluations"]: entry for entry in json.loads(options.out.read_text())["entries"]}
    with jax.enable_x64(True):
        problems, held_out = family(FAMILY, STARTS), family(HELD_OUT, HELD_OUT_STARTS)
        for n in options.evaluations:
            start = entries.get(n, equal_steps(n))
            entry = search(start, problems, options.candidates) if options.candidates else dict(start)
            entries[n] = entry | {"held_out_error": float(f"{error(entry, held_out):.4g}")}
            options.out.write_text(text(list(entries.values())))


if __name__ == "__main__":
    main()
