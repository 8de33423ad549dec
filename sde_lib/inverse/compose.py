"""Composition outer(inner(x)) and scaling factor A x of forward operators."""

import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from sde_lib.checks import positive
from sde_lib.inverse.measurement import LinearMeasurement, Measurement


@struct.dataclass(kw_only=True)
class Compose(Measurement):
    """Composition outer(inner(x)) of two measurements; `LinearCompose` composes two linear measurements.

    Attributes:
        outer: the measurement applied to the output of `inner`.
        inner: the measurement applied to the image.
    """

    outer: Measurement
    inner: Measurement

    def forward(self, x: Array) -> Array:
        """Returns outer(inner(x))."""
        return self.outer.forward(self.inner.forward(x))


@struct.dataclass(kw_only=True)
class LinearCompose(LinearMeasurement):
    """Composition A B x of two linear measurements; linear systems are solved by conjugate gradients.

    Attributes:
        outer: A; its `event_shape` is the shape of one measurement of B.
        inner: B, applied to the image.
        event_shape: shape of one image; None for `inner.event_shape`; static.
    """

    outer: LinearMeasurement
    inner: LinearMeasurement
    event_shape: tuple[int, ...] | None = struct.field(pytree_node=False, default=None)

    def __post_init__(self):
        if self.event_shape is None:
            object.__setattr__(self, "event_shape", self.inner.event_shape)

    def forward(self, x: Array) -> Array:
        """Returns A B x."""
        return self.outer.forward(self.inner.forward(x))

    def adjoint(self, y: Array) -> Array:
        """Returns B^T A^T y."""
        return self.inner.adjoint(self.outer.adjoint(y))


@struct.dataclass(kw_only=True)
class Scaled(LinearMeasurement):
    """Scaled linear measurement factor A x; linear systems are solved by the methods of A.

    Attributes:
        measurement: A.
        factor: scale, (), more than 0.
        event_shape: shape of one image; None for `measurement.event_shape`; static.

    Raises:
        ValueError: factor is a number that is not positive.
    """

    measurement: LinearMeasurement
    factor: ArrayLike
    event_shape: tuple[int, ...] | None = struct.field(pytree_node=False, default=None)

    def __post_init__(self):
        positive("Scaled", factor=self.factor)
        if self.event_shape is None:
            object.__setattr__(self, "event_shape", self.measurement.event_shape)

    def forward(self, x: Array) -> Array:
        """Returns factor A x."""
        return jnp.multiply(self.factor, self.measurement.forward(x))

    def adjoint(self, y: Array) -> Array:
        """Returns factor A^T y."""
        return jnp.multiply(self.factor, self.measurement.adjoint(y))

    def normal_solve(self, y: Array, c: ArrayLike = 0.0) -> Array:
        """Returns (factor^2 A A^T + c I)^-1 y."""
        square = jnp.square(self.factor)
        return self.measurement.normal_solve(y, c / square) / square

    def pseudo_inverse(self, y: Array) -> Array:
        """Returns A^+ y / factor."""
        return self.measurement.pseudo_inverse(y) / self.factor
