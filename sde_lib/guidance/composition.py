"""Sums and products of distributions, and their tempering, from Denoisers of the parts.

On y = x_t / alpha, which is x_0 plus noise of standard deviation n, a Denoiser is y + n^2 grad log p(y), so that what is
linear in the scores is linear in the Denoisers. `Flat`, whose density is constant, has D(y) = y and is the zero of scores:

    sum_k w_k score_k          <->   y + sum_k w_k (D_k - y)                               product, powers
    grad log sum_k w_k p_k     <->   sum_k P(k | y) D_k,    P(k | y) ~ w_k p_k(y)          mixture

A mixture of noisy densities is the noisy density of the mixture: it is exact. A product is not that of the product, but for
t -> 0: samples are near the product's, and nearer with Langevin corrections (`PredictorCorrector`).

Sources: Liu et al. (2022), https://arxiv.org/abs/2206.01714, section 3; Du et al. (2023),
https://arxiv.org/abs/2302.11552, section 3, for what products miss.
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
    """sum_k w_k of each view, the weights () or (B,)."""

    def total(*parts):
        return sum(expand(w.astype(part.dtype), part) * part for w, part in zip(weights, parts, strict=True))

    return jax.tree.map(total, *views)


@struct.dataclass
class Flat(Denoiser):
    """The Denoiser of data spread evenly over all of space: D = y, score 0. It says nothing of the data."""

    def x0_and_noise(self, x: Array, t: ArrayLike) -> tuple[Array, Array]:
        """x / alpha, and noise of score 0."""
        x0 = self.sde.to_data_scale(x, t)
        return x0, self.sde.noise_from_data_scale(x, jnp.zeros_like(x0), t)


@struct.dataclass
class Composition(DerivedDenoiser):
    """D + sum_k w_k (D_k - D): several conditions at once, each as strong as its weight. An evaluation of each.

    With D unconditional and D_k conditional on c_k it draws from p(x | c_1, c_2, ...) for independent conditions and
    weights of 1 (Liu et al.'s AND); a negative weight keeps away from a condition (their NOT). Weights of 0 are D and a
    single 1 is its D_k, to the last bit.

    Source: Liu et al. (2022), https://arxiv.org/abs/2206.01714, section 3.

    Attributes:
        denoiser: D.
        parts: the D_k, K Denoisers of the same process.
        weights: (K,) or (K, B).
    """

    parts: tuple[Denoiser, ...]
    weights: ArrayLike

    def x0_and_noise(self, x: Array, t: ArrayLike) -> tuple[Array, Array]:
        """Both views, each composed of its own kind, which keeps the noise's digits."""
        weights = jnp.asarray(self.weights)
        views = [denoiser.x0_and_noise(x, t) for denoiser in (self.denoiser, *self.parts)]
        return _weighted([1 - weights.sum(0), *weights], views)


def product(parts: Sequence[Denoiser], weights: ArrayLike | None = None) -> Composition:
    """The product of densities p_1^w_1 p_2^w_2 ... at each noise level: score = sum_k w_k score_k.

    Args:
        parts: K Denoisers of the same process.
        weights: (K,) or (K, B); None for 1 each.
    """
    weights = jnp.ones(len(parts)) if weights is None else weights
    return Composition(Flat(parts[0].sde), tuple(parts), weights)


@struct.dataclass
class Mixture(Denoiser):
    """The Denoiser of the mixture sum_k w_k p_k: the average of the D_k with their posterior probabilities. Exact.

    Attributes:
        parts: the D_k, K Denoisers of the same process.
        weights: w_k, (K,) or (K, B), up to a constant; None for equal ones.
        log_densities: (x, t) -> (B, K), log p_k(x_t) up to a constant of x and t: the logits of a classifier of noisy
            data that tells the parts apart, if it was trained on as many of each. A function or a pytree that is one. None
            asks the parts for their `log_prob(x, t)`, which those of `exact` have.
    """

    parts: tuple[Denoiser, ...]
    weights: ArrayLike | None = None
    log_densities: Callable[[Array, ArrayLike], Array] | None = None

    sde: ClassVar[Process]  # no field: see below  # pyright: ignore[reportRedeclaration]

    def __post_init__(self):
        object.__setattr__(self, "log_densities", as_pytree(self.log_densities))

    @property
    def sde(self) -> Process:
        """The process of the parts."""
        return self.parts[0].sde

    def x0_and_noise(self, x: Array, t: ArrayLike) -> tuple[Array, Array]:
        """Both views, each averaged, which keeps the noise's digits."""
        if self.log_densities is None:
            parts: tuple[Any, ...] = self.parts  # with a `log_prob`
            logits = jnp.stack([part.log_prob(x, t) for part in parts])
        else:
            logits = self.log_densities(x, t).T
        if self.weights is not None:
            weights = jnp.asarray(self.weights)
            logits = logits + jnp.log(weights).reshape(len(self.parts), -1)
        return _weighted(jax.nn.softmax(logits, axis=0), [part.x0_and_noise(x, t) for part in self.parts])


@struct.dataclass
class Temperature(DerivedDenoiser):
    """Sharper (T < 1) or broader (T > 1) data: p^(1/T), by a larger or smaller score. One evaluation.

        score = score of p_t times (s^2 + n^2) / (T s^2 + n^2),      n = sigma / alpha,  s = data_std

    The factor is 1 / T where there is little noise and 1 where there is much, as it must be: the noise is not tempered. For
    Gaussian data of standard deviation s this is the Denoiser of p^(1/T) exactly; with s the width of separate modes it
    sharpens each and leaves their weights (Xu et al.). An infinite s gives 1 / T at every noise level, the score of
    p_t^(1/T), which is for Langevin steps: the paths of samplers end elsewhere. T = 1 is the Denoiser itself, exactly.

    Sources: Xu et al. (2025), https://arxiv.org/abs/2510.01184, with k = 1 / T and their sigma for s; Ingraham et al.
    (2023), https://doi.org/10.1038/s41586-023-06728-8, for data of unit variance.

    Attributes:
        denoiser: the one to temper.
        temperature: T > 0, () or (B,).
        data_std: s, in the units of the data; () or (B,), as the temperature.
    """

    temperature: ArrayLike = 1.0
    data_std: ArrayLike = 1.0

    def x0_and_noise(self, x: Array, t: ArrayLike) -> tuple[Array, Array]:
        """Both views from one evaluation: those of the power of p_t that has the score above."""
        noise = (self.sde.noise_to_signal(t) / self.data_std) ** 2
        factor = (1 + noise) / (self.temperature + noise)
        return product((self.denoiser,), jnp.asarray(factor)[None]).x0_and_noise(x, t)
