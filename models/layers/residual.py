"""The residual block of DDPM, ADM and NCSN++: two convolutions around the embedding of the noise level."""

import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers.axes import over_positions
from models.layers.convolution import Conv, scaled_init
from models.layers.dropout import Dropout
from models.layers.normalization import GroupNorm
from models.layers.resampling import resample


def joined(x: jax.Array, branch: jax.Array, rescale: bool) -> jax.Array:
    """x + branch; with `rescale` divided by sqrt(2), so that two parts of unit variance make one of unit variance."""
    return (x + branch) * math.sqrt(0.5) if rescale else x + branch


class ResidualBlock(nn.Module):
    """skip(x) + Conv0(dropout(swish(norm(Conv(swish(norm(x))) with the embedding)))), where Conv0 starts at zero.

    The embedding enters as a shift per channel before the second norm (DDPM) or, with `scale_shift`, as a scale and a
    shift after it (ADM). The skip is the identity, or a 1x1 convolution where the number of channels changes.

    Source: Ho et al. (2020), https://arxiv.org/abs/2006.11239; Dhariwal and Nichol (2021),
    https://arxiv.org/abs/2105.05233; Song et al. (2021), https://arxiv.org/abs/2011.13456, appendix H (NCSN++).

    Attributes:
        features: channels of the output.
        dropout: rate of the dropout before the last convolution.
        resampling: "down" or "up" halves or doubles the resolution, after the branch's first swish and in the skip.
        fir_kernel: taps of the filter that resamples; None for means and repeats over 2 positions along each axis.
        skip_conv: whether the skip has its 1x1 convolution also where the resolution changes (BigGAN).
        skip_rescale: whether the sum of skip and branch is divided by sqrt(2).
        init_scale: variance of the last kernel's initialization, relative to Glorot's.
        skip_init_scale: that of the skip's convolution.
        norm_groups, norm_epsilon: of both group norms, as `GroupNorm` has them.
        dtype: of the computation; parameters are float32.
    """

    features: int
    dropout: float = 0.0
    scale_shift: bool = True
    resampling: Literal["down", "up"] | None = None
    fir_kernel: tuple[float, ...] | None = None
    skip_conv: bool = False
    skip_rescale: bool = False
    init_scale: float = 0.0
    skip_init_scale: float = 1.0
    dtype: jnp.dtype = jnp.float32
    norm_groups: int = 0
    norm_epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array, embedding: jax.Array | None, dropout_keys: jax.Array | None = None) -> jax.Array:
        """Maps (B, *spatial, C) to (B, *spatial', features).

        Args:
            x: (B, *spatial, C).
            embedding: (B, E), after its last nonlinearity; None for a block without.
            dropout_keys: (B,) typed keys, or None for no dropout.
        """

        def resampled(x):
            return resample(x, self.resampling, self.fir_kernel) if self.resampling else x

        groups = self.norm_groups, self.norm_epsilon
        norm_in, norm = (GroupNorm(*groups, self.dtype, name=f"norm_{end}") for end in ("in", "out"))
        h = resampled(nn.swish(norm_in(x)))
        h = Conv(self.features, dtype=self.dtype, name="conv_in")(h)

        if embedding is None:
            h = norm(h)
        else:
            width = self.features * (2 if self.scale_shift else 1)
            modulation = nn.Dense(width, kernel_init=scaled_init(1.0), dtype=self.dtype, name="embedding")(embedding)
            h = (
                norm(h, jnp.split(modulation, 2, axis=-1))
                if self.scale_shift
                else norm(h + over_positions(modulation, h))
            )
        h = Dropout(self.dropout, name="dropout")(nn.swish(h), dropout_keys)
        h = Conv(self.features, init_scale=self.init_scale, dtype=self.dtype, name="conv_out")(h)

        skip = resampled(x)
        if skip.shape[-1] != self.features or (self.skip_conv and self.resampling):
            skip = Conv(self.features, 1, init_scale=self.skip_init_scale, dtype=self.dtype, name="skip")(skip)
        return joined(skip, h, self.skip_rescale)
