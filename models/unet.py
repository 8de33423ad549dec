"""The U-Net of the DDPM family: noisy images and their noise level in, images out.

Residual blocks run down through ever coarser levels and up again. Every output on the way down is kept and joined to
the input of its counterpart on the way up. Attention mixes pixels at chosen resolutions. The noise level (and the
class) enters every block through one embedding.

`UNet` has every option of the family; `models/ddpm.py` and `models/adm.py` are the same network with the defaults of
their papers.

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
PADDINGS = {"strided": "SAME", "strided_symmetric": ((1, 1), (1, 1))}  # of the strided convolution, by `resampling`


class UNet(nn.Module):
    """U-Net of the DDPM family; its last layer starts at zero, and so does its output.

    Attributes:
        channels: the unit of channels; the noise level's embedding has four times as many.
        channel_multipliers: channels of each level, finest first, in units of `channels` and rounded; every further level
            halves the resolution. The first convolution has as many as the finest level.
        blocks_per_level: residual blocks of each level on the way down; one more on the way up.
        attention_resolutions: heights in pixels at which every block is followed by attention.
        up_attention: on the way up, "block" lets attention follow every block (DDPM, ADM), "level" only the last of its
            level (score_sde's DDPM).
        middle_attention: whether attention stands between the two blocks of the coarsest level.
        num_heads: heads of each attention, where `head_channels` is 0.
        head_channels: channels of each head; their number then grows with the channels.
        dropout: rate of the dropout in each residual block, in training.
        num_classes: 0 for an unconditional network; else the condition's `label` is below it.
        augment_features: EDM's augmentation labels, the condition's `augmentation`: their number, 0 for none.
        embedding: of the noise level; "positional" (DDPM) or "positional_adm" (ADM: cosines first, and without the endpoint
            of `positional_embedding`) for levels that span hundreds (`999 t`), "fourier" for levels of order one
            (`log(sigma) / 4`).
        fourier_scale: standard deviation of the Fourier frequencies.
        scale_shift: whether the embedding scales and shifts after the norm (ADM) or shifts before it (DDPM).
        resampling: how the resolution changes between levels: "conv" pools or repeats pixels and convolves, "plain" does
            without the convolution (score_sde's `resamp_with_conv=False`; fastest), "block" does it within a residual
            block (ADM's `resblock_updown`), "strided" convolves with stride 2 on the way down, zeros added below and to
            the right (DDPM), "strided_symmetric" the same with zeros on every side (ADM without `resblock_updown`).
        norm_groups: groups of every group norm; 0 takes 32, or fewer where a group would have less than 4 channels.
        norm_epsilon: added to the variance in every group norm: 1e-6 (DDPM), 1e-5 (ADM).
        out_channels: channels of the output; 0 takes as many as the input has. With images to condition on joined to the
            input's channels, those of x alone.
        learned_variance: whether the last layer also predicts a variance for each value (iDDPM, ADM). The call returns
            the mean alone, so that a Denoiser can be made of the network; `mean_and_variance` returns both.
        dtype: of the computation, "float32" or "bfloat16"; parameters and output are float32.
        remat: recompute every block's inner values in the backward pass, for less memory and about a third more time.
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
            x: (B, H, W, C); H and W divisible by 2 ** (levels - 1). Images to condition on are joined to its channels,
                behind those of the noisy images; `out_channels` then says how many the latter are.
            noise_level: (B,), in whatever unit the network is trained with.
            condition: leaves by name, or None. `label` (B,), integers in [0, num_classes) or the null num_classes, whose
                embedding is zero, where `num_classes` is not 0. `augmentation` (B, augment_features), how each image was
                augmented, where `augment_features` is not 0; without it zeros, the null.
            train: whether dropout is on.
            dropout_keys: (B,) typed PRNG keys; needed with `train` where `dropout` is above 0.

        Returns:
            (B, H, W, C) float32, or (B, H, W, out_channels).

        Raises:
            ValueError: for a size that cannot be halved often enough, for heads or groups that do not divide the
                channels, for an unknown choice, and for leaves of the condition or keys missing or in excess.
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
        """As the call itself, with the `learned_variance` behind the mean: (B, H, W, 2 C) float32.

        The second half, v, is -1 for the posterior's variance and 1 for the forward process's, their logarithms being
        interpolated in between (iDDPM, https://arxiv.org/abs/2102.09672, eq. 15, with (v + 1) / 2 for its v). Without
        `learned_variance` there is none.
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
        """The channels of a level."""
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
        """From the finest level to the coarsest, with all that is kept for the way up; `residual` is as in `_block`."""
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
        """Two blocks at the coarsest level."""
        coarsest = len(self.channel_multipliers) - 1
        h = residual(h, coarsest, "middle_0")
        if self.middle_attention:
            h = self._attention(h, "middle_attention")
        return residual(h, coarsest, "middle_1")

    def _up(self, residual, h, skips):
        """From the coarsest level to the finest, joined to what was kept."""
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
        """A residual block and, at the resolutions that have it, attention.

        Args:
            residual: `_residual` of the embedding and the dropout keys.
            h: (B, H, W, C).
            level: whose width the block has.
            name: of its parameters.
            attend: whether attention may follow.
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
        """From a level to the next one, "down" or "up"."""
        name, dtype = f"{direction}_{level}_resample", jnp.dtype(self.dtype)
        if self.resampling == "block":
            return residual(h, level, name, direction)
        if direction == "down" and self.resampling in PADDINGS:
            return Conv(h.shape[-1], stride=2, padding=PADDINGS[self.resampling], dtype=dtype, name=name)(h)
        h = RESAMPLINGS[direction](h)
        return h if self.resampling == "plain" else Conv(h.shape[-1], dtype=dtype, name=name)(h)

    def _embed(self, noise_level, leaves, dtype):
        """Noise levels (B,) and the leaves of the condition to (B, 4 channels)."""
        width = 4 * self.channels
        if self.embedding == "fourier":
            embedding = FourierEmbedding(2 * self.channels, self.fourier_scale, name="fourier")(noise_level)
        else:
            adm = self.embedding == "positional_adm"
            embedding = positional_embedding(noise_level, self.channels, endpoint=not adm, cosine_first=adm)
        if self.augment_features:
            # From zero on, as in EDM: at first the network has nothing to unlearn.
            layer = nn.Dense(embedding.shape[-1], False, dtype, kernel_init=nn.initializers.zeros, name="augmentation")
            embedding = embedding + layer(leaves["augmentation"])
        dense = [nn.Dense(width, kernel_init=scaled_init(1.0), dtype=dtype, name=f"embedding_{i}") for i in range(2)]
        embedding = dense[1](nn.swish(dense[0](embedding)))
        if self.num_classes:
            init = nn.initializers.normal(1.0)
            table = ClassEmbedding(self.num_classes, width, embedding_init=init, dtype=dtype, name="classes")
            embedding = embedding + table(leaves["label"])
        return nn.swish(embedding)


# By the name that a config gives.
NETWORKS = {"unet": UNet}
