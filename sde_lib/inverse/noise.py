"""Noise models of measurements with exact likelihoods: Gaussian and Poisson."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.scipy.special import gammaln, xlogy
from jax.typing import ArrayLike

from sde_lib.checks import at_least, positive
from sde_lib.inverse.measurement import Noise
from sde_lib.randomness import standard_normal


def _sum_of_each(x: Array) -> Array:
    return x.reshape(len(x), -1).sum(1)


@struct.dataclass
class GaussianNoise(Noise):
    """Gaussian noise, y = A(x_0) + std z with standard normal z.

    Attributes:
        std: standard deviation in units of y, (); 0 for measurements without noise, which have no density.

    Raises:
        ValueError: std is negative.
    """

    std: ArrayLike

    def __post_init__(self):
        at_least("GaussianNoise", 0, std=self.std)

    def sample(self, keys: Array, clean: Array) -> Array:
        """Samples y (B, *measured), example i with `keys[i]`."""
        return clean + self.std * standard_normal(keys, clean)

    def log_prob(self, y: Array, clean: Array) -> Array:
        """Returns log N(y; clean, std^2 I), (B,)."""
        return _sum_of_each(jax.scipy.stats.norm.logpdf(y, clean, self.std))

    def variance(self, clean: Array) -> Array:
        """Returns std^2, ()."""
        return jnp.square(jnp.asarray(self.std, clean.dtype))


@struct.dataclass
class PoissonNoise(Noise):
    """Poisson noise of photon counts on the scale of A(x_0): y = black + (white - black) counts / peak.

    The counts are Poisson with mean peak (A(x_0) - black) / (white - black), so the mean of y is A(x_0). Values of
    A(x_0) below black are treated as black.

    Attributes:
        peak: the expected count where A(x_0) = white; smaller values mean more noise.
        black: the value of A(x_0) for zero intensity; -1 for images in [-1, 1].
        white: the value of A(x_0) for full intensity; 1 for images in [-1, 1].

    Raises:
        ValueError: peak is not positive.
    """

    peak: ArrayLike
    black: ArrayLike = -1.0
    white: ArrayLike = 1.0

    def __post_init__(self):
        positive("PoissonNoise", peak=self.peak)

    def sample(self, keys: Array, clean: Array) -> Array:
        """Samples y (B, *measured), example i with `keys[i]`."""
        counts = jax.vmap(jax.random.poisson)(keys, self._mean_count(clean))
        return jnp.add(self.black, jnp.multiply(self._step, counts.astype(clean.dtype)))

    def log_prob(self, y: Array, clean: Array) -> Array:
        """Returns the log-probability (of the counts, not a density) of y, (B,).

        It is -infinity if a pixel with A(x_0) <= black has counts. The gradient with respect to such pixels is 0.
        """
        mean = self._mean_count(clean)
        lit = mean > 0
        counts = (y - self.black) / self._step
        # The threshold is half a count, because y has rounding errors.
        dark = jnp.where(counts > 0.5, -jnp.inf, 0)
        safe = jnp.where(lit, mean, 1)
        return _sum_of_each(jnp.where(lit, xlogy(counts, safe) - safe - gammaln(counts + 1), dark))

    def variance(self, clean: Array) -> Array:
        """Returns (white - black)^2 / peak^2 times the mean count, of the shape of `clean`."""
        return jnp.multiply(self._step**2, self._mean_count(clean))

    @property
    def _step(self) -> Any:
        """The increment of y per count."""
        white: Any = self.white  # Python numbers stay Python numbers, in full precision
        return (white - self.black) / self.peak

    def _mean_count(self, clean: Array) -> Array:
        return jnp.maximum((clean - self.black) / self._step, 0)
