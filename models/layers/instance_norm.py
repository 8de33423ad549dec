"""InstanceNorm++: instance normalization that adds back the standardized means of the channels.

    y_c = scale_c ((x_c - mean_c) / sqrt(var_c + epsilon) + mean_scale_c (mean_c - m) / sqrt(v + epsilon)) + bias_c

where mean_c and var_c are statistics over the pixels, and m and v are the mean and the (unbiased) variance of mean_c
over the channels.

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
    """InstanceNorm++ with learned scale, mean_scale and bias per channel, optionally separate for each condition.

    The statistics are computed in float32.

    Attributes:
        num_conditions: number of parameter sets, one per condition; 0 for a single unconditional set.
        epsilon: added to the variances.
        dtype: dtype of the result; parameters are float32.
    """

    num_conditions: int = 0
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array | None = None) -> jax.Array:
        """Maps (B, *spatial, C) to (B, *spatial, C), with C > 1.

        Args:
            x: (B, *spatial, C).
            condition: (B,) indices below `num_conditions`; or (B, K) indices, whose parameters are averaged (K equal
                indices give exactly the parameters of that index). Required if `num_conditions` is not 0.
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
        # One multiply-add per pixel, in the forward and the backward pass.
        factor = scale * lax.rsqrt(variance + self.epsilon)
        offset = scale * mean_scale * relative + bias - mean * factor
        return (x * over_positions(factor, x) + over_positions(offset, x)).astype(self.dtype)


def _near_one(key, shape, dtype):
    return 1 + 0.02 * jax.random.normal(key, shape, dtype)


def _table(key, shape, dtype):
    """Initializes scales and mean_scales near 1, and biases to 0."""
    conditions, width = shape
    ones = _near_one(key, (conditions, 2 * (width // 3)), dtype)
    return jnp.concatenate([ones, jnp.zeros((conditions, width // 3), dtype)], -1)
