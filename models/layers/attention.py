"""Self-attention over the pixels of an image.

Source: Ho et al. (2020), https://arxiv.org/abs/2006.11239 (one head); Dhariwal and Nichol (2021),
https://arxiv.org/abs/2105.05233 (several heads).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from models.layers.convolution import Conv
from models.layers.normalization import GroupNorm


class Attention(nn.Module):
    """x + Conv(softmax(q k^T / sqrt(head channels)) v), with q, k, v linear in the group-normalized x.

    A pixel knows no position: permuting the pixels permutes the result. The last layer starts at zero, so the whole
    starts as the identity.

    Attributes:
        num_heads: number of heads; divides the channels.
        dtype: of the computation (the softmax is float32).
    """

    num_heads: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to (B, H, W, C). Raises ValueError where `num_heads` does not divide C."""
        _, height, _, channels = x.shape
        if channels % self.num_heads:
            raise ValueError(f"Attention: num_heads={self.num_heads} does not divide {channels} channels")
        h = GroupNorm(dtype=self.dtype, name="norm")(x)
        qkv = Conv(3 * channels, 1, dtype=self.dtype, name="qkv")(h)
        q, k, v = rearrange(qkv, "b h w (three n c) -> three b (h w) n c", three=3, n=self.num_heads)
        h = rearrange(jax.nn.dot_product_attention(q, k, v), "b (h w) n c -> b h w (n c)", h=height)
        return x + Conv(channels, 1, init_scale=0.0, dtype=self.dtype, name="out")(h)
