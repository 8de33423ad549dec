"""The scale on which a network sees its data: grey levels 0..255 become [-1, 1], and back; latents stay as they are."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from experiments.errors import RunError

if TYPE_CHECKING:
    import jax


@dataclass(frozen=True)
class DataTransform:
    """The affine map x = u / 127.5 - 1 = 2 u / 255 - 1 and its inverse.

    Attributes:
        levels_per_unit: grey levels per unit of x; a density over x has log2(levels_per_unit) fewer bits per dimension
            than the same density over grey levels.
    """

    levels_per_unit: float = 127.5
    gives_images: ClassVar[bool] = True

    def forward(self, images: "jax.typing.ArrayLike") -> "jax.Array":
        """Maps grey levels in [0, 255], uint8 or (dequantized) floats, of any shape to float32 in [-1, 1]."""
        import jax.numpy as jnp  # here, so that worker processes, which load `sources`, need not wait for JAX

        return jnp.asarray(images, jnp.float32) / self.levels_per_unit - 1

    def inverse(self, x: "jax.typing.ArrayLike") -> np.ndarray:
        """Maps x of any shape to the nearest grey level: uint8, values outside [-1, 1] clipped.

        Raises:
            RunError: an element is NaN, which the conversion to uint8 would turn into a plausible grey level.
        """
        x = np.asarray(x, np.float32)
        if np.isnan(x).any():
            raise RunError(
                f"{int(np.isnan(x).sum())} of {x.size} image elements are NaN: there is no grey level for it"
            )
        return np.clip(np.rint((x + 1) * self.levels_per_unit), 0, 255).astype(np.uint8)


LATENTS = "latents"  # the `data.source` of a model of latents


@dataclass(frozen=True)
class LatentTransform:
    """No change: latents, the codes of an autoencoder, have no grey levels; no decoder is here to make images of them."""

    gives_images: ClassVar[bool] = False

    def forward(self, latents: "jax.typing.ArrayLike") -> "jax.Array":
        """The latents of any shape, float32, in the scale that the network was trained on."""
        import jax.numpy as jnp

        return jnp.asarray(latents, jnp.float32)

    def inverse(self, x: "jax.typing.ArrayLike") -> np.ndarray:
        """The same numbers, float32."""
        return np.asarray(x, np.float32)
