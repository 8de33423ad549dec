"""Dequantization and bits per dimension: the log-probability of discrete images under a continuous density.

An image consists of levels q = 0..255, whereas a model defines a density p over real numbers. A `Quantization` maps
level q to a bin of fixed width around the centre c_q. A dequantization distribution r(x | q) gives a lower bound on the
probability of the levels:

    log P(q) >= E_{x ~ r(x | q)} [log p(x) - log r(x | q)]                                                     (1)

`dequantize` and `UniformDequantizer` sample x uniformly from the bin, where -log r is log(width) per dimension.
`TruncatedNormalDequantizer` and `LogitNormalDequantizer` have parameters that can be set, or fitted by gradient ascent
on (1) (samples are reparameterized). The better r matches p within a bin, the tighter is the bound.

`ModelDequantizer` uses the noise of the process at t_min as r. Then x = x_{t_min} may leave the bin, and the model's
last step P(q | x) removes the noise:

    log P(q) >= E_{x ~ N(alpha c_q, sigma^2)} [log p_{t_min}(x) + log P(q | x) - log N(x; alpha c_q, sigma^2)]  (2)

P(q | x) is the posterior under a uniform prior over levels: normal in c_q and normalised over all levels. Bound (2)
uses the density at t_min and so has no gap between p_{t_min} and p_0. It is tight where sigma(t_min) is far below the
width of a bin.

Each dequantizer returns x and the term that (1) or (2) subtracts from log p(x):

    x, log_ratio = UniformDequantizer()(key_levels, images, quantization)
    log_prob = log_likelihood(key_probes, denoiser, x).log_prob
    bits = bits_per_dim(log_prob, x, log_ratio=log_ratio)

Sources: Theis et al. (2016), https://arxiv.org/abs/1511.01844, section 3.1, for uniform noise; Ho et al. (2019),
https://arxiv.org/abs/1902.00275, section 3.1, for (1); Zheng et al. (2023), https://arxiv.org/abs/2305.03935,
for the truncated normal; Kingma et al. (2021), https://arxiv.org/abs/2107.00630, section 3.3, for P(q | x).
"""

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from sde_lib.randomness import standard_normal
from sde_lib.sde import SDE, expand
from sde_lib.struct import Struct

LOG_2 = float(np.log(2.0))


def _event_sum(x: Array) -> Array:
    return x.sum(tuple(range(1, x.ndim)))


@struct.dataclass
class Quantization(Struct):
    """Quantization bins of the levels 0..num_levels - 1: equal widths that partition [low, high].

    Attributes:
        low, high: the lower edge of the first bin and the upper edge of the last bin, in units of the data.
        num_levels: number of levels, at least 2; 256 for 8 bits.
    """

    low: float
    high: float
    num_levels: int = struct.field(pytree_node=False, default=256)

    @classmethod
    def filling(cls, low: float, high: float, num_levels: int = 256) -> "Quantization":
        """Returns bins that partition [low, high], as in x = low + (high - low) (q + u) / 256 with u uniform on [0, 1].

        Raises:
            ValueError: num_levels < 2, or not low < high.
        """
        _check_range(low, high, num_levels)
        return cls(low, high, num_levels)

    @classmethod
    def between(cls, first: float, last: float, num_levels: int = 256) -> "Quantization":
        """Returns bins with centres from `first` to `last`, as in x = 2 q / 255 - 1; the edges are half a bin further.

        Raises:
            ValueError: num_levels < 2, or not first < last.
        """
        _check_range(first, last, num_levels)
        half = 0.5 * (last - first) / (num_levels - 1)
        return cls(first - half, last + half, num_levels)

    @property
    def width(self) -> float:
        """Width of a bin, in units of the data."""
        return (self.high - self.low) / self.num_levels

    def centre(self, levels: Array) -> Array:
        """Returns the bin centres of `levels`, of their shape, in units of the data."""
        return self.low + self.width * (jnp.asarray(levels) + 0.5)


def _check_range(low, high, num_levels):
    if num_levels < 2:
        raise ValueError(f"num_levels={num_levels} must be at least 2")
    if not low < high:
        raise ValueError(f"the range of the levels must have low < high, not [{low}, {high}]")


