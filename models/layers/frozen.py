"""Inference layers of published feature networks: convolution with batch norm from stored statistics, and dense layers.

    y = activation((conv(x) - mean) / sqrt(var + epsilon) * scale + bias)

All products use the highest float32 precision of the device (`Precision.HIGHEST`). By default, GPUs and TPUs would
round the factors to 10 or 8 bits, and metrics of device-dependent features cannot be compared with published values.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from models.layers.trilinear import LAYOUTS

PRECISION = lax.Precision.HIGHEST

Padding = str | tuple[tuple[int, int], tuple[int, int]]


class FrozenConv(nn.Module):
    """Convolution without bias, batch norm with fixed statistics, activation.

    Attributes:
        features: channels of the output.
        kernel_size: (height, width).
        stride: stride along both axes.
        padding: "SAME" (TensorFlow's convention), "VALID" or ((low, high), (low, high)).
        depthwise: whether each channel is convolved separately; `features` then equals the number of input channels.
        activation: activation function; None for the identity.
        epsilon: added to the variance.
    """

    features: int
    kernel_size: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: Padding = "SAME"
    depthwise: bool = False
    activation: Callable[[jax.Array], jax.Array] | None = nn.relu
    epsilon: float = 1e-3

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to (B, H', W', features), float32."""
        fan_in = 1 if self.depthwise else x.shape[-1]
        kernel = self.param("kernel", nn.initializers.he_normal(), (*self.kernel_size, fan_in, self.features))
        scale = self.param("scale", nn.initializers.ones, (self.features,))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        mean = self.param("mean", nn.initializers.zeros, (self.features,))
        var = self.param("var", nn.initializers.ones, (self.features,))
        factor = scale * lax.rsqrt(var + self.epsilon)
        if self.depthwise:
            x = depthwise_convolution(x, kernel, self.stride, self.padding)
        else:
            x = _convolution(x, kernel, self.stride, self.padding)
        x = x * factor + (bias - mean * factor)
        return x if self.activation is None else self.activation(x)


class FrozenDense(nn.Module):
    """Dense layer x W + b in float32.

    Attributes:
        features: number of features of the output.
        use_bias: whether b is added.
    """

    features: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (..., C) to (..., features)."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.features))
        y = jnp.matmul(x, kernel, precision=PRECISION)
        return y + self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else y


def depthwise_convolution(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """Convolves each channel with a separate kernel.

    On CPU this is a sum of shifted images, which XLA fuses; a grouped convolution would take 8 to 20 times as long.

    Args:
        x: (B, H, W, C).
        kernel: (height, width, 1, C).
        stride: stride along both axes.
        padding: as in `FrozenConv`.

    Returns:
        (B, H', W', C).
    """

    def grouped(x, kernel):
        return _convolution(x, kernel, stride, padding, groups=x.shape[-1])

    def shifted(x, kernel):
        pads = padding
        if isinstance(pads, str):
            pads = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (stride, stride), pads)
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        height, width = ((size - k) // stride for size, k in zip(x.shape[1:3], kernel.shape[:2], strict=True))
        total: Any = 0
        for row in range(kernel.shape[0]):
            for column in range(kernel.shape[1]):
                end = (len(x), row + height * stride + 1, column + width * stride + 1, x.shape[-1])
                shifted = lax.slice(x, (0, row, column, 0), end, (1, stride, stride, 1))
                total = total + shifted * kernel[row, column, 0]
        return total

    return lax.platform_dependent(x, kernel, cpu=shifted, default=grouped)


def _convolution(x, kernel, stride, padding, groups=1):
    if kernel.shape[:2] == (1, 1) and stride == 1 and groups == 1:
        return jnp.matmul(x, kernel[0, 0], precision=PRECISION)
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, None, None, LAYOUTS[2], groups, precision=PRECISION
    )
