"""One measurement of what another has measured: outer(inner(x))."""

from flax import struct
from jax import Array

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
