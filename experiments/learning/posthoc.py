"""Post-hoc EMA of EDM2: moving averages of any width, reconstructed after training from snapshots of power averages.

A power average of width std after n updates weights the parameters at time t, in updates, by its profile

    p(t) = (gamma + 1) t^gamma / n^(gamma + 1)  on [0, n],      gamma = averaging.power_exponent(std)

A linear combination of averages has the same linear combination of profiles. So snapshots of one or two widths, stored
during training, are combined with the coefficients whose profile is nearest to the target profile in L2: the solution x
of A x = b, divided by its sum, where A contains the inner products of the snapshots' profiles and b their inner
products with the target profile.

    <p_1, p_2> = (gamma_1 + 1) (gamma_2 + 1) / (gamma_1 + gamma_2 + 1) (n_1 / n_2)^gamma_2 / n_2      for n_1 <= n_2

Source: Karras et al. (2024), https://arxiv.org/abs/2312.02696, section 3.2 and appendix C.2 (eq. 146 to 151, algorithm
3); https://github.com/NVlabs/edm2/blob/main/training/phema.py.

A snapshot is an .npz file `STEP-STD.npz` of the weights by their path, without pickled objects.
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
UPDATES = "updates"  # extra array: the number of updates, which is less than the step if steps were skipped
# A reconstruction is refused if the distance to the target profile, relative to the target's norm, is larger.
LARGEST_ERROR = 0.3


def dtype(name: str) -> Any:
    """Returns the dtype of snapshots for a value of training.ema_snapshot_dtype.

    Raises:
        UserError: the name is unknown.
    """
    if name not in DTYPES:
        raise unknown_name("training.ema_snapshot_dtype", name, DTYPES)
    return DTYPES[name]


def inner_products(times_1: Any, stds_1: Any, times_2: Any, stds_2: Any) -> np.ndarray:
    """Returns the L2 inner products of profiles of power averages, float64, broadcast over the arguments.

    Args:
        times_1, times_2: numbers of updates of the averages.
        stds_1, stds_2: relative widths of the averages.
    """
    gamma_1, gamma_2 = (np.vectorize(power_exponent, otypes=[float])(stds) for stds in (stds_1, stds_2))
    times_1, times_2 = np.asarray(times_1, float), np.asarray(times_2, float)
    first, last = np.minimum(times_1, times_2), np.maximum(times_1, times_2)
    exponent = np.where(times_1 <= times_2, gamma_2, gamma_1)  # of the later average
    return (gamma_1 + 1) * (gamma_2 + 1) / (gamma_1 + gamma_2 + 1) * (first / last) ** exponent / last


class Fit(NamedTuple):
    """Coefficients of a linear combination of snapshots.

    Attributes:
        coefficients: (N,) float64, with sum 1.
        error: L2 distance of the combined profile from the target profile, relative to the norm of the target profile.
    """

    coefficients: np.ndarray
    error: float


def fit(times: Any, stds: Any, time: float, std: float) -> Fit:
    """Returns the linear combination of power averages whose profile is nearest to that of width `std` at `time`.

    Args:
        times: (N,) numbers of updates of the averages.
        stds: (N,) widths of the averages.
        time: number of updates of the target average.
        std: width of the target average.

    Raises:
        ValueError: a width is not more than 0 and at most `averaging.LARGEST_STD`.
    """
    times, stds = np.asarray(times, float), np.asarray(stds, float)
    products = inner_products(times[:, None], stds[:, None], times, stds)
    target = inner_products(times, stds, time, std)
    solution = np.linalg.solve(products, target)
    coefficients = solution / solution.sum()
    norm = float(inner_products(time, std, time, std))
    distance = coefficients @ products @ coefficients - 2 * coefficients @ target + norm
    return Fit(coefficients, float(np.sqrt(max(distance, 0.0) / norm)))


class Snapshots:
    """The snapshots in one folder.

    Args:
        folder: created by the first `save`.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def save(self, step: int, std: float, variables: Any, *, updates: int, dtype: str = "float32") -> None:
        """Writes a snapshot atomically.

        Args:
            step: training step.
            std: width of the average.
            variables: weights of the average.
            updates: number of updates up to the step.
            dtype: a name of `DTYPES`.

        Raises:
            RunError: the file could not be written.
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
        """Returns the files by (step, std), in increasing order."""
        names = {path: re.fullmatch(r"(\d+)-(\d*\.?\d+)", path.stem) for path in self.folder.glob("*.npz")}
        return dict(sorted(((int(m[1]), float(m[2])), path) for path, m in names.items() if m))


def _named(variables: Any) -> dict[str, Any]:
    """Returns the leaves by path."""
    leaves = jax.tree_util.tree_flatten_with_path(variables)[0]
    return {"/".join(entry.key for entry in path): leaf for path, leaf in leaves}


def _read(path: Path, shapes: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns the arrays of a snapshot file: weights of the given shapes, and `UPDATES`.

    Raises:
        UserError: the file cannot be read or has other arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"the snapshot {path} cannot be read ({error}); remove it to continue without it") from error
    expected = {name: leaf.shape for name, leaf in shapes.items()} | {UPDATES: ()}
    if {name: array.shape for name, array in arrays.items()} != expected:
        raise UserError(f"the snapshot {path} does not match the network of the run's config")
    return arrays


class Reconstruction(NamedTuple):
    """A reconstructed average.

    Attributes:
        step: last training step of the average.
        variables: weights of the average.
        error: error of the profile; see `Fit`.
        count: number of snapshots used.
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
    """Reconstructs the power average of width `std` from the snapshots in a run's folder up to a step.

    Memory: the float64 sum of the weights and the weights of one snapshot; files are read one by one.

    Args:
        folder: folder of `Snapshots`.
        shapes: shapes and dtypes of the weights (`factory.abstract_variables`).
        std: relative width, in units of the training up to the step; more than 0 and at most `averaging.LARGEST_STD`.
            The error grows for widths outside of the range of the stored widths.
        step: a step with a snapshot; the newest one by default.
        latest: with `step=None`, the largest step to consider.
        stds: use only snapshots of these widths; all by default.

    Raises:
        UserError: there is no such snapshot, a snapshot cannot be read, or the snapshots cannot approximate this width.
    """
    files = {key: path for key, path in Snapshots(folder).files().items() if stds is None or key[1] in stds}
    steps = sorted({known for known, _ in files if latest is None or known <= latest})
    if not steps:
        raise UserError(
            f"{folder} has no snapshot of an average yet; training.ema_snapshot_every sets the steps between snapshots"
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
            f"(relative error of its profile: {fitted.error:.0%}): continue training, or store snapshots more "
            "often (training.ema_snapshot_every)"
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
        raise UserError(f"the snapshot {path} cannot be read ({error}); remove it to continue without it") from error


def _ranges(steps: list[int]) -> str:
    """Returns the steps as text; of more than five steps, the first three and the last."""
    return ", ".join(map(str, steps if len(steps) < 6 else [*steps[:3], "...", steps[-1]]))
