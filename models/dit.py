"""DiT, the diffusion transformer: a transformer over the patches of an image with adaLN-Zero conditioning.

Noise level and class are embedded in one vector c. The norms of a block have no learned weights; scale, shift and gate
are computed from c (adaLN-Zero):

    x <- x + gate1(c) * attention((1 + scale1(c)) norm(x) + shift1(c))
    x <- x + gate2(c) * mlp((1 + scale2(c)) norm(x) + shift2(c))

Gates are initialized to zero, so each block is initially the identity. The last layer is initialized to zero, so the
initial output is zero.

Source: Peebles and Xie (2023), https://arxiv.org/abs/2212.09748, https://github.com/facebookresearch/DiT.
"""

import functools
from collections.abc import Mapping
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from models import checks
from models.layers.convolution import per_position, scaled_init
from models.layers.dropout import Dropout
from models.layers.embedding import ClassEmbedding, positional_embedding
from models.layers.positions import rotary_angles, rotate, sincos_positions

CHOICES = {
    "positions": ("sincos", "rotary"),
    "frequencies": ("dit", "ddpm"),
    "dtype": ("float32", "bfloat16"),
}

# Table 1 of the paper. DiT-XL/2 is `DiT(**SIZES["XL"], patch_size=2, num_classes=1000, learned_variance=True)`; its
# input is a latent image of four channels.
SIZES = {
    "S": {"width": 384, "depth": 12, "num_heads": 6},
    "B": {"width": 768, "depth": 12, "num_heads": 12},
    "L": {"width": 1024, "depth": 24, "num_heads": 16},
    "XL": {"width": 1152, "depth": 28, "num_heads": 16},
}


