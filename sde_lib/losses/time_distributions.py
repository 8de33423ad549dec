"""Distributions of the training time t.

A distribution is specified by its quantile function: t = quantile(u) for u uniform on [0, 1]. One uniform number per
key gives independent times; evenly spaced numbers give times of low discrepancy (`LowDiscrepancyTimes`, for every
distribution). `log_density` is the natural logarithm of the density with respect to dt on [t_min, t_max], by which
importance sampling divides. It raises ValueError for discrete distributions.

| distribution      | distribution of t                          | density, up to a constant                  |
|-------------------|--------------------------------------------|--------------------------------------------|
| `UniformTime`     | t uniform                                  | 1                                          |
| `UniformLogSNR`   | log_snr uniform                            | -d log_snr / dt = g^2 / sigma^2            |
| `LogNormalSigma`  | log(sigma / alpha) normal                  | normal density times -d log_snr / dt       |
| `LogitNormalTime` | logit of the relative position of t normal | normal density over t (1 - t), t on [0, 1] |
| `GeometricSigma`  | uniform over K geometric noise levels      | none: discrete                             |
| `DiscreteTime`    | uniform over t = i t_max / N, i = 1..N     | none: discrete                             |

Any callable (keys, sde) -> t is a time distribution too, without importance sampling.

Sources: Karras et al. (2022), https://arxiv.org/abs/2206.00364, table 1; Esser et al. (2024),
https://arxiv.org/abs/2403.03206, section 3.1; Song et al. (2021b), https://arxiv.org/abs/2101.09258; Kingma et al.
(2021), https://arxiv.org/abs/2107.00630, appendix I.1; Song and Ermon (2019), https://arxiv.org/abs/1907.05600; Ho et al.
(2020), https://arxiv.org/abs/2006.11239.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.scipy.special import logit, ndtr, ndtri
from jax.scipy.stats import norm

from sde_lib.checks import at_least, positive
from sde_lib.sde import Process, time_derivative
from sde_lib.struct import Struct


@struct.dataclass
class TimeDistribution(Struct):
    """A distribution of times in [t_min, t_max]. A subclass defines `quantile` and, for continuous t, `log_density`."""

    def quantile(self, sde: Process, u: Array) -> Array:
        """Returns the quantile of u in [0, 1], a time, of the shape of u."""
        raise NotImplementedError(f"{type(self).__name__} must define quantile(sde, u)")

    def log_density(self, sde: Process, t: Array) -> Array:
        """Returns the natural logarithm of the density with respect to dt, of the shape of t.

        Raises:
            ValueError: the distribution has no density.
        """
        raise ValueError(f"{type(self).__name__} has no density in t, which importance weighting needs")

    def coverage(self, sde: Process) -> Array:
        """Returns the probability of [t_min, t_max] under the distribution before truncation; 1 without truncation."""
        return jnp.ones(())

    def __call__(self, keys: Array, sde: Process) -> Array:
        """Samples one time per key, (B,); time i depends only on `keys[i]`."""
        return self.quantile(sde, jax.vmap(jax.random.uniform)(keys))


@struct.dataclass
class UniformTime(TimeDistribution):
    """t uniform on [t_min, t_max]."""

    def quantile(self, sde, u):
        """Linear in u."""
        return sde.t_min + (sde.t_max - sde.t_min) * u

    def log_density(self, sde, t):
        """-log(t_max - t_min)."""
        return jnp.full_like(t, -jnp.log(sde.t_max - sde.t_min))


@struct.dataclass
class UniformLogSNR(TimeDistribution):
    """log_snr(t) uniform on the range of the process: the importance distribution of the likelihood weighting.

    The density is proportional to -d log_snr / dt = g^2 / sigma^2, so `LikelihoodWeighting` divided by the density is a
    multiple of `NoiseWeighting`. With `importance=True` the expectation of the loss is that of uniform times, at a
    fraction of the variance.

    Sources: Song et al. (2021b), https://arxiv.org/abs/2101.09258, for variance reduction; Kingma et al. (2021),
    https://arxiv.org/abs/2107.00630, for the integral over log-SNR, which is independent of the process.
    """

    def quantile(self, sde, u):
        """The time at which log_snr has decreased by the fraction u of its range."""
        high, low = sde.log_snr(sde.t_min), sde.log_snr(sde.t_max)
        return jnp.clip(sde.time_at_log_snr(high + (low - high) * u), sde.t_min, sde.t_max)

    def log_density(self, sde, t):
        """log(-d log_snr / dt) - log(log_snr(t_min) - log_snr(t_max))."""
        log_snr_range = sde.log_snr(sde.t_min) - sde.log_snr(sde.t_max)
        return jnp.log(-time_derivative(sde.log_snr, t) / log_snr_range)


@struct.dataclass
class LogNormalSigma(TimeDistribution):
    """log(sigma / alpha) ~ N(mean, std^2), as in EDM, truncated to the noise levels of the process.

    Source: Karras et al. (2022), https://arxiv.org/abs/2206.00364, table 1 (P_mean, P_std).

    Attributes:
        mean, std: of log(sigma / alpha), natural logarithm; std more than 0 (ValueError).
    """

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self):
        positive("LogNormalSigma", std=self.std)

    def _standardized(self, sde, t):
        return (-0.5 * sde.log_snr(t) - self.mean) / self.std

    def _ends(self, sde):
        """Returns a sign and the normal probabilities ndtr(sign * end) of the standardized ends.

        The sign is -1 if all noise levels of the process are above the mean, where float32 would round the
        probabilities to 1, and +1 otherwise.
        """
        low, high = self._standardized(sde, sde.t_min), self._standardized(sde, sde.t_max)
        sign = jnp.where(low > 0, -1, 1)
        return sign, ndtr(sign * low), ndtr(sign * high)

    def coverage(self, sde):
        """The normal probability between the ends of the process."""
        _, low, high = self._ends(sde)
        return jnp.abs(high - low)

    def quantile(self, sde, u):
        """The quantile of the truncated normal; if its probability underflows, the noise level nearest to the mean."""
        sign, low, high = self._ends(sde)
        nearest = jnp.clip(0.0, self._standardized(sde, sde.t_min), self._standardized(sde, sde.t_max))
        standardized = jnp.where(low == high, nearest, sign * ndtri(low + (high - low) * u))
        log_noise_to_signal = self.mean + self.std * standardized
        return jnp.clip(sde.time_at_log_snr(-2 * log_noise_to_signal), sde.t_min, sde.t_max)

    def log_density(self, sde, t):
        """By change of variables from log(sigma / alpha), whose derivative is -d log_snr / dt / 2."""
        log_normal = norm.logpdf(self._standardized(sde, t)) - jnp.log(self.std) - jnp.log(self.coverage(sde))
        return log_normal + jnp.log(-0.5 * time_derivative(sde.log_snr, t))


@struct.dataclass
class LogitNormalTime(TimeDistribution):
    """logit of (t - t_min) / (t_max - t_min) ~ N(mean, std^2): middle times are more frequent than the ends.

    For rectified flow on [0, 1] it equals `LogNormalSigma` with equal mean and std, because logit t =
    log(sigma / alpha).

    Source: Esser et al. (2024), https://arxiv.org/abs/2403.03206, section 3.1 (SD3: mean 0, std 1).

    Attributes:
        mean, std: of the logit, natural logarithm; std more than 0 (ValueError).
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self):
        positive("LogitNormalTime", std=self.std)

    def quantile(self, sde, u):
        """The sigmoid of a normal quantile, scaled to [t_min, t_max]."""
        return sde.t_min + (sde.t_max - sde.t_min) * jax.nn.sigmoid(self.mean + self.std * ndtri(u))

    def log_density(self, sde, t):
        """By change of variables; -infinity at and beyond both ends."""
        length = sde.t_max - sde.t_min
        position = (t - sde.t_min) / length
        standardized = (logit(position) - self.mean) / self.std
        log_density = norm.logpdf(standardized) - jnp.log(self.std * position * (1 - position) * length)
        return jnp.where(jnp.isfinite(standardized), log_density, -jnp.inf)


