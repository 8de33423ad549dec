"""Denoisers: D(x, t) = E[x_0 | x_t = x], bound to the process that made x_t.

The posterior mean of the data holds all that sampling needs. With x_t = alpha x_0 + sigma noise:

    noise(x, t)    = (x - alpha D) / sigma                 = E[noise | x_t = x]
    score(x, t)    = -noise / sigma                        = grad log p_t(x)              (Tweedie's formula)
    velocity(x, t) = alpha' D + sigma' noise               = dx/dt of the probability-flow ODE

Samplers evaluate these views and know nothing of networks; guidance maps a Denoiser to a Denoiser. A new Denoiser defines
either `__call__(x, t)`, from which the noise is derived, or `x0_and_noise(x, t)`, whose first value is D. The formulas above
are methods of the process (`sde.py`, "views"): a process whose state is more than noisy data overrides them, and every
Denoiser works on it.

Sources: Robbins (1956) and Efron (2011) for Tweedie's formula; Song et al. (2021), https://arxiv.org/abs/2011.13456,
eq. 13 for the probability flow; Karras et al. (2022), https://arxiv.org/abs/2206.00364, for the view of a model as a
denoiser.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from sde_lib.parameterization import Parameterization
from sde_lib.sde import Process, expand
from sde_lib.struct import Struct


@struct.dataclass
class Denoiser(Struct):
    """E[x_0 | x_t = x] for x (B, *state) and t () or (B,); states have the data's shape unless the process says otherwise.

    Attributes:
        sde: the forward process.
    """

    sde: Process

    def __call__(self, x: Array, t: ArrayLike) -> Array:
        """The expected data, (B, *event)."""
        if type(self).x0_and_noise is Denoiser.x0_and_noise:
            raise self._undefined()
        return self.x0_and_noise(x, t)[0]

    def x0_and_noise(self, x: Array, t: ArrayLike) -> tuple[Array, Array]:
        """The expected data and the expected noise from one evaluation: `sde.perturb(x0, noise, t)` is x."""
        if type(self).__call__ is Denoiser.__call__:
            raise self._undefined()
        x0 = self(x, t)
        return x0, self.sde.noise_from_x0(x, x0, t)

    def noise(self, x: Array, t: ArrayLike) -> Array:
        """E[noise | x_t = x], of the shape of x."""
        return self.x0_and_noise(x, t)[1]

    def score(self, x: Array, t: ArrayLike) -> Array:
        """grad log p_t(x), of the shape of x."""
        return self.sde.score_from_noise(self.noise(x, t), t)

    def velocity(self, x: Array, t: ArrayLike) -> Array:
        """dx/dt of the probability flow, of the shape of x."""
        x0, noise = self.x0_and_noise(x, t)
        return self.sde.velocity_from_x0_and_noise(x, x0, noise, t)

    def training(self, keys: Array) -> "Denoiser":
        """The Denoiser in training mode, dropout on, example i by `keys[i]`; a Denoiser without dropout returns itself."""
        return self

    def _undefined(self) -> NotImplementedError:
        """The error of a class that defines neither of the two methods from which all others follow."""
        return NotImplementedError(f"{type(self).__name__} must define __call__(x, t) or x0_and_noise(x, t)")


@struct.dataclass
class FunctionDenoiser(Denoiser):
    """A Denoiser made of a function (x, t) -> x0 written in a notebook.

    Attributes:
        function: pure; a new function object compiles anew.
    """

    function: Callable[[Array, Any], Array] = struct.field(pytree_node=False)

    def __call__(self, x: Array, t: ArrayLike) -> Array:
        """`function(x, t)`."""
        return self.function(x, t)


@struct.dataclass
class NetworkDenoiser(Denoiser):
    """A Denoiser made of a network and the parameterization that gives its output a meaning.

    The network is called as `network.apply(variables, x, noise_level, condition, train=...)`, and in training with
    `dropout_keys=keys` too; what it sees as x and noise_level is the parameterization's business.

    Attributes:
        parameterization: what the network's output means; see `sde_lib.parameterization`.
        network: anything with such an `apply` (a Flax module); static.
        variables: the network's weights.
        condition: what the network is conditioned on: any pytree of arrays (B, ...), one entry an example; None for none.
        dropout_keys: None, or one key per example: then the network runs with `train=True`.
    """

    parameterization: Parameterization
    network: Any = struct.field(pytree_node=False)
    variables: Any = None
    condition: Any = None
    dropout_keys: Array | None = None

    def x0_and_noise(self, x: Array, t: ArrayLike) -> tuple[Array, Array]:
        """Both from one evaluation, each by the formula that keeps its digits at every noise level."""
        t = jnp.broadcast_to(t, x.shape[:1])
        x0, noise = self.parameterization.x0_and_noise(self._network, self.sde, x, t)
        return x0, self.sde.noise_from_data_scale(x, noise, t)

    def training(self, keys: Array) -> "NetworkDenoiser":
        """The same with dropout on, for example i by `keys[i]`."""
        return self.replace(dropout_keys=keys)

    def _network(self, x: Array, noise_level: Array) -> Array:
        mode: dict[str, Any] = (
            {"train": False} if self.dropout_keys is None else {"train": True, "dropout_keys": self.dropout_keys}
        )
        return self.network.apply(self.variables, x, noise_level, self.condition, **mode)


@struct.dataclass
class DerivedDenoiser(Denoiser):
    """A Denoiser made of another, as guidance and measurements do; its process is the other's.

    Attributes:
        denoiser: the other.
    """

    denoiser: Denoiser

    sde: ClassVar[Process]  # no field: see below  # pyright: ignore[reportRedeclaration]

    @property
    def sde(self) -> Process:
        """The process of `denoiser`."""
        return self.denoiser.sde


def with_data_shifted(sde: Process, x: Array, shift: Array, t: ArrayLike) -> Array:
    """The state x (B, *state) with its data moved by shift (B, *event): `to_data_scale` of it moves by as much."""
    return x + sde.marginal(shift, t)[0]


def shifted(sde: Process, x: Array, x0: Array, noise: Array, shift: Array, t: ArrayLike) -> tuple[Array, Array]:
    """The expected data and noise at x once the expected data is x0 + shift: `sde.perturb` of the two still is x.

    The noise moves by what the shift makes of it, and so keeps its digits where sigma is small and x - alpha x0 has none.

    Args:
        sde: the process.
        x: the state, (B, *state).
        x0: the data that was expected, (B, *event).
        noise: the noise that was expected, (B, *state).
        shift: (B, *event).
        t: () or (B,).
    """
    in_noise = -shift / expand(sde.noise_to_signal(t), shift)
    without = sde.noise_from_data_scale(x, jnp.zeros_like(shift), t)
    return x0 + shift, noise + (sde.noise_from_data_scale(x, in_noise, t) - without)
