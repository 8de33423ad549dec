"""Dropout with one PRNG key per example, so that the mask of an example is independent of the batch and the device.

Each value is dropped according to one random byte. A 32-bit draw gives four bytes, so the mask costs a quarter of
uniform numbers for all values, which would take a quarter of a training step on CPU. The rate is therefore rounded to a
multiple of 1/256, and the kept values are scaled according to the rounded rate.

Source: Srivastava et al. (2014), https://jmlr.org/papers/v15/srivastava14a.html.
"""

import math
import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax


def random_bytes(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns independent uniform bytes, uint8, of the given shape."""
    size = math.prod(shape)
    words = jax.random.bits(key, (-(-size // 4),), jnp.uint32)
    return lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)[:size].reshape(shape)


class Dropout(nn.Module):
    """Dropout: sets each value to 0 with probability `rate` and divides all other values by 1 - rate.

    The rate is rounded to a multiple of 1/256 and bounded by 255/256.

    Attributes:
        rate: in [0, 1).
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, keys: jax.Array | None) -> jax.Array:
        """Drops values of x (B, ...) with `keys` (B,), typed PRNG keys; returns x if `keys` is None.

        Raises ValueError for a rate outside [0, 1).
        """
        if not 0 <= self.rate < 1:
            raise ValueError(f"Dropout: rate={self.rate} must lie in [0, 1)")
        dropped = min(round(256 * self.rate), 255)  # at least one value in 256 is kept, so the scale is finite
        if keys is None or dropped == 0:
            return x
        layer_hash = zlib.crc32("/".join(self.path).encode())  # a stable hash, so that each layer draws its own mask
        keep = jax.vmap(lambda key: random_bytes(jax.random.fold_in(key, layer_hash), x.shape[1:]))(keys) >= dropped
        return jnp.where(keep, x / (1 - dropped / 256), 0).astype(x.dtype)
