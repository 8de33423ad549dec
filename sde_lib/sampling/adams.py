"""Adams-Bashforth-Moulton methods in the angle between data and noise: the samplers of the recommended table.

With data of standard deviation c, write phi = arctan(sigma / (alpha c)) and z = x / sqrt(alpha^2 c^2 + sigma^2). Then

    z = cos(phi) x0 / c + sin(phi) noise,    dz/dphi = -F,    F = sin(phi) x0 / c - cos(phi) noise,

for every process: the probability flow without a linear term, with an angle that decreases from pi/2 (noise) to 0
(data). F is the output of a network with EDM's preconditioning, of unit variance at every noise level. Exponential
integrators are limits: for c -> 0 the polynomial approximates the Denoiser (DPM-Solver++), for c -> infinity the noise
(DEIS).

Each step evaluates F once, at its start. The predictor (Bashforth) integrates the polynomial through the last `order`
values. Before the next step, the corrector (Moulton) replaces the integral over the last step by that of the polynomial
through `order` + 1 values, including the newest value. The last step goes to angle 0, clean data, by the predictor.

Sources: Hairer, Norsett and Wanner (1993), Solving Ordinary Differential Equations I, section III.5, for Adams methods with
variable steps; Lu and Song (2025), https://arxiv.org/abs/2410.11081, section 3, for the angle; Karras et al. (2022),
https://arxiv.org/abs/2206.00364, table 1, for F; Shaul et al. (2024), https://arxiv.org/abs/2403.01329, for weights that are
fitted separately for each step.
"""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from sde_lib.checks import one_of, positive
from sde_lib.denoiser import Denoiser
from sde_lib.sampling.exponential import combine, lagrange, quadrature
from sde_lib.sampling.sampler import Sampler
from sde_lib.sde import SDE, scalar
from sde_lib.struct import Struct


@struct.dataclass
class AdamsHistory(Struct):
    """The evaluations of the last K = `order` steps, the newest first.

    Attributes:
        count: number of completed steps, ().
        angles: angles of the evaluations, (K,).
        values: F at these angles, (K, B, *event).
        increment: the predictor's integral over the last step, (B, *event).
    """

    count: Array
    angles: Array
    values: Array
    increment: Array


@struct.dataclass
class Adams(Sampler):
    """Adams-Bashforth-Moulton method in the angle; see the module docstring. Deterministic, one evaluation per step.

    Attributes:
        order: number of values in the predictor's polynomial, 1 to 6; the order of convergence if `corrected` is True.
        corrected: True corrects each step with the evaluation at its end.
        data_std: c, the standard deviation of the data, > 0 (ValueError); an approximate value suffices.
        predictor, corrector: fitted corrections of the weights of each step, (n, order) and (n, order + 1), in units of
            the step's length, the newest value first; None adds nothing. Rows that sum to 0 preserve exactness for
            constant F. `corrector[i]` applies to the correction by evaluation i, `predictor[i]` to the step after this
            evaluation.
    """

    is_predictor: ClassVar[bool] = False

    order: int = struct.field(pytree_node=False, default=4)
    corrected: bool = struct.field(pytree_node=False, default=True)
    data_std: float = 0.5
    predictor: Array | None = None
    corrector: Array | None = None

    def __post_init__(self):
        one_of("Adams", (1, 2, 3, 4, 5, 6), order=self.order)
        positive("Adams", data_std=self.data_std)

    def _polar(self, sde: SDE, t: Array) -> tuple[Array, Array]:
        """Returns phi and sqrt(alpha^2 c^2 + sigma^2) at time t."""
        signal, noise = sde.alpha(t) * self.data_std, sde.sigma(t)
        return jnp.arctan2(noise, signal), jnp.hypot(noise, signal)

    def _integral(self, start: Array, end: Array, angles: Array, known: Array, values: Array, added: Array) -> Array:
        """Returns the integral of F from `end` to the larger angle `start`, the change of z, (B, *event)."""
        u, weights = quadrature(start - end)
        return combine(lagrange(start - u, angles, known) @ weights + (start - end) * added, values)

    def _added(self, table: Array | None, count: Array, size: int, dtype: np.dtype) -> Array:
        """Returns row `count` of a table of added weights, (size,); zeros without a table."""
        return jnp.zeros(size, dtype) if table is None else jnp.asarray(table, dtype)[count]

    def init(self, x: Array, denoiser: Denoiser, times: Array) -> AdamsHistory:
        """Returns an empty history."""
        return AdamsHistory(
            count=jnp.zeros((), int),
            angles=jnp.zeros((self.order,), times.dtype),
            values=jnp.zeros((self.order, *x.shape), x.dtype),
            increment=jnp.zeros_like(x),
        )

    def _step_to(
        self, carry: AdamsHistory, x: Array, t: Array, end: Array, denoiser: Denoiser
    ) -> tuple[AdamsHistory, Array]:
        """Evaluates F at t, corrects the last step and predicts z at the angle `end`."""
        angle, norm = self._polar(scalar(denoiser.sde), t)
        x0, noise = denoiser.x0_and_noise(x, t)
        value = jnp.sin(angle) / self.data_std * x0 - jnp.cos(angle) * noise
        z = x / norm
        angles = jnp.concatenate([angle[None], carry.angles])
        values = jnp.concatenate([value[None], carry.values])
        known = jnp.arange(self.order + 1) <= carry.count
        if self.corrected:
            added = self._added(self.corrector, carry.count, self.order + 1, angle.dtype)
            corrected = self._integral(carry.angles[0], angle, angles, known, values, added)
            z = z + jnp.where(carry.count > 0, corrected - carry.increment, 0)
        angles, values = angles[:-1], values[:-1]
        added = self._added(self.predictor, carry.count, self.order, angle.dtype)
        increment = self._integral(angle, end, angles, known[:-1], values, added)
        return AdamsHistory(carry.count + 1, angles, values, increment), z + increment

    def step(self, carry, keys, x, t, s, denoiser):
        """From t to s; one evaluation."""
        end, norm = self._polar(scalar(denoiser.sde), s)
        carry, z = self._step_to(carry, x, t, end, denoiser)
        return carry, norm * z

    def finish(self, carry, x, t, denoiser):
        """From t to clean data, at angle 0; one evaluation."""
        _, z = self._step_to(carry, x, t, jnp.zeros_like(jnp.asarray(t)), denoiser)
        return self.data_std * z
