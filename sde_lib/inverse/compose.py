"""Measurements made of others: one of what another has measured, outer(inner(x)), and one in other units."""

import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from sde_lib.checks import positive
from sde_lib.inverse.measurement import LinearMeasurement, Measurement


@struct.dataclass(kw_only=True)
class Compose(Measurement):
    """outer(inner(x)), where one of the two may be nonlinear. `LinearCompose` is for two linear ones.

    Attributes:
        outer: measures what `inner` gives.
        inner: measures the image.
    """

    outer: Measurement
    inner: Measurement

    def forward(self, x: Array) -> Array:
        """outer(inner(x))."""
        return self.outer.forward(self.inner.forward(x))


@struct.dataclass(kw_only=True)
class LinearCompose(LinearMeasurement):
    """A B x, of two linear measurements; it is linear, and its solves take conjugate gradients.

    Attributes:
        outer: A, of what B gives: its `event_shape` is the shape of what B measures.
        inner: B, of the image.
        event_shape: that of `inner`, from where it comes by default.
    """

    outer: LinearMeasurement
    inner: LinearMeasurement
    event_shape: tuple[int, ...] | None = struct.field(pytree_node=False, default=None)

    def __post_init__(self):
        if self.event_shape is None:
            object.__setattr__(self, "event_shape", self.inner.event_shape)

    def forward(self, x: Array) -> Array:
        """A B x."""
        return self.outer.forward(self.inner.forward(x))

    def adjoint(self, y: Array) -> Array:
        """B^T A^T y."""
        return self.inner.adjoint(self.outer.adjoint(y))


@struct.dataclass(kw_only=True)
class Scaled(LinearMeasurement):
    """factor A x: a linear measurement in other units, with its own solves in them.

    Attributes:
        measurement: A.
        factor: more than 0, ().
        event_shape: that of `measurement`, from where it comes by default.
    """

    measurement: LinearMeasurement
    factor: ArrayLike
    event_shape: tuple[int, ...] | None = struct.field(pytree_node=False, default=None)

    def __post_init__(self):
        positive("Scaled", factor=self.factor)
        if self.event_shape is None:
            object.__setattr__(self, "event_shape", self.measurement.event_shape)

    def forward(self, x: Array) -> Array:
        """factor A x."""
        return jnp.multiply(self.factor, self.measurement.forward(x))

    def adjoint(self, y: Array) -> Array:
        """factor A^T y."""
        return jnp.multiply(self.factor, self.measurement.adjoint(y))

    def normal_solve(self, y: Array, c: ArrayLike = 0.0) -> Array:
        """(factor^2 A A^T + c I)^-1 y."""
        square = jnp.square(self.factor)
        return self.measurement.normal_solve(y, c / square) / square

    def pseudo_inverse(self, y: Array) -> Array:
        """A^+ y / factor."""
        return self.measurement.pseudo_inverse(y) / self.factor
