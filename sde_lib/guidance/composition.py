"""Mixtures, products and powers of distributions, composed from the Denoisers of their components.

For y = x_t / alpha, which is x_0 plus noise of standard deviation n, a Denoiser is D = y + n^2 grad log p(y), so linear
combinations of scores correspond to linear combinations of Denoisers. `Flat`, with constant density, has D(y) = y and
score 0:

    sum_k w_k score_k          <->   y + sum_k w_k (D_k - y)                               product, powers
    grad log sum_k w_k p_k     <->   sum_k P(k | y) D_k,    P(k | y) ~ w_k p_k(y)          mixture

A mixture is exact, because the mixture of diffused densities is the diffused density of the mixture. A product is not
exact for t > 0: the product of diffused densities is not the diffused product. Samples are approximately distributed as
the product, and Langevin corrections (`PredictorCorrector`) reduce the error.

Sources: Liu et al. (2022), https://arxiv.org/abs/2206.01714, section 3; Du et al. (2023),
https://arxiv.org/abs/2302.11552, section 3, for the error of products.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from sde_lib.denoiser import Denoiser, DerivedDenoiser
from sde_lib.sde import Process, expand
from sde_lib.struct import as_pytree


def _weighted(weights: Sequence[Array] | Array, views: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Returns sum_k w_k x0_k and sum_k w_k noise_k for pairs (x0_k, noise_k) and weights w_k () or (B,)."""

    def total(*parts):
        return sum(expand(w.astype(part.dtype), part) * part for w, part in zip(weights, parts, strict=True))

    return jax.tree.map(total, *views)


@struct.dataclass
class Flat(Denoiser):
    """The Denoiser of a constant (improper) density: D = y and score 0."""

    def x0_and_noise(self, x: Array, t: ArrayLike) -> tuple[Array, Array]:
        """Returns y = `to_data_scale(x, t)` and the noise of score 0."""
        x0 = self.sde.to_data_scale(x, t)
        return x0, self.sde.noise_from_data_scale(x, jnp.zeros_like(x0), t)


@struct.dataclass
class Composition(DerivedDenoiser):
    """D + sum_k w_k (D_k - D): several conditions with a weight each. One evaluation of each Denoiser.

    With D unconditional, D_k conditional on c_k and all weights 1, this is the Denoiser of p(x | c_1, c_2, ...) for
    conditions that are independent given x (AND in Liu et al.), up to the approximation of products above. A negative
    weight repels samples from a condition (NOT). Weights of 0 give exactly D; a weight of 1 with the other weights 0
    gives exactly D_k.

    Source: Liu et al. (2022), https://arxiv.org/abs/2206.01714, section 3.

    Attributes:
        denoiser: D.
        parts: the D_k, K Denoisers of the same process.
        weights: (K,) or (K, B).
    """

    parts: tuple[Denoiser, ...]
    weights: ArrayLike

    def x0_and_noise(self, x: Array, t: ArrayLike) -> tuple[Array, Array]:
        """Returns x0 and noise, each composed directly, for accuracy at small sigma."""
        weights = jnp.asarray(self.weights)
        views = [denoiser.x0_and_noise(x, t) for denoiser in (self.denoiser, *self.parts)]
        return _weighted([1 - weights.sum(0), *weights], views)


def product(parts: Sequence[Denoiser], weights: ArrayLike | None = None) -> Composition:
    """Returns the product of densities p_1^w_1 p_2^w_2 ... at each noise level: score = sum_k w_k score_k.

    Args:
        parts: K Denoisers of the same process.
        weights: w_k, (K,) or (K, B); None sets all weights to 1.
    """
    weights = jnp.ones(len(parts)) if weights is None else weights
    return Composition(Flat(parts[0].sde), tuple(parts), weights)


@struct.dataclass
class Mixture(Denoiser):
    """The exact Denoiser of the mixture sum_k w_k p_k: the average of the D_k, weighted by posterior probabilities.

    Attributes:
        parts: the D_k, K Denoisers of the same process.
        weights: w_k, (K,) or (K, B), up to normalization; None for equal weights.
        log_densities: (x, t) -> (B, K), log p_k(x_t) up to a constant that does not depend on k; a function or a
            callable pytree. The logits of a classifier of noisy data over the components are valid if it was trained
            with equal class frequencies. None evaluates `log_prob(x, t)` of the parts, which the Denoisers of `exact`
            define.
    """

    parts: tuple[Denoiser, ...]
    weights: ArrayLike | None = None
    log_densities: Callable[[Array, ArrayLike], Array] | None = None

    sde: ClassVar[Process]  # a property, not a field  # pyright: ignore[reportRedeclaration]

    def __post_init__(self):
        object.__setattr__(self, "log_densities", as_pytree(self.log_densities))

    @property
    def sde(self) -> Process:
        """The process of the parts."""
        return self.parts[0].sde

    def x0_and_noise(self, x: Array, t: ArrayLike) -> tuple[Array, Array]:
        """Returns x0 and noise, each averaged directly, for accuracy at small sigma."""
        if self.log_densities is None:
            parts: tuple[Any, ...] = self.parts  # Denoisers that define `log_prob`
            logits = jnp.stack([part.log_prob(x, t) for part in parts])
        else:
            logits = self.log_densities(x, t).T
        if self.weights is not None:
            weights = jnp.asarray(self.weights)
            logits = logits + jnp.log(weights).reshape(len(self.parts), -1)
        return _weighted(jax.nn.softmax(logits, axis=0), [part.x0_and_noise(x, t) for part in self.parts])


@struct.dataclass
class Temperature(DerivedDenoiser):
    """Temperature scaling p^(1/T) of the data: sharper for T < 1, broader for T > 1. One evaluation.

        score = score of p_t times (s^2 + n^2) / (T s^2 + n^2),      n = sigma / alpha,  s = data_std

    The factor is 1 / T at low noise and 1 at high noise, because the noise is not tempered. For Gaussian data of
    standard deviation s this is the exact Denoiser of p^(1/T). With s the width of separate modes, each mode is
    sharpened and the weights of the modes are preserved (Xu et al.). Infinite s gives the factor 1 / T at every noise
    level, the score of p_t^(1/T), which is valid for Langevin steps only: other samplers do not sample p^(1/T) with it.
    T = 1 gives exactly the original Denoiser.

    Sources: Xu et al. (2025), https://arxiv.org/abs/2510.01184, with k = 1 / T and their sigma for s; Ingraham et al.
    (2023), https://doi.org/10.1038/s41586-023-06728-8, for data of unit variance.

    Attributes:
        denoiser: the Denoiser of the data with density p.
        temperature: T > 0, () or (B,).
        data_std: s, in the units of the data; () or (B,).
    """

    temperature: ArrayLike = 1.0
    data_std: ArrayLike = 1.0

    def x0_and_noise(self, x: Array, t: ArrayLike) -> tuple[Array, Array]:
        """Returns x0 and noise from one evaluation, as a power of p_t with the score above."""
        noise_variance = (self.sde.noise_to_signal(t) / self.data_std) ** 2
        factor = (1 + noise_variance) / (self.temperature + noise_variance)
        return product((self.denoiser,), jnp.asarray(factor)[None]).x0_and_noise(x, t)
