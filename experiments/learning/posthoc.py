"""Moving averages of any width after training, made of the power averages that were kept on the way (EDM2's post-hoc EMA).

A power average of width std after n updates weighs the weights at time t, in updates, by its profile

    p(t) = (gamma + 1) t^gamma / n^(gamma + 1)  on [0, n],      gamma = averaging.power_exponent(std)

Sums of averages have the same sums of profiles. So snapshots of one or two widths, kept now and then, are summed with the
coefficients whose profile is nearest to the wanted one in the integral of squares: the solution x of A x = b, where A has
the inner products of the snapshots' profiles with each other and b those with the wanted one, divided by its sum.

    <p_1, p_2> = (gamma_1 + 1) (gamma_2 + 1) / (gamma_1 + gamma_2 + 1) (n_1 / n_2)^gamma_2 / n_2      for n_1 <= n_2

Source: Karras et al. (2024), https://arxiv.org/abs/2312.02696, section 3.2 and appendix C.2 (eq. 146 to 151, algorithm 3);
https://github.com/NVlabs/edm2/blob/main/training/phema.py.

A snapshot is an .npz file, `STEP-STD.npz`, of the weights by their path. It is data alone.
"""

import re
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.errors import RunError, UserError, unknown_name
from experiments.learning.averaging import power_exponent

DTYPES = {"float32": np.float32, "float16": np.float16}
UPDATES = "updates"  # the array, beside the weights, of the updates made: less than the step where some were skipped
# A profile further from the wanted one than this, relative to its size, is another average.
LARGEST_ERROR = 0.3


def dtype(name: str) -> Any:
    """The dtype that snapshots are kept in.

    Raises:
        UserError: it is unknown.
    """
    if name not in DTYPES:
        raise unknown_name("training.ema_snapshot_dtype", name, DTYPES)
    return DTYPES[name]


def inner_products(times_1: Any, stds_1: Any, times_2: Any, stds_2: Any) -> np.ndarray:
    """Of the profiles of power averages, broadcast: times are the updates made, stds the relative widths."""
    gamma_1, gamma_2 = (np.vectorize(power_exponent, otypes=[float])(stds) for stds in (stds_1, stds_2))
    times_1, times_2 = np.asarray(times_1, float), np.asarray(times_2, float)
    first, last = np.minimum(times_1, times_2), np.maximum(times_1, times_2)
    exponent = np.where(times_1 <= times_2, gamma_2, gamma_1)  # that of the later one
    return (gamma_1 + 1) * (gamma_2 + 1) / (gamma_1 + gamma_2 + 1) * (first / last) ** exponent / last


class Fit(NamedTuple):
    """How to sum snapshots.

    Attributes:
        coefficients: (N,) float64, of sum 1.
        error: the distance of the sum's profile from the wanted one, in units of the wanted one's norm.
    """

    coefficients: np.ndarray
    error: float


def fit(times: Any, stds: Any, time: float, std: float) -> Fit:
    """The sum of power averages, of widths (N,) after updates (N,), that is nearest to the one of `std` at `time`.

    Raises:
        ValueError: a width is not more than 0 and at most `averaging.LARGEST_STD`.
    """
    times, stds = np.asarray(times, float), np.asarray(stds, float)
    products = inner_products(times[:, None], stds[:, None], times, stds)
    wanted = inner_products(times, stds, time, std)
    solution = np.linalg.solve(products, wanted)
    coefficients = solution / solution.sum()
    norm = float(inner_products(time, std, time, std))
    distance = coefficients @ products @ coefficients - 2 * coefficients @ wanted + norm
    return Fit(coefficients, float(np.sqrt(max(distance, 0.0) / norm)))


