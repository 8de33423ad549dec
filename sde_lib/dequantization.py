"""Grey levels and densities: what a log-density over [-1, 1] says, in bits per dimension, of 8-bit images.

An image is made of levels q = 0..255, but a model gives a density p over real numbers. A `Quantization` says where the
levels lie: level q is the bin of the given width around its centre. Every probability of levels that a density gives is a
bound, from a distribution r(x | q) of the dequantized image:

    log P(q) >= E_{x ~ r(x | q)} [log p(x) - log r(x | q)]                                                     (1)

`dequantize` and `UniformDequantizer` draw x evenly from the bin, where -log r is log(width) per dimension.
`TruncatedNormalDequantizer` and `LogitNormalDequantizer` have numbers to choose, or to fit by ascent on (1) (draws are
differentiable in them), and make the bound tighter the better r resembles p within a bin.

`ModelDequantizer` leaves the dequantization to the model: its own noise at t_min. Then x = x_{t_min} need not stay in
the bin, and the model's last step P(q | x) undoes the noise:

    log P(q) >= E_{x ~ N(alpha c_q, sigma^2)} [log p_{t_min}(x) + log P(q | x) - log N(x; alpha c_q, sigma^2)]  (2)

This is exact at t_min, with no gap between p_{t_min} and p_0, wherever sigma(t_min) is far below the width of a bin, and
a bound everywhere. P(q | x), the posterior under even levels, is normal in the level's centre and normalised over all
levels.

Each dequantizer returns x and what (1) or (2) subtracts from log p(x), so that with any of them

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
    """Where the levels 0..num_levels - 1 lie: bins of equal width that fill [low, high].

    Attributes:
        low, high: the lower edge of the first bin and the upper edge of the last, in units of the data.
        num_levels: 256 for 8 bits.
    """

    low: float
    high: float
    num_levels: int = struct.field(pytree_node=False, default=256)

    @classmethod
    def filling(cls, low: float, high: float, num_levels: int = 256) -> "Quantization":
        """Bins that fill [low, high], as in x = low + (high - low) (q + u) / 256 with u uniform on [0, 1]."""
        _check_range(low, high, num_levels)
        return cls(low, high, num_levels)

    @classmethod
    def between(cls, first: float, last: float, num_levels: int = 256) -> "Quantization":
        """Levels whose centres run from `first` to `last`, as in x = 2 q / 255 - 1: half a bin juts out at each end."""
        _check_range(first, last, num_levels)
        half = 0.5 * (last - first) / (num_levels - 1)
        return cls(first - half, last + half, num_levels)

    @property
    def width(self) -> float:
        """Of a bin, in units of the data."""
        return (self.high - self.low) / self.num_levels

    def centre(self, levels: Array) -> Array:
        """The centre of each level's bin, of the shape of `levels`, in units of the data."""
        return self.low + self.width * (jnp.asarray(levels) + 0.5)


def _check_range(low, high, num_levels):
    if num_levels < 2:
        raise ValueError(f"num_levels={num_levels}: at least 2 are needed")
    if not low < high:
        raise ValueError(f"the levels' range must have low < high, not [{low}, {high}]")


