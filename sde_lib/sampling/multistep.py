"""Multistep methods: one evaluation per step, and a polynomial through the values of previous steps.

| sampler            | polynomial through                                                  | order                |
|--------------------|---------------------------------------------------------------------|----------------------|
| `DPMSolver(order)` | the Denoiser at the last `order` times                              | order                |
| `UniPC(order)`     | as `DPMSolver`; each step is corrected with the Denoiser at its end | order + 1, at most 3 |
| `DEIS(order)`      | the noise at the last `order` times                                 | order                |

The first steps have fewer previous values, which would reduce the order of convergence of methods of order 3. Their
first step is therefore corrected, as in `UniPC`, once the second value is known, without an additional evaluation. (The
published third-order code of DPM-Solver++ is of second order for another reason: its second difference lacks a factor
2.)

The polynomial may be in any variable. Published methods use half the log-SNR (DPM-Solver++, UniPC) or the time of the
process (DEIS). For few steps "angle", arctan(sigma / alpha), is more accurate: it is bounded to [0, pi / 2], whereas
steps in log-SNR are long at high noise and make extrapolation inaccurate.

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
    """Evaluations of the last K = `order` steps, the newest first, and quantities for the correction of the last step.

    Attributes:
        count: number of completed steps, ().
        nodes: positions of the evaluations in the variable of the polynomial, (K,).
        values: the evaluated Denoiser or noise, (K, B, *event).
        start: lambda at the start of the last step, ().
        base: the result of the last step without the integral over the values, (B, *event).
        steps: total number of steps, without the denoising step, ().
    """

    count: Array
    nodes: Array
    values: Array
    start: Array
    base: Array
    steps: Array


@struct.dataclass
class Multistep(Sampler):
    """Base class of multistep methods; see the module docstring.

    Attributes:
        order: number of values of the polynomial, 1, 2 or 3.
        variable: variable of the polynomial: "log_snr" (half the log-SNR), "angle" or "time".
        lower_order_final: True reduces the order to 1 towards the last step, as some published samplers do for fewer
            than 15 steps. The denoising step of `sample` to clean data is always of order 1.
    """

    is_predictor: ClassVar[bool] = False

    order: int = struct.field(pytree_node=False, default=2)
    variable: Variable = struct.field(pytree_node=False, default="log_snr")
    lower_order_final: bool = struct.field(pytree_node=False, default=False)

    def __post_init__(self):
        one_of(type(self).__name__, (1, 2, 3), order=self.order)
        one_of(type(self).__name__, VARIABLES, variable=self.variable)

    def _value(self, denoiser: Denoiser, x: Array, t: Array) -> Array:
        """Evaluates the interpolated quantity, (B, *event); one evaluation of the Denoiser."""
        raise NotImplementedError

    def _kernel(self, start: Array, u: Array, h: Array) -> Array:
        """Integration kernel: weight of the value at start + u in y(start + h), per unit of u."""
        raise NotImplementedError

    def _base(self, keys: Array, y: Array, start: Array, h: Array) -> Array:
        """Returns y(start + h) without the integral over the values."""
        raise NotImplementedError

    def _applies_corrector(self, count: Array) -> Array:
        """Returns True if the last of `count` steps is corrected with the value at its end."""
        return (count == 1) & (self.order == 3)

    def _integral(self, denoiser: Denoiser, start: Array, h: Array, nodes: Array, known: Array, values: Array) -> Array:
        """Returns the integral of kernel times polynomial through the known values, (B, *event)."""
        u, weights = quadrature(h)
        polynomials = lagrange(VARIABLES[self.variable](denoiser.sde, start + u), nodes, known)
        return combine(polynomials @ (weights * self._kernel(start, u, h)), values)

    def init(self, x: Array, denoiser: Denoiser, times: Array) -> History:
        """Returns an empty history."""
        return History(
            count=jnp.zeros((), int),
            nodes=jnp.zeros((self.order,), times.dtype),
            values=jnp.zeros((self.order, *x.shape), x.dtype),
            start=jnp.zeros((), times.dtype),
            base=jnp.zeros_like(x),
            steps=times.shape[0] - 1 - (times[-1] == 0).astype(int),  # without the denoising step to time 0
        )

    def step(self, carry, keys, x, t, s, denoiser):
        """From t to s; one evaluation."""
        sde = scalar(denoiser.sde)
        now, end = half_log_snr(sde, t), half_log_snr(sde, s)
        y = x / sde.alpha(t)
        nodes = jnp.concatenate([VARIABLES[self.variable](sde, now)[None], carry.nodes])
        values = jnp.concatenate([self._value(denoiser, x, t)[None], carry.values])
        known = jnp.arange(self.order + 1) <= carry.count
        corrected = carry.base + self._integral(denoiser, carry.start, now - carry.start, nodes, known, values)
        y = jnp.where(self._applies_corrector(carry.count), corrected, y)

        nodes, values, known = nodes[:-1], values[:-1], known[:-1]
        used = known & (jnp.arange(self.order) < carry.steps - carry.count) if self.lower_order_final else known
        base = self._base(keys, y, now, end - now)
        y = base + self._integral(denoiser, now, end - now, nodes, used, values)
        carry = History(carry.count + 1, nodes, values, now, base, carry.steps)
        return carry, sde.alpha(s) * y


@struct.dataclass
class DPMSolver(Multistep):
    """DPM-Solver++ as a multistep method: a polynomial approximation of the Denoiser.

    Attributes:
        tau: stochasticity, >= 0 (ValueError). 0 is the probability flow, 1 the reverse-time SDE (SDE-DPM-Solver++); the
            exact marginals are equal for all values. At order 1, tau = 0 is `DDIM` with eta = 0 and tau = 1 is
            `Ancestral`.
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
    """UniPC: `DPMSolver` with each step corrected by the Denoiser at its end (UniC), without additional evaluations.

    The polynomial of the correction has one more value. The coefficients are those of the exact integral.
    """

    def _applies_corrector(self, count):
        return count > 0


@struct.dataclass
class DEIS(Multistep):
    """DEIS: a polynomial approximation of the noise, by default in the time of the process as published (tAB-DEIS).

    Attributes:
        corrected: True corrects each step as in `UniPC`, which raises the order by 1 (to at most 3).
    """

    variable: Variable = struct.field(pytree_node=False, default="time")
    corrected: bool = struct.field(pytree_node=False, default=False)

    def _value(self, denoiser, x, t):
        return denoiser.noise(x, t)

    def _kernel(self, start, u, h):
        return noise_kernel(start, u)

    def _base(self, keys, y, start, h):
        return y

    def _applies_corrector(self, count):
        return count > 0 if self.corrected else super()._applies_corrector(count)


# Names used in configs.
SAMPLERS = {"dpm_solver": DPMSolver, "unipc": UniPC, "deis": DEIS}
