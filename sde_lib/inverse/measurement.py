"""Forward operators of inverse problems, y = A(x_0) + noise.

A measurement is a class with `forward`. From that of a linear one all other methods are derived:

    adjoint(y)           A^T y, by `jax.linear_transpose`, exact to rounding
    normal_solve(y, c)   (A A^T + c I)^-1 y, in closed form where there is one, by conjugate gradients otherwise
    pseudo_inverse(y)    A^+ y, the image of least norm among those that fit y best

so that a user's own operator is

    class Mine(LinearMeasurement):
        def forward(self, x): return x[:, ::2]

A nonlinear measurement has a `derivative` at each image, a linear measurement with these methods.

Arrays are real, with the batch first: x (B, *event), y (B, *measured). What is complex (k-space) has the real and the
imaginary part as its last axis, so that transposes are adjoints. Sizes are those of the images that a model draws.

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
    """A map from images to what is measured of them, linear or not; without its noise, which is a `Noise`."""

    def forward(self, x: Array) -> Array:
        """A(x), (B, *measured), of x (B, *event)."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(x)")

    def derivative(self, x: Array) -> "LinearMeasurement":
        """A's derivative at images x (B, *event): near them A(x + d) is A(x) + derivative(x).forward(d)."""
        return Derivative(event_shape=x.shape[1:], measurement=self, at=x)


@struct.dataclass(kw_only=True)
class LinearMeasurement(Measurement):
    """A linear map.

    Attributes:
        event_shape: of one image; static.
        rtol, max_steps: of the conjugate gradients, where there is no closed form: relative to the right-hand side; static.
    """

    event_shape: tuple[int, ...] = struct.field(pytree_node=False)
    rtol: float = struct.field(pytree_node=False, default=1e-6)
    max_steps: int = struct.field(pytree_node=False, default=256)

    def derivative(self, x: Array) -> "LinearMeasurement":
        """A itself, anywhere."""
        return self

    def adjoint(self, y: Array) -> Array:
        """A^T y, (B, *event), of y (B, *measured)."""
        x = jax.ShapeDtypeStruct((len(y), *self.event_shape), y.dtype)
        return jax.linear_transpose(self.forward, x)(y)[0]

    def normal_solve(self, y: Array, c: ArrayLike = 0.0) -> Array:
        """(A A^T + c I)^-1 y for c >= 0, () or (B,); for c = 0 the solution of least norm for what of y is in A's range.

        By conjugate gradients from zero.
        """
        c = expand(jnp.asarray(c, y.dtype), y)

        def within_range(y):  # beyond it A A^T is 0: without c there is no solution there
            return jnp.where(c > 0, y, self.forward(self.pseudo_inverse(y)))

        y = jax.lax.cond(jnp.all(c > 0), lambda y: y, within_range, y)
        return conjugate_gradients(lambda v: self.forward(self.adjoint(v)) + c * v, y, self.rtol, self.max_steps)

    def pseudo_inverse(self, y: Array) -> Array:
        """A^+ y, (B, *event), of any y (B, *measured): of the images that fit y best, the one of least norm.

        From A^T A x = A^T y, which has a solution for every y; A A^T v = y has none for a noisy y outside the range of A.
        """
        image = self.adjoint(y)
        return conjugate_gradients(lambda x: self.adjoint(self.forward(x)), image, self.rtol, self.max_steps)


@struct.dataclass(kw_only=True)
class Derivative(LinearMeasurement):
    """The derivative of a measurement at images, another one for each example: what `Measurement.derivative` returns.

    Attributes:
        measurement: A, differentiable.
        at: the images (B, *event).
    """

    measurement: Measurement
    at: Array

    def forward(self, x: Array) -> Array:
        """A'(at) x, (B, *measured), of as many x (B, *event)."""
        return jax.jvp(self.measurement.forward, (self.at,), (x,))[1]


def operator_norm(measurement: LinearMeasurement, steps: int = 30, dtype: DTypeLike = float) -> Array:
    """The largest singular value of A, (), by power iteration from below.

    Args:
        measurement: linear.
        steps: of the iteration, each an A and an A^T; 30 leave some 1 % where the next values are close to the largest.
        dtype: of images.
    """
    x = jax.random.normal(jax.random.key(0), (1, *measurement.event_shape), dtype)

    def body(x, _):
        x = measurement.adjoint(measurement.forward(x))
        square = jnp.linalg.norm(x)
        return x / jnp.where(square > 0, square, 1), jnp.sqrt(square)

    return jax.lax.scan(body, x / jnp.linalg.norm(x), length=steps)[1][-1]


