"""Dropout that draws the mask of every example from that example's own key."""

import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp


class Dropout(nn.Module):
    """Zeroes each entry with probability `rate` and divides the others by `1 - rate`.

    The mask of example i depends on `keys[i]` and on the place of this layer in the network (a checksum of its module
    path), on nothing else: neither batch size nor number of devices changes it.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, keys: jax.Array | None) -> jax.Array:
        """Maps (B, ...) to (B, ...).

        Args:
            x: (B, ...).
            keys: (B,) typed PRNG keys, or None for no dropout.
        """
        if keys is None or self.rate == 0:
            return x
        place = zlib.crc32("/".join(self.path).encode())

        def keep(key):
            return jax.random.bernoulli(jax.random.fold_in(key, place), 1 - self.rate, x.shape[1:])

        return jnp.where(jax.vmap(keep)(keys), x / (1 - self.rate), 0)
