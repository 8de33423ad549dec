"""Residual multilayer perceptron for vectors: points in the plane, tables, latent codes.

    h <- x W_in + b_in
    h <- h + dropout(swish(swish(h) W1 + b1 + e W_e + b_e)) W2 + b2      for each block
    y <- swish(h) W_out + b_out

where e is the embedding of the noise level and of the class. W2 and W_out are initialized to zero, so the initial
output is zero. There are no normalization layers, so inputs should be of order one.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from models import checks
from models.layers.convolution import scaled_init
from models.layers.dropout import Dropout
from models.layers.embedding import ClassEmbedding, FourierEmbedding, positional_embedding

CHOICES = {"embedding": ("positional", "fourier"), "dtype": ("float32", "bfloat16")}


class MLP(nn.Module):
    """Residual MLP for vectors; the initial output is zero.

    Attributes:
        width: features of the hidden layers; even, and at least 4.
        depth: number of residual blocks, two layers each.
        out_features: features of the output; 0 for the number of input features.
        num_classes: number of classes of the condition `label`; 0 for an unconditional network.
        embedding: embedding of the noise level: "positional" for noise levels that span hundreds (`999 t`), "fourier"
            for noise levels of order one (`log(sigma) / 4`).
        fourier_scale: standard deviation of the Fourier frequencies; differences of noise levels below
            1 / (2 pi fourier_scale) are not resolved.
        dropout: dropout rate in each block.
        dtype: dtype of the computation, "float32" or "bfloat16"; parameters and output are float32.
        remat: recompute the activations of each block in the backward pass: less memory, about a third more time.
    """

    width: int = 128
    depth: int = 4
    out_features: int = 0
    num_classes: int = 0
    embedding: str = "positional"
    fourier_scale: float = 1.0
    dropout: float = 0.0
    dtype: str = "float32"
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        noise_level: jax.Array,
        condition: Mapping[str, jax.Array] | None = None,
        *,
        train: bool = False,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """Maps noisy vectors to vectors.

        Args:
            x: (B, D).
            noise_level: (B,), in the unit of training.
            condition: leaves by name, or None. If `num_classes` is not 0: `label` (B,), integers in [0, num_classes),
                or num_classes for no class, whose embedding is zero.
            train: whether dropout is enabled.
            dropout_keys: (B,) typed PRNG keys; required if `train` is True and `dropout` is above 0.

        Returns:
            (B, out_features or D) float32.

        Raises:
            ValueError: x is not a batch of vectors, the width is odd or below 4 (positional embedding), an option has
                an unknown value, leaves of the condition are missing or unexpected, or keys are missing.
        """
        if x.ndim != 2:
            raise ValueError(f"MLP: x has shape {x.shape}, but a batch of vectors has shape (B, D)")
        checks.choices(self, CHOICES)
        checks.embedding(self, "width")
        leaves = checks.condition(self, len(x), condition)
        dropout_keys = checks.dropout(self, train, dropout_keys)
        dtype = jnp.dtype(self.dtype)

        if self.embedding == "fourier":
            embedding = FourierEmbedding(self.width, self.fourier_scale, name="fourier")(noise_level)
        else:
            embedding = positional_embedding(noise_level, self.width)
        embedding = _dense(self.width, dtype, "embedding")(embedding)
        if self.num_classes:
            init = nn.initializers.normal(1.0)
            table = ClassEmbedding(self.num_classes, self.width, embedding_init=init, dtype=dtype, name="classes")
            embedding = embedding + table(leaves["label"])
        embedding = nn.swish(embedding)

        block_type = nn.remat(MLPBlock) if self.remat else MLPBlock
        h = _dense(self.width, dtype, "in")(x)
        for i in range(self.depth):
            h = block_type(self.dropout, dtype, name=f"block_{i}")(h, embedding, dropout_keys)
        y = _dense(self.out_features or x.shape[-1], dtype, "out", init_scale=0.0)(nn.swish(h))
        return y.astype(jnp.float32)


class MLPBlock(nn.Module):
    """h + dropout(swish(swish(h) W1 + b1 + e W_e + b_e)) W2 + b2, with W2 initialized to zero.

    Attributes:
        dropout: dropout rate.
        dtype: dtype of the computation; parameters are float32.
    """

    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, h: jax.Array, embedding: jax.Array, dropout_keys: jax.Array | None = None) -> jax.Array:
        """Maps h (B, F) with embedding (B, E) to (B, F); dropout_keys are (B,) typed keys, or None for no dropout."""
        features = h.shape[-1]
        inner = _dense(features, self.dtype, "first")(nn.swish(h))
        inner = nn.swish(inner + _dense(features, self.dtype, "embedding")(embedding))
        inner = Dropout(self.dropout, name="dropout")(inner, dropout_keys)
        return h + _dense(features, self.dtype, "second", init_scale=0.0)(inner)


def _dense(features, dtype, name, init_scale=1.0):
    return nn.Dense(features, kernel_init=scaled_init(init_scale), dtype=dtype, name=name)


# Keys are the values of `model.name` in a config.
NETWORKS = {"mlp": MLP}
