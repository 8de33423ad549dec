"""DINOv2: a self-supervised vision transformer, whose class token is the feature of FD-DINOv2.

A class token precedes the tokens of the patches of 14 x 14 pixels; learned position embeddings are added to all tokens.
Every block is

    x <- x + gamma1 * attention(norm1(x)),    x <- x + gamma2 * mlp(norm2(x))

with learned gammas per feature (LayerScale). Position embeddings were learned on 37 x 37 patches and are interpolated
to other grids.

Source: Oquab et al. (2023), https://arxiv.org/abs/2304.07193;
https://github.com/facebookresearch/dinov2/blob/main/dinov2/models/vision_transformer.py (the models without registers).
FD-DINOv2: Stein et al. (2023), https://arxiv.org/abs/2306.04675.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from models import checks
from models.layers.frozen import PRECISION, FrozenDense

SIZES = {
    "vits14": {"width": 384, "depth": 12, "num_heads": 6},
    "vitb14": {"width": 768, "depth": 12, "num_heads": 12},
    "vitl14": {"width": 1024, "depth": 24, "num_heads": 16},
}


class DINOv2(nn.Module):
    """DINOv2 as a feature network, for inference only. The defaults are ViT-S/14; `SIZES` has the options of all sizes.

    Attributes:
        width: features of a token.
        depth: number of blocks.
        num_heads: heads of each attention.
        patch_size: side of a patch in pixels.
        position_grid: patches along each side of the training images, for which the position embeddings were learned.
    """

    width: int = 384
    depth: int = 12
    num_heads: int = 6
    patch_size: int = 14
    position_grid: int = 37

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        """Maps images to features.

        Args:
            x: (B, H, W, 3) float32, standardized by the mean and standard deviation of ImageNet's channels; H and W
                divisible by `patch_size`.

        Returns:
            `pool` (B, width) float32, the class token after the last norm.

        Raises:
            ValueError: H or W is not divisible by `patch_size`.
        """
        side = self.patch_size
        checks.divisible(self, x.shape, side, f"patches of {side} pixels need")
        height, width = (size // side for size in x.shape[1:3])
        x = rearrange(x.astype(jnp.float32), "b (h p) (w q) c -> b (h w) (p q c)", p=side, q=side)
        x = FrozenDense(self.width, name="patches")(x)
        init = nn.initializers.normal(0.02)
        class_token = self.param("class_token", init, (1, 1, self.width))
        positions = self.param("positions", init, (1, 1 + self.position_grid**2, self.width))
        x = jnp.concatenate([jnp.broadcast_to(class_token, (len(x), 1, self.width)), x], axis=1)
        x = x + stretched_positions(positions, height, width)
        for i in range(self.depth):
            x = Block(self.num_heads, name=f"block_{i}")(x)
        return {"pool": _norm("norm")(x[:, 0])}


class Block(nn.Module):
    """Attention and MLP, each after a norm and before a learned scale per feature (LayerScale)."""

    num_heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps tokens (B, T, C) to (B, T, C)."""
        channels = x.shape[-1]
        gammas = [self.param(f"gamma_{i}", nn.initializers.ones, (channels,)) for i in (1, 2)]
        qkv = FrozenDense(3 * channels, name="qkv")(_norm("norm_1")(x))
        q, k, v = rearrange(qkv, "b t (three n c) -> three b n t c", three=3, n=self.num_heads)
        logits = jnp.einsum("bnqc,bnkc->bnqk", q, k, precision=PRECISION) / q.shape[-1] ** 0.5
        h = jnp.einsum("bnqk,bnkc->bnqc", jax.nn.softmax(logits, axis=-1), v, precision=PRECISION)
        x = x + gammas[0] * FrozenDense(channels, name="attention_out")(rearrange(h, "b n t c -> b t (n c)"))
        h = nn.gelu(FrozenDense(4 * channels, name="mlp_in")(_norm("norm_2")(x)), approximate=False)
        return x + gammas[1] * FrozenDense(channels, name="mlp_out")(h)


def _norm(name):
    return nn.LayerNorm(1e-6, use_fast_variance=False, name=name)


def stretched_positions(positions: jax.Array, height: int, width: int) -> jax.Array:
    """Interpolates position embeddings (1, 1 + n n, C) to a grid of height x width patches: (1, 1 + height width, C).

    The position embedding of the class token, the first, is unchanged. The interpolation is PyTorch's bicubic without
    antialiasing. The published models pass the scale factors (height + 0.1) / n and (width + 0.1) / n instead of a
    size, so the sampled positions are spaced slightly more closely than n / height and n / width.
    """
    side = int(np.sqrt(positions.shape[1] - 1))
    if (height, width) == (side, side):
        return positions
    grid = rearrange(positions[:, 1:], "one (h w) c -> one h w c", h=side)
    rows, columns = (jnp.asarray(_cubic_matrix(side, size)) for size in (height, width))
    grid = jnp.einsum("ih,jw,bhwc->bijc", rows, columns, grid, precision=PRECISION)
    return jnp.concatenate([positions[:, :1], rearrange(grid, "one h w c -> one (h w) c")], axis=1)


def _cubic_matrix(size: int, new_size: int, offset: float = 0.1, a: float = -0.75) -> np.ndarray:
    """Returns the matrix (new_size, size) of cubic interpolation with parameter a and edge replication."""
    positions = (np.arange(new_size) + 0.5) * size / (new_size + offset) - 0.5
    matrix = np.zeros((new_size, size))
    for tap in range(-1, 3):
        near = np.floor(positions) + tap
        x = np.abs(positions - near)
        inner = ((a + 2) * x - (a + 3)) * x**2 + 1
        outer = a * (((x - 5) * x + 8) * x - 4)
        weights = np.where(x <= 1, inner, np.where(x < 2, outer, 0))
        np.add.at(matrix, (np.arange(new_size), np.clip(near, 0, size - 1).astype(int)), weights)
    return matrix.astype(np.float32)
