"""The probability flow solved to a tolerance: diffrax chooses the steps, for each example its own.

`Adaptive` is `sde_lib.flow`'s solve as a sampler: between two times of the grid it takes as many steps as it needs. The
grid of one solve has two steps, the solve and the denoising step: `uniform_times(sde, 2)`. `decode` is the same without
the denoising step, and tells how many evaluations it took and which examples were not solved.
"""

from typing import ClassVar

import diffrax
from flax import struct

from sde_lib.checks import positive
from sde_lib.flow import integrate
from sde_lib.sampling.sampler import Sampler


@struct.dataclass
class Adaptive(Sampler):
    """Tsit5, of order 5, with the error of each step kept to `atol + rtol |x|`, root mean square over the event.

    An example that cannot be solved comes back as NaN and costs the others nothing.

    Attributes:
        rtol, atol: relative and absolute tolerance of a step.
        max_steps: steps allowed for each example between two times, rejected ones included.
        adjoint: None has forward-mode derivatives (`jax.jvp`); for `jax.grad` see `encode`.
    """

    is_predictor: ClassVar[bool] = False

    rtol: float = 1e-3
    atol: float = 1e-3
    max_steps: int = struct.field(pytree_node=False, default=4096)
    adjoint: diffrax.AbstractAdjoint | None = struct.field(pytree_node=False, default=None)

    def __post_init__(self):
        positive("Adaptive", rtol=self.rtol, atol=self.atol, max_steps=self.max_steps)

    def step(self, carry, keys, x, t, s, denoiser):
        """From t to s, in steps of its own."""
        limits = {"rtol": self.rtol, "atol": self.atol, "max_steps": self.max_steps}
        return carry, integrate(denoiser, x, t, s, **limits, adjoint=self.adjoint)[0].x

    def nfe(self, n_steps):
        """None: the solver chooses, for each example; `decode` tells."""
        return None


# By the name that a config gives.
SAMPLERS = {"adaptive": Adaptive}