def bits_per_dim(
    log_prob: Array, x0: Array, *, quantization: Quantization | None = None, log_ratio: Array | None = None
) -> Array:
    """Returns bits per dimension of images, (B,): -(log p(x) - log_ratio) / (dimensions log 2).

    Pass exactly one of `quantization` and `log_ratio`: bits per dimension are defined only for quantized data. Divide a
    standard error of `log_prob`, in nats, by dimensions log 2 too.

    Args:
        log_prob: log p(x0) in the units of x0, (B,), nats.
        x0: dequantized images, (B, *event).
        quantization: the bins, if x0 was dequantized uniformly (`dequantize`).
        log_ratio: the second output of a dequantizer, (B,), nats.

    Raises:
        ValueError: both or neither of `quantization` and `log_ratio` are given, or shapes differ. With `quantization`,
            if x0 is not traced: x0 has values outside the bins, or all values of x0 are bin centres or edges, so that
            x0 was not dequantized.
    """
    x0, log_prob = jnp.asarray(x0), jnp.asarray(log_prob)
    if (quantization is None) == (log_ratio is None):
        raise ValueError(
            "bits per dimension are defined for quantized data: pass either quantization, such as "
            "Quantization.filling(-1, 1), or the log_ratio of a dequantizer, not "
            + ("neither" if log_ratio is None else "both")
        )
    if x0.ndim < 2 or log_prob.shape != x0.shape[:1]:
        raise ValueError(f"log_prob must be (B,) and x0 (B, *event), not {log_prob.shape} and {x0.shape}")
    size = x0[0].size
    ratio: Any = log_ratio
    if quantization is not None:
        _check_dequantized(x0, quantization)
        ratio = -size * jnp.log(quantization.width)
    elif jnp.shape(ratio) != log_prob.shape:
        raise ValueError(f"log_ratio has shape {jnp.shape(ratio)}, log_prob {log_prob.shape}: they must be equal")
    return -(log_prob - ratio) / (size * LOG_2)


def _check_dequantized(x0, quantization):
    if isinstance(x0, jax.core.Tracer) or isinstance(quantization.low, jax.core.Tracer):
        return
    position = (np.asarray(x0, np.float64) - quantization.low) / quantization.width
    tolerance = 1e-3  # in bin widths: rounding of float32 and of image transforms
    if not ((position >= -tolerance) & (position <= quantization.num_levels + tolerance)).all():
        raise ValueError(
            f"x0 ranges from {np.min(x0):g} to {np.max(x0):g}, outside the {quantization.num_levels} levels in "
            f"[{quantization.low:g}, {quantization.high:g}]: it was not dequantized with this quantization"
        )
    if (np.abs(2 * position - np.rint(2 * position)) < tolerance).all():
        raise ValueError(
            "x0 lies on the levels themselves, where a density does not bound their probability: dequantize it first, "
            "with dequantize(keys, images, quantization)"
        )


def dequantize(keys: Array, images: Array, quantization: Quantization) -> Array:
    """Dequantizes images uniformly within the bins of their levels.

    Args:
        keys: one per image, (B,): the result for image i depends only on `keys[i]`.
        images: integer levels in [0, num_levels - 1], (B, *event).
        quantization: the bins of the levels.

    Returns:
        The dequantized images, (B, *event), in units of the data.

    Raises:
        ValueError: as in `Dequantizer.__call__`.
    """
    return UniformDequantizer()(keys, images, quantization)[0]


def _check_images(keys, images, quantization):
    if not jnp.issubdtype(images.dtype, jnp.integer):
        raise ValueError(f"images must be integer levels, not {images.dtype}")
    if images.ndim < 2 or keys.shape != images.shape[:1]:
        raise ValueError(f"images (B, *event) need keys (B,), one per image, not {images.shape} and {keys.shape}")
    if not isinstance(images, jax.core.Tracer) and images.size:
        levels = np.asarray(images)  # NumPy: images may be constants within a traced function
        least, largest = levels.min(), levels.max()
        if least < 0 or largest >= quantization.num_levels:
            raise ValueError(f"levels range from {least} to {largest}, outside [0, {quantization.num_levels - 1}]")


@struct.dataclass
class Dequantizer(Struct):
    """A dequantization distribution r(x | q) within the bins. A subclass defines `place`."""

    def place(self, keys: Array, images: Array) -> tuple[Array, Array]:
        """Samples the offset u from the bin centre, in bin widths.

        Args:
            keys: one per image, (B,).
            images: integer levels (B, *event), on which the distribution may depend.

        Returns:
            u in (-1/2, 1/2), (B, *event), and log r(u | q), (B,), in nats.
        """
        raise NotImplementedError(f"{type(self).__name__} must define place(keys, images)")

    def __call__(self, keys: Array, images: Array, quantization: Quantization) -> tuple[Array, Array]:
        """Samples x ~ r(x | q) of equation (1).

        Args:
            keys: one per image, (B,).
            images: integer levels in [0, num_levels - 1], (B, *event).
            quantization: the bins of the levels.

        Returns:
            x (B, *event), in units of the data, and log r(x | q) (B,), in nats.

        Raises:
            ValueError: images are not integers, are outside the levels (checked if not traced), or the number of keys
                differs from the number of images.
        """
        images = jnp.asarray(images)
        _check_images(keys, images, quantization)
        offset, log_density = self.place(keys, images)
        x = quantization.centre(images) + quantization.width * offset
        return x, log_density - images[0].size * jnp.log(quantization.width)


