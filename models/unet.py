"""The U-Net of the DDPM family: noisy images and their noise level in, images out.

Residual blocks run down through ever coarser levels and up again. Every output on the way down is kept and joined to
the input of its counterpart on the way up. Attention mixes pixels at chosen resolutions. The noise level (and the
class) enters every block through one embedding.

Source: Ho et al. (2020), https://arxiv.org/abs/2006.11239; Dhariwal and Nichol (2021),
https://arxiv.org/abs/2105.05233.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from models import checks
from models.layers.attention import Attention
from models.layers.convolution import Conv, scaled_init
from models.layers.embedding import FourierEmbedding, positional_embedding
from models.layers.normalization import GroupNorm
from models.layers.resampling import RESAMPLINGS
from models.layers.residual import ResidualBlock

CHOICES = {
    "embedding": ("positional", "fourier"),
    "resampling": ("conv", "plain", "block"),
    "dtype": ("float32", "bfloat16"),
}


class UNet(nn.Module):
    """U-Net of the DDPM family; its last layer starts at zero, and so does its output.

    Attributes:
        channels: channels of the finest level.
        channel_multipliers: channels of each level, finest first, in units of `channels`; every further level halves
            the resolution.
        blocks_per_level: residual blocks of each level on the way down; one more on the way up.
        attention_resolutions: heights in pixels at which every block is followed by attention.
        middle_attention: whether attention stands between the two blocks of the coarsest level.
        num_heads: heads of each attention, where `head_channels` is 0.
        head_channels: channels of each head; their number then grows with the channels.
        dropout: rate of the dropout in each residual block, in training.
        num_classes: 0 for an unconditional network; else `condition` holds labels below it.
        embedding: of the noise level; "positional" for levels that span hundreds (`999 t`), "fourier" for levels of
            order one (`log(sigma) / 4`).
        fourier_scale: standard deviation of the Fourier frequencies.
        scale_shift: whether the embedding scales and shifts after the norm (ADM) or shifts before it (DDPM).
        resampling: how the resolution changes between levels: "conv" pools or repeats pixels and convolves (DDPM),
            "plain" does without the convolution (score_sde's `resamp_with_conv=False`; fastest), "block" does it
            within a residual block (ADM).
        dtype: of the computation, "float32" or "bfloat16"; parameters and output are float32.
        remat: recompute every block's inner values in the backward pass, for less memory and about a third more time.
    """

    channels: int = 128
    channel_multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks_per_level: int = 2
    attention_resolutions: tuple[int, ...] = (16,)
    middle_attention: bool = True
    num_heads: int = 1
    head_channels: int = 0
    dropout: float = 0.0
    num_classes: int = 0
    embedding: str = "positional"
    fourier_scale: float = 16.0
    scale_shift: bool = True
    resampling: str = "conv"
    dtype: str = "float32"
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        noise_level: jax.Array,
        condition: jax.Array | None = None,
        *,
        train: bool = False,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """Maps noisy images to images.

        Args:
            x: (B, H, W, C); H and W divisible by 2 ** (levels - 1).
            noise_level: (B,), in whatever unit the network is trained with.
            condition: (B,) integer labels in [0, num_classes), or None where `num_classes` is 0.
            train: whether dropout is on.
            dropout_keys: (B,) typed PRNG keys; needed with `train` where `dropout` is above 0.

        Returns:
            (B, H, W, C) float32.

        Raises:
            ValueError: for a size that cannot be halved often enough, for an unknown choice, and for a condition or
                keys missing or in excess.
        """
        levels = len(self.channel_multipliers)
        checks.choices(self, CHOICES)
        checks.divisible(self, x.shape, 2 ** (levels - 1), f"{levels} levels need")
        checks.condition(self, condition)
        dropout_keys = checks.dropout(self, train, dropout_keys)
        dtype = jnp.dtype(self.dtype)
        embedding = self._embed(noise_level, condition, dtype)
        block_type = nn.remat(ResidualBlock) if self.remat else ResidualBlock
        attention_type = nn.remat(Attention) if self.remat else Attention

        def residual(h, level, name, resampling=None):
            block = block_type(
                self.channels * self.channel_multipliers[level],
                dropout=self.dropout,
                scale_shift=self.scale_shift,
                resampling=resampling,
                dtype=dtype,
                name=name,
            )
            return block(h, embedding, dropout_keys)

        def attention(h, name):
            heads = h.shape[-1] // self.head_channels if self.head_channels else self.num_heads
            return attention_type(heads, dtype=dtype, name=name)(h)

        def resample(h, level, direction):
            name = f"{direction}_{level}_resample"
            if self.resampling == "block":
                return residual(h, level, name, direction)
            h = RESAMPLINGS[direction](h)
            return Conv(h.shape[-1], dtype=dtype, name=name)(h) if self.resampling == "conv" else h

        def block(h, level, name):
            h = residual(h, level, name)
            return attention(h, f"{name}_attention") if h.shape[1] in self.attention_resolutions else h

        h = Conv(self.channels, dtype=dtype, name="conv_in")(x.astype(dtype))
        skips = [h]
        for level in range(levels):
            for i in range(self.blocks_per_level):
                h = block(h, level, f"down_{level}_{i}")
                skips.append(h)
            if level < levels - 1:
                h = resample(h, level, "down")
                skips.append(h)

        h = residual(h, levels - 1, "middle_0")
        if self.middle_attention:
            h = attention(h, "middle_attention")
        h = residual(h, levels - 1, "middle_1")

        for level in reversed(range(levels)):
            for i in range(self.blocks_per_level + 1):
                h = block(jnp.concatenate([h, skips.pop()], axis=-1), level, f"up_{level}_{i}")
            if level > 0:
                h = resample(h, level, "up")

        h = nn.swish(GroupNorm(dtype=dtype, name="norm_out")(h))
        return Conv(x.shape[-1], init_scale=0.0, dtype=dtype, name="conv_out")(h).astype(jnp.float32)

    def _embed(self, noise_level, condition, dtype):
        """(B,) noise levels and (B,) labels to (B, 4 channels)."""
        width = 4 * self.channels
        if self.embedding == "fourier":
            embedding = FourierEmbedding(2 * self.channels, self.fourier_scale, name="fourier")(noise_level)
        else:
            embedding = positional_embedding(noise_level, self.channels)
        dense = [nn.Dense(width, kernel_init=scaled_init(1.0), dtype=dtype, name=f"embedding_{i}") for i in range(2)]
        embedding = dense[1](nn.swish(dense[0](embedding)))
        if self.num_classes:
            init = nn.initializers.normal(1.0)
            table = nn.Embed(self.num_classes, width, embedding_init=init, dtype=dtype, name="classes")
            embedding = embedding + table(condition)
        return nn.swish(embedding)
