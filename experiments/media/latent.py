"""Latents of an autoencoder. No decoder is included, so latents have no pictures."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from experiments.media.base import Medium

if TYPE_CHECKING:
    import jax

LATENTS = "latents"  # value of `data.source` for models of latents


@dataclass(frozen=True)
class LatentMedium(Medium):
    """Latents: float32 (h, w, C), in the scale of the network's training data; raw data are the model's values.

    Attributes:
        event_shape: (h, w, C).
    """

    event_shape: tuple[int, ...]
    raw_range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    has_pixels: ClassVar[bool] = False
    noun: ClassVar[str] = "latents"
    without_picture: ClassVar[str] = "float32 latents, which need the decoder of the model's publisher"

    def forward(self, raw: "jax.typing.ArrayLike") -> "jax.Array":
        """Returns the latents, float32."""
        import jax.numpy as jnp

        return jnp.asarray(raw, jnp.float32)

    def inverse(self, x: "jax.typing.ArrayLike") -> np.ndarray:
        """Returns x as float32."""
        return np.asarray(x, np.float32)

    def shown(self, raw: np.ndarray) -> None:
        """Returns None."""
        return None

    def picture(self, raw: np.ndarray, columns: int | None = None) -> None:
        """Returns None."""
        return None
