"""Blocks of RefineNet, the decoder of NCSN: stepwise refinement of coarse features.

The inputs of a refine block are the features of one stage of the encoder and the output of the next coarser refine
block. Each input passes two residual units; both are resized to the same size and width and added; chained residual
pooling collects context; further residual units follow.

With `norm_conditions` > 0, a conditional InstanceNorm++ precedes every convolution of a refine block, and the pooling
is mean pooling (NCSN). With 0, there are no norms and the pooling is max pooling (NCSNv2).

Sources: Lin et al. (2017), https://arxiv.org/abs/1611.06612; Song and Ermon (2019), https://arxiv.org/abs/1907.05600,
appendix A; Song and Ermon (2020), https://arxiv.org/abs/2006.09011, appendix A;
https://github.com/ermongroup/ncsnv2/blob/master/models/layers.py.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers.axes import spatial_axes
from models.layers.convolution import Conv
from models.layers.dropout import Dropout
from models.layers.instance_norm import InstanceNormPlus
from models.layers.interpolation import bilinear_resize
from models.layers.resampling import average_pool

conv = functools.partial(Conv, init_scale=1 / 3, fan="fan_in")  # PyTorch's default initialization of kernels


def pool5(x: jax.Array, kind: str) -> jax.Array:
    """Pools x (B, *spatial, C) by "max" or "mean" over windows of 5 positions per axis, with stride 1.

    Mean pooling pads with zeros and always divides by the full window size; max pooling ignores positions outside the
    border. The pooling is separable and implemented by shifts along one axis after another, which is many times as fast
    on CPU as `lax.reduce_window`, especially the gradient.
    """
    combine, fill = {"max": (jnp.maximum, -jnp.inf), "mean": (jnp.add, 0.0)}[kind]
    for axis in spatial_axes(x):
        margins = [(2, 2) if i == axis else (0, 0) for i in range(x.ndim)]
        padded = jnp.pad(x, margins, constant_values=fill)
        size = x.shape[axis]
        shifted = [jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(5)]
        x = functools.reduce(combine, shifted)
    return x / 5 ** (x.ndim - 2) if kind == "mean" else x


class DilatedBlock(nn.Module):
    """Residual block of NCSN's encoder: Conv(dropout(elu(norm(Conv(elu(norm(x))))))) + skip(x).

    With `change`, the skip is a convolution: 1x1 with pooling for dilation 1, or 3x3 with the dilation.

    Attributes:
        features: channels of the output.
        change: whether the block is the first of a later stage; it then halves the resolution if the dilation is 1.
        dilation: dilation of the convolutions.
        norm_conditions: number of conditions of the norms; 0 for unconditional norms.
        dropout: dropout rate before the last convolution.
        dtype: dtype of the computation; parameters are float32.
    """

    features: int
    change: bool = False
    dilation: int = 1
    norm_conditions: int = 0
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, condition: jax.Array | None = None, dropout_keys: jax.Array | None = None
    ) -> jax.Array:
        """Maps (B, H, W, C) with the condition (B,) to (B, H', W', features)."""

        def norm(name):
            return InstanceNormPlus(self.norm_conditions, dtype=self.dtype, name=name)

        layer = functools.partial(conv, dilation=self.dilation, dtype=self.dtype)
        inner = x.shape[-1] if self.change else self.features
        h = layer(inner, name="conv_in")(nn.elu(norm("norm_in")(x, condition)))
        h = nn.elu(norm("norm_out")(h, condition))
        h = layer(self.features, name="conv_out")(Dropout(self.dropout, name="dropout")(h, dropout_keys))
        if not self.change:
            return x + h
        if self.dilation > 1:
            return layer(self.features, name="skip")(x) + h
        # A 1x1 convolution commutes with the pooling.
        return conv(self.features, 1, dtype=self.dtype, name="skip")(average_pool(x)) + average_pool(h)


class ResidualUnits(nn.Module):
    """A sequence of `units` residual units x + Conv(elu(norm(Conv(elu(norm(x)))))), convolutions without bias."""

    units: int
    norm_conditions: int = 0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array | None = None) -> jax.Array:
        """Maps (B, H, W, C) to (B, H, W, C)."""
        for unit in range(self.units):
            h = x
            for i in range(2):
                if self.norm_conditions:
                    h = InstanceNormPlus(self.norm_conditions, dtype=self.dtype, name=f"norm_{unit}_{i}")(h, condition)
                h = conv(x.shape[-1], use_bias=False, dtype=self.dtype, name=f"conv_{unit}_{i}")(nn.elu(h))
            x = x + h
        return x


class RefineBlock(nn.Module):
    """Refine block: fuses the features of one stage with the output of the coarser refine block.

    Attributes:
        features: channels of the output.
        output_units: number of residual units at the end.
        norm_conditions: number of conditions of the norms; 0 for no norms.
        dtype: dtype of the computation; parameters are float32.
    """

    features: int
    output_units: int = 1
    norm_conditions: int = 0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, *inputs: jax.Array, condition: jax.Array | None = None) -> jax.Array:
        """Maps the features of the stage (B, H, W, C), and of the coarser block if any, to (B, H, W, features).

        The coarsest block has a single input, with `features` channels.
        """

        def norm(h, name):
            if not self.norm_conditions:
                return h
            return InstanceNormPlus(self.norm_conditions, dtype=self.dtype, name=name)(h, condition)

        def units(h, number, name):
            return ResidualUnits(number, self.norm_conditions, self.dtype, name=name)(h, condition)

        height, width = inputs[0].shape[1:3]
        adapted = [units(h, 2, f"adapt_{i}") for i, h in enumerate(inputs)]
        if len(adapted) > 1:
            fused = []
            for i, h in enumerate(adapted):
                h = conv(self.features, dtype=self.dtype, name=f"fuse_{i}")(norm(h, f"fuse_{i}_norm"))
                fused.append(bilinear_resize(h, (height, width)))
            h = functools.reduce(jnp.add, fused)
        else:
            (h,) = adapted

        h = path = nn.elu(h)
        for i in range(2):
            path = pool5(norm(path, f"pool_{i}_norm"), "mean" if self.norm_conditions else "max")
            path = conv(self.features, use_bias=False, dtype=self.dtype, name=f"pool_{i}")(path)
            h = h + path
        return units(h, self.output_units, "output")
