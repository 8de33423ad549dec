"""Singular value decomposition of any linear measurement of small images, from its explicit matrix.

Sinograms and multi-coil k-space have no closed-form singular values, and conjugate gradients need about a hundred
products with A, hence passes over all angles or coils, for each solve. For small images the matrix A (M, D) is small as
well: it is decomposed once, and each solve then takes a few matrix products.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from sde_lib.inverse.measurement import LinearMeasurement, SpectralMeasurement

MAX_IMAGE = 64 * 64  # maximal number of values of an image, D
MAX_MATRIX = 2**24  # maximal number of values of the matrix, M D
COLUMNS = 256  # columns of the matrix evaluated at once, which bounds the memory


@struct.dataclass(kw_only=True)
class Decomposed(SpectralMeasurement):
    """A linear measurement as the matrices of its SVD, A = U diag(s) V^T; built by `Decomposed.of(measurement)`.

    Spectra are vectors of D values. The dominant cost is V: D^2 values of memory, and D^2 multiplications per image.

    Attributes:
        measured_shape: shape of one measurement; static.
        rows: (M,), row-major indices of the values of a measurement that are not 0 for every image.
        u: (M, K), K = min(M, D); columns whose singular value is 0 are 0.
        s: (D,), singular values, decreasing.
        v: (D, D), orthogonal.
    """

    measured_shape: tuple[int, ...] = struct.field(pytree_node=False)
    rows: Array
    u: Array
    s: Array
    v: Array

    @classmethod
    def of(cls, measurement: LinearMeasurement, rcond: float | None = None) -> "Decomposed":
        """Returns the decomposition of a linear measurement; cannot be called under `jit`.

        The matrix is evaluated by `forward` in JAX's default precision; the SVD is computed by numpy in float64.

        Args:
            measurement: linear.
            rcond: singular values below this fraction of the largest are set to 0; None for 100 times the machine
                epsilon of the matrix, since smaller singular values are mostly rounding error of `forward`.

        Raises:
            ValueError: the image has more than `MAX_IMAGE` values, or the matrix more than `MAX_MATRIX`.
        """
        rows, measured_shape = _rows(measurement)
        size = int(np.prod(measurement.event_shape))
        reason = _too_large(len(rows), size)
        if reason:
            raise ValueError(f"Decomposed: {type(measurement).__name__} {reason}")
        matrix = _matrix(measurement, rows)
        # V must be a full (D, D) basis. numpy completes both U and V or neither; V is incomplete only where M < D.
        u, s, vt = np.linalg.svd(matrix.astype(np.float64), full_matrices=len(rows) < size)
        if rcond is None:
            rcond = 100 * float(jnp.finfo(matrix.dtype).eps)
        s = np.where(s > rcond * s.max(initial=0), s, 0)
        return cls(
            event_shape=measurement.event_shape,
            measured_shape=measured_shape,
            rows=jnp.asarray(rows),
            u=jnp.asarray(u * (s > 0), matrix.dtype),
            s=jnp.asarray(np.pad(s, (0, size - len(s))), matrix.dtype),
            v=jnp.asarray(vt.T, matrix.dtype),
        )

    @classmethod
    def abstract(cls, measurement: LinearMeasurement) -> "Decomposed":
        """Returns the result of `of` with a `jax.ShapeDtypeStruct` per array, for `jax.eval_shape`; computes no SVD."""
        rows, measured_shape = _rows(measurement)
        size = int(np.prod(measurement.event_shape))

        def array(*shape, dtype=float):
            return jax.eval_shape(lambda: jnp.zeros(shape, dtype))

        return cls(
            event_shape=measurement.event_shape,
            measured_shape=measured_shape,
            rows=array(len(rows), dtype=int),
            u=array(len(rows), min(len(rows), size)),
            s=array(size),
            v=array(size, size),
        )

    @staticmethod
    def fits(measurement: LinearMeasurement) -> bool:
        """Returns whether `of` accepts the measurement: its image and its matrix are small enough."""
        return not _too_large(len(_rows(measurement)[0]), int(np.prod(measurement.event_shape)))

    def singular_values(self) -> Array:
        """Returns s, (D,), decreasing."""
        return self.s

    def to_spectrum(self, x: Array) -> Array:
        """Returns V^T x, (B, D)."""
        return _product(x.reshape(len(x), -1), self.v)

    def from_spectrum(self, z: Array) -> Array:
        """Returns V z, (B, *event)."""
        return _product(z, self.v.T).reshape(len(z), *self.event_shape)

    def measured_to_spectrum(self, y: Array) -> Array:
        """Returns U^T y, (B, D); 0 beyond the rank."""
        z = _product(y.reshape(len(y), -1)[:, self.rows], self.u)
        return jnp.pad(z, ((0, 0), (0, len(self.s) - z.shape[1])))

    def measured_from_spectrum(self, z: Array) -> Array:
        """Returns U z, (B, *measured)."""
        values = _product(z[:, : self.u.shape[1]], self.u.T)
        y = jnp.zeros((len(z), int(np.prod(self.measured_shape))), values.dtype)
        return y.at[:, self.rows].set(values, unique_indices=True).reshape(len(z), *self.measured_shape)


def _product(a: Array, b: Array) -> Array:
    # By default, accelerators round the factors to about three digits, and division by small s amplifies that error.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _too_large(rows: int, size: int) -> str:
    if size > MAX_IMAGE:
        return f"of images of {size} values: at most {MAX_IMAGE} are decomposed"
    if rows * size > MAX_MATRIX:
        return f"has a matrix of {rows} x {size} values: at most {MAX_MATRIX} are decomposed"
    return ""


@jax.jit
def _forward(measurement: LinearMeasurement, x: Array) -> Array:
    return measurement.forward(x)


def _rows(measurement: LinearMeasurement) -> tuple[np.ndarray, tuple[int, ...]]:
    """Returns the indices of the nonzero rows of the matrix, and the shape of one measurement."""
    # The product of a row with a random image is 0 only if the row is 0 (almost surely).
    image = jnp.asarray(np.random.default_rng(0).standard_normal((1, *measurement.event_shape)), float)
    y = np.asarray(_forward(measurement, image))[0]
    return np.flatnonzero(y), y.shape


def _matrix(measurement: LinearMeasurement, rows: np.ndarray) -> np.ndarray:
    """Returns the matrix (M, D) of A, restricted to `rows`."""
    size = int(np.prod(measurement.event_shape))
    forward = jax.jit(lambda first: measurement.forward(_units(first, measurement.event_shape)))
    parts = [np.asarray(forward(first)).reshape(COLUMNS, -1)[:, rows] for first in range(0, size, COLUMNS)]
    return np.concatenate(parts)[:size].T


def _units(first: Array, event_shape: tuple[int, ...]) -> Array:
    """Returns the unit images of row-major indices `first`, ..., `first + COLUMNS - 1`; zeros past the last index."""
    size = int(np.prod(event_shape))
    return jax.nn.one_hot(first + jnp.arange(COLUMNS), size, dtype=float).reshape(COLUMNS, *event_shape)
