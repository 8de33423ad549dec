"""Forward operators of inverse problems, y = A(x_0) + noise.

A measurement is a class with the method `forward`. For a linear measurement all other methods are derived from
`forward`:

    adjoint(y)           A^T y, by `jax.linear_transpose`, exact to rounding
    normal_solve(y, c)   (A A^T + c I)^-1 y, in closed form where there is one, by conjugate gradients otherwise
    pseudo_inverse(y)    A^+ y, the least-squares solution of least norm

so a user-defined operator is

    class Mine(LinearMeasurement):
        def forward(self, x): return x[:, ::2]

A nonlinear measurement has a `derivative` at each image, which is a linear measurement with these methods.

Arrays are real, with the batch first: x (B, *event), y (B, *measured). Complex values (k-space) have the real and the
imaginary part as their last axis, so that the real transpose is the adjoint. `event_shape` is the shape of the images
that a model generates.

Source: Daras et al. (2024), https://arxiv.org/abs/2410.00083, for the field and its names.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from sde_lib.inverse.conjugate_gradients import conjugate_gradients
from sde_lib.sde import expand
from sde_lib.struct import Struct


@struct.dataclass(kw_only=True)
class Measurement(Struct):
    """Forward operator A from images to noise-free measurements, linear or not; the noise model is a `Noise`."""

    def forward(self, x: Array) -> Array:
        """Returns A(x), (B, *measured), for x (B, *event)."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(x)")

    def derivative(self, x: Array) -> "LinearMeasurement":
        """Returns the derivative of A at images x (B, *event): A(x + d) ~ A(x) + derivative(x).forward(d)."""
        return Derivative(event_shape=x.shape[1:], measurement=self, at=x)


@struct.dataclass(kw_only=True)
class LinearMeasurement(Measurement):
    """Linear forward operator A.

    Attributes:
        event_shape: shape of one image; static.
        rtol: tolerance of conjugate gradients (where there is no closed form), relative to the right-hand side; static.
        max_steps: maximal number of steps of conjugate gradients; static.
    """

    event_shape: tuple[int, ...] = struct.field(pytree_node=False)
    rtol: float = struct.field(pytree_node=False, default=1e-6)
    max_steps: int = struct.field(pytree_node=False, default=256)

    def derivative(self, x: Array) -> "LinearMeasurement":
        """Returns A itself, which is its own derivative at every x."""
        return self

    def adjoint(self, y: Array) -> Array:
        """Returns A^T y, (B, *event), for y (B, *measured)."""
        x = jax.ShapeDtypeStruct((len(y), *self.event_shape), y.dtype)
        return jax.linear_transpose(self.forward, x)(y)[0]

    def normal_solve(self, y: Array, c: ArrayLike = 0.0) -> Array:
        """Returns (A A^T + c I)^-1 y, (B, *measured), by conjugate gradients from zero.

        For c = 0, returns the solution of least norm for the projection of y onto range(A).

        Args:
            y: (B, *measured).
            c: >= 0, () or (B,).
        """
        c = expand(jnp.asarray(c, y.dtype), y)

        def within_range(y):  # A A^T is 0 outside range(A), where c = 0 has no solution
            return jnp.where(c > 0, y, self.forward(self.pseudo_inverse(y)))

        y = jax.lax.cond(jnp.all(c > 0), lambda y: y, within_range, y)
        return conjugate_gradients(lambda v: self.forward(self.adjoint(v)) + c * v, y, self.rtol, self.max_steps)

    def pseudo_inverse(self, y: Array) -> Array:
        """Returns A^+ y, (B, *event), for any y (B, *measured): the least-squares solution of least norm.

        Solves A^T A x = A^T y, which has a solution for every y; A A^T v = y has no solution for a y outside range(A).
        """
        image = self.adjoint(y)
        return conjugate_gradients(lambda x: self.adjoint(self.forward(x)), image, self.rtol, self.max_steps)


@struct.dataclass(kw_only=True)
class Derivative(LinearMeasurement):
    """Derivative of a measurement at a batch of images, with one linear map per example.

    Attributes:
        measurement: A, differentiable.
        at: the images at which A is linearized, (B, *event).
    """

    measurement: Measurement
    at: Array

    def forward(self, x: Array) -> Array:
        """Returns A'(at) x, (B, *measured), for x (B, *event) of the batch size of `at`."""
        return jax.jvp(self.measurement.forward, (self.at,), (x,))[1]


