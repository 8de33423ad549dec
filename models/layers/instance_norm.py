"""InstanceNorm++: each channel of each image is normalized, and what that forgets, the channels' means, is added back.

    y_c = scale_c ((x_c - mean_c) / sqrt(var_c + epsilon) + mean_scale_c (mean_c - m) / sqrt(v + epsilon)) + bias_c

with mean_c and var_c over the pixels, and m and v the mean and the (unbiased) variance of the means over the channels.

Source: Song and Ermon (2019), https://arxiv.org/abs/1907.05600, appendix A;
https://github.com/ermongroup/ncsn/blob/master/models/cond_refinenet_dilated.py for the constants.
"""

from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from models.layers.axes import over_positions, spatial_axes


class InstanceNormPlus(nn.Module):
    """InstanceNorm++ with learned scale, mean_scale and bias per channel, of which each condition can have its own.

    The statistics are float32.

    Attributes:
        num_conditions: 0 for one set of parameters; else a table with a set for each.
        dtype: of the result; parameters are float32.
    """

    num_conditions: int = 0
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array | None = None) -> jax.Array:
        """Maps (B, *spatial, C) to (B, *spatial, C); C is above 1.

        The condition (B,) is an index below `num_conditions`; of (B, K) indices the mean of their parameters counts, which
        is exactly those of one index where all K are the same.
        """
        channels = x.shape[-1]
        if self.num_conditions:
            table = self.param("table", _table, (self.num_conditions, 3 * channels), jnp.float32)
            condition = cast(jax.Array, condition)
            rows = table[condition]
            if condition.ndim == 2:
                rows = rows[:, 0] + (rows - rows[:, :1]).mean(1)
            scale, mean_scale, bias = jnp.split(rows, 3, axis=-1)
        else:
            scale = self.param("scale", _near_one, (channels,), jnp.float32)
            mean_scale = self.param("mean_scale", _near_one, (channels,), jnp.float32)
            bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)

        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        axes = spatial_axes(x)
        mean = x.mean(axes)
        variance = jnp.mean(jnp.square(x - over_positions(mean, x)), axes)
        centred = mean - mean.mean(-1, keepdims=True)
        relative = centred * lax.rsqrt(jnp.sum(jnp.square(centred), -1, keepdims=True) / (channels - 1) + self.epsilon)
        # All that varies with the pixel is one multiplication and one addition, forward and backward.
        factor = scale * lax.rsqrt(variance + self.epsilon)
        offset = scale * mean_scale * relative + bias - mean * factor
        return (x * over_positions(factor, x) + over_positions(offset, x)).astype(self.dtype)


def _near_one(key, shape, dtype):
    return 1 + 0.02 * jax.random.normal(key, shape, dtype)


def _table(key, shape, dtype):
    """Scales and mean_scales near 1, biases 0."""
    conditions, width = shape
    ones = _near_one(key, (conditions, 2 * (width // 3)), dtype)
    return jnp.concatenate([ones, jnp.zeros((conditions, width // 3), dtype)], -1)
