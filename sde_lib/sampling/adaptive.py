"""Adaptive solver of the probability flow, with separate step sizes for each example.

`Adaptive` is the solver of `sde_lib.flow` as a sampler: it solves the ODE between consecutive times of the grid. For a
single solve and the denoising step, use a grid of two steps, `uniform_times(sde, 2)`. `decode` omits the denoising step
and also returns the number of evaluations and the status of each example.
"""

from typing import ClassVar

import diffrax
from flax import struct

from sde_lib.checks import positive
from sde_lib.flow import integrate
from sde_lib.sampling.sampler import Sampler


@struct.dataclass
class Adaptive(Sampler):
    """Adaptive solver of the probability flow: Tsit5 (order 5) with the error of each step below `atol + rtol |x|`.

    The error is the root mean square over the event. Examples that cannot be solved are NaN and do not affect other
    examples.

    Attributes:
        rtol, atol: relative and absolute tolerance of a step, > 0 (ValueError).
        max_steps: maximum number of steps per example between two times, including rejected steps.
        adjoint: None supports forward-mode derivatives (`jax.jvp`); for `jax.grad` see `encode`.
    """

    is_predictor: ClassVar[bool] = False

    rtol: float = 1e-3
    atol: float = 1e-3
    max_steps: int = struct.field(pytree_node=False, default=4096)
    adjoint: diffrax.AbstractAdjoint | None = struct.field(pytree_node=False, default=None)

    def __post_init__(self):
        positive("Adaptive", rtol=self.rtol, atol=self.atol, max_steps=self.max_steps)

    def step(self, carry, keys, x, t, s, denoiser):
        """From t to s, with adaptive steps."""
        limits = {"rtol": self.rtol, "atol": self.atol, "max_steps": self.max_steps}
        return carry, integrate(denoiser, x, t, s, **limits, adjoint=self.adjoint)[0].x

    def nfe(self, n_steps):
        """Returns None: the number of evaluations is adaptive. `decode` returns it for each example."""
        return None


# Names used in configs.
SAMPLERS = {"adaptive": Adaptive}
