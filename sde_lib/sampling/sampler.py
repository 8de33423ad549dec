"""Base class of samplers. A sampler defines one reverse step, from time t to a smaller time s.

A sampler is a pytree with `init` and `step`. It evaluates the views of the Denoiser and the coefficients of the
process, and is independent of the network, the guidance and the class of the process. A new sampler derives from
`Sampler` and defines `step`:

    class Mine(Sampler):
        def step(self, carry, keys, x, t, s, denoiser):
            return carry, x + (s - t) * denoiser.velocity(x, t)

A sampler that needs alpha and sigma uses `scalar(denoiser.sde)` as the process, which raises an error with alternative
samplers for a process without alpha and sigma.
"""

from typing import Any, ClassVar

from flax import struct
from jax import Array

from sde_lib.denoiser import Denoiser
from sde_lib.struct import Struct


@struct.dataclass
class Sampler(Struct):
    """One reverse step, and the last step to clean data: the denoising step unless `finish` is overridden."""

    evaluations_per_step: ClassVar[int] = 1
    is_predictor: ClassVar[bool] = True  # steps have no history, so the sampler is valid in `PredictorCorrector`

    def init(self, x: Array, denoiser: Denoiser, times: Array) -> Any:
        """Returns the initial carry of the loop over steps, a pytree; empty by default."""
        return ()

    def step(self, carry: Any, keys: Array, x: Array, t: Array, s: Array, denoiser: Denoiser) -> tuple[Any, Array]:
        """Makes one step of x (B, *state) from time t to time s < t, both ().

        Args:
            carry: the carry of the last step, or of `init`.
            keys: keys of this step, one per example, (B,).
            x: states at time t, (B, *state).
            t, s: the two times, ().
            denoiser: the Denoiser to evaluate.

        Returns:
            The carry, and the states at time s, (B, *state).
        """
        raise NotImplementedError(f"{type(self).__name__} must define step")

    def finish(self, carry: Any, x: Array, t: Array, denoiser: Denoiser) -> Array:
        """Returns clean data (B, *event) from x (B, *state) at the last time t, (), by one evaluation: x0 = D(x, t)."""
        return denoiser(x, t)

    def nfe(self, n_steps: int) -> int | None:
        """Returns the evaluations of the Denoiser in n steps, the last of which is `finish`; None if adaptive."""
        return self.evaluations_per_step * (n_steps - 1) + 1
