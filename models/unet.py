"""The U-Net of the DDPM family.

An encoder and a decoder of residual blocks over levels of decreasing and increasing resolution. Every output of the
encoder is concatenated to the input of the corresponding block of the decoder. Self-attention is applied at chosen
resolutions. One embedding of the noise level and the class conditions every block.

`UNet` has all options of the family; `models/ddpm.py` and `models/adm.py` are `UNet` with the defaults of their papers.

Source: Ho et al. (2020), https://arxiv.org/abs/2006.11239; Dhariwal and Nichol (2021),
https://arxiv.org/abs/2105.05233.
"""

import functools
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from models import checks
from models.layers.attention import Attention
from models.layers.convolution import Conv, scaled_init
from models.layers.embedding import ClassEmbedding, FourierEmbedding, positional_embedding
from models.layers.normalization import GroupNorm
from models.layers.resampling import RESAMPLINGS
from models.layers.residual import ResidualBlock

CHOICES = {
    "embedding": ("positional", "positional_adm", "fourier"),
    "resampling": ("conv", "plain", "block", "strided", "strided_symmetric"),
    "up_attention": ("block", "level"),
    "dtype": ("float32", "bfloat16"),
}
PADDINGS = {"strided": "SAME", "strided_symmetric": ((1, 1), (1, 1))}  # padding, by `resampling`


