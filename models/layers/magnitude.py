"""Magnitude-preserving layers of EDM2: inputs of unit variance give outputs of unit variance, for any learned weights.

The magnitude of an array is its root mean square. Sums, concatenations and nonlinearities are divided by their output
magnitude for independent inputs of unit variance; convolutions and dense layers normalize their weights, so that the
output depends only on the direction of the weights. A network of these layers needs no group norm.

Source: Karras et al. (2024), https://arxiv.org/abs/2312.02696, appendix B;
https://github.com/NVlabs/edm2/blob/main/training/networks_edm2.py for the constants that the text leaves open.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax import lax

from models.layers.axes import axis_sizes
from models.layers.convolution import convolution

EPSILON = 1e-4


def normalize(x: jax.Array, axis: int | Sequence[int]) -> jax.Array:
    """Divides x by its root mean square over the axes (plus 1e-4), eq. 47; the magnitude is computed in float32."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    square = jnp.mean(jnp.square(wide), axis, keepdims=True)
    # The infinite gradient of sqrt at 0 would give NaN for an image of zeros.
    magnitude = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
    return x / (magnitude + EPSILON).astype(x.dtype)


def normalize_kernel(kernel: jax.Array) -> jax.Array:
    """Normalizes a kernel (..., in, out) so that the weights of every output have magnitude 1."""
    return normalize(kernel, tuple(range(kernel.ndim - 1)))


def mp_silu(x: jax.Array) -> jax.Array:
    """SiLU divided by its output magnitude for standard normal inputs, eq. 81."""
    return nn.silu(x) / 0.596


def mp_sum(a: jax.Array, b: jax.Array, balance: float) -> jax.Array:
    """Returns (1 - balance) a + balance b, divided by its magnitude for unit inputs, eq. 88."""
    scale = math.hypot(1 - balance, balance)
    return a * ((1 - balance) / scale) + b * (balance / scale)


def mp_concat(a: jax.Array, b: jax.Array, balance: float) -> jax.Array:
    """Concatenates channels; b contributes with the weight `balance` for any numbers of channels, eq. 103."""
    channels = a.shape[-1] + b.shape[-1]
    scale = math.sqrt(channels) / math.hypot(1 - balance, balance)
    a = a * (scale * (1 - balance) / math.sqrt(a.shape[-1]))
    b = b * (scale * balance / math.sqrt(b.shape[-1]))
    return jnp.concatenate([a, b], axis=-1)


class MPFourier(nn.Module):
    """sqrt(2) cos(w noise_level + phase) with fixed random w ~ N(0, (2 pi)^2), phase ~ U(0, 2 pi), eq. 75.

    Frequencies and phases are parameters, so that checkpoints include them, but have no gradient.
    """

    features: int

    @nn.compact
    def __call__(self, noise_level: jax.Array) -> jax.Array:
        """Maps (B,) to (B, features) float32."""
        shape = (self.features,)
        frequencies = self.param("frequencies", nn.initializers.normal(2 * math.pi), shape, jnp.float32)
        phases = self.param("phases", nn.initializers.uniform(2 * math.pi), shape, jnp.float32)
        angles = noise_level.astype(jnp.float32)[:, None] * frequencies + phases
        return math.sqrt(2) * jnp.cos(lax.stop_gradient(angles))


class MPDense(nn.Module):
    """Dense layer gain x W / sqrt(in) with normalized W and without bias, eq. 47; W is initialized from N(0, 1).

    Attributes:
        features: number of features of the output.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, gain: jax.Array | float = 1.0) -> jax.Array:
        """Maps (B, in) to (B, features) in the dtype of x."""
        kernel = self.param("kernel", nn.initializers.normal(1.0), (x.shape[-1], self.features), jnp.float32)
        return x @ (normalize_kernel(kernel) * (gain / math.sqrt(x.shape[-1]))).astype(x.dtype)


class MPConv(nn.Module):
    """Convolution with a normalized kernel times gain / sqrt(fan_in), without bias, eq. 47; initialized from N(0, 1).

    Attributes:
        features: channels of the output.
        kernel_size: size of the kernel along every spatial axis.
    """

    features: int
    kernel_size: int = 3

    @nn.compact
    def __call__(self, x: jax.Array, gain: jax.Array | float = 1.0) -> jax.Array:
        """Maps (B, *spatial, C) to (B, *spatial, features) in the dtype of x."""
        shape = (*(self.kernel_size,) * (x.ndim - 2), x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(1.0), shape, jnp.float32)
        kernel = normalize_kernel(kernel) * (gain / math.sqrt(math.prod(shape[:-1])))
        return convolution(x, kernel.astype(x.dtype))


class CosineAttention(nn.Module):
    """Self-attention over the positions with q, k, v normalized in each head, added to x by `mp_sum`.

    The normalization bounds the logits by sqrt(head channels). The channels of the layer `qkv` are ordered by head,
    then by channel of the head, then by q, k, v.

    Attributes:
        num_heads: number of heads; must divide the channels.
        balance: weight of the attention branch in `mp_sum`.
    """

    num_heads: int
    balance: float = 0.3

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, *spatial, C) to (B, *spatial, C)."""
        channels, sizes = x.shape[-1], axis_sizes(x)
        qkv = MPConv(3 * channels, 1, name="qkv")(x)
        axes = " ".join(sizes)
        qkv = rearrange(qkv, f"b {axes} (n c three) -> three b ({axes}) n c", three=3, n=self.num_heads)
        h = jax.nn.dot_product_attention(*normalize(qkv, -1))
        h = rearrange(h, f"b ({axes}) n c -> b {axes} (n c)", **sizes)
        return mp_sum(x, MPConv(channels, 1, name="out")(h), self.balance)
