"""Self-attention over the positions of an array: pixels of an image, voxels, steps of a sequence.

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
    """x + Conv(softmax(q k^T / sqrt(head channels)) v), with q, k, v linear in the group-normalized x.

    The layer is equivariant under permutations of the positions. The last layer starts at zero, so the whole
    starts as the identity.

    Attributes:
        num_heads: number of heads; divides the channels.
        skip_rescale: whether the sum is divided by sqrt(2).
        init_scale: variance of the last kernel's initialization, relative to Glorot's.
        qkv_init_scale: that of the first kernel, which makes q, k and v.
        norm_groups, norm_epsilon: of the group norm, as `GroupNorm` has them.
        dtype: of the computation (the softmax is float32).
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
        """Maps (B, *spatial, C) to (B, *spatial, C). Raises ValueError where `num_heads` does not divide C."""
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