class DiT(nn.Module):
    """Diffusion transformer with adaLN-Zero; the defaults are DiT-S/2, and `SIZES` has the other sizes of the paper.

    Attributes:
        width: features of a token; divisible by 4 and by `num_heads`.
        depth: number of blocks.
        num_heads: heads of each attention.
        patch_size: side of a patch in pixels.
        mlp_ratio: hidden features of each block's MLP, in units of `width`.
        out_channels: channels of the output; 0 for as many as the input has. If conditioning images are concatenated to
            the input, the number of channels of the noisy images.
        learned_variance: whether the last layer also predicts a variance for each value (iDDPM, and the published DiT).
            The call returns only the mean, as a Denoiser requires; `mean_and_variance` returns both.
        num_classes: number of classes of the condition `label`; 0 for an unconditional network.
        null_class: whether the null label `num_classes` (no class) has a learned embedding, as in the published
            networks, which use it for classifier-free guidance; otherwise its embedding is zero. In training,
            `condition.label.dropout` of the config replaces a fraction of the labels by the null label.
        positions: position encoding of the patches: "sincos" adds the fixed encoding of the paper; "rotary" rotates
            queries and keys, so that attention depends only on relative positions.
        position_span: range of the positions along each axis, [0, position_span), for any image size, so that a network
            trained on a grid of position_span patches accepts other sizes; 0 numbers the patches 0, 1, 2, ...
        frequencies: frequencies of the 128 cosines and sines of the noise level: "dit" for 10,000 ** (-k / 128), "ddpm"
            for 10,000 ** (-k / 127), as in diffusers.
        block_embeddings: whether each block has its own embedding of noise level and class, as in diffusers, instead of
            one shared vector c; the last layer then uses the embedding of the first block.
        mlp_norm_epsilon: added to the variance in the norm before each MLP; 1e-5 in diffusers. All other norms use
            1e-6.
        dropout: dropout rate after each attention and within each MLP; 0 in the paper.
        dtype: dtype of the computation, "float32" or "bfloat16"; parameters and output are float32.
        remat: recompute the activations of each block in the backward pass: less memory, about a third more time.
    """

    width: int = 384
    depth: int = 12
    num_heads: int = 6
    patch_size: int = 2
    mlp_ratio: float = 4.0
    out_channels: int = 0
    learned_variance: bool = False
    num_classes: int = 0
    null_class: bool = True
    positions: str = "sincos"
    position_span: int = 0
    frequencies: str = "dit"
    block_embeddings: bool = False
    mlp_norm_epsilon: float = 1e-6
    dropout: float = 0.0
    dtype: str = "float32"
    remat: bool = False

    def __call__(
        self,
        x: jax.Array,
        noise_level: jax.Array,
        condition: Mapping[str, jax.Array] | None = None,
        *,
        train: bool = False,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """Maps noisy images to images.

        Args:
            x: (B, H, W, C); H and W divisible by `patch_size`. Conditioning images are concatenated after the channels
                of the noisy images; `out_channels` is then the number of channels of the noisy images.
            noise_level: (B,), the step from 0 to 999 for the published networks; not necessarily an integer.
            condition: leaves by name, or None. If `num_classes` is not 0: `label` (B,), integers in [0, num_classes),
                or num_classes for no class.
            train: whether dropout is enabled.
            dropout_keys: (B,) typed PRNG keys; required if `train` is True and `dropout` is above 0.

        Returns:
            (B, H, W, C) float32, or (B, H, W, out_channels).

        Raises:
            ValueError: H or W is not divisible by `patch_size`, the heads do not divide the width, an option has an
                unknown value, leaves of the condition are missing or unexpected, or keys are missing.
        """
        output = self.mean_and_variance(x, noise_level, condition, train=train, dropout_keys=dropout_keys)
        return output[..., : self.out_channels or x.shape[-1]]

    @nn.compact
    def mean_and_variance(
        self,
        x: jax.Array,
        noise_level: jax.Array,
        condition: Mapping[str, jax.Array] | None = None,
        *,
        train: bool = False,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """Like the call, but returns the mean followed by the `learned_variance`: (B, H, W, 2 C) float32.

        The second half is v of iDDPM (https://arxiv.org/abs/2102.09672, eq. 15), where -1 and 1 correspond to the
        variances of the posterior and of the forward process. Without `learned_variance`, only the mean is returned.
        """
        checks.choices(self, CHOICES)
        checks.divisible(self, x.shape, self.patch_size, f"patches of {self.patch_size} pixels need")
        leaves = checks.condition(self, len(x), condition)
        dropout_keys = checks.dropout(self, train, dropout_keys)
        if self.width % self.num_heads:
            raise ValueError(f"DiT: num_heads={self.num_heads} does not divide width={self.width}")
        if self.mlp_ratio * self.width < 1:
            raise ValueError(f"DiT: mlp_ratio={self.mlp_ratio} of width={self.width} leaves no feature in the MLP")
        dtype = jnp.dtype(self.dtype)
        side = self.patch_size
        height, width = (size // side for size in x.shape[1:3])

        tokens = rearrange(x.astype(dtype), "b (h p) (w q) c -> b (h w) (p q c)", p=side, q=side)
        tokens = _dense(self.width, dtype, "patches")(tokens)
        angles = None
        if self.positions == "sincos":
            tokens = tokens + sincos_positions(height, width, self.width, self.position_span).astype(dtype)
        else:
            angles = rotary_angles(height, width, self.width // self.num_heads, self.position_span)

        def embed(name):
            embedding = Embedding(self.width, self.num_classes, self.null_class, self.frequencies, dtype, name=name)
            return nn.swish(embedding(noise_level, leaves.get("label")))

        first_embedding = embedding = embed("embedding_0" if self.block_embeddings else "embedding")
        block_type = nn.remat(DiTBlock) if self.remat else DiTBlock
        for i in range(self.depth):
            if self.block_embeddings and i:
                embedding = embed(f"embedding_{i}")
            block = block_type(
                self.num_heads, self.mlp_ratio, self.mlp_norm_epsilon, self.dropout, dtype, name=f"block_{i}"
            )
            tokens = block(tokens, embedding, angles, dropout_keys)

        shift, scale = _modulation(2, self.width, dtype, first_embedding)
        tokens = _norm(tokens, shift, scale, 1e-6, dtype)
        features = (self.out_channels or x.shape[-1]) * (2 if self.learned_variance else 1)
        tokens = _dense(side**2 * features, dtype, "out", init_scale=0.0)(tokens).astype(jnp.float32)
        return rearrange(tokens, "b (h w) (p q c) -> b (h p) (w q) c", h=height, p=side, q=side)


class Embedding(nn.Module):
    """Sum of the embeddings of the noise level (B,) and of the labels (B,) or None, (B, features)."""

    features: int
    num_classes: int
    null_class: bool
    frequencies: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, noise_level: jax.Array, labels: jax.Array | None) -> jax.Array:
        """Maps (B,) and (B,) to (B, features)."""
        init = nn.initializers.normal(0.02)
        waves = positional_embedding(noise_level, 256, endpoint=self.frequencies == "ddpm", cosine_first=True)
        dense = [nn.Dense(self.features, kernel_init=init, dtype=self.dtype, name=f"noise_level_{i}") for i in range(2)]
        embedding = dense[1](nn.swish(dense[0](waves)))
        if self.num_classes:
            rows = self.num_classes + self.null_class
            table = ClassEmbedding(rows, self.features, embedding_init=init, dtype=self.dtype, name="classes")
            embedding = embedding + table(cast(jax.Array, labels))
        return embedding


class DiTBlock(nn.Module):
    """Attention and MLP, each after a modulated norm and before a gate that is initialized to zero.

    Attributes:
        num_heads: heads of the attention.
        mlp_ratio: hidden features of the MLP in units of the tokens' features.
        mlp_norm_epsilon: added to the variance in the norm before the MLP.
        dropout: dropout rate after the attention and after the nonlinearity of the MLP.
        dtype: dtype of the computation; parameters are float32.
    """

    num_heads: int
    mlp_ratio: float = 4.0
    mlp_norm_epsilon: float = 1e-6
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        embedding: jax.Array,
        angles: jax.Array | np.ndarray | None = None,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """Maps (B, tokens, features) to the same shape.

        Args:
            tokens: (B, tokens, features).
            embedding: (B, E), after the final nonlinearity.
            angles: angles of the rotary encoding, (tokens, head features / 2), or None for no rotation.
            dropout_keys: (B,) typed keys, or None for no dropout.
        """
        features = tokens.shape[-1]
        parts = _modulation(6, features, self.dtype, embedding)
        attention_shift, attention_scale, attention_gate, mlp_shift, mlp_scale, mlp_gate = parts

        h = _norm(tokens, attention_shift, attention_scale, 1e-6, self.dtype)
        qkv = _dense(3 * features, self.dtype, "qkv")(h)
        q, k, v = rearrange(qkv, "b t (three n c) -> three b t n c", three=3, n=self.num_heads)
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        h = rearrange(jax.nn.dot_product_attention(q, k, v), "b t n c -> b t (n c)")
        h = Dropout(self.dropout, name="attention_dropout")(
            _dense(features, self.dtype, "attention_out")(h), dropout_keys
        )
        tokens = tokens + attention_gate * h

        h = _norm(tokens, mlp_shift, mlp_scale, self.mlp_norm_epsilon, self.dtype)
        h = nn.gelu(_dense(int(self.mlp_ratio * features), self.dtype, "mlp_in")(h), approximate=True)
        h = _dense(features, self.dtype, "mlp_out")(Dropout(self.dropout, name="mlp_dropout")(h, dropout_keys))
        return tokens + mlp_gate * h


def _dense(features, dtype, name, init_scale=1.0):
    """Returns a dense layer from (..., C) to (..., features)."""
    dense = nn.Dense(features, kernel_init=scaled_init(init_scale), dtype=dtype, name=name)
    return functools.partial(per_position, dense)


def _modulation(parts, features, dtype, embedding):
    """Returns `parts` modulation arrays (B, 1, features), initially zero."""
    values = _dense(parts * features, dtype, "modulation", init_scale=0.0)(embedding)
    return jnp.split(values[:, None], parts, axis=-1)


def _norm(tokens, shift, scale, epsilon, dtype):
    """Normalizes each token over its features, then scales by 1 + scale and shifts."""
    norm = nn.LayerNorm(epsilon, use_bias=False, use_scale=False, use_fast_variance=False, dtype=jnp.float32)
    return (norm(tokens) * (1 + scale) + shift).astype(dtype)


# Keys are the values of `model.name` in a config.
NETWORKS = {"dit": DiT}
