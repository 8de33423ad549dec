"""Residual block of DDPM, ADM and NCSN++: two convolutions, conditioned on the embedding of the noise level."""

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
    """Returns x + branch, divided by sqrt(2) if `rescale`, which preserves unit variance."""
    return (x + branch) * math.sqrt(0.5) if rescale else x + branch


class ResidualBlock(nn.Module):
    """Residual block: skip(x) + Conv0(dropout(swish(norm(Conv(swish(norm(x))), embedding)))).

    The embedding is a shift per channel before the second norm (DDPM) or, with `scale_shift`, a scale and a shift after
    the second norm (ADM). The skip is the identity, or a 1x1 convolution where the number of channels changes. With
    `init_scale` 0, the last convolution Conv0 is initialized to zero.

    Source: Ho et al. (2020), https://arxiv.org/abs/2006.11239; Dhariwal and Nichol (2021),
    https://arxiv.org/abs/2105.05233; Song et al. (2021), https://arxiv.org/abs/2011.13456, appendix H (NCSN++).

    Attributes:
        features: channels of the output.
        dropout: dropout rate before the last convolution.
        scale_shift: whether the embedding scales and shifts after the second norm; if False, it shifts before the norm.
        resampling: "down" or "up" halves or doubles the resolution, after the first swish of the branch and in the
            skip; None keeps the resolution.
        fir_kernel: taps of the resampling filter; None for means and repetitions over 2 positions along each axis.
        skip_conv: whether the skip has a 1x1 convolution also where only the resolution changes (BigGAN).
        skip_rescale: whether the sum of skip and branch is divided by sqrt(2).
        init_scale: variance of the last kernel at initialization, relative to Glorot's.
        skip_init_scale: variance of the kernel of the skip at initialization, relative to Glorot's.
        norm_groups, norm_epsilon: `num_groups` and `epsilon` of both group norms.
        dtype: dtype of the computation; parameters are float32.
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
            embedding: (B, E), after the final nonlinearity; None for an unconditional block.
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