@struct.dataclass
class GeometricSigma(TimeDistribution):
    """K noise levels sigma / alpha, equally likely, in geometric progression between those of t_min and t_max.

    Source: Song and Ermon (2019), https://arxiv.org/abs/1907.05600, sections 4 and 5 (SMLD, with K = 10; NCSNv2: 232).

    Attributes:
        levels: K, at least 2 (ValueError).
    """

    levels: int = struct.field(pytree_node=False, default=10)

    def __post_init__(self):
        at_least("GeometricSigma", 2, levels=self.levels)

    def quantile(self, sde, u):
        """The time of noise level floor(u K)."""
        level = jnp.minimum(jnp.floor(u * self.levels), self.levels - 1)
        high, low = sde.log_snr(sde.t_min), sde.log_snr(sde.t_max)
        log_snr = high + (low - high) * level / (self.levels - 1)
        return jnp.clip(sde.time_at_log_snr(log_snr), sde.t_min, sde.t_max)


@struct.dataclass
class DiscreteTime(TimeDistribution):
    """t = i t_max / N for i = 1..N, equally likely: the steps of DDPM.

    Source: Ho et al. (2020), https://arxiv.org/abs/2006.11239, algorithm 1.

    Attributes:
        steps: N, at least 1 (ValueError). t_max / N must be at least t_min (ValueError when times are sampled).
    """

    steps: int = struct.field(pytree_node=False, default=1000)

    def __post_init__(self):
        at_least("DiscreteTime", 1, steps=self.steps)

    def quantile(self, sde, u):
        """The time of step floor(u N) + 1."""
        traced = any(type(t) not in (int, float) for t in (sde.t_min, sde.t_max))
        if not traced and sde.t_min > sde.t_max / self.steps:
            raise ValueError(
                f"DiscreteTime: steps={self.steps} of t_max={sde.t_max} begin below t_min={sde.t_min}: "
                f"choose at most {int(sde.t_max / sde.t_min)} steps, or a smaller t_min"
            )
        step = jnp.minimum(jnp.floor(u * self.steps), self.steps - 1) + 1
        return sde.t_max * step / self.steps


