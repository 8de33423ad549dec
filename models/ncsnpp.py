"""NCSN++ and DDPM++: the U-Nets of score_sde, and the versions of EDM.

The networks are U-Nets with the following changes. Residual blocks change the resolution (BigGAN), with a smoothing FIR
filter. Every sum of two branches is divided by sqrt(2). An input pyramid is fed into every level of the encoder, and an
output pyramid collects images from every level of the decoder. Attention follows every block of the encoder, and the
last block of each level of the decoder.

| network                                  | options                                                             |
|------------------------------------------|---------------------------------------------------------------------|
| NCSN++, 32 and 64 px (defaults)          | progressive_input="residual", embedding="fourier"                   |
| NCSN++ for discrete noise levels         | progressive_input="residual", embedding="discrete"                  |
| NCSN++, 256 and 1024 px                  | progressive_input="input_skip", progressive="output_skip"           |
| DDPM++                                   | fir=False, progressive_input="none", embedding="positional"         |
| "deep" versions                          | blocks_per_level=8                                                  |
| EDM's ddpmpp and ncsnpp at 32 px         | as above, with channel_multipliers=(2, 2, 2), augment_features=9    |

The noise level in the training of the published networks:

| embedding  | noise_level                | networks                                                                   |
|------------|----------------------------|----------------------------------------------------------------------------|
| fourier    | log(sigma)                 | NCSN++ with VE; log(sigma) / 4 in EDM                                      |
| positional | 999 t                      | DDPM++ and NCSN++ with VP and sub-VP; log(sigma) / 4 in EDM                |
| discrete   | log(sigma)                 | NCSN++ trained on `num_scales` levels; the index 0, 1, ... in score_sde    |

Sources: Song et al. (2021), https://arxiv.org/abs/2011.13456, appendix H, and
https://github.com/yang-song/score_sde/blob/main/models/ncsnpp.py; Karras et al. (2022),
https://arxiv.org/abs/2206.00364, appendix F.1, and https://github.com/NVlabs/edm/blob/main/training/networks.py
(SongUNet).
"""

import functools
import math
from collections.abc import Mapping
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from models import checks
from models.layers.attention import Attention
from models.layers.convolution import Conv, scaled_init
from models.layers.embedding import FourierEmbedding, positional_embedding
from models.layers.normalization import GroupNorm
from models.layers.resampling import ResamplingConv, resample
from models.layers.residual import ResidualBlock, joined

CHOICES = {
    "resblock_type": ("ddpm", "biggan"),
    "progressive": ("none", "output_skip", "residual"),
    "progressive_input": ("none", "input_skip", "residual"),
    "progressive_combine": ("sum", "cat"),
    "embedding": ("fourier", "positional", "discrete"),
    "dtype": ("float32", "bfloat16"),
}


