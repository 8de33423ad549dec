"""The divergence of a velocity, div v = trace(dv/dx): what the log-density loses along the probability flow.

Each estimator is given the derivative of one example's velocity as a linear function, u -> (dv/dx) u, which costs about
one evaluation of the velocity:

| estimator         | evaluations a step | variance                                                          |
|-------------------|--------------------|-------------------------------------------------------------------|
| `ExactDivergence` | one per dimension  | 0                                                                 |
| `Hutchinson`      | one per probe      | 2 sum A_ij^2 / num_probes, A = (J + J^T) / 2, over i != j for     |
|                   |                    | signs, over all i, j for normal probes                            |

A new one defines `probes` and `__call__`. Probes are drawn once and kept over the whole solve, so that the ODE stays
smooth and each probe gives an unbiased estimate of the whole integral; their spread is the standard error.

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
    """The trace, one basis vector at a time: for small dimensions.

    Attributes:
        chunk: basis vectors in one call of the derivative; bounds the memory, not the result.
    """

    chunk: int = struct.field(pytree_node=False, default=64)

    needs_keys = False

    def probes(self, key: Array | None, x: Array) -> None:
        """None: nothing is random."""
        return None

    def __call__(self, derivative: Callable[[Array], Array], x: Array, probes: None) -> Array:
        """The divergence at x (*event), (1,)."""

        def entry(index):
            basis = jax.nn.one_hot(index, x.size, dtype=x.dtype).reshape(x.shape)
            return derivative(basis).reshape(-1)[index]

        indices = jnp.arange(x.size)
        diagonal = (
            jax.vmap(entry)(indices) if x.size <= self.chunk else jax.lax.map(entry, indices, batch_size=self.chunk)
        )
        return diagonal.sum()[None]

    def standard_error(self, estimates: Array) -> Array:
        """0."""
        return jnp.zeros_like(estimates[..., 0])


@struct.dataclass
class Hutchinson(Struct):
    """z^T (dv/dx) z for random z with E[z z^T] = I, unbiased.

    Attributes:
        num_probes: probes per example; each gives an estimate. With one the standard error is unknown, NaN.
        distribution: "rademacher" (signs: the least variance of all) or "gaussian".
    """

    num_probes: int = struct.field(pytree_node=False, default=4)
    distribution: Literal["rademacher", "gaussian"] = struct.field(pytree_node=False, default="rademacher")

    needs_keys = True

    def probes(self, key: Array, x: Array) -> Array:
        """(num_probes, *event), of the dtype of x (*event).

        Raises:
            ValueError: there is no probe, or the distribution is unknown.
        """
        draws = {"rademacher": jax.random.rademacher, "gaussian": jax.random.normal}
        if self.num_probes < 1:
            raise ValueError(f"Hutchinson: num_probes={self.num_probes}: at least 1 is needed")
        if self.distribution not in draws:
            raise ValueError(f"Hutchinson: distribution={self.distribution!r} is unknown: choose from {sorted(draws)}")
        return draws[self.distribution](key, (self.num_probes, *x.shape), x.dtype)

    def __call__(self, derivative: Callable[[Array], Array], x: Array, probes: Array) -> Array:
        """One estimate per probe, (num_probes,)."""
        products = probes * jax.vmap(derivative)(probes)
        return products.reshape(len(probes), -1).sum(1)

    def standard_error(self, estimates: Array) -> Array:
        """Of the mean of estimates (..., num_probes): (...)."""
        if self.num_probes == 1:
            return jnp.full_like(estimates[..., 0], jnp.nan)
        return estimates.std(-1, ddof=1) / self.num_probes**0.5
