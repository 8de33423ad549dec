"""Time distributions: at which times the loss is asked.

Each is told by its quantile function: t = quantile(u) for u uniform on [0, 1]. One uniform number per key gives
independent times; evenly spread numbers give a batch of low discrepancy, of any distribution (`LowDiscrepancyTimes`).
`log_density` is the natural logarithm of the density with respect to dt on [t_min, t_max], which is what importance
weighting divides by. A discrete grid has none, and says so.

| distribution           | is uniform in                            | density, up to a constant              |
|------------------------|------------------------------------------|----------------------------------------|
| `UniformTime`          | t                                        | 1                                      |
| `UniformLogSNR`        | log_snr                                  | -d log_snr / dt = g^2 / sigma^2        |
| `LogNormalSigma`       | the normal probability of log(sigma / alpha) | a normal one of it, times -d log_snr / dt |
| `LogitNormalTime`      | the normal probability of logit t        | a normal one of it, over t (1 - t)     |
| `GeometricSigma`       | the index of K geometric noise levels    | none: K values                         |
| `DiscreteTime`         | i in t = i t_max / N, i = 1..N           | none: N values                         |

Any callable (keys, sde) -> t is a time distribution too, as long as nobody asks for its density.

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
    """A distribution of times on a process's [t_min, t_max]; a new one defines `quantile`, and its `log_density` if any."""

    def quantile(self, sde: Process, u: Array) -> Array:
        """The time below which a share u in [0, 1] of the distribution lies, of the shape of u."""
        raise NotImplementedError(f"{type(self).__name__} must define quantile(sde, u)")

    def log_density(self, sde: Process, t: Array) -> Array:
        """The natural logarithm of the density with respect to dt, of the shape of t.

        Raises:
            ValueError: the distribution has no density.
        """
        raise ValueError(f"{type(self).__name__} has no density in t, which importance weighting needs")

    def coverage(self, sde: Process) -> Array:
        """The share in [0, 1] of the distribution, before it is cut at [t_min, t_max], that lies there; 1 if none is cut."""
        return jnp.ones(())

    def __call__(self, keys: Array, sde: Process) -> Array:
        """One time per key, (B,); time i depends on `keys[i]` alone."""
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
    """log_snr(t) uniform between its ends: the importance distribution of the likelihood weighting.

    Its density is proportional to -d log_snr / dt = g^2 / sigma^2, so that `LikelihoodWeighting` over it is a multiple of
    `NoiseWeighting`: the wide range of the weight goes into the times, and the loss keeps its expectation (with
    `importance=True`) at a fraction of the variance.

    Sources: Song et al. (2021b), https://arxiv.org/abs/2101.09258, on variance reduction; Kingma et al. (2021),
    https://arxiv.org/abs/2107.00630, where the integral over log-SNR does not depend on the process.
    """

    def quantile(self, sde, u):
        """The time at which a share u of the fall of log_snr is done."""
        high, low = sde.log_snr(sde.t_min), sde.log_snr(sde.t_max)
        return jnp.clip(sde.time_at_log_snr(high + (low - high) * u), sde.t_min, sde.t_max)

    def log_density(self, sde, t):
        """log of -d log_snr / dt over its fall from t_min to t_max."""
        fall = sde.log_snr(sde.t_min) - sde.log_snr(sde.t_max)
        return jnp.log(-time_derivative(sde.log_snr, t) / fall)


@struct.dataclass
class LogNormalSigma(TimeDistribution):
    """log(sigma / alpha) ~ N(mean, std^2), the noise level of EDM's training, given that it lies within the process's.

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
        """+1 or -1, and the normal probabilities below that multiple of the standardized ends.

        If all of the process lies above the mean, the signs are turned: there float32 rounds the probabilities to 1.
        """
        low, high = self._standardized(sde, sde.t_min), self._standardized(sde, sde.t_max)
        sign = jnp.where(low > 0, -1, 1)
        return sign, ndtr(sign * low), ndtr(sign * high)

    def coverage(self, sde):
        """The normal probability between the ends."""
        _, low, high = self._ends(sde)
        return jnp.abs(high - low)

    def quantile(self, sde, u):
        """That of the normal distribution between the ends; where no probability is left, the level nearest to the mean."""
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
    """logit of (t - t_min) / (t_max - t_min) ~ N(mean, std^2): the middle times more often than the ends.

    For rectified flow over all of [0, 1] it is `LogNormalSigma` of the same mean and std: there logit t is
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
        """The sigmoid of a normal quantile, stretched over the range."""
        return sde.t_min + (sde.t_max - sde.t_min) * jax.nn.sigmoid(self.mean + self.std * ndtri(u))

    def log_density(self, sde, t):
        """By change of variables; -infinity at the two ends and beyond."""
        length = sde.t_max - sde.t_min
        share = (t - sde.t_min) / length
        standardized = (logit(share) - self.mean) / self.std
        log_density = norm.logpdf(standardized) - jnp.log(self.std * share * (1 - share) * length)
        return jnp.where(jnp.isfinite(standardized), log_density, -jnp.inf)


