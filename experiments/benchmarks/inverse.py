"""How near the methods for inverse problems come to the exact posterior, against the number of evaluations.

Images of 4 x 4 pixels, of which y = A x_0 + noise is known. Three priors have exact Denoisers and exact posteriors:

    independent   a Gaussian of independent pixels, standard deviations from 0.2 to 0.8
    correlated    a Gaussian whose pixels covary with their neighbours
    mixture       4 Gaussians: two upper halves of the image with two lower halves each, of unequal weights

Measurements: the upper `half` of the pixels, and a periodic Gaussian `blur` (singular values from 1 to 0.03), with noise of
standard deviation 0.01, 0.1 and 1. For each case there are 4 y, of 4 images, and 250 answers are drawn for each y.

    distance   the sliced 2-Wasserstein distance of the answers to 250 draws of the exact posterior, root mean square over y
    floor      the same of fresh draws of the exact posterior, the mean of 20 sets; a method is at the floor where it is
               below that mean + 3 standard deviations of the 20
    misfit     the root mean square of (y - A x) / noise over what is measured, at the most evaluations

Everything runs in float64, under VP (beta 0.1 to 20, t from 1 to 1e-4). Each method's step is compiled once for all numbers
of steps and all noises. Where azula is installed (the `interop` extra) its methods run beside ours: `inverse_peers.py`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

import sde_lib
from experiments.benchmarks import inverse_peers, methods
from experiments.benchmarks.inverse_methods import FAST, SETTINGS, Setting
from sde_lib import Denoiser, Sampler
from sde_lib.exact import CorrelatedMixture
from sde_lib.inverse import Inpainting, PeriodicBlur, SpectralMeasurement, gaussian_kernel, twisted_sample

EVALUATIONS = (20, 50, 100)
NOISES = (0.01, 0.1, 1.0)
EVENT_SHAPE = (4, 4, 1)
NUM_MEASUREMENTS = 4
NUM_SAMPLES = 250
NUM_FLOORS = 20
FEW_PARTICLES, MANY_PARTICLES = 2_000, 20_000
FLOOR, ORACLE, TWISTED = "exact posterior", "exact Denoiser", "twisted"
SDE = sde_lib.VPSDE(t_min=1e-4)


def near(length: float) -> np.ndarray:
    """The covariance of pixels of unit variance: exp(-distance / length), (16, 16)."""
    rows, columns = np.indices(EVENT_SHAPE[:2]).reshape(2, -1)
    return np.exp(-np.hypot(rows[:, None] - rows, columns[:, None] - columns) / length)


def priors() -> dict[str, CorrelatedMixture]:
    """The three of the module's text."""
    rng = np.random.default_rng(0)
    size = int(np.prod(EVENT_SHAPE))

    def make(means, covariances, weights=None):
        return CorrelatedMixture(SDE, np.reshape(means, (-1, *EVENT_SHAPE)), np.stack(covariances), weights)

    independent = np.diag(rng.permutation(np.linspace(0.2, 0.8, size)) ** 2)
    upper, lower = 0.6 * rng.choice([-1, 1], (2, 2, size // 2))
    pairs = np.stack([np.concatenate([a, b]) for a in upper for b in lower])
    return {
        "independent": make(np.zeros(size), [independent]),
        "correlated": make(np.zeros(size), [0.25 * near(3.0)]),
        "mixture": make(
            pairs, [0.04 * near(length) for length in (0.5, 1.0, 2.0, 4.0)], np.array([0.3, 0.2, 0.1, 0.4])
        ),
    }


def measurements() -> dict[str, SpectralMeasurement]:
    """The two of the module's text."""
    return {
        "half": Inpainting.half(EVENT_SHAPE, "bottom"),
        "blur": PeriodicBlur(event_shape=EVENT_SHAPE, kernel=gaussian_kernel(3, 0.7)),
    }


@dataclass(frozen=True)
class Case:
    """A prior, a measurement and its noise, and what is known of the answer."""

    prior_name: str
    measurement_name: str
    noise: float
    prior: CorrelatedMixture
    measurement: SpectralMeasurement
    num_measurements: int = NUM_MEASUREMENTS
    num_samples: int = NUM_SAMPLES

    @property
    def name(self) -> str:
        """Of the prior, the measurement and the noise."""
        return f"{self.prior_name}, {self.measurement_name}, noise {self.noise:g}"

    @cached_property
    def matrix(self) -> Array:
        """A of pixels in the order of `ravel`, (M, 16); what is not measured is a row of zeros."""
        pixels = jnp.eye(int(np.prod(EVENT_SHAPE))).reshape(-1, *EVENT_SHAPE)
        return self.measurement.forward(pixels).reshape(len(pixels), -1).T

    @cached_property
    def y(self) -> Array:
        """The measurements, (Y, *measured), of draws of the prior."""
        clean = self.measurement.forward(self.prior.sample(jax.random.key(0), self.num_measurements))
        noise = self.noise * jax.random.normal(jax.random.key(1), clean.shape)
        return clean + self.measured.reshape(clean.shape[1:]) * noise

    @cached_property
    def measured(self) -> np.ndarray:
        """(M,), False for what is not: there y is 0."""
        return np.asarray((self.matrix != 0).any(1))

    @cached_property
    def posteriors(self) -> list[CorrelatedMixture]:
        """The exact ones, of each y."""
        return [self.prior.given(self.matrix, y.ravel(), self.noise) for y in self.y]

    def draw(self, seed: int) -> np.ndarray:
        """Of the exact posteriors, (Y, N, 16)."""
        keys = jax.random.split(jax.random.key(seed), len(self.posteriors))
        draws = [p.sample(key, self.num_samples) for key, p in zip(keys, self.posteriors, strict=True)]
        return np.asarray(draws).reshape(len(draws), self.num_samples, -1)

    @cached_property
    def reference(self) -> np.ndarray:
        """What the answers are compared with."""
        return self.draw(2)

    def distance(self, x: np.ndarray) -> float:
        """The sliced Wasserstein distance of answers (Y, N, 16) to the reference."""
        of_each = [methods.sliced_wasserstein(*pair) for pair in zip(x, self.reference, strict=True)]
        return float(np.sqrt(np.mean(np.square(of_each))))

    def misfit(self, x: np.ndarray) -> float:
        """The root mean square of (y - A x) / noise of answers (Y, N, 16)."""
        residual = (np.asarray(self.y).reshape(len(x), 1, -1) - x @ np.asarray(self.matrix).T)[..., self.measured]
        return float(np.sqrt((residual**2).mean()) / self.noise)

    @cached_property
    def floor(self) -> tuple[float, float, float]:
        """The mean of the distances of fresh draws, 3 standard deviations above it, and their misfit."""
        draws = [self.draw(3 + i) for i in range(NUM_FLOORS)]
        distances = [self.distance(x) for x in draws]
        mean = float(np.mean(distances))
        return mean, mean + 3 * float(np.std(distances, ddof=1)), self.misfit(np.concatenate(draws, 1))

    @cached_property
    def start(self) -> Array:
        """Draws of the process's prior, (Y N, 4, 4, 1)."""
        return SDE.sigma(SDE.t_max) * jax.random.normal(
            jax.random.key(99), (self.num_measurements * self.num_samples, *EVENT_SHAPE)
        )

    @cached_property
    def all_y(self) -> Array:
        """The y of each start, (Y N, *measured)."""
        return jnp.repeat(self.y, self.num_samples, axis=0)


def cases() -> Iterator[Case]:
    """All of the module's text; `independent` pixels are measured by `half` alone, where methods claim to be exact."""
    for prior_name, prior in priors().items():
        for name, measurement in measurements().items():
            if (prior_name, name) != ("independent", "blur"):
                for noise in NOISES:
                    yield Case(prior_name, name, noise, prior, measurement)


@dataclass(frozen=True)
class Row:
    """One method in one case: the distances with at most each number of evaluations of `EVALUATIONS`."""

    case: str
    method: str
    distances: tuple[float, ...]
    misfit: float
    products: int
    floor: float
    ceiling: float  # of distances that are at the floor
    claims: bool = False  # to draw from the posterior, but for its steps and particles

    @property
    def at_floor(self) -> tuple[bool, ...]:
        """With each number of evaluations."""
        return tuple(distance <= self.ceiling for distance in self.distances)


def _row(case: Case, name: str, answers: list[np.ndarray], products: int, claims: bool = False) -> Row:
    """Of answers (Y, N, 16) with each number of evaluations."""
    floor, ceiling, _ = case.floor
    distances = tuple(case.distance(x) for x in answers)
    return Row(case.name, name, distances, case.misfit(answers[-1]), products, floor, ceiling, claims)


def draw(case: Case, posterior: Denoiser, method: Sampler, grid: str, evaluations: int) -> np.ndarray:
    """Answers (Y, N, 16) with at most so many evaluations, from the case's starts."""
    times = methods.GRIDS[grid](SDE, (evaluations - 1) // method.evaluations_per_step + 1)
    x = methods.run(method, times[:-1], case.start, posterior)
    x = methods.denoise(posterior, x, times[-2])
    return np.asarray(x).reshape(case.num_measurements, case.num_samples, -1)


def ours(case: Case, name: str, setting: Setting) -> Row:
    """A method of `SETTINGS`."""
    answers = []
    for evaluations in EVALUATIONS:
        posterior, method = setting.make(case.prior, case.measurement, case.all_y, case.noise, evaluations)
        answers.append(draw(case, posterior, method, setting.grid, evaluations))
    return _row(case, name, answers, setting.products, claims=case.name.startswith(setting.exact_for))


def twisted(case: Case, num_particles: int) -> Row:
    """`twisted_sample`: for each y as many answers as of the other methods, out of so many particles."""
    answers = []
    for evaluations in EVALUATIONS:
        times, of_each = methods.GRIDS["quadratic"](SDE, evaluations), []
        for i, y in enumerate(case.y):
            keys = jax.random.split(jax.random.key(i), 3)
            cloud = twisted_sample(
                keys[0], case.prior, case.measurement, y, case.noise, times, EVENT_SHAPE, num_particles, data_std=0.5
            )
            places = jax.random.permutation(keys[2], num_particles)[: case.num_samples]
            of_each.append(np.asarray(cloud.resample(keys[1])[places]).reshape(case.num_samples, -1))
        answers.append(np.stack(of_each))
    return _row(case, f"{TWISTED}, {num_particles:,}", answers, 1, claims=num_particles == MANY_PARTICLES)


def oracle(case: Case) -> Row:
    """The exact posterior's own Denoiser: what is left is the error of the steps."""
    answers = []
    for evaluations in EVALUATIONS:
        times, of_each = methods.GRIDS["quadratic"](SDE, evaluations), []
        for posterior, start in zip(case.posteriors, jnp.split(case.start, case.num_measurements), strict=True):
            x = methods.run(FAST, times[:-1], start, posterior)
            of_each.append(np.asarray(methods.denoise(posterior, x, times[-2])).reshape(case.num_samples, -1))
        answers.append(np.stack(of_each))
    return _row(case, ORACLE, answers, 0, claims=True)


def peer(case: Case, name: str) -> Row:
    """A method of azula's."""
    matrix = np.asarray(case.matrix)[case.measured]
    y = np.asarray(case.all_y).reshape(len(case.all_y), -1)[:, case.measured]
    answers = [
        inverse_peers.draw(name, case.prior, matrix, y, case.noise, n).reshape(case.reference.shape)
        for n in EVALUATIONS
    ]
    return _row(case, name, answers, inverse_peers.PEERS[name][0])


def fresh(case: Case) -> Row:
    """The floor."""
    floor, ceiling, misfit = case.floor
    return Row(case.name, FLOOR, (floor,) * len(EVALUATIONS), misfit, 0, floor, ceiling)


def jobs(case: Case) -> list[Callable[[], Row]]:
    """One for each row of a case, the floor first."""
    return [
        partial(fresh, case),
        partial(oracle, case),
        *(partial(ours, case, *each) for each in SETTINGS.items()),
        partial(twisted, case, FEW_PARTICLES),
        *([partial(twisted, case, MANY_PARTICLES)] if case.prior_name == "mixture" else []),
        *(partial(peer, case, name) for name in (inverse_peers.PEERS if inverse_peers.installed() else ())),
    ]


def benchmark() -> Iterator[Row]:
    """All rows, as they are found."""
    with jax.enable_x64(True):
        every = [job for case in cases() for job in jobs(case)]
    for job in tqdm(every, unit="row", desc="inverse"):
        with jax.enable_x64(True):
            yield job()


def _cells(row: Row) -> str:
    """The distances, in bold where they are at the floor."""
    pairs = zip(row.distances, row.at_floor, strict=True)
    return " | ".join(f"**{distance:.3f}**" if at_floor else f"{distance:.3f}" for distance, at_floor in pairs)


def _settings() -> list[str]:
    """What the names stand for."""
    lines = ["| method | what it is | grid | Jacobian products per evaluation | settings |", "|---|---|---|---|---|"]
    lines += [f"| {name} | {s.what} | {s.grid} | {s.products} | {s.source} |" for name, s in SETTINGS.items()]
    twist = "`twisted_sample(data_std=0.5)` with so many particles | quadratic | 1 | set here"
    return [
        *lines,
        *(f"| {TWISTED}, {number:,} | {twist} |" for number in (FEW_PARTICLES, MANY_PARTICLES)),
        f"| {ORACLE} | of the posterior itself, `DEIS` as in mmps | quadratic | 0 | |",
    ]


def _excess(rows: list[Row], kind: str, i: int) -> float:
    """The distance over the floor, the geometric mean over the cases whose prior is of the kind."""
    mine = [row.distances[i] / row.floor for row in rows if (row.case.startswith("mixture")) == (kind == "mixture")]
    return float(np.exp(np.mean(np.log(mine)))) if mine else np.nan


def summary(rows: list[Row]) -> str:
    """A line for each method, the best first: distances in units of the floor, over all Gaussian cases and all mixtures."""
    kinds = ("Gaussian", "mixture")
    counts = " | ".join(f"{kind}, {n}" for kind in kinds for n in EVALUATIONS)
    lines = [f"| method | products | {counts} | at the floor |", "|---|---|" + "---|" * (2 * len(EVALUATIONS) + 1)]
    found = []
    for name in dict.fromkeys(row.method for row in rows):
        mine = [row for row in rows if row.method == name]
        cells = [_excess(mine, kind, i) for kind in kinds for i in range(len(EVALUATIONS))]
        at_floor = sum(row.at_floor[-1] for row in mine)
        shown = " | ".join("" if np.isnan(cell) else f"{cell:.2g}" for cell in cells)  # not run on priors of both kinds
        line = f"| {name} | {mine[0].products} | {shown} | {at_floor} of {len(mine)} |"
        found.append((np.nanmean(np.log(cells)), line))
    return "\n".join(lines + [line for _, line in sorted(found)])


def claims(rows: list[Row]) -> str:
    """Whether the methods that claim to draw from the posterior are at the floor with the most evaluations."""
    claimed = [row for row in rows if row.claims]
    missed = [row for row in claimed if not row.at_floor[-1]]
    lines = [
        f"{row.method} on {row.case}: {row.distances[-1]:.3f}, at the floor below {row.ceiling:.3f}" for row in missed
    ]
    return "\n".join([f"{len(claimed) - len(missed)} of {len(claimed)} claims to be exact are at the floor.", *lines])


def markdown(rows: list[Row]) -> str:
    """The settings, the summary, and a table for each case."""
    lines = [
        "### The methods",
        "",
        *_settings(),
        "",
        "### In units of the floor",
        "",
        summary(rows),
        "",
        claims(rows),
        "",
    ]
    for case in dict.fromkeys(row.case for row in rows):
        mine = [row for row in rows if row.case == case]
        lines += [f"### {case}", "", f"At the floor, in bold: at most {mine[0].ceiling:.3f}.", ""]
        lines += [
            f"| method | {' | '.join(map(str, EVALUATIONS))} | misfit |",
            "|---|" + "---|" * (len(EVALUATIONS) + 1),
        ]
        lines += [f"| {row.method} | {_cells(row)} | {row.misfit:.2f} |" for row in mine] + [""]
    return "\n".join(lines)