@struct.dataclass
class LowDiscrepancyTimes(TimeDistribution):
    """Low-discrepancy times of any distribution: quantiles of u_i = (u_0 + i / B) mod 1, with u_0 uniform.

    Each u_i is uniform, so the loss is unbiased, and each batch covers the distribution evenly, which lowers the
    variance of the mean loss. The examples of a batch are coupled through u_0, which is sampled from `key`; all other
    losses and samplers treat examples independently. Time i depends on `key`, on the index i in the global batch and on
    its size B. It does not depend on `keys` or on the distribution of the batch over devices.

    Source: Kingma et al. (2021), https://arxiv.org/abs/2107.00630, appendix I.1.

    Attributes:
        key: one key, shared by all examples of a step and not used elsewhere.
        places: the indices 0, 1, ... of the local examples in the global batch, (local B,).
        size: B, the number of examples of the global batch, at least 1 (ValueError).
        times: the time distribution.
    """

    key: Array
    places: Array
    size: int = struct.field(pytree_node=False)
    times: TimeDistribution = UniformTime()

    def __post_init__(self):
        at_least("LowDiscrepancyTimes", 1, size=self.size)

    def __call__(self, keys: Array, sde: Process) -> Array:
        """Returns one time per entry of `places`. `keys` are only checked for their shape.

        Raises:
            ValueError: the shapes of keys and places differ.
        """
        if keys.shape != self.places.shape:
            raise ValueError(f"LowDiscrepancyTimes: {keys.shape} keys for {self.places.shape} places")
        return self.quantile(sde, (jax.random.uniform(self.key) + self.places / self.size) % 1)

    def quantile(self, sde, u):
        """The quantile function of `times`."""
        return self.times.quantile(sde, u)

    def coverage(self, sde):
        """The coverage of `times`."""
        return self.times.coverage(sde)

    def log_density(self, sde, t):
        """The log-density of `times`, which is the marginal density of each time."""
        return self.times.log_density(sde, t)