@struct.dataclass
class GeometricSigma(TimeDistribution):
    """K levels of sigma / alpha in geometric progression from that of t_min to that of t_max, each equally likely.

    Source: Song and Ermon (2019), https://arxiv.org/abs/1907.05600, sections 4 and 5 (SMLD, with K = 10; NCSNv2: 232).

    Attributes:
        levels: K, at least 2 (ValueError).
    """

    levels: int = struct.field(pytree_node=False, default=10)

    def __post_init__(self):
        at_least("GeometricSigma", 2, levels=self.levels)

    def quantile(self, sde, u):
        """Level floor(u K), by its log-SNR."""
        level = jnp.minimum(jnp.floor(u * self.levels), self.levels - 1)
        high, low = sde.log_snr(sde.t_min), sde.log_snr(sde.t_max)
        log_snr = high + (low - high) * level / (self.levels - 1)
        return jnp.clip(sde.time_at_log_snr(log_snr), sde.t_min, sde.t_max)


@struct.dataclass
class DiscreteTime(TimeDistribution):
    """t = i t_max / N for i = 1..N, each equally likely: the steps of DDPM.

    Source: Ho et al. (2020), https://arxiv.org/abs/2006.11239, algorithm 1.

    Attributes:
        steps: N, at least 1 (ValueError). t_max / N must not lie below t_min (ValueError when the times are drawn).
    """

    steps: int = struct.field(pytree_node=False, default=1000)

    def __post_init__(self):
        at_least("DiscreteTime", 1, steps=self.steps)

    def quantile(self, sde, u):
        """Step floor(u N) + 1."""
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
    """Times of any distribution, spread evenly over a batch: u_i = (u_0 + i / B) mod 1, with u_0 uniform.

    Every u_i is uniform by itself, so nothing is biased, and every batch covers the distribution, which lowers the variance
    of its mean loss. It is the one deliberate coupling of the examples of a batch, and an explicit one: they share u_0,
    which comes from a key of the step, and each takes its place in the global batch. So time i depends on this key, i and
    B; it does not depend on how the batch is divided among devices, and not on `keys`.

    Source: Kingma et al. (2021), https://arxiv.org/abs/2107.00630, appendix I.1.

    Attributes:
        key: one key, the same for all examples of the step and used for nothing else.
        places: (B,), the places 0, 1, ... in the global batch of the examples at hand.
        size: the number of examples of the global batch, at least 1 (ValueError).
        times: the distribution.
    """

    key: Array
    places: Array
    size: int = struct.field(pytree_node=False)
    times: TimeDistribution = UniformTime()

    def __post_init__(self):
        at_least("LowDiscrepancyTimes", 1, size=self.size)

    def __call__(self, keys: Array, sde: Process) -> Array:
        """One time per place, (B,).

        Raises:
            ValueError: there are not as many keys as places.
        """
        if keys.shape != self.places.shape:
            raise ValueError(f"LowDiscrepancyTimes: {keys.shape} keys for {self.places.shape} places")
        return self.quantile(sde, (jax.random.uniform(self.key) + self.places / self.size) % 1)

    def quantile(self, sde, u):
        """That of `times`."""
        return self.times.quantile(sde, u)

    def coverage(self, sde):
        """That of `times`."""
        return self.times.coverage(sde)

    def log_density(self, sde, t):
        """That of `times`: of every one of the times by itself."""
        return self.times.log_density(sde, t)
