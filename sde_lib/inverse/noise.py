"""The noise of measurements, with its exact likelihood."""

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
    """y = A(x_0) + std z with standard normal z.

    Attributes:
        std: in units of y, (); 0 for measurements without noise, which have no density.
    """

    std: ArrayLike

    def __post_init__(self):
        at_least("GaussianNoise", 0, std=self.std)

    def sample(self, keys: Array, clean: Array) -> Array:
        """Measurements (B, *measured), example i by `keys[i]`."""
        return clean + self.std * standard_normal(keys, clean)

    def log_prob(self, y: Array, clean: Array) -> Array:
        """log N(y; clean, std^2 I), (B,)."""
        return _sum_of_each(jax.scipy.stats.norm.logpdf(y, clean, self.std))

    def variance(self, clean: Array) -> Array:
        """std^2, ()."""
        return jnp.square(jnp.asarray(self.std, clean.dtype))


@struct.dataclass
class PoissonNoise(Noise):
    """Counts of photons, y = black + (white - black) counts / peak: on the scale of A(x_0), which is the mean of y.

    The counts are Poisson with mean peak (A(x_0) - black) / (white - black). Below black there is no light: what A(x_0)
    has below it counts as black.

    Attributes:
        peak: the expected count where A(x_0) is white: the smaller, the noisier.
        black, white: the values of A(x_0) for no light and for full light; -1 and 1 are those of images.
    """

    peak: ArrayLike
    black: ArrayLike = -1.0
    white: ArrayLike = 1.0

    def __post_init__(self):
        positive("PoissonNoise", peak=self.peak)

    def sample(self, keys: Array, clean: Array) -> Array:
        """Measurements (B, *measured), example i by `keys[i]`."""
        counts = jax.vmap(jax.random.poisson)(keys, self._mean_count(clean))
        return jnp.add(self.black, jnp.multiply(self._step, counts.astype(clean.dtype)))

    def log_prob(self, y: Array, clean: Array) -> Array:
        """The logarithm of the probability of y's counts, (B,): a probability, not a density.

        -infinity if a pixel without light has counts. Its gradient there is 0, as for all that is below black.
        """
        mean = self._mean_count(clean)
        lit = mean > 0
        counts = (y - self.black) / self._step
        # Half a count, because y is rounded.
        dark = jnp.where(counts > 0.5, -jnp.inf, 0)
        safe = jnp.where(lit, mean, 1)
        return _sum_of_each(jnp.where(lit, xlogy(counts, safe) - safe - gammaln(counts + 1), dark))

    def variance(self, clean: Array) -> Array:
        """(white - black)^2 / peak^2 times the mean count, of the shape of `clean`."""
        return jnp.multiply(self._step**2, self._mean_count(clean))

    @property
    def _step(self) -> Any:
        """What one count adds to y."""
        white: Any = self.white  # a number stays one, in full precision
        return (white - self.black) / self.peak

    def _mean_count(self, clean: Array) -> Array:
        return jnp.maximum((clean - self.black) / self._step, 0)
