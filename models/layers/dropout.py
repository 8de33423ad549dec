"""Dropout whose mask for one example depends on that example's key alone, never on its batch or device.

One byte decides one value: four masks' worth of bytes come from each 32-bit draw, which makes the mask four times as
cheap as a uniform number for each value (on CPU the draw is otherwise a quarter of a training step). So the rate is a
multiple of 1/256, and the values kept are scaled by the rate that is really applied.

Source: Srivastava et al. (2014), https://jmlr.org/papers/v15/srivastava14a.html.
"""

import math
import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax


def random_bytes(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Independent uniform bytes, uint8, of the given shape."""
    size = math.prod(shape)
    words = jax.random.bits(key, (-(-size // 4),), jnp.uint32)
    return lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)[:size].reshape(shape)


class Dropout(nn.Module):
    """Sets each value to 0 with probability `rate`, rounded to a multiple of 1/256, and scales the others up for it.

    At least one value in 256 is kept: rates above 255/256 count as 255/256.

    Attributes:
        rate: in [0, 1).
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, keys: jax.Array | None) -> jax.Array:
        """Drops values of x (B, ...) by `keys` (B,), typed PRNG keys; returns x where `keys` is None.

        Raises ValueError for a rate outside [0, 1).
        """
        if not 0 <= self.rate < 1:
            raise ValueError(f"Dropout: rate={self.rate} must lie in [0, 1)")
        dropped = min(round(256 * self.rate), 255)  # 256 of 256 would leave nothing to scale up
        if keys is None or dropped == 0:
            return x
        place = zlib.crc32("/".join(self.path).encode())  # a stable hash: every layer draws its own mask
        keep = jax.vmap(lambda key: random_bytes(jax.random.fold_in(key, place), x.shape[1:]))(keys) >= dropped
        return jnp.where(keep, x / (1 - dropped / 256), 0).astype(x.dtype)
