"""Divergence of a velocity, div v = trace(dv/dx): the rate at which the log-density falls along the probability flow.

An estimator receives the derivative of the velocity of one example as a linear function, u -> (dv/dx) u, which costs
about as much as one evaluation of the velocity:

| estimator         | derivatives at each point | variance                                                   |
|-------------------|---------------------------|------------------------------------------------------------|
| `ExactDivergence` | one per dimension         | 0                                                          |
| `Hutchinson`      | one per probe             | 2 sum A_ij^2 / num_probes, A = (J + J^T) / 2, over i != j  |
|                   |                           | for Rademacher, over all i, j for normal probes            |

A new estimator defines `needs_keys`, `probes`, `__call__` and `standard_error`. Probes are sampled once and fixed
during the whole solve, so that the ODE is smooth and each probe gives an unbiased estimate of the whole integral. The
standard error is computed from the spread of these estimates.

Sources: Hutchinson (1990), https://doi.org/10.1080/03610919008812866; Grathwohl et al. (2019),
https://arxiv.org/abs/1810.01367, section 3.1.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from sde_lib.struct import Struct


@struct.dataclass
class ExactDivergence(Struct):
    """Exact trace, one derivative per dimension: for low-dimensional data.

    Attributes:
        chunk: number of basis vectors that are evaluated at once; limits the memory and does not change the result.
    """

    chunk: int = struct.field(pytree_node=False, default=64)

    needs_keys = False

    def probes(self, key: Array | None, x: Array) -> None:
        """Returns None: no random probes are needed."""
        return None

    def __call__(self, derivative: Callable[[Array], Array], x: Array, probes: None) -> Array:
        """Returns the divergence at x (*event), (1,)."""

        def entry(index):
            basis = jax.nn.one_hot(index, x.size, dtype=x.dtype).reshape(x.shape)
            return derivative(basis).reshape(-1)[index]

        indices = jnp.arange(x.size)
        diagonal = (
            jax.vmap(entry)(indices) if x.size <= self.chunk else jax.lax.map(entry, indices, batch_size=self.chunk)
        )
        return diagonal.sum()[None]

    def standard_error(self, estimates: Array) -> Array:
        """Returns 0 for estimates (..., 1), of shape (...)."""
        return jnp.zeros_like(estimates[..., 0])


@struct.dataclass
class Hutchinson(Struct):
    """Hutchinson's estimator z^T (dv/dx) z for random z with E[z z^T] = I; unbiased.

    Attributes:
        num_probes: probes per example, at least 1, each of which gives one estimate. With one probe the standard error
            is NaN.
        distribution: "rademacher" (random signs, the probes of least variance) or "gaussian".
    """

    num_probes: int = struct.field(pytree_node=False, default=4)
    distribution: Literal["rademacher", "gaussian"] = struct.field(pytree_node=False, default="rademacher")

    needs_keys = True

    def probes(self, key: Array, x: Array) -> Array:
        """Samples the probes of one example x (*event): (num_probes, *event), of the dtype of x.

        Raises:
            ValueError: num_probes is less than 1, or the distribution is unknown.
        """
        samplers = {"rademacher": jax.random.rademacher, "gaussian": jax.random.normal}
        if self.num_probes < 1:
            raise ValueError(f"Hutchinson: num_probes={self.num_probes} must be at least 1")
        if self.distribution not in samplers:
            raise ValueError(
                f"Hutchinson: distribution={self.distribution!r} is unknown: choose from {sorted(samplers)}"
            )
        return samplers[self.distribution](key, (self.num_probes, *x.shape), x.dtype)

    def __call__(self, derivative: Callable[[Array], Array], x: Array, probes: Array) -> Array:
        """Returns one estimate of the divergence at x (*event) per probe, (num_probes,)."""
        products = probes * jax.vmap(derivative)(probes)
        return products.reshape(len(probes), -1).sum(1)

    def standard_error(self, estimates: Array) -> Array:
        """Returns the standard error of the mean of estimates (..., num_probes), of shape (...)."""
        if self.num_probes == 1:
            return jnp.full_like(estimates[..., 0], jnp.nan)
        return estimates.std(-1, ddof=1) / self.num_probes**0.5
