"""Multistep methods: one evaluation a step, and a polynomial through those of the steps before.

| sampler            | polynomial through                                                        | order           |
|--------------------|---------------------------------------------------------------------------|-----------------|
| `DPMSolver(order)` | the Denoiser at the last `order` times                                    | order           |
| `UniPC(order)`     | the same; and each step is done again when the Denoiser at its end is known | order + 1, at most 3 |
| `DEIS(order)`      | the noise at the last `order` times                                       | order           |

The first steps know fewer values. That costs a method of order 3 its order, unless the first step is done again, as in
`UniPC`, once a second value is known: no evaluation is added. (The published third-order code of DPM-Solver++ is of
second order for another reason: its second difference lacks a factor 2.)

The polynomial may be in any variable. Published methods take half the log-SNR (DPM-Solver++, UniPC) or the process's time
(DEIS). At few steps "angle", arctan(sigma / alpha), is the better one: it stays in [0, pi / 2], where the log-SNR's long
steps at the noisy end throw extrapolations far off.

Sources: Lu et al. (2022), https://arxiv.org/abs/2211.01095, algorithm 2; Zhao et al. (2023),
https://arxiv.org/abs/2302.04867, algorithms 1 and 2; Zhang and Chen (2023), https://arxiv.org/abs/2204.13902, section 3;
for stochastic steps Xue et al. (2023), https://arxiv.org/abs/2309.05019.
"""

from typing import ClassVar

import jax.numpy as jnp
from flax import struct
from jax import Array

from sde_lib.checks import at_least, one_of
from sde_lib.denoiser import Denoiser
from sde_lib.sampling.exponential import (
    VARIABLES,
    Variable,
    combine,
    data_kernel,
    half_log_snr,
    homogeneous,
    lagrange,
    noise_kernel,
    quadrature,
)
from sde_lib.sampling.sampler import Sampler
from sde_lib.sde import scalar
from sde_lib.struct import Struct


@struct.dataclass
class History(Struct):
    """Evaluations of the last K steps, the newest first, and what the newest step did with them.

    Attributes:
        count: (), how many steps were made.
        nodes: (K,), where the evaluations were made, in the sampler's variable.
        values: (K, B, *event), what was found.
        start, base: the newest step's lambda at its start (), and its result less what the values gave (B, *event).
        steps: (), how many steps there will be.
    """

    count: Array
    nodes: Array
    values: Array
    start: Array
    base: Array
    steps: Array


