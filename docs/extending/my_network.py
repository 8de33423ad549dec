"""A network: `--config.model.name=my_network:Convolutions`."""

import flax.linen as nn
import jax.numpy as jnp


class Convolutions(nn.Module):
    """Residual convolutions at one resolution; the noise level scales their channels.

    Fields are options of the config: `--config.model.width=64`.
    """

    width: int = 32
    depth: int = 3

    @nn.compact
    def __call__(self, x, noise_level, condition=None, *, train=False, dropout_keys=None):
        """x (B, H, W, C), noise_level (B,), condition None or {"label": (B,)} -> (B, H, W, C)."""
        level = jnp.stack([noise_level, jnp.sin(noise_level), jnp.cos(noise_level)], -1)
        h = nn.Conv(self.width, (3, 3))(x)
        for _ in range(self.depth):
            scale = nn.Dense(self.width)(nn.silu(nn.Dense(self.width)(level)))[:, None, None]
            h = h + nn.Conv(self.width, (3, 3))(nn.silu(h * (1 + scale)))
        return nn.Conv(x.shape[-1], (3, 3))(nn.silu(h))