class UNet(nn.Module):
    """U-Net of the DDPM family; the initial output is zero.

    Attributes:
        channels: base number of channels; the embedding of the noise level has four times as many.
        channel_multipliers: channels of each level, finest first, in units of `channels`, rounded; each level has half
            the resolution of the previous level. The first convolution has the channels of the finest level.
        blocks_per_level: residual blocks of each level in the encoder; the decoder has one more.
        attention_resolutions: heights in pixels at which blocks are followed by attention.
        up_attention: attention in the decoder: "block" after every block (DDPM, ADM), "level" only after the last block
            of a level (score_sde's DDPM).
        middle_attention: whether there is attention between the two middle blocks of the coarsest level.
        num_heads: number of heads of each attention layer; used if `head_channels` is 0.
        head_channels: channels of each attention head, so that the number of heads grows with the channels; 0 uses
            `num_heads`.
        dropout: dropout rate in each residual block.
        num_classes: number of classes of the condition `label`; 0 for an unconditional network.
        augment_features: number of EDM's augmentation labels, the condition `augmentation`; 0 disables augmentation
            labels.
        embedding: embedding of the noise level: "positional" (DDPM) or "positional_adm" (ADM: cosines first, and
            without the endpoint of `positional_embedding`) for noise levels that span hundreds (`999 t`), "fourier" for
            noise levels of order one (`log(sigma) / 4`).
        fourier_scale: standard deviation of the Fourier frequencies.
        scale_shift: whether the embedding scales and shifts after the norm (ADM); if False, it shifts before the norm
            (DDPM).
        resampling: change of the resolution between levels: "conv" pools or repeats pixels, then convolves; "plain"
            omits the convolution (score_sde's `resamp_with_conv=False`; fastest); "block" resamples within a residual
            block (ADM's `resblock_updown`); "strided" convolves with stride 2 in the encoder, padded with zeros below
            and to the right (DDPM); "strided_symmetric" is "strided" padded on all sides (ADM without
            `resblock_updown`).
        norm_groups: groups of every group norm; 0 for 32, or fewer where a group would have less than 4 channels.
        norm_epsilon: added to the variance in every group norm: 1e-6 (DDPM), 1e-5 (ADM).
        out_channels: channels of the output; 0 for as many as the input has. If conditioning images are concatenated to
            the input, the number of channels of the noisy images.
        learned_variance: whether the last layer also predicts a variance for each value (iDDPM, ADM). The call returns
            only the mean, as a Denoiser requires; `mean_and_variance` returns both.
        dtype: dtype of the computation, "float32" or "bfloat16"; parameters and output are float32.
        remat: recompute the activations of each block in the backward pass: less memory, about a third more time.
    """

    channels: int = 128
    channel_multipliers: tuple[float, ...] = (1, 2, 2, 2)
    blocks_per_level: int = 2
    attention_resolutions: tuple[int, ...] = (16,)
    up_attention: str = "block"
    middle_attention: bool = True
    num_heads: int = 1
    head_channels: int = 0
    dropout: float = 0.0
    num_classes: int = 0
    augment_features: int = 0
    embedding: str = "positional"
    fourier_scale: float = 16.0
    scale_shift: bool = True
    resampling: str = "conv"
    norm_groups: int = 0
    norm_epsilon: float = 1e-6
    out_channels: int = 0
    learned_variance: bool = False
    dtype: str = "float32"
    remat: bool = False

    def __call__(
        self,
        x: jax.Array,
        noise_level: jax.Array,
        condition: Mapping[str, jax.Array] | None = None,
        *,
        train: bool = False,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """Maps noisy images to images.

        Args:
            x: (B, H, W, C); H and W divisible by 2 ** (levels - 1). Conditioning images are concatenated after the
                channels of the noisy images; `out_channels` is then the number of channels of the noisy images.
            noise_level: (B,), in the unit of training.
            condition: leaves by name, or None. If `num_classes` is not 0: `label` (B,), integers in [0, num_classes),
                or num_classes for no class, whose embedding is zero. If `augment_features` is not 0: `augmentation` (B,
                augment_features), the augmentation of each image; zeros, the null, by default.
            train: whether dropout is enabled.
            dropout_keys: (B,) typed PRNG keys; required if `train` is True and `dropout` is above 0.

        Returns:
            (B, H, W, C) float32, or (B, H, W, out_channels).

        Raises:
            ValueError: H or W is not divisible by 2 ** (levels - 1), heads or groups do not divide the channels, an
                option has an unknown value, leaves of the condition are missing or unexpected, or keys are missing.
        """
        output = self.mean_and_variance(x, noise_level, condition, train=train, dropout_keys=dropout_keys)
        return output[..., : self._out_channels(x)]

    @nn.compact
    def mean_and_variance(
        self,
        x: jax.Array,
        noise_level: jax.Array,
        condition: Mapping[str, jax.Array] | None = None,
        *,
        train: bool = False,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """Like the call, but returns the mean followed by the `learned_variance`: (B, H, W, 2 C) float32.

        The second half, v, is -1 for the variance of the posterior and 1 for the variance of the forward process, with
        linear interpolation of the log-variance between them (iDDPM, https://arxiv.org/abs/2102.09672, eq. 15, whose v
        is (v + 1) / 2 here). Without `learned_variance`, only the mean is returned.
        """
        leaves = self._check(x, condition)
        dropout_keys = checks.dropout(self, train, dropout_keys)
        dtype = jnp.dtype(self.dtype)
        embedding = self._embed(noise_level, leaves, dtype)
        residual = functools.partial(self._residual, embedding, dropout_keys)
        h = Conv(self._width(0), dtype=dtype, name="conv_in")(x.astype(dtype))
        h, skips = self._down(residual, h)
        h = self._middle(residual, h)
        h = self._up(residual, h, skips)
        h = nn.swish(GroupNorm(self.norm_groups, self.norm_epsilon, dtype, name="norm_out")(h))
        features = self._out_channels(x) * (2 if self.learned_variance else 1)
        return Conv(features, init_scale=0.0, dtype=dtype, name="conv_out")(h).astype(jnp.float32)

    def _check(self, x, condition):
        """Checks options and arguments; returns the leaves of the condition."""
        levels = len(self.channel_multipliers)
        checks.choices(self, CHOICES)
        checks.embedding(self, "channels")
        checks.divisible(self, x.shape, 2 ** (levels - 1), f"{levels} levels need")
        return checks.condition(self, len(x), condition)

    def _width(self, level):
        """Returns the number of channels of a level."""
        multiplier = self.channel_multipliers[level]
        width = round(self.channels * multiplier)
        if width < 1:
            raise ValueError(
                f"{type(self).__name__}: channel_multipliers: {multiplier} of channels={self.channels} leaves no channel"
            )
        return width

    def _out_channels(self, x):
        return self.out_channels or x.shape[-1]

    def _down(self, residual, h):
        """Encoder; returns the coarsest features and the list of skip connections. `residual` is as in `_block`."""
        skips, levels = [h], len(self.channel_multipliers)
        for level in range(levels):
            for i in range(self.blocks_per_level):
                h = self._block(residual, h, level, f"down_{level}_{i}")
                skips.append(h)
            if level < levels - 1:
                h = self._resample(residual, h, level, "down")
                skips.append(h)
        return h, skips

    def _middle(self, residual, h):
        """Two residual blocks at the coarsest level, optionally with attention between them."""
        coarsest = len(self.channel_multipliers) - 1
        h = residual(h, coarsest, "middle_0")
        if self.middle_attention:
            h = self._attention(h, "middle_attention")
        return residual(h, coarsest, "middle_1")

    def _up(self, residual, h, skips):
        """Decoder with skip connections, from the coarsest level to the finest."""
        for level in reversed(range(len(self.channel_multipliers))):
            for i in range(self.blocks_per_level + 1):
                attend = self.up_attention == "block" or i == self.blocks_per_level
                h = self._block(
                    residual, jnp.concatenate([h, skips.pop()], axis=-1), level, f"up_{level}_{i}", attend=attend
                )
            if level > 0:
                h = self._resample(residual, h, level, "up")
        return h

    def _block(self, residual, h, level, name, *, attend=True):
        """Residual block, followed by attention at `attention_resolutions`.

        Args:
            residual: `_residual` with bound embedding and dropout keys.
            h: (B, H, W, C).
            level: index of the level, which sets the width of the block.
            name: name of the parameters.
            attend: False omits the attention.
        """
        h = residual(h, level, name)
        return self._attention(h, f"{name}_attention") if attend and h.shape[1] in self.attention_resolutions else h

    def _residual(self, embedding, dropout_keys, h, level, name, resampling=None):
        block_type = nn.remat(ResidualBlock) if self.remat else ResidualBlock
        block = block_type(
            self._width(level),
            dropout=self.dropout,
            scale_shift=self.scale_shift,
            resampling=resampling,
            dtype=jnp.dtype(self.dtype),
            norm_groups=self.norm_groups,
            norm_epsilon=self.norm_epsilon,
            name=name,
        )
        return block(h, embedding, dropout_keys)

    def _attention(self, h, name):
        if self.head_channels and h.shape[-1] % self.head_channels:
            raise ValueError(
                f"{type(self).__name__}: head_channels={self.head_channels} does not divide {h.shape[-1]} channels"
            )
        attention_type = nn.remat(Attention) if self.remat else Attention
        return attention_type(
            h.shape[-1] // self.head_channels if self.head_channels else self.num_heads,
            dtype=jnp.dtype(self.dtype),
            norm_groups=self.norm_groups,
            norm_epsilon=self.norm_epsilon,
            name=name,
        )(h)

    def _resample(self, residual, h, level, direction):
        """Resamples a level to the next level, `direction` "down" or "up"."""
        name, dtype = f"{direction}_{level}_resample", jnp.dtype(self.dtype)
        if self.resampling == "block":
            return residual(h, level, name, direction)
        if direction == "down" and self.resampling in PADDINGS:
            return Conv(h.shape[-1], stride=2, padding=PADDINGS[self.resampling], dtype=dtype, name=name)(h)
        h = RESAMPLINGS[direction](h)
        return h if self.resampling == "plain" else Conv(h.shape[-1], dtype=dtype, name=name)(h)

    def _embed(self, noise_level, leaves, dtype):
        """Embeds noise levels (B,) and the leaves of the condition in (B, 4 channels)."""
        width = 4 * self.channels
        if self.embedding == "fourier":
            embedding = FourierEmbedding(2 * self.channels, self.fourier_scale, name="fourier")(noise_level)
        else:
            adm = self.embedding == "positional_adm"
            embedding = positional_embedding(noise_level, self.channels, endpoint=not adm, cosine_first=adm)
        if self.augment_features:
            # Initialized to zero as in EDM, so that the initial network does not depend on the augmentation.
            layer = nn.Dense(embedding.shape[-1], False, dtype, kernel_init=nn.initializers.zeros, name="augmentation")
            embedding = embedding + layer(leaves["augmentation"])
        dense = [nn.Dense(width, kernel_init=scaled_init(1.0), dtype=dtype, name=f"embedding_{i}") for i in range(2)]
        embedding = dense[1](nn.swish(dense[0](embedding)))
        if self.num_classes:
            init = nn.initializers.normal(1.0)
            table = ClassEmbedding(self.num_classes, width, embedding_init=init, dtype=dtype, name="classes")
            embedding = embedding + table(leaves["label"])
        return nn.swish(embedding)


# Keys are the values of `model.name` in a config.
NETWORKS = {"unet": UNet}
