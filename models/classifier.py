"""Noise-conditional classifiers for classifier guidance: noisy images and noise levels to logits of the classes.

- `WideResNetClassifier`: three groups of residual blocks, each with half the resolution and twice the channels of the
  previous group, then the mean over the pixels. score_sde's class-conditional samples use such a classifier, trained on
  CIFAR-10 under the VE SDE.
- `UNetClassifier`: the encoder and the middle of ADM's U-Net, then attention pooling whose query is the mean of all
pixels.

Both are called like the other networks and return (B, num_classes) float32. Examples of a batch are independent.
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
    """The noise-conditional wide residual network of score_sde.

    The defaults are those of the published network for CIFAR-10. Its input is a noisy image of the data range [0, 1],
    minus (0.49139968, 0.48215841, 0.44653091), divided by (0.24703223, 0.24348513, 0.26158784). Kernels are initialized
    uniformly with He's variance over the fan-out.

    Source: Song et al. (2021), https://arxiv.org/abs/2011.13456, appendix I.1;
    https://github.com/yang-song/score_sde/blob/main/models/wideresnet_noise_conditional.py; Zagoruyko and Komodakis
    (2016), https://arxiv.org/abs/1605.07146.

    Attributes:
        num_classes: number of logits.
        blocks_per_group: residual blocks in each of the three groups.
        width: channels of the groups in units of 16, 32 and 64.
        fourier_scale: standard deviation of the frequencies in the embedding of the noise level.
        dropout: dropout rate between the two convolutions of each block; the published network has 0.
        dtype: dtype of the computation, "float32" or "bfloat16"; parameters and output are float32.
        remat: recompute the activations of each block in the backward pass: less memory, about a third more time.
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
            noise_level: (B,), log(sigma) for the published network.
            condition: None or empty; a classifier has no condition.
            train: whether dropout is enabled.
            dropout_keys: (B,) typed PRNG keys; required if `train` is True and `dropout` is above 0.

        Returns:
            (B, num_classes) float32.

        Raises:
            ValueError: H or W is not divisible by 4, an option has an unknown value, a condition is given, or keys are
                missing.
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

    Where the shape changes, the skip pools the pixels and pads the channels with zeros. In the `first` block, the skip
    starts after the first norm and ReLU.
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
        if (added := self.features - skip.shape[-1]) or self.stride > 1:
            skip = nn.avg_pool(skip, (self.stride, self.stride), (self.stride, self.stride))
            skip = jnp.pad(skip, ((0, 0), (0, 0), (0, 0), (0, added)))
        return skip + h


class UNetClassifier(nn.Module):
    """The classifier of ADM: the encoder and the middle of its U-Net, and attention pooling.

    The defaults are those of the published classifier for ImageNet at 64 px. The published classifiers for larger
    images have `blocks_per_level=2` and `channel_multipliers=(1, 1, 2, 3, 4)` for 128 px, (1, 1, 2, 2, 4, 4) for 256 px
    and (0.5, 1, 1, 2, 2, 4, 4) for 512 px.

    Source: Dhariwal and Nichol (2021), https://arxiv.org/abs/2105.05233;
    https://github.com/openai/guided-diffusion/blob/main/guided_diffusion/unet.py (EncoderUNetModel, with
    scale_shift_norm, resblock_updown and attention pooling).

    Attributes:
        num_classes: number of logits.
        channels: base number of channels; the embedding of the noise level has four times as many.
        channel_multipliers: channels of each level, finest first, in units of `channels`, rounded; each level has half
            the resolution of the previous level.
        blocks_per_level: residual blocks of each level.
        attention_resolutions: heights in pixels at which every block is followed by attention.
        head_channels: channels of each attention head; 0 for a single head.
        dropout: dropout rate in each residual block.
        norm_groups: groups of every group norm; 0 for 32, or fewer where a group would have less than 4 channels.
        dtype: dtype of the computation, "float32" or "bfloat16"; parameters and output are float32.
        remat: recompute the activations of each block in the backward pass: less memory, about a third more time.
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
        """Maps noisy images to logits. Position embeddings are learned, so the image size is fixed at `init`.

        Args:
            x: (B, H, W, C); H and W divisible by 2 ** (levels - 1).
            noise_level: (B,), the step from 0 to 999 for the published networks.
            condition: None or empty; a classifier has no condition.
            train: whether dropout is enabled.
            dropout_keys: (B,) typed PRNG keys; required if `train` is True and `dropout` is above 0.

        Returns:
            (B, num_classes) float32.

        Raises:
            ValueError: H or W is not divisible by 2 ** (levels - 1), heads or groups do not divide the channels, an
                option has an unknown value, a condition is given, or keys are missing.
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
    """Attention pooling of an image to one vector; the mean of the pixels is the query, and an additional key.

    Source: Radford et al. (2021), https://arxiv.org/abs/2103.00020, section 2.4.

    Attributes:
        features: number of features of the output.
        num_heads: number of attention heads.
        dtype: dtype of the computation; parameters are float32.
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
    """Standardizes each image to mean 0 and standard deviation 1; the divisor is >= 1 / sqrt(values per image)."""
    x = x - x.mean((1, 2, 3), keepdims=True)
    floor = 1 / (x.shape[1] * x.shape[2] * x.shape[3]) ** 0.5
    return x / jnp.maximum(jnp.std(x, axis=(1, 2, 3), keepdims=True), floor)


def _embed(embedding, features, dtype):
    """Two dense layers, each followed by swish."""
    first, second = (_dense(features, dtype, f"embedding_{i}") for i in range(2))
    return nn.swish(second(nn.swish(first(embedding))))


def _dense(features, dtype, name):
    return nn.Dense(features, kernel_init=scaled_init(1.0), dtype=dtype, name=name)


# Keys are the values of `model.name` in a config.
CLASSIFIERS = {"unet_classifier": UNetClassifier, "wideresnet_classifier": WideResNetClassifier}