@struct.dataclass(kw_only=True)
class SpectralMeasurement(LinearMeasurement):
    """A linear map of known singular values: A = U diag(s) V^T, with orthogonal U and V.

    A new one defines `singular_values`, `to_spectrum` and `from_spectrum` (V^T and V), and `measured_to_spectrum` and
    `measured_from_spectrum` (U^T and U). Spectra of images have the shape of `singular_values`, an entry for each
    dimension of the image: 0 where nothing is measured. Those of measurements have the same shape; there U^T gives 0,
    and U must be given 0.
    """

    def singular_values(self) -> Array:
        """s >= 0, of the spectrum's shape, without a batch."""
        raise NotImplementedError(f"{type(self).__name__} must define singular_values()")

    def to_spectrum(self, x: Array) -> Array:
        """V^T x, (B, *spectrum), of x (B, *event)."""
        raise NotImplementedError(f"{type(self).__name__} must define to_spectrum(x)")

    def from_spectrum(self, z: Array) -> Array:
        """V z, (B, *event), of z (B, *spectrum)."""
        raise NotImplementedError(f"{type(self).__name__} must define from_spectrum(z)")

    def measured_to_spectrum(self, y: Array) -> Array:
        """U^T y, (B, *spectrum), of y (B, *measured)."""
        raise NotImplementedError(f"{type(self).__name__} must define measured_to_spectrum(y)")

    def measured_from_spectrum(self, z: Array) -> Array:
        """U z, (B, *measured), of z (B, *spectrum) that is 0 where nothing is measured."""
        raise NotImplementedError(f"{type(self).__name__} must define measured_from_spectrum(z)")

    def forward(self, x: Array) -> Array:
        """A x, (B, *measured), of x (B, *event)."""
        return self.measured_from_spectrum(self._singular_values(x) * self.to_spectrum(x))

    def adjoint(self, y: Array) -> Array:
        """A^T y, (B, *event), of y (B, *measured)."""
        return self.from_spectrum(self._singular_values(y) * self.measured_to_spectrum(y))

    def normal_solve(self, y: Array, c: ArrayLike = 0.0) -> Array:
        """(A A^T + c I)^-1 y for c >= 0, () or (B,); for c = 0 the solution of least norm."""
        s, z, c = self._singular_values(y), self.measured_to_spectrum(y), jnp.asarray(c, y.dtype)
        within = self.measured_from_spectrum(z / jnp.where(s > 0, s**2 + expand(c, z), 1))
        # A A^T is 0 on what of y lies outside the range of A. Removed twice, because a small c makes much of what rounding
        # leaves of the range.
        beyond, c = self._outside_range(self._outside_range(y)), expand(c, y)
        return within + jnp.where(c > 0, beyond / jnp.where(c > 0, c, 1), 0)

    def pseudo_inverse(self, y: Array) -> Array:
        """A^+ y = V (U^T y / s), (B, *event), of y (B, *measured)."""
        s = self._singular_values(y)
        return self.from_spectrum(self.measured_to_spectrum(y) / jnp.where(s > 0, s, 1))

    def _outside_range(self, y: Array) -> Array:
        return y - self.measured_from_spectrum(self.measured_to_spectrum(y))

    def _singular_values(self, like: Array) -> Array:
        return self.singular_values().astype(like.dtype)


@struct.dataclass(kw_only=True)
class Noise(Struct):
    """How a measurement differs from A(x_0)."""

    def sample(self, keys: Array, clean: Array) -> Array:
        """Measurements (B, *measured) of clean ones, example i by `keys[i]`."""
        raise NotImplementedError(f"{type(self).__name__} must define sample(keys, clean)")

    def log_prob(self, y: Array, clean: Array) -> Array:
        """log p(y | A(x_0) = clean) in nats, (B,)."""
        raise NotImplementedError(f"{type(self).__name__} must define log_prob(y, clean)")

    def variance(self, clean: Array) -> Array:
        """The variance of each value of y, of the shape of `clean` or ()."""
        raise NotImplementedError(f"{type(self).__name__} must define variance(clean)")