def operator_norm(measurement: LinearMeasurement, steps: int = 30, dtype: DTypeLike = float) -> Array:
    """Returns the largest singular value of A, (), by power iteration, which converges from below.

    Args:
        measurement: linear.
        steps: number of iterations, each one product with A and one with A^T; after 30 the error is about 1 % where the
            next singular values are close to the largest.
        dtype: dtype of the images.
    """
    x = jax.random.normal(jax.random.key(0), (1, *measurement.event_shape), dtype)

    def body(x, _):
        x = measurement.adjoint(measurement.forward(x))
        square = jnp.linalg.norm(x)
        return x / jnp.where(square > 0, square, 1), jnp.sqrt(square)

    return jax.lax.scan(body, x / jnp.linalg.norm(x), length=steps)[1][-1]


@struct.dataclass(kw_only=True)
class SpectralMeasurement(LinearMeasurement):
    """Linear forward operator with known singular value decomposition A = U diag(s) V^T, with orthogonal U and V.

    A subclass defines `singular_values`, `to_spectrum` and `from_spectrum` (V^T and V), and `measured_to_spectrum` and
    `measured_from_spectrum` (U^T and U). The spectra of images and of measurements have the shape of `singular_values`,
    with one entry per dimension of the image. Entries that are not measured have singular value 0; there,
    `measured_to_spectrum` returns 0, and the argument of `measured_from_spectrum` must be 0.
    """

    def singular_values(self) -> Array:
        """Returns s >= 0, (*spectrum)."""
        raise NotImplementedError(f"{type(self).__name__} must define singular_values()")

    def to_spectrum(self, x: Array) -> Array:
        """Returns V^T x, (B, *spectrum), for x (B, *event)."""
        raise NotImplementedError(f"{type(self).__name__} must define to_spectrum(x)")

    def from_spectrum(self, z: Array) -> Array:
        """Returns V z, (B, *event), for z (B, *spectrum)."""
        raise NotImplementedError(f"{type(self).__name__} must define from_spectrum(z)")

    def measured_to_spectrum(self, y: Array) -> Array:
        """Returns U^T y, (B, *spectrum), for y (B, *measured); 0 where s = 0."""
        raise NotImplementedError(f"{type(self).__name__} must define measured_to_spectrum(y)")

    def measured_from_spectrum(self, z: Array) -> Array:
        """Returns U z, (B, *measured), for z (B, *spectrum), which must be 0 where s = 0."""
        raise NotImplementedError(f"{type(self).__name__} must define measured_from_spectrum(z)")

    def forward(self, x: Array) -> Array:
        """Returns A x, (B, *measured), for x (B, *event)."""
        return self.measured_from_spectrum(self._singular_values(x) * self.to_spectrum(x))

    def adjoint(self, y: Array) -> Array:
        """Returns A^T y, (B, *event), for y (B, *measured)."""
        return self.from_spectrum(self._singular_values(y) * self.measured_to_spectrum(y))

    def normal_solve(self, y: Array, c: ArrayLike = 0.0) -> Array:
        """Returns (A A^T + c I)^-1 y for c >= 0, () or (B,); for c = 0, the solution of least norm."""
        s, z, c = self._singular_values(y), self.measured_to_spectrum(y), jnp.asarray(c, y.dtype)
        within = self.measured_from_spectrum(z / jnp.where(s > 0, s**2 + expand(c, z), 1))
        # Outside range(A), A A^T is 0 and the solution is y / c. The projection is applied twice, because the division
        # by a small c amplifies rounding errors within range(A).
        outside, c = self._outside_range(self._outside_range(y)), expand(c, y)
        return within + jnp.where(c > 0, outside / jnp.where(c > 0, c, 1), 0)

    def pseudo_inverse(self, y: Array) -> Array:
        """Returns A^+ y = V (U^T y / s), (B, *event), for y (B, *measured)."""
        s = self._singular_values(y)
        return self.from_spectrum(self.measured_to_spectrum(y) / jnp.where(s > 0, s, 1))

    def _outside_range(self, y: Array) -> Array:
        return y - self.measured_from_spectrum(self.measured_to_spectrum(y))

    def _singular_values(self, like: Array) -> Array:
        return self.singular_values().astype(like.dtype)


@struct.dataclass(kw_only=True)
class Noise(Struct):
    """Noise model p(y | A(x_0)) of a measurement."""

    def sample(self, keys: Array, clean: Array) -> Array:
        """Samples y (B, *measured) given A(x_0) = clean (B, *measured), example i with `keys[i]`."""
        raise NotImplementedError(f"{type(self).__name__} must define sample(keys, clean)")

    def log_prob(self, y: Array, clean: Array) -> Array:
        """Returns log p(y | A(x_0) = clean) in nats, (B,)."""
        raise NotImplementedError(f"{type(self).__name__} must define log_prob(y, clean)")

    def variance(self, clean: Array) -> Array:
        """Returns the variance of each value of y, of the shape of `clean` or ()."""
        raise NotImplementedError(f"{type(self).__name__} must define variance(clean)")
