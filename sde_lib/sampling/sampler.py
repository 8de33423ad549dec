"""The base class of samplers: a sampler defines one reverse step, from time t to a smaller time s.

A sampler is a pytree with `init` and `step`. It evaluates the Denoiser's views and the process's coefficients, and depends
on no network, guidance or class of process. A new sampler derives from `Sampler` and defines `step`:

    class Mine(Sampler):
        def step(self, carry, keys, x, t, s, denoiser):
            return carry, x + (s - t) * denoiser.velocity(x, t)

A sampler that needs alpha and sigma takes `scalar(denoiser.sde)` for the process: the error for a process without them then
names the samplers for any process.
"""

from typing import Any, ClassVar

from flax import struct
from jax import Array

from sde_lib.denoiser import Denoiser
from sde_lib.struct import Struct


@struct.dataclass
class Sampler(Struct):
    """One reverse step, and the last one to clean data, which is the denoising step unless a sampler overrides `finish`."""

    evaluations_per_step: ClassVar[int] = 1
    is_predictor: ClassVar[bool] = True  # a step without history towards the data, which a corrector may follow

    def init(self, x: Array, denoiser: Denoiser, times: Array) -> Any:
        """The carry from step to step, a pytree; empty by default."""
        return ()

    def step(self, carry: Any, keys: Array, x: Array, t: Array, s: Array, denoiser: Denoiser) -> tuple[Any, Array]:
        """Takes x (B, *event) from time t to time s < t, both (); `keys` (B,) are this step's, one per example."""
        raise NotImplementedError(f"{type(self).__name__} must define step")

    def finish(self, carry: Any, x: Array, t: Array, denoiser: Denoiser) -> Array:
        """Takes x (B, *state) from the last time t, (), to clean data (B, *event), by one evaluation: x0 = D(x, t)."""
        return denoiser(x, t)

    def nfe(self, n_steps: int) -> int | None:
        """Evaluations of the Denoiser in n steps, of which the last is the denoising step and costs one; None: not fixed."""
        return self.evaluations_per_step * (n_steps - 1) + 1
