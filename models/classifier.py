"""Classifiers of noisy images: image and noise level in, logits of the classes out, whose gradient guides sampling.

- `WideResNetClassifier`: three groups of residual blocks, each of half the resolution and twice the channels, and the mean
  over the pixels. Score_sde's class-conditional samples come from one that was trained on CIFAR-10 under the VE SDE.
- `UNetClassifier`: the way down of ADM's U-Net with its middle, and one attention whose query is the mean of all pixels.

Both are called as the other networks are, and return (B, num_classes) float32; no sample sees another.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from models import checks
from models.layers.attention import Attention
from models.layers.convolution import Conv, scaled_init
from models.layers.dropout import Dropout
from models.layers.embedding import FourierEmbedding, positional_embedding
from models.layers.normalization import GroupNorm
from models.layers.residual import ResidualBlock

CHOICES = {"dtype": ("float32", "bfloat16")}


class WideResNetClassifier(nn.Module):
    """A wide residual network that knows the noise level, as score_sde has it.

    The defaults are its published one for CIFAR-10, whose input is an image of the data range [0, 1] plus the noise, less
    (0.49139968, 0.48215841, 0.44653091), divided by (0.24703223, 0.24348513, 0.26158784). Kernels start with the variance of
    He's initialization over the outputs, drawn uniformly.

    Source: Song et al. (2021), https://arxiv.org/abs/2011.13456, appendix I.1;
    https://github.com/yang-song/score_sde/blob/main/models/wideresnet_noise_conditional.py; Zagoruyko and Komodakis (2016),
    https://arxiv.org/abs/1605.07146.

    Attributes:
        num_classes: number of logits.
        blocks_per_group: residual blocks in each of the three groups.
        width: channels of the groups in units of 16, 32 and 64.
        fourier_scale: standard deviation of the frequencies in the noise level's embedding.
        dropout: rate between the two convolutions of each block, in training. The published network has none.
        dtype: of the computation, "float32" or "bfloat16"; parameters and output are float32.
        remat: recompute every block's inner values in the backward pass, for less memory and about a third more time.
    """

    num_classes: int = 10
    blocks_per_group: int = 4
    width: int = 10
    fourier_scale: float = 16.0
    dropout: float = 0.0
    dtype: str = "float32"
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        noise_level: jax.Array,
        condition: Mapping[str, jax.Array] | None = None,
        *,
        train: bool = False,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """Maps noisy images to logits.

        Args:
            x: (B, H, W, C); H and W divisible by 4.
            noise_level: (B,), log(sigma) of the published network.
            condition: None or no leaf; a classifier has no condition.
            train: whether dropout is on.
            dropout_keys: (B,) typed PRNG keys; needed with `train` where `dropout` is above 0.

        Returns:
            (B, num_classes) float32.

        Raises:
            ValueError: for a size that cannot be halved twice, an unknown choice, a condition, and keys missing.
        """
        checks.choices(self, CHOICES)
        checks.divisible(self, x.shape, 4, "three groups need")
        checks.condition(self, len(x), condition, options={})
        dropout_keys = checks.dropout(self, train, dropout_keys)
        dtype = jnp.dtype(self.dtype)

        embedding = FourierEmbedding(256, self.fourier_scale, name="fourier")(noise_level)
        embedding = _embed(embedding, 512, dtype)
        block_type = nn.remat(WideBlock) if self.remat else WideBlock

        h = Conv(16, init_scale=2.0, fan="fan_out", use_bias=False, dtype=dtype, name="conv_in")(_standardized(x))
        for group in range(3):
            for i in range(self.blocks_per_group):
                stride = 2 if group > 0 and i == 0 else 1
                features = 16 * 2**group * self.width
                first = group == 0 and i == 0
                block = block_type(features, stride, first, self.dropout, dtype, name=f"block_{group}_{i}")
                h = block(h, embedding, dropout_keys)
        h = nn.relu(GroupNorm(epsilon=1e-5, dtype=dtype, name="norm_out")(h)).mean((1, 2))
        bound = 1 / self.num_classes**0.5

        def uniform(key, shape, dtype):
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        return nn.Dense(self.num_classes, kernel_init=uniform, dtype=dtype, name="out")(h).astype(jnp.float32)


class WideBlock(nn.Module):
    """skip(x) + Conv(relu(norm(Conv(relu(norm(x))) + embedding))).

    The skip pools the pixels and adds channels of zeros where the shape changes. In the `first` block it starts after the
    first norm and relu.
    """

    features: int
    stride: int = 1
    first: bool = False
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, embedding: jax.Array, dropout_keys: jax.Array | None = None) -> jax.Array:
        """Maps (B, H, W, C) with embedding (B, E), after its nonlinearity, to (B, H / stride, W / stride, features)."""
        conv = {"init_scale": 2.0, "fan": "fan_out", "use_bias": False, "dtype": self.dtype}
        h = nn.relu(GroupNorm(epsilon=1e-5, dtype=self.dtype, name="norm_in")(x))
        skip = h if self.first else x
        h = Conv(self.features, stride=self.stride, name="conv_in", **conv)(h)
        h = h + _dense(self.features, self.dtype, "embedding")(embedding)[:, None, None]
        h = nn.relu(GroupNorm(epsilon=1e-5, dtype=self.dtype, name="norm_out")(h))
        h = Conv(self.features, name="conv_out", **conv)(Dropout(self.dropout, name="dropout")(h, dropout_keys))
        if (more := self.features - skip.shape[-1]) or self.stride > 1:
            skip = nn.avg_pool(skip, (self.stride, self.stride), (self.stride, self.stride))
            skip = jnp.pad(skip, ((0, 0), (0, 0), (0, 0), (0, more)))
        return skip + h


class UNetClassifier(nn.Module):
    """The classifier of ADM: the way down of its U-Net, its middle, and a pooling by attention.

    The defaults are the published one for ImageNet at 64 px. The others have `blocks_per_level=2`; for 128 px
    `channel_multipliers=(1, 1, 2, 3, 4)`, for 256 px (1, 1, 2, 2, 4, 4), for 512 px (0.5, 1, 1, 2, 2, 4, 4).

    Source: Dhariwal and Nichol (2021), https://arxiv.org/abs/2105.05233;
    https://github.com/openai/guided-diffusion/blob/main/guided_diffusion/unet.py (EncoderUNetModel, with scale_shift_norm,
    resblock_updown and attention pooling).

    Attributes:
        num_classes: number of logits.
        channels: the unit of channels; the noise level's embedding has four times as many.
        channel_multipliers: channels of each level, finest first, in units of `channels` and rounded; every further level
            halves the resolution.
        blocks_per_level: residual blocks of each level.
        attention_resolutions: heights in pixels at which every block is followed by attention.
        head_channels: channels of each attention head; 0 is one head.
        dropout: rate of the dropout in each residual block, in training.
        norm_groups: groups of every group norm; 0 takes 32, or fewer where a group would have less than 4 channels.
        dtype: of the computation, "float32" or "bfloat16"; parameters and output are float32.
        remat: recompute every block's inner values in the backward pass, for less memory and about a third more time.
    """

    num_classes: int = 1000
    channels: int = 128
    channel_multipliers: tuple[float, ...] = (1, 2, 3, 4)
    blocks_per_level: int = 4
    attention_resolutions: tuple[int, ...] = (32, 16, 8)
    head_channels: int = 64
    dropout: float = 0.0
    norm_groups: int = 32
    dtype: str = "float32"
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        noise_level: jax.Array,
        condition: Mapping[str, jax.Array] | None = None,
        *,
        train: bool = False,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """Maps noisy images to logits. The position of every pixel is learned: the size is that of `init`.

        Args:
            x: (B, H, W, C); H and W divisible by 2 ** (levels - 1).
            noise_level: (B,), the published networks' step from 0 to 999.
            condition: None or no leaf; a classifier has no condition.
            train: whether dropout is on.
            dropout_keys: (B,) typed PRNG keys; needed with `train` where `dropout` is above 0.

        Returns:
            (B, num_classes) float32.

        Raises:
            ValueError: for a size that cannot be halved often enough, heads or groups that do not divide the channels, an
                unknown choice, a condition, and keys missing.
        """
        levels = len(self.channel_multipliers)
        widths = [round(self.channels * multiplier) for multiplier in self.channel_multipliers]
        checks.choices(self, CHOICES)
        checks.divisible(self, x.shape, 2 ** (levels - 1), f"{levels} levels need")
        checks.condition(self, len(x), condition, options={})
        dropout_keys = checks.dropout(self, train, dropout_keys)
        dtype = jnp.dtype(self.dtype)
        shared = {"dtype": dtype, "norm_groups": self.norm_groups, "norm_epsilon": 1e-5}
        block_type = nn.remat(ResidualBlock) if self.remat else ResidualBlock
        attention_type = nn.remat(Attention) if self.remat else Attention

        embedding = positional_embedding(noise_level, self.channels, endpoint=False, cosine_first=True)
        embedding = _embed(embedding, 4 * self.channels, dtype)

        def residual(h, level, name, resampling=None):
            block = block_type(widths[level], dropout=self.dropout, resampling=resampling, name=name, **shared)
            return block(h, embedding, dropout_keys)

        def attention(h, name):
            return attention_type(self._heads(h), name=name, **shared)(h)

        h = Conv(widths[0], dtype=dtype, name="conv_in")(x.astype(dtype))
        for level in range(levels):
            for i in range(self.blocks_per_level):
                h = residual(h, level, f"down_{level}_{i}")
                if h.shape[1] in self.attention_resolutions:
                    h = attention(h, f"down_{level}_{i}_attention")
            if level < levels - 1:
                h = residual(h, level, f"down_{level}_resample", "down")

        h = residual(h, levels - 1, "middle_0")
        h = attention(h, "middle_attention")
        h = residual(h, levels - 1, "middle_1")

        h = nn.swish(GroupNorm(self.norm_groups, 1e-5, dtype, name="norm_out")(h))
        return AttentionPool(self.num_classes, self._heads(h), dtype, name="pool")(h).astype(jnp.float32)

    def _heads(self, h):
        if not self.head_channels:
            return 1
        if h.shape[-1] % self.head_channels:
            raise ValueError(
                f"UNetClassifier: head_channels={self.head_channels} does not divide {h.shape[-1]} channels"
            )
        return h.shape[-1] // self.head_channels


class AttentionPool(nn.Module):
    """One vector for an image: attention over its pixels, and their mean, with the mean as the query.

    Source: Radford et al. (2021), https://arxiv.org/abs/2103.00020, section 2.4.

    Attributes:
        features: of the result.
        num_heads: of the attention.
        dtype: of the computation; parameters are float32.
    """

    features: int
    num_heads: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to (B, features)."""
        channels = x.shape[-1]
        tokens = rearrange(x, "b h w c -> b (h w) c")
        tokens = jnp.concatenate([tokens.mean(1, keepdims=True), tokens], axis=1)
        init = nn.initializers.normal(channels**-0.5)
        tokens = tokens + self.param("positions", init, tokens.shape[1:], jnp.float32).astype(self.dtype)
        qkv = _dense(3 * channels, self.dtype, "qkv")(tokens)
        q, k, v = rearrange(qkv, "b t (three n c) -> three b t n c", three=3, n=self.num_heads)
        pooled = jax.nn.dot_product_attention(q[:, :1], k, v)
        return _dense(self.features, self.dtype, "out")(rearrange(pooled, "b 1 n c -> b (n c)"))


def _standardized(x):
    """Each image less its mean, divided by its standard deviation, which counts as 1 / sqrt(values) at least."""
    x = x - x.mean((1, 2, 3), keepdims=True)
    floor = 1 / (x.shape[1] * x.shape[2] * x.shape[3]) ** 0.5
    return x / jnp.maximum(jnp.std(x, axis=(1, 2, 3), keepdims=True), floor)


def _embed(embedding, features, dtype):
    """Two layers, and the nonlinearity behind them."""
    first, second = (_dense(features, dtype, f"embedding_{i}") for i in range(2))
    return nn.swish(second(nn.swish(first(embedding))))


def _dense(features, dtype, name):
    return nn.Dense(features, kernel_init=scaled_init(1.0), dtype=dtype, name=name)


# By the name that a config gives.
CLASSIFIERS = {"unet_classifier": UNetClassifier, "wideresnet_classifier": WideResNetClassifier}