class NCSNpp(nn.Module):
    """NCSN++ and DDPM++; the defaults are score_sde's NCSN++ for CIFAR-10 (`cifar10_ncsnpp_continuous`).

    Options have the names and meanings of score_sde, except for the options of `UNet` and where noted (score_sde's
    names in parentheses).

    Attributes:
        channels: channels of the first convolution (`nf`).
        channel_multipliers: channels of each level, finest first, in units of `channels` (`ch_mult`); each level has
            half the resolution of the previous level.
        blocks_per_level: residual blocks of each level in the encoder; the decoder has one more (`num_res_blocks`).
        attention_resolutions: heights in pixels with attention (`attn_resolutions`); the middle always has attention.
        dropout: dropout rate in each residual block.
        num_classes: number of classes of the condition `label`, whose embedding is added to the embedding of the noise
            level as in EDM; 0 for an unconditional network.
        augment_features: number of EDM's augmentation labels, the condition `augmentation`; 0 disables augmentation
            labels.
        out_channels: channels of the output; 0 for the channels of the input.
        fir: whether the resolution changes with an FIR filter; if False, by means and repetitions of 2x2 pixels.
        fir_kernel: taps of the FIR filter, in any scale.
        skip_rescale: whether sums of two branches are divided by sqrt(2).
        resblock_type: "biggan": residual blocks change the resolution; "ddpm": separate layers between blocks change
            it.
        resamp_with_conv: whether the resampling layers of resblock_type "ddpm" have a 3x3 convolution.
        progressive: the output pyramid: "none"; "output_skip" sums an image from each level; "residual" carries
            features from level to level, to which each level is added.
        progressive_input: the input pyramid: "none"; "input_skip" feeds the downsampled image to each level; "residual"
            carries features from level to level.
        progressive_combine: how "input_skip" combines image features with a level: "sum" or "cat" (concatenation).
        conditional: whether the network is conditioned on the noise level.
        embedding: embedding of the noise level: "fourier" for log(sigma), "positional" for 999 t, "discrete" for
            log(sigma) rounded to the nearest of `num_scales` levels, whose index is embedded.
        fourier_scale: standard deviation of the Fourier frequencies.
        sigma_min, sigma_max, num_scales: the levels of embedding "discrete", equally spaced in log(sigma); index 0 is
            sigma_max.
        scale_by_sigma: whether the output is divided by sigma, so that it is the score (score_sde's
            `scale_by_sigma=True`). Keep it False if the parameterization divides by sigma, as `ScorePrediction` does.
            Not for embedding "positional".
        centered: whether images lie in [-1, 1]; if False, they lie in [0, 1] and the network rescales them to 2 x - 1
            (score_sde's `data.centered`, False for its VE models). Such a model also runs on images in [-1, 1], where
            every sigma is twice as large: use centered=True and the noise level log(sigma / 2)
            (`ScorePrediction(sigma_scale=0.5)`).
        init_scale: variance of the last kernel of each block and of the network at initialization, relative to
            Glorot's.
        dtype: dtype of the computation, "float32" or "bfloat16"; parameters and output are float32.
        remat: recompute the activations of each block in the backward pass: less memory, about a third more time.
    """

    channels: int = 128
    channel_multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks_per_level: int = 4
    attention_resolutions: tuple[int, ...] = (16,)
    dropout: float = 0.1
    num_classes: int = 0
    augment_features: int = 0
    out_channels: int = 0
    fir: bool = True
    fir_kernel: tuple[float, ...] = (1, 3, 3, 1)
    skip_rescale: bool = True
    resblock_type: str = "biggan"
    resamp_with_conv: bool = True
    progressive: str = "none"
    progressive_input: str = "residual"
    progressive_combine: str = "sum"
    conditional: bool = True
    embedding: str = "fourier"
    fourier_scale: float = 16.0
    sigma_min: float = 0.01
    sigma_max: float = 50.0
    num_scales: int = 1000
    scale_by_sigma: bool = False
    centered: bool = True
    init_scale: float = 0.0
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
        """Maps noisy images to images.

        Args:
            x: (B, H, W, C); H and W divisible by 2 ** (levels - 1).
            noise_level: (B,), in the unit given by the table in the module docstring.
            condition: leaves by name, or None. If `num_classes` is not 0: `label` (B,), integers in [0, num_classes),
                or num_classes for no class, whose one-hot vector is zero as in EDM. If `augment_features` is not 0:
                `augmentation` (B, augment_features), the augmentation of each image; zeros, the null, by default.
            train: whether dropout is enabled.
            dropout_keys: (B,) typed PRNG keys; required if `train` is True and `dropout` is above 0.

        Returns:
            (B, H, W, out_channels) float32.

        Raises:
            ValueError: H or W is not divisible by 2 ** (levels - 1), an option has an unknown value, options are
                incompatible, leaves of the condition are missing or unexpected, or keys are missing.
        """
        leaves = self._check(x, condition)
        dropout_keys = checks.dropout(self, train, dropout_keys)
        dtype = jnp.dtype(self.dtype)
        out_channels = self.out_channels or x.shape[-1]
        noise_level = noise_level.astype(jnp.float32)
        embedding = self._embed(noise_level, leaves, dtype) if self.conditional else None
        residual = functools.partial(self._residual, embedding, dropout_keys)

        x = (x if self.centered else 2 * x - 1).astype(dtype)
        h = Conv(self.channels, dtype=dtype, name="conv_in")(x)
        h, skips = self._down(residual, h, x)
        h = residual(h, h.shape[-1], "middle_0")
        h = self._attention(h, "middle_attention")
        h = residual(h, h.shape[-1], "middle_1")
        h, pyramid = self._up(residual, h, skips, out_channels)
        if self.progressive == "output_skip":
            h = cast(jax.Array, pyramid)
        else:
            h = self._normalized_conv(h, out_channels, "norm_out", "conv_out", self.init_scale)
        h = h.astype(jnp.float32)
        return h / self._sigma(noise_level)[:, None, None, None] if self.scale_by_sigma else h

    def _down(self, residual, h, x):
        """Encoder with the input pyramid; returns the coarsest features and the list of skip connections.

        Args:
            residual: `_residual` with bound embedding and dropout keys.
            h: (B, H, W, channels).
            x: (B, H, W, C), the input.
        """
        skips, pyramid = [h], x
        for level, multiplier in enumerate(self.channel_multipliers):
            for i in range(self.blocks_per_level):
                h = residual(h, self.channels * multiplier, f"down_{level}_{i}")
                if h.shape[1] in self.attention_resolutions:
                    h = self._attention(h, f"down_{level}_{i}_attention")
                skips.append(h)
            if level < len(self.channel_multipliers) - 1:
                h = self._resampled(residual, h, level, "down")
                h, pyramid = self._with_input(h, pyramid, f"down_{level}_pyramid")
                skips.append(h)
        return h, skips

    def _with_input(self, h, pyramid, name):
        """Returns the level combined with the input pyramid, and the pyramid at this level."""
        if self.progressive_input == "input_skip":
            pyramid = resample(pyramid, "down", self._fir_kernel())
            features = Conv(h.shape[-1], 1, dtype=jnp.dtype(self.dtype), name=name)(pyramid)
            h = jnp.concatenate([features, h], -1) if self.progressive_combine == "cat" else features + h
        elif self.progressive_input == "residual":
            pyramid = self._resampling_conv(pyramid, h.shape[-1], "down", name)
            h = pyramid = joined(h, pyramid, self.skip_rescale)
        return h, pyramid

    def _up(self, residual, h, skips, out_channels):
        """Decoder with skip connections; returns the finest features and the output pyramid."""
        pyramid = None
        for level, multiplier in reversed(list(enumerate(self.channel_multipliers))):
            for i in range(self.blocks_per_level + 1):
                h = residual(jnp.concatenate([h, skips.pop()], axis=-1), self.channels * multiplier, f"up_{level}_{i}")
            if h.shape[1] in self.attention_resolutions:
                h = self._attention(h, f"up_{level}_attention")
            h, pyramid = self._with_output(h, pyramid, out_channels, f"up_{level}_pyramid")
            if level > 0:
                h = self._resampled(residual, h, level, "up")
        return h, pyramid

    def _with_output(self, h, pyramid, out_channels, name):
        """Returns the level and the output pyramid after their combination; the coarsest level starts the pyramid."""
        if self.progressive == "output_skip":
            image = self._normalized_conv(h, out_channels, f"{name}_norm", name, self.init_scale)
            pyramid = image if pyramid is None else resample(pyramid, "up", self._fir_kernel()) + image
        elif self.progressive == "residual" and pyramid is None:
            pyramid = self._normalized_conv(h, h.shape[-1], f"{name}_norm", name, 1.0)
        elif self.progressive == "residual":
            pyramid = self._resampling_conv(pyramid, h.shape[-1], "up", name)
            h = pyramid = joined(h, pyramid, self.skip_rescale)
        return h, pyramid

    def _residual(self, embedding, dropout_keys, h, features, name, resampling=None):
        block_type = nn.remat(ResidualBlock) if self.remat else ResidualBlock
        block = block_type(
            features,
            dropout=self.dropout,
            scale_shift=False,
            resampling=resampling,
            fir_kernel=self._fir_kernel(),
            skip_conv=True,
            skip_rescale=self.skip_rescale,
            init_scale=self.init_scale,
            skip_init_scale=0.1 if self.resblock_type == "ddpm" else 1.0,
            dtype=jnp.dtype(self.dtype),
            name=name,
        )
        return block(h, embedding, dropout_keys)

    def _attention(self, h, name):
        attention_type = nn.remat(Attention) if self.remat else Attention
        return attention_type(
            skip_rescale=self.skip_rescale,
            init_scale=self.init_scale,
            qkv_init_scale=0.2,  # equals 0.1 for separate kernels of q, k and v
            dtype=jnp.dtype(self.dtype),
            name=name,
        )(h)

    def _resampled(self, residual, h, level, direction):
        """Resamples a level to the next level, `direction` "down" or "up"."""
        name = f"{direction}_{level}_resample"
        if self.resblock_type == "biggan":
            return residual(h, h.shape[-1], name, direction)
        if self.resamp_with_conv:
            return self._resampling_conv(h, h.shape[-1], direction, name)
        return resample(h, direction, self._fir_kernel())

    def _resampling_conv(self, h, features, direction, name):
        return ResamplingConv(features, direction, self._fir_kernel(), jnp.dtype(self.dtype), name=name)(h)

    def _normalized_conv(self, h, features, norm, conv, init_scale):
        dtype = jnp.dtype(self.dtype)
        h = nn.swish(GroupNorm(dtype=dtype, name=norm)(h))
        return Conv(features, init_scale=init_scale, dtype=dtype, name=conv)(h)

    def _fir_kernel(self):
        return tuple(self.fir_kernel) if self.fir else None

    def _check(self, x, condition):
        """Checks options and arguments; returns the leaves of the condition."""
        checks.choices(self, CHOICES)
        checks.embedding(self, "channels")
        if self.embedding == "discrete" or self.scale_by_sigma:
            checks.rising(self)
        halvings = len(self.channel_multipliers) - 1
        checks.divisible(self, x.shape, 2**halvings, f"{halvings + 1} levels need")
        leaves = checks.condition(self, len(x), condition)
        if self.fir and len(self.fir_kernel) < 2:
            raise ValueError(f"NCSNpp: fir_kernel={self.fir_kernel} needs two taps or more")
        if self.fir and not sum(self.fir_kernel):
            raise ValueError(f"NCSNpp: fir_kernel={self.fir_kernel} needs a sum other than 0")
        if self.num_classes and not self.conditional:
            raise ValueError("NCSNpp: num_classes needs conditional=True, as classes enter with the noise level")
        if self.scale_by_sigma and self.embedding == "positional":
            raise ValueError(
                "NCSNpp: scale_by_sigma needs embedding 'fourier' or 'discrete', whose noise_level is log(sigma)"
            )
        return leaves

    def _scale_index(self, log_sigma):
        """Returns the index of the nearest discrete level, (B,) float32."""
        span = math.log(self.sigma_max / self.sigma_min)
        index = (math.log(self.sigma_max) - log_sigma) * ((self.num_scales - 1) / span)
        return jnp.clip(jnp.round(index), 0, self.num_scales - 1)

    def _sigma(self, noise_level):
        if self.embedding == "fourier":
            return jnp.exp(noise_level)
        step = math.log(self.sigma_max / self.sigma_min) / (self.num_scales - 1)
        return self.sigma_max * jnp.exp(-step * self._scale_index(noise_level))

    def _embed(self, noise_level, leaves, dtype):
        """Embeds noise levels (B,) and the leaves of the condition in (B, 4 channels)."""

        def dense(features, name, use_bias=True):
            init = scaled_init(1.0)
            return nn.Dense(features, use_bias=use_bias, kernel_init=init, dtype=dtype, name=name)

        if self.embedding == "fourier":
            embedding = FourierEmbedding(2 * self.channels, self.fourier_scale, name="fourier")(noise_level)
        else:
            position = self._scale_index(noise_level) if self.embedding == "discrete" else noise_level
            embedding = positional_embedding(position, self.channels)
        width = embedding.shape[-1]
        if self.num_classes:
            one_hot = jax.nn.one_hot(leaves["label"], self.num_classes)
            embedding = embedding + dense(width, "classes")(math.sqrt(self.num_classes) * one_hot)
        if self.augment_features:
            embedding = embedding + dense(width, "augmentation", use_bias=False)(leaves["augmentation"])
        embedding = nn.swish(dense(4 * self.channels, "embedding_0")(embedding))
        return nn.swish(dense(4 * self.channels, "embedding_1")(embedding))


# Keys are the values of `model.name` in a config.
NETWORKS = {"ncsnpp": NCSNpp}
