"""Separable forward operators, Y = R X K^T for each channel X, with matrices R (vertical) and K (horizontal).

The singular value decompositions R = U_R diag(s_R) V_R^T and K = U_K diag(s_K) V_K^T of the two small matrices are
computed once, in the constructor. They give the decomposition of the whole operator, whose singular values are all
products s_R s_K.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from sde_lib.inverse.measurement import SpectralMeasurement
from sde_lib.struct import Struct


@struct.dataclass(kw_only=True)
class AxisDecomposition(Struct):
    """Singular value decomposition of a linear map from n to m values along one axis.

    Attributes:
        u: (m, n), padded with columns of zeros beyond min(m, n).
        s: singular values, (n,), padded with zeros.
        v: (n, n), orthogonal.
    """

    u: Array | np.ndarray
    s: Array | np.ndarray
    v: Array | np.ndarray

    @classmethod
    def of(cls, matrix: np.ndarray) -> "AxisDecomposition":
        """Returns the decomposition of a matrix (m, n), computed in float64."""
        m, n = matrix.shape
        u, s, v_transposed = np.linalg.svd(np.asarray(matrix, np.float64))
        rank = min(m, n)
        return cls(u=np.pad(u[:, :rank], ((0, 0), (0, n - rank))), s=np.pad(s, (0, n - rank)), v=v_transposed.T)


@struct.dataclass(kw_only=True)
class SeparableMeasurement(SpectralMeasurement):
    """Separable operator Y = R X K^T, (B, H', W', C), for images (B, H, W, C); built by `of(event_shape, R, K)`.

    Attributes:
        rows: decomposition of R, which mixes rows.
        columns: decomposition of K, which mixes columns.
        rcond: singular values below this fraction of the largest are treated as 0; static.
    """

    rows: AxisDecomposition
    columns: AxisDecomposition
    rcond: float = struct.field(pytree_node=False, default=1e-5)

    @classmethod
    def of(cls, event_shape: tuple[int, int, int], rows: np.ndarray, columns: np.ndarray, **settings):
        """Returns the measurement R X K^T.

        Args:
            event_shape: (H, W, C).
            rows: R, (H', H).
            columns: K, (W', W).
            **settings: other fields, such as `rcond`.
        """
        return cls(
            event_shape=tuple(event_shape),
            rows=AxisDecomposition.of(rows),
            columns=AxisDecomposition.of(columns),
            **settings,
        )

    def singular_values(self) -> Array:
        """Returns the products of the singular values of both axes, (H, W, C), equal for all channels."""
        s = jnp.asarray(self.rows.s)[:, None] * jnp.asarray(self.columns.s)
        s = jnp.where(s > self.rcond * s.max(), s, 0)
        return jnp.broadcast_to(s[..., None], self.event_shape)

    def to_spectrum(self, x: Array) -> Array:
        """Returns V_R^T X V_K."""
        return _along_axes(x, self.rows.v.T, self.columns.v.T)

    def from_spectrum(self, z: Array) -> Array:
        """Returns V_R Z V_K^T."""
        return _along_axes(z, self.rows.v, self.columns.v)

    def measured_to_spectrum(self, y: Array) -> Array:
        """Returns U_R^T Y U_K, and 0 where the singular value is 0."""
        return jnp.where(self.singular_values() > 0, _along_axes(y, self.rows.u.T, self.columns.u.T), 0)

    def measured_from_spectrum(self, z: Array) -> Array:
        """Returns U_R Z U_K^T."""
        return _along_axes(z, self.rows.u, self.columns.u)


def _along_axes(x: Array, rows: ArrayLike, columns: ArrayLike) -> Array:
    """Returns rows X columns^T for each image and channel."""
    rows, columns = jnp.asarray(rows, x.dtype), jnp.asarray(columns, x.dtype)
    # By default, accelerators evaluate matrix products in reduced precision.
    return jnp.einsum("bhwc,ih,jw->bijc", x, rows, columns, precision=jax.lax.Precision.HIGHEST)
