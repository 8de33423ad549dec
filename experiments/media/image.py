"""Images of 8-bit grey levels: grey, RGB, RGB with alpha, or any other number of channels.

With 4 channels, the last is alpha (opacity), and the first three are red, green and blue multiplied by alpha.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from experiments.errors import RunError
from experiments.media.base import Medium
from experiments.plotting import pictures

if TYPE_CHECKING:
    import jax


@dataclass(frozen=True)
class ImageMedium(Medium):
    """Images: raw data uint8 (H, W, C), the model's range [-1, 1], x = u / 127.5 - 1 = 2 u / 255 - 1.

    Attributes:
        event_shape: (H, W, C).
        background: RGB colour behind images with alpha, for display.
        levels_per_unit: grey levels per unit of x; a density over x has log2(levels_per_unit) fewer bits per dimension
            than the same density over grey levels.
    """

    event_shape: tuple[int, int, int]
    background: tuple[int, int, int] = (255, 255, 255)
    levels_per_unit: float = 127.5
    has_pixels: ClassVar[bool] = True
    noun: ClassVar[str] = "images"

    @property
    def raw_range(self) -> tuple[float, float]:
        """(0, 255)."""
        return 0.0, 2 * self.levels_per_unit

    def forward(self, images: "jax.typing.ArrayLike") -> "jax.Array":
        """Maps grey levels in [0, 255] of any shape, uint8 or (dequantized) floats, to float32 in [-1, 1]."""
        import jax.numpy as jnp  # a local import, so that data worker processes do not import JAX

        return jnp.asarray(images, jnp.float32) / self.levels_per_unit - 1

    def inverse(self, x: "jax.typing.ArrayLike") -> np.ndarray:
        """Maps x of any shape to the nearest grey levels, uint8; values outside [-1, 1] are clipped.

        Raises:
            RunError: an element is NaN, which the conversion to uint8 would turn into a plausible grey level.
        """
        x = np.asarray(x, np.float32)
        if np.isnan(x).any():
            raise RunError(
                f"{int(np.isnan(x).sum())} of {x.size} image elements are NaN and cannot be converted to grey levels"
            )
        return np.clip(np.rint((x + 1) * self.levels_per_unit), 0, 255).astype(np.uint8)

    def shown(self, raw: np.ndarray) -> np.ndarray:
        """Composites images uint8 (..., h, w, 4) over the background; converts other images by `pictures.visible`."""
        return pictures.over(raw, self.background) if raw.shape[-1] == pictures.WITH_ALPHA else pictures.visible(raw)

    def picture(self, raw: np.ndarray, columns: int | None = None) -> np.ndarray:
        """Returns a grid of images uint8 (N, H, W, C); see `shown` and `pictures.grid`."""
        return pictures.grid(self.shown(raw), columns)
