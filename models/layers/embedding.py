"""Embeddings of the noise level (a scalar per image) by sines and cosines, and of class labels."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp


def positional_embedding(
    noise_level: jax.Array,
    features: int,
    max_period: float = 10_000.0,
    *,
    endpoint: bool = True,
    cosine_first: bool = False,
) -> jax.Array:
    """Returns the transformer's encoding: sines, then cosines, of frequencies from 1 down to 1 / max_period.

    For noise levels that span hundreds, such as `999 t`.
    Source: Ho et al. (2020), https://github.com/hojonathanho/diffusion/blob/master/diffusion_tf/nn.py; without the
    endpoint and with cosines first, Dhariwal and Nichol (2021),
    https://github.com/openai/guided-diffusion/blob/main/guided_diffusion/nn.py.

    Args:
        noise_level: (B,).
        features: an even number of at least 4.
        max_period: inverse of the lowest frequency.
        endpoint: whether the last frequency is 1 / max_period (frequencies max_period ** (-k / (features / 2 - 1))); if
            False, the frequencies are max_period ** (-k / (features / 2)).
        cosine_first: whether the cosines precede the sines.

    Returns:
        (B, features) float32.

    Raises:
        ValueError: features is odd or below 4.
    """
    if features < 4 or features % 2:
        raise ValueError(f"positional_embedding: features={features} must be even and at least 4")
    half = features // 2
    steps = half - 1 if endpoint else half
    frequencies = jnp.exp(-math.log(max_period) / steps * jnp.arange(half, dtype=jnp.float32))
    angles = noise_level.astype(jnp.float32)[:, None] * frequencies
    waves = [jnp.cos(angles), jnp.sin(angles)] if cosine_first else [jnp.sin(angles), jnp.cos(angles)]
    return jnp.concatenate(waves, axis=-1)


class FourierEmbedding(nn.Module):
    """Gaussian Fourier features: sines, then cosines, of `2 pi w noise_level` with fixed random `w ~ N(0, scale^2)`.

    For noise levels of order one, such as `log(sigma)`: a scale of 16 resolves differences of about 1 / 100.
    The frequencies are parameters, so that checkpoints include them, but have no gradient.
    Source: Tancik et al. (2020), https://arxiv.org/abs/2006.10739; Song et al. (2021),
    https://github.com/yang-song/score_sde.
    """

    features: int
    scale: float = 16.0

    @nn.compact
    def __call__(self, noise_level: jax.Array) -> jax.Array:
        """Maps (B,) to (B, features) float32. Raises ValueError if `features` is odd."""
        if self.features % 2:
            raise ValueError(f"FourierEmbedding: features={self.features} must be even")
        frequencies = self.param("frequencies", nn.initializers.normal(self.scale), (self.features // 2,), jnp.float32)
        angles = 2 * math.pi * noise_level.astype(jnp.float32)[:, None] * jax.lax.stop_gradient(frequencies)
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class ClassEmbedding(nn.Embed):
    """Learned embedding of labels below `num_embeddings`; the embedding of `num_embeddings` (no class) is zero."""

    def __call__(self, labels: jax.Array) -> jax.Array:
        """Maps (B,) integers in [0, num_embeddings] to (B, features)."""
        known = labels < self.num_embeddings
        return jnp.where(known[:, None], super().__call__(jnp.where(known, labels, 0)), 0)