class Snapshots:
    """The snapshots in one folder.

    Args:
        folder: is made by the first `save`.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def save(self, step: int, std: float, variables: Any, *, updates: int, dtype: str = "float32") -> None:
        """Writes one; a reader, or an interruption, sees the whole file or none of it.

        Args:
            step: of training.
            std: the width of the average.
            variables: its weights.
            updates: made up to the step.
            dtype: a name of `DTYPES`.

        Raises:
            RunError: it could not be written.
        """
        arrays = {name: np.asarray(leaf, DTYPES[dtype]) for name, leaf in _named(variables).items()}
        path = self.folder / f"{step:08d}-{np.format_float_positional(std)}.npz"
        temporary = path.with_suffix(".tmp")
        try:
            self.folder.mkdir(exist_ok=True)
            with temporary.open("wb") as file:
                np.savez(file, **arrays, **{UPDATES: np.int64(updates)})
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise RunError(
                f"a snapshot of an average cannot be written to {self.folder}: {error.strerror or error}. "
                "Checkpoints are intact; make room and run the same command again"
            ) from error

    def files(self) -> dict[tuple[int, float], Path]:
        """(step, std) -> file, in order."""
        names = {path: re.fullmatch(r"(\d+)-(\d*\.?\d+)", path.stem) for path in self.folder.glob("*.npz")}
        return dict(sorted(((int(m[1]), float(m[2])), path) for path, m in names.items() if m))


def _named(variables: Any) -> dict[str, Any]:
    """The leaves by their path."""
    leaves = jax.tree_util.tree_flatten_with_path(variables)[0]
    return {"/".join(entry.key for entry in path): leaf for path, leaf in leaves}


def _read(path: Path, shapes: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of one file: the weights of these shapes, and `UPDATES`."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"the snapshot {path} cannot be read ({error}); without it, remove it and try again") from error
    expected = {name: leaf.shape for name, leaf in shapes.items()} | {UPDATES: ()}
    if {name: array.shape for name, array in arrays.items()} != expected:
        raise UserError(f"the snapshot {path} is of another network than the run's config says")
    return arrays


class Reconstruction(NamedTuple):
    """An average made after training.

    Attributes:
        step: of training, up to which it is.
        variables: its weights.
        error: of its profile; see `Fit`.
        count: of the snapshots that it is made of.
    """

    step: int
    variables: Any
    error: float
    count: int


def reconstruct(
    folder: Path,
    shapes: Any,
    std: float,
    *,
    step: int | None = None,
    latest: int | None = None,
    stds: tuple[float, ...] | None = None,
) -> Reconstruction:
    """The power average of the width `std`, of the snapshots in a run's folder up to a step.

    Files are read one after the other; the sum is kept in float64.

    Args:
        folder: of `Snapshots`.
        shapes: of the weights (`factory.abstract_variables`).
        std: the width, in units of the training up to the step; more than 0 and at most `averaging.LARGEST_STD`. Widths
            outside of those that were kept are made too, and less well.
        step: one that has a snapshot; the newest by default.
        latest: the newest one is looked for up to here.
        stds: only snapshots of these widths; all by default.

    Raises:
        UserError: there is no such snapshot, one cannot be read, or they are too few for an average of this width.
    """
    files = {key: path for key, path in Snapshots(folder).files().items() if stds is None or key[1] in stds}
    steps = sorted({known for known, _ in files if latest is None or known <= latest})
    if not steps:
        raise UserError(
            f"{folder} has no snapshot of an average yet: training.ema_snapshot_every says when they are kept"
        )
    step = steps[-1] if step is None else step
    if step not in steps:
        raise UserError(f"step {step}: {folder} has snapshots of the steps {_ranges(steps)}")
    used = {key: path for key, path in files.items() if key[0] <= step}
    named = _named(shapes)
    times = {key: _updates(path) for key, path in used.items()}
    time = next(time for (known, _), time in times.items() if known == step)
    fitted = fit(list(times.values()), [width for _, width in used], time, std)
    if fitted.error > LARGEST_ERROR:
        raise UserError(
            f"sampling.ema_std={std}: the {len(used)} snapshots up to step {step} in {folder} do not make such an average "
            f"(its profile would be off by {fitted.error:.0%}): train on, or keep them more often"
        )
    total = {name: np.zeros(leaf.shape) for name, leaf in named.items()}
    for path, coefficient in zip(used.values(), fitted.coefficients, strict=True):
        arrays = _read(path, named)
        for name, sum in total.items():
            sum += coefficient * arrays[name]
    leaves = [total[name].astype(leaf.dtype) for name, leaf in named.items()]
    variables = jax.tree.unflatten(jax.tree.structure(shapes), leaves)
    return Reconstruction(step, variables, fitted.error, len(used))


def _updates(path: Path) -> int:
    try:
        with np.load(path, allow_pickle=False) as file:
            return int(file[UPDATES])
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"the snapshot {path} cannot be read ({error}); without it, remove it and try again") from error


def _ranges(steps: list[int]) -> str:
    """The first ones and the last, where they are many."""
    return ", ".join(map(str, steps if len(steps) < 6 else [*steps[:3], "...", steps[-1]]))
