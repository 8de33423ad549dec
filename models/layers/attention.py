"""Self-attention over the positions of an array: pixels, voxels or steps of a sequence.

Source: Ho et al. (2020), https://arxiv.org/abs/2006.11239 (one head); Dhariwal and Nichol (2021),
https://arxiv.org/abs/2105.05233 (several heads).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from models.layers.axes import axis_sizes
from models.layers.convolution import Conv
from models.layers.normalization import GroupNorm
from models.layers.residual import joined


class Attention(nn.Module):
    """Residual self-attention: x + Conv(softmax(q k^T / sqrt(head channels)) v), with q, k, v linear in GroupNorm(x).

    The layer is equivariant under permutations of the positions. With `init_scale` 0, the layer is initially the
    identity.

    Attributes:
        num_heads: number of heads; must divide the channels.
        skip_rescale: whether the sum is divided by sqrt(2).
        init_scale: variance of the output kernel at initialization, relative to Glorot's.
        qkv_init_scale: variance of the kernel of q, k and v at initialization, relative to Glorot's.
        norm_groups, norm_epsilon: `num_groups` and `epsilon` of the group norm.
        dtype: dtype of the computation; the softmax is float32.
    """

    num_heads: int = 1
    skip_rescale: bool = False
    init_scale: float = 0.0
    qkv_init_scale: float = 1.0
    dtype: jnp.dtype = jnp.float32
    norm_groups: int = 0
    norm_epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, *spatial, C) to (B, *spatial, C). Raises ValueError if `num_heads` does not divide C."""
        channels, sizes = x.shape[-1], axis_sizes(x)
        if channels % self.num_heads:
            raise ValueError(f"Attention: num_heads={self.num_heads} does not divide {channels} channels")
        h = GroupNorm(self.norm_groups, self.norm_epsilon, self.dtype, name="norm")(x)
        qkv = Conv(3 * channels, 1, init_scale=self.qkv_init_scale, dtype=self.dtype, name="qkv")(h)
        axes = " ".join(sizes)
        q, k, v = rearrange(qkv, f"b {axes} (three n c) -> three b ({axes}) n c", three=3, n=self.num_heads)
        h = jax.nn.dot_product_attention(q, k, v)
        h = rearrange(h, f"b ({axes}) n c -> b {axes} (n c)", **sizes)
        h = Conv(channels, 1, init_scale=self.init_scale, dtype=self.dtype, name="out")(h)
        return joined(x, h, self.skip_rescale)