def bits_per_dim(
    log_prob: Array, x0: Array, *, quantization: Quantization | None = None, log_ratio: Array | None = None
) -> Array:
    """The code length of images, (B,), in bits per dimension: -(log p(x) - log_ratio) / (dimensions log 2).

    Exactly one of `quantization` and `log_ratio` says how x0 came from levels; there is no default, for a density says
    nothing of levels without it. A standard error of `log_prob`, in nats, becomes one of this by the same divisor.

    Args:
        log_prob: (B,), nats: log p(x0) in the units of x0.
        x0: (B, *event), dequantized images.
        quantization: x0 was dequantized uniformly within these bins (`dequantize`).
        log_ratio: (B,), nats, from a dequantizer.

    Raises:
        ValueError: both or neither of the two is given; shapes differ; or, with `quantization` and where x0 is not
            traced, x0 has values outside the bins, or lies on the levels themselves (it was not dequantized).
    """
    x0, log_prob = jnp.asarray(x0), jnp.asarray(log_prob)
    if (quantization is None) == (log_ratio is None):
        raise ValueError(
            "bits per dimension belong to quantized data: pass either quantization, such as Quantization.filling(-1, 1), "
            f"or a dequantizer's log_ratio, not {'neither' if log_ratio is None else 'both'}"
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
    place = (np.asarray(x0, np.float64) - quantization.low) / quantization.width
    rounding = 1e-3  # of a bin: what float32 and the transforms of images may lose
    if not ((place >= -rounding) & (place <= quantization.num_levels + rounding)).all():
        raise ValueError(
            f"x0 runs from {np.min(x0):g} to {np.max(x0):g}, outside the {quantization.num_levels} levels in "
            f"[{quantization.low:g}, {quantization.high:g}]: it is no dequantized data of this quantization"
        )
    if (np.abs(2 * place - np.rint(2 * place)) < rounding).all():
        raise ValueError(
            "x0 lies on the levels themselves, where a density means nothing: dequantize it first, "
            "as dequantize(keys, images, quantization) does"
        )


def dequantize(keys: Array, images: Array, quantization: Quantization) -> Array:
    """Images (B, *event) of integer levels as real numbers, uniform within each level's bin; (B, *event).

    Args:
        keys: (B,), one per image: image i depends on `keys[i]` alone.
        images: integers in [0, num_levels - 1].
        quantization: where the levels lie.

    Raises:
        ValueError: as `Dequantizer.__call__`.
    """
    return UniformDequantizer()(keys, images, quantization)[0]


def _check_images(keys, images, quantization):
    if not jnp.issubdtype(images.dtype, jnp.integer):
        raise ValueError(f"images must be integer levels, not {images.dtype}")
    if images.ndim < 2 or keys.shape != images.shape[:1]:
        raise ValueError(f"images (B, *event) need keys (B,), one per image; given {images.shape} and {keys.shape}")
    if not isinstance(images, jax.core.Tracer) and images.size:
        known = np.asarray(images)  # NumPy's, for these may be constants within a traced function
        least, largest = known.min(), known.max()
        if least < 0 or largest >= quantization.num_levels:
            raise ValueError(f"levels run from {least} to {largest}, outside [0, {quantization.num_levels - 1}]")


@struct.dataclass
class Dequantizer(Struct):
    """A distribution r(x | q) within the bins. A new one defines `place`."""

    def place(self, keys: Array, images: Array) -> tuple[Array, Array]:
        """Places within the bins, u in (-1/2, 1/2) in widths from the centre (B, *event), and log r(u | q) (B,), nats.

        Args:
            keys: (B,), one per image.
            images: integer levels (B, *event); a distribution may depend on them.
        """
        raise NotImplementedError(f"{type(self).__name__} must define place(keys, images)")

    def __call__(self, keys: Array, images: Array, quantization: Quantization) -> tuple[Array, Array]:
        """A draw x (B, *event) and log r(x | q) (B,), in nats and units of the data: see equation (1).

        Raises:
            ValueError: images are not integers within the levels (seen where they are not traced), or do not have one
                key each.
        """
        images = jnp.asarray(images)
        _check_images(keys, images, quantization)
        place, log_density = self.place(keys, images)
        x = quantization.centre(images) + quantization.width * place
        return x, log_density - images[0].size * jnp.log(quantization.width)


@struct.dataclass
class UniformDequantizer(Dequantizer):
    """u uniform."""

    def place(self, keys, images):
        """log r = 0."""
        uniform = jax.vmap(lambda key: jax.random.uniform(key, images.shape[1:]))(keys)
        return uniform - 0.5, jnp.zeros(images.shape[:1], uniform.dtype)


@struct.dataclass
class TruncatedNormalDequantizer(Dequantizer):
    """u normal around the centre, cut at the edges of the bin.

    With std = sigma(t_min) / (alpha(t_min) width) it is what the process's own noise at t_min looks like.

    Attributes:
        std: of the normal before the cut, in widths of a bin; () or of the event's shape.
    """

    std: Array | float = 0.25

    def place(self, keys, images):
        """log r = log N(u; 0, std^2) less the logarithm of the mass within the bin."""
        std = jnp.broadcast_to(self.std, images.shape[1:])
        edge = 0.5 / std
        normal = jax.vmap(lambda key: jax.random.truncated_normal(key, -edge, edge, images.shape[1:], std.dtype))(keys)
        mass = jax.scipy.special.erf(edge / jnp.sqrt(2.0))
        return std * normal, _event_sum(jax.scipy.stats.norm.logpdf(normal) - jnp.log(std) - jnp.log(mass))


@struct.dataclass
class LogitNormalDequantizer(Dequantizer):
    """u + 1/2 the sigmoid of a normal: flat, peaked, or leaning to one side.

    Attributes:
        loc, scale: of the normal; each () or of the event's shape. (0, 1.6) is close to uniform.
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
    """The process's own noise at t_min, undone by P(q | x): equation (2).

    Attributes:
        sde: the forward process; t_min and its alpha and sigma count.
    """

    sde: SDE

    def __call__(self, keys: Array, images: Array, quantization: Quantization) -> tuple[Array, Array]:
        """A draw x_{t_min} (B, *event) and log N(x; alpha c_q, sigma^2) - log P(q | x) (B,), nats.

        Raises:
            ValueError: as `Dequantizer.__call__`.
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
    """log P(q | x_{t_min} = x) (B,), nats: each level with a weight N(x / alpha; c_q, (sigma / alpha)^2), normalised.

    This is the posterior under levels that are equally likely and independent between dimensions.

    Source: Kingma et al. (2021), https://arxiv.org/abs/2107.00630, section 3.3.

    Args:
        sde: the forward process; t_min and its alpha and sigma count.
        x: states at t_min (B, *event).
        images: integer levels (B, *event).
        quantization: where the levels lie.
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
