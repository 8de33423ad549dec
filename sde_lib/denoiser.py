"""Denoisers: D(x, t) = E[x_0 | x_t = x], each bound to the forward process of x_t.

The posterior mean of the data determines every quantity that samplers need. With x_t = alpha x_0 + sigma noise:

    noise(x, t)    = (x - alpha D) / sigma                 = E[noise | x_t = x]
    score(x, t)    = -noise / sigma                        = grad log p_t(x)              (Tweedie's formula)
    velocity(x, t) = alpha' D + sigma' noise               = dx/dt of the probability-flow ODE

Samplers evaluate these views and are independent of networks; guidance maps a Denoiser to a Denoiser. A new Denoiser
defines either `__call__(x, t)`, from which the noise is derived, or `x0_and_noise(x, t)`, whose first value is D. The
formulas above are methods of the process (`sde.py`, "views"). A process whose state is not the noisy data overrides
these methods, so that every Denoiser supports it.

Sources: Robbins (1956) and Efron (2011) for Tweedie's formula; Song et al. (2021), https://arxiv.org/abs/2011.13456,
eq. 13 for the probability flow; Karras et al. (2022), https://arxiv.org/abs/2206.00364, for models as denoisers.
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
    """E[x_0 | x_t = x] for x (B, *state) and t () or (B,).

    The shapes of states and data are equal unless the process overrides `state_shape`.

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
        """Returns expected data (B, *event) and noise (B, *state) from one evaluation; `sde.perturb` of both is x."""
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
        """Returns the Denoiser in training mode, with dropout by one key per example; itself if it has no dropout."""
        return self

    def _undefined(self) -> NotImplementedError:
        """The error for a class that defines neither `__call__` nor `x0_and_noise`."""
        return NotImplementedError(f"{type(self).__name__} must define __call__(x, t) or x0_and_noise(x, t)")


@struct.dataclass
class FunctionDenoiser(Denoiser):
    """A Denoiser defined by a function (x, t) -> x0.

    Attributes:
        function: a pure function, x (B, *state) -> x0 (B, *event); static, so each new function object is recompiled.
    """

    function: Callable[[Array, Any], Array] = struct.field(pytree_node=False)

    def __call__(self, x: Array, t: ArrayLike) -> Array:
        """`function(x, t)`."""
        return self.function(x, t)


@struct.dataclass
class NetworkDenoiser(Denoiser):
    """A Denoiser defined by a network and the parameterization of its output.

    The network is called as `network.apply(variables, x, noise_level, condition, train=...)`, in training with
    `dropout_keys=keys` too. The parameterization computes the inputs x and noise_level.

    Attributes:
        parameterization: the meaning of the network's output; see `sde_lib.parameterization`.
        network: an object with such an `apply` method (a Flax module); static.
        variables: the network's weights.
        condition: the conditioning input, a pytree of arrays (B, ...) with one entry per example; None: unconditional.
        dropout_keys: one key per example, (B,), which runs the network with `train=True`; None disables dropout.
    """

    parameterization: Parameterization
    network: Any = struct.field(pytree_node=False)
    variables: Any = None
    condition: Any = None
    dropout_keys: Array | None = None

    def x0_and_noise(self, x: Array, t: ArrayLike) -> tuple[Array, Array]:
        """Returns x0 and noise from one evaluation, each by a formula that is accurate at every noise level."""
        t = jnp.broadcast_to(t, x.shape[:1])
        x0, noise = self.parameterization.x0_and_noise(self._network, self.sde, x, t)
        return x0, self.sde.noise_from_data_scale(x, noise, t)

    def training(self, keys: Array) -> "NetworkDenoiser":
        """Returns the Denoiser with dropout enabled, one key per example."""
        return self.replace(dropout_keys=keys)

    def _network(self, x: Array, noise_level: Array) -> Array:
        mode: dict[str, Any] = (
            {"train": False} if self.dropout_keys is None else {"train": True, "dropout_keys": self.dropout_keys}
        )
        return self.network.apply(self.variables, x, noise_level, self.condition, **mode)


@struct.dataclass
class DerivedDenoiser(Denoiser):
    """A Denoiser derived from another Denoiser of the same process, as in guidance and posterior sampling.

    Attributes:
        denoiser: the Denoiser to derive from.
    """

    denoiser: Denoiser

    sde: ClassVar[Process]  # a property, not a field  # pyright: ignore[reportRedeclaration]

    @property
    def sde(self) -> Process:
        """The process of `denoiser`."""
        return self.denoiser.sde


def with_data_shifted(sde: Process, x: Array, shift: Array, t: ArrayLike) -> Array:
    """Shifts a state x (B, *state) so that `to_data_scale` of the result changes by `shift` (B, *event)."""
    return x + sde.marginal(shift, t)[0]


def shifted(sde: Process, x: Array, x0: Array, noise: Array, shift: Array, t: ArrayLike) -> tuple[Array, Array]:
    """Shifts the expected data by `shift` and the expected noise such that `sde.perturb(x0, noise, t)` is still x.

    The change of the noise is computed from the shift and not from x - alpha x0, which is inaccurate where sigma is
    small.

    Args:
        sde: the process.
        x: the state, (B, *state).
        x0: the expected data before the shift, (B, *event).
        noise: the expected noise before the shift, (B, *state).
        shift: the change of the expected data, (B, *event).
        t: the time of x, () or (B,).

    Returns:
        x0 + shift, (B, *event), and the corresponding noise, (B, *state).
    """
    in_noise = -shift / expand(sde.noise_to_signal(t), shift)
    baseline = sde.noise_from_data_scale(x, jnp.zeros_like(shift), t)
    return x0 + shift, noise + (sde.noise_from_data_scale(x, in_noise, t) - baseline)
