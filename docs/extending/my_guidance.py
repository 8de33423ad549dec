"""A guidance: `--config.sampling.guidance.name=my_guidance:Projected --guidance=3`."""

import jax.numpy as jnp

from sde_lib import Denoiser, DerivedDenoiser


class Projected(DerivedDenoiser):
    """Guidance whose part along the expected data is scaled, against oversaturation at large scales.

    D + (scale - 1) (orthogonal + parallel * along) of the difference D - D_weak, along and orthogonal to D.

    Source: Sadat et al. (2024), https://arxiv.org/abs/2410.02416, section 4.
    """

    weak: Denoiser
    scale: float  # --guidance=3
    parallel: float = 0.0  # an option of the config: `--config.sampling.guidance.parallel=0.5`

    def __call__(self, x, t):
        """The guided expected data, (B, *event)."""
        strong, weak = self.denoiser(x, t), self.weak(x, t)
        axes = tuple(range(1, x.ndim))
        difference = strong - weak
        share = (difference * strong).sum(axes, keepdims=True) / jnp.square(strong).sum(axes, keepdims=True)
        along = share * strong
        return strong + (self.scale - 1) * (difference - along + self.parallel * along)