@struct.dataclass
class UniformDequantizer(Dequantizer):
    """Uniform distribution of u within the bin."""

    def place(self, keys, images):
        """log r = 0."""
        uniform = jax.vmap(lambda key: jax.random.uniform(key, images.shape[1:]))(keys)
        return uniform - 0.5, jnp.zeros(images.shape[:1], uniform.dtype)


@struct.dataclass
class TruncatedNormalDequantizer(Dequantizer):
    """Truncated normal distribution of u: centred in the bin and truncated at its edges.

    With std = sigma(t_min) / (alpha(t_min) width) it matches the noise of the process at t_min.

    Attributes:
        std: standard deviation before truncation, in bin widths; () or of the event's shape.
    """

    std: Array | float = 0.25

    def place(self, keys, images):
        """log r = log N(u; 0, std^2) - log(probability of the bin)."""
        std = jnp.broadcast_to(self.std, images.shape[1:])
        edge = 0.5 / std
        normal = jax.vmap(lambda key: jax.random.truncated_normal(key, -edge, edge, images.shape[1:], std.dtype))(keys)
        mass = jax.scipy.special.erf(edge / jnp.sqrt(2.0))
        return std * normal, _event_sum(jax.scipy.stats.norm.logpdf(normal) - jnp.log(std) - jnp.log(mass))


@struct.dataclass
class LogitNormalDequantizer(Dequantizer):
    """Logit-normal distribution of u + 1/2: nearly uniform, peaked, or skewed.

    Attributes:
        loc, scale: mean and standard deviation of the logit, each () or of the event's shape; (0, 1.6) is close to
            uniform.
    """

    loc: Array | float = 0.0
    scale: Array | float = 1.6

    def place(self, keys, images):
        """log r = log N(logit; loc, scale^2) - log sigmoid(logit) - log sigmoid(-logit)."""
        noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(keys)
        logit = self.loc + self.scale * noise
        log_slope = jax.nn.log_sigmoid(logit) + jax.nn.log_sigmoid(-logit)
        log_density = jax.scipy.stats.norm.logpdf(noise) - jnp.log(self.scale) - log_slope
        return jax.nn.sigmoid(logit) - 0.5, _event_sum(log_density)


@struct.dataclass
class ModelDequantizer(Struct):
    """Dequantization by the noise of the process at t_min, which P(q | x) removes: equation (2).

    Attributes:
        sde: the forward process, of which t_min, alpha(t_min) and sigma(t_min) are used.
    """

    sde: SDE

    def __call__(self, keys: Array, images: Array, quantization: Quantization) -> tuple[Array, Array]:
        """Samples x_{t_min} (B, *event); also returns log N(x; alpha c_q, sigma^2) - log P(q | x) (B,), in nats.

        Raises:
            ValueError: as in `Dequantizer.__call__`.
        """
        images = jnp.asarray(images)
        _check_images(keys, images, quantization)
        centre = quantization.centre(images)
        noise = standard_normal(keys, centre)
        sigma = expand(self.sde.sigma(self.sde.t_min), centre)
        x = self.sde.perturb(centre, noise, self.sde.t_min)
        log_kernel = _event_sum(jax.scipy.stats.norm.logpdf(noise) - jnp.log(sigma))
        return x, log_kernel - log_prob_of_levels(self.sde, x, images, quantization)


def log_prob_of_levels(sde: SDE, x: Array, images: Array, quantization: Quantization) -> Array:
    """Returns log P(q | x_{t_min} = x), (B,), in nats: N(x / alpha; c_q, (sigma / alpha)^2) normalised over all levels.

    This is the posterior under levels that are equally likely and independent between dimensions. The cost is linear in
    the number of levels.

    Source: Kingma et al. (2021), https://arxiv.org/abs/2107.00630, section 3.3.

    Args:
        sde: the forward process, of which t_min, alpha(t_min) and sigma(t_min) are used.
        x: states at t_min, (B, *event).
        images: integer levels, (B, *event).
        quantization: the bins of the levels.
    """
    s, y = sde.noise_to_signal(sde.t_min), x / sde.alpha(sde.t_min)
    nearest = jnp.clip(jnp.floor((y - quantization.low) / quantization.width), 0, quantization.num_levels - 1)

    def exponent(levels):
        return -0.5 * jnp.square((y - quantization.centre(levels)) / s)

    largest = exponent(nearest)

    def add(total, level):
        return total + jnp.exp(exponent(level) - largest), None

    total, _ = jax.lax.scan(add, jnp.zeros_like(y), jnp.arange(quantization.num_levels))
    return _event_sum(exponent(images) - largest - jnp.log(total))
