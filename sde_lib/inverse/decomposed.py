"""Any linear measurement of small images as one of known singular values, by its matrix.

A line of a sinogram or a coil's k-space has no closed singular values, and conjugate gradients visit every angle or coil
some hundred times for each solve. Where images are small the matrix A (M, D) is too: it is decomposed once, and each
solve is then a few matrix products.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from sde_lib.inverse.measurement import LinearMeasurement, SpectralMeasurement

MAX_IMAGE = 64 * 64  # values of an image, D
MAX_MATRIX = 2**24  # values of the matrix, M D
COLUMNS = 256  # made at once, which bounds the memory


@struct.dataclass(kw_only=True)
class Decomposed(SpectralMeasurement):
    """A = U diag(s) V^T of another measurement, as matrices: `Decomposed.of(measurement)`.

    Spectra are vectors of D values. What costs is V: D^2 values to keep, and D^2 products for each image.

    Attributes:
        measured_shape: of one measurement, as the other's; static.
        rows: (M,), the places in a measurement that are not 0 for every image, in row-major order.
        u: (M, K), K = min(M, D); columns without a singular value are 0.
        s: (D,), falling.
        v: (D, D).
    """

    measured_shape: tuple[int, ...] = struct.field(pytree_node=False)
    rows: Array
    u: Array
    s: Array
    v: Array

    @classmethod
    def of(cls, measurement: LinearMeasurement, rcond: float | None = None) -> "Decomposed":
        """The decomposition, by numpy in float64; the matrix is what `forward` gives in JAX's precision. Not under `jit`.

        Args:
            measurement: linear.
            rcond: singular values below this share of the largest are 0; None for 100 times the rounding error of `forward`:
                smaller ones are made of little else.

        Raises:
            ValueError: the image or the matrix is too large.
        """
        rows, measured_shape = _rows(measurement)
        size = int(np.prod(measurement.event_shape))
        reason = _too_large(len(rows), size)
        if reason:
            raise ValueError(f"Decomposed: {type(measurement).__name__} {reason}")
        matrix = _matrix(measurement, rows)
        # U has at most D columns, V always D: only one of the two needs completing, and numpy completes both or none.
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
        """What `of` gives, with a `jax.ShapeDtypeStruct` for each array: for `jax.eval_shape`, without the decomposition."""
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
        """Whether `of` takes it."""
        return not _too_large(len(_rows(measurement)[0]), int(np.prod(measurement.event_shape)))

    def singular_values(self) -> Array:
        """(D,), falling."""
        return self.s

    def to_spectrum(self, x: Array) -> Array:
        """V^T x, (B, D)."""
        return _product(x.reshape(len(x), -1), self.v)

    def from_spectrum(self, z: Array) -> Array:
        """V z, (B, *event)."""
        return _product(z, self.v.T).reshape(len(z), *self.event_shape)

    def measured_to_spectrum(self, y: Array) -> Array:
        """U^T y, (B, D); 0 beyond the rank."""
        z = _product(y.reshape(len(y), -1)[:, self.rows], self.u)
        return jnp.pad(z, ((0, 0), (0, len(self.s) - z.shape[1])))

    def measured_from_spectrum(self, z: Array) -> Array:
        """U z, (B, *measured)."""
        values = _product(z[:, : self.u.shape[1]], self.u.T)
        y = jnp.zeros((len(z), int(np.prod(self.measured_shape))), values.dtype)
        return y.at[:, self.rows].set(values, unique_indices=True).reshape(len(z), *self.measured_shape)


def _product(a: Array, b: Array) -> Array:
    # Accelerators round factors to some three digits unless told not to, and what is divided by s shows it.
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
    """The rows of the matrix that are not 0, and the shape of a measurement."""
    # Of a random image, a row gives 0 only if it is 0.
    image = jnp.asarray(np.random.default_rng(0).standard_normal((1, *measurement.event_shape)), float)
    y = np.asarray(_forward(measurement, image))[0]
    return np.flatnonzero(y), y.shape


def _matrix(measurement: LinearMeasurement, rows: np.ndarray) -> np.ndarray:
    """(M, D)."""
    size = int(np.prod(measurement.event_shape))
    forward = jax.jit(lambda first: measurement.forward(_units(first, measurement.event_shape)))
    parts = [np.asarray(forward(first)).reshape(COLUMNS, -1)[:, rows] for first in range(0, size, COLUMNS)]
    return np.concatenate(parts)[:size].T


def _units(first: Array, event_shape: tuple[int, ...]) -> Array:
    """`COLUMNS` unit images, from the one that is 1 at place `first` on; 0 beyond the last."""
    size = int(np.prod(event_shape))
    return jax.nn.one_hot(first + jnp.arange(COLUMNS), size, dtype=float).reshape(COLUMNS, *event_shape)