@struct.dataclass
class Multistep(Sampler):
    """What the multistep methods share; see the module's text.

    Attributes:
        order: how many values the polynomial goes through: 1, 2 or 3.
        variable: what the polynomial is in: "log_snr" (half of it), "angle" or "time".
        lower_order_final: let the order fall to 1 towards the last step, which some published samplers do below 15 steps.
            The denoising step to clean data, which `sample` makes, is of order 1 in any case.
    """

    is_predictor: ClassVar[bool] = False

    order: int = struct.field(pytree_node=False, default=2)
    variable: Variable = struct.field(pytree_node=False, default="log_snr")
    lower_order_final: bool = struct.field(pytree_node=False, default=False)

    def __post_init__(self):
        one_of(type(self).__name__, (1, 2, 3), order=self.order)
        one_of(type(self).__name__, VARIABLES, variable=self.variable)

    def _value(self, denoiser: Denoiser, x: Array, t: Array) -> Array:
        """What the polynomial goes through, (B, *event); one evaluation."""
        raise NotImplementedError

    def _kernel(self, start: Array, u: Array, h: Array) -> Array:
        """What the value at start + u counts for in y(start + h)."""
        raise NotImplementedError

    def _base(self, keys: Array, y: Array, start: Array, h: Array) -> Array:
        """y(start + h) less what the values give."""
        raise NotImplementedError

    def _does_again(self, count: Array) -> Array:
        """Whether the newest of `count` steps is done again with the value found at its end."""
        return (count == 1) & (self.order == 3)

    def _integral(self, denoiser: Denoiser, start: Array, h: Array, nodes: Array, known: Array, values: Array) -> Array:
        """What the polynomial through the known values gives to y(start + h), (B, *event)."""
        u, weights = quadrature(h)
        polynomials = lagrange(VARIABLES[self.variable](denoiser.sde, start + u), nodes, known)
        return combine(polynomials @ (weights * self._kernel(start, u, h)), values)

    def init(self, x: Array, denoiser: Denoiser, times: Array) -> History:
        """An empty history."""
        return History(
            count=jnp.zeros((), int),
            nodes=jnp.zeros((self.order,), times.dtype),
            values=jnp.zeros((self.order, *x.shape), x.dtype),
            start=jnp.zeros((), times.dtype),
            base=jnp.zeros_like(x),
            steps=times.shape[0] - 1 - (times[-1] == 0).astype(int),  # the last is the denoising step if it ends at 0
        )

    def step(self, carry, keys, x, t, s, denoiser):
        """From t to s; one evaluation."""
        sde = scalar(denoiser.sde)
        now, end = half_log_snr(sde, t), half_log_snr(sde, s)
        y = x / sde.alpha(t)
        nodes = jnp.concatenate([VARIABLES[self.variable](sde, now)[None], carry.nodes])
        values = jnp.concatenate([self._value(denoiser, x, t)[None], carry.values])
        known = jnp.arange(self.order + 1) <= carry.count
        again = carry.base + self._integral(denoiser, carry.start, now - carry.start, nodes, known, values)
        y = jnp.where(self._does_again(carry.count), again, y)

        nodes, values, known = nodes[:-1], values[:-1], known[:-1]
        used = known & (jnp.arange(self.order) < carry.steps - carry.count) if self.lower_order_final else known
        base = self._base(keys, y, now, end - now)
        y = base + self._integral(denoiser, now, end - now, nodes, used, values)
        carry = History(carry.count + 1, nodes, values, now, base, carry.steps)
        return carry, sde.alpha(s) * y


@struct.dataclass
class DPMSolver(Multistep):
    """DPM-Solver++ as a multistep method: the polynomial is the Denoiser's.

    Attributes:
        tau: stochasticity, >= 0. 0 follows the probability flow, 1 the reverse-time SDE (SDE-DPM-Solver++); all values have
            the same marginals. At order 1 tau = 0 is `DDIM` with eta = 0, and tau = 1 is `Ancestral`.
    """

    tau: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        at_least(type(self).__name__, 0, tau=self.tau)

    def _value(self, denoiser, x, t):
        return denoiser(x, t)

    def _kernel(self, start, u, h):
        return data_kernel(u, h, self.tau)

    def _base(self, keys, y, start, h):
        return homogeneous(keys, y, start, h, self.tau)


@struct.dataclass
class UniPC(DPMSolver):
    """`DPMSolver`, each step done again with the Denoiser at its end, which the next step needs anyway.

    The polynomial of the second round goes through one value more: UniC with the coefficients of the exact integral.
    """

    def _does_again(self, count):
        return count > 0


@struct.dataclass
class DEIS(Multistep):
    """DEIS: the polynomial is the noise's, in the process's time as published (tAB-DEIS).

    Attributes:
        corrected: do each step again as `UniPC` does, which raises the order by 1 (to 3 at most).
    """

    variable: Variable = struct.field(pytree_node=False, default="time")
    corrected: bool = struct.field(pytree_node=False, default=False)

    def _value(self, denoiser, x, t):
        return denoiser.noise(x, t)

    def _kernel(self, start, u, h):
        return noise_kernel(start, u)

    def _base(self, keys, y, start, h):
        return y

    def _does_again(self, count):
        return count > 0 if self.corrected else super()._does_again(count)


# By the name that a config gives.
SAMPLERS = {"dpm_solver": DPMSolver, "unipc": UniPC, "deis": DEIS}
