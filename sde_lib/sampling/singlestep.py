"""Singlestep methods: several evaluations of the Denoiser per step, and no history.

| sampler                         | stages, as fractions of the log-SNR step | evaluations | order |
|---------------------------------|------------------------------------------|-------------|-------|
| `SinglestepDPMSolver(order=1)`  | 0                                        | 1           | 1     |
| `SinglestepDPMSolver(order=2)`  | 0, 1/2                                   | 2           | 2     |
| `SinglestepDPMSolver(order=3)`  | 0, 1/3, 2/3                              | 3           | 3     |

Sources: Lu et al. (2022), https://arxiv.org/abs/2206.00927, algorithms 1 and 2, and https://arxiv.org/abs/2211.01095
(for data prediction instead of noise prediction, and for the stochastic step); Gonzalez et al. (2023),
https://arxiv.org/abs/2305.14267 (SEEDS), for noise that is shared by the stages of a step.
"""

import jax.numpy as jnp
from flax import struct
from jax import Array

from sde_lib.checks import at_least, one_of
from sde_lib.randomness import split
from sde_lib.sampling.exponential import combine, data_kernel, half_log_snr, homogeneous, lagrange, quadrature
from sde_lib.sampling.sampler import Sampler
from sde_lib.sde import scalar

STAGES = {1: (), 2: (1 / 2,), 3: (1 / 3, 2 / 3)}


@struct.dataclass
class SinglestepDPMSolver(Sampler):
    """DPM-Solver++ as a singlestep method, with intermediate stages within each step.

    The stages and the end of a stochastic step share one noise path.

    Attributes:
        order: order of convergence and number of evaluations per step: 1, 2 or 3.
        tau: stochasticity, >= 0 (ValueError), as in `DPMSolver`.
    """

    order: int = struct.field(pytree_node=False, default=2)
    tau: float = 0.0

    def __post_init__(self):
        one_of("SinglestepDPMSolver", STAGES, order=self.order)
        at_least("SinglestepDPMSolver", 0, tau=self.tau)

    @property
    def evaluations_per_step(self) -> int:
        """Evaluations per step: the order."""
        return self.order

    def _integral(self, h: Array, nodes: list[Array], values: list[Array]) -> Array:
        u, weights = quadrature(h)
        polynomials = lagrange(u, jnp.stack(nodes), jnp.ones(len(nodes), bool))
        return combine(polynomials @ (weights * data_kernel(u, h, self.tau)), jnp.stack(values))

    def step(self, carry, keys, x, t, s, denoiser):
        """From t to s; `order` evaluations."""
        sde = scalar(denoiser.sde)
        start, end = half_log_snr(sde, t), half_log_snr(sde, s)
        h, stages = end - start, STAGES[self.order]
        nodes, values = [jnp.zeros_like(h)], [denoiser(x, t)]
        base, reached = x / sde.alpha(t), jnp.zeros_like(h)
        for key, part in zip(split(keys, self.order), (*stages, 1.0), strict=True):
            base = homogeneous(key, base, start + reached, part * h - reached, self.tau)
            reached = part * h
            # Only the first and the newest value: a polynomial through all three requires stages of higher order.
            y = base + self._integral(reached, [nodes[0], *nodes[1:][-1:]], [values[0], *values[1:][-1:]])
            if part < 1:
                at = sde.time_at_log_snr(2 * (start + reached))
                nodes.append(reached)
                values.append(denoiser(sde.alpha(at) * y, at))
        return carry, sde.alpha(s) * y


# Names used in configs.
SAMPLERS = {"dpm_solver_singlestep": SinglestepDPMSolver}
