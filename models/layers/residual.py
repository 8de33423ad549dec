"""The residual block of DDPM and ADM: two convolutions around the embedding of the noise level."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers.convolution import Conv, scaled_init
from models.layers.dropout import Dropout
from models.layers.normalization import GroupNorm
from models.layers.resampling import RESAMPLINGS


class ResidualBlock(nn.Module):
    """skip(x) + Conv0(dropout(swish(norm(Conv(swish(norm(x))) with the embedding)))), where Conv0 starts at zero.

    The embedding enters as a shift per channel before the second norm (DDPM) or, with `scale_shift`, as a scale and a
    shift after it (ADM). The skip is the identity, or a 1x1 convolution where the number of channels changes.

    Source: Ho et al. (2020), https://arxiv.org/abs/2006.11239; Dhariwal and Nichol (2021),
    https://arxiv.org/abs/2105.05233.

    Attributes:
        features: channels of the output.
        dropout: rate of the dropout before the last convolution.
        resampling: "down" or "up" halves or doubles the resolution, after the branch's first swish and in the skip.
        dtype: of the computation; parameters are float32.
    """

    features: int
    dropout: float = 0.0
    scale_shift: bool = True
    resampling: Literal["down", "up"] | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, embedding: jax.Array, dropout_keys: jax.Array | None = None) -> jax.Array:
        """Maps (B, H, W, C) to (B, H', W', features).

        Args:
            x: (B, H, W, C).
            embedding: (B, E), after its last nonlinearity.
            dropout_keys: (B,) typed keys, or None for no dropout.
        """
        resample = RESAMPLINGS[self.resampling] if self.resampling else lambda x: x
        h = resample(nn.swish(GroupNorm(dtype=self.dtype, name="norm_in")(x)))
        h = Conv(self.features, dtype=self.dtype, name="conv_in")(h)

        width = self.features * (2 if self.scale_shift else 1)
        modulation = nn.Dense(width, kernel_init=scaled_init(1.0), dtype=self.dtype, name="embedding")(embedding)
        norm = GroupNorm(dtype=self.dtype, name="norm_out")
        h = norm(h, jnp.split(modulation, 2, axis=-1)) if self.scale_shift else norm(h + modulation[:, None, None])
        h = Dropout(self.dropout, name="dropout")(nn.swish(h), dropout_keys)
        h = Conv(self.features, init_scale=0.0, dtype=self.dtype, name="conv_out")(h)

        skip = resample(x)
        if skip.shape[-1] != self.features:
            skip = Conv(self.features, 1, dtype=self.dtype, name="skip")(skip)
        return skip + h
