"""Arrays of numbers of any shape, without pictures: vectors (D,), profiles (L, C), volumes (D, H, W, C)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from experiments.media.base import Medium

if TYPE_CHECKING:
    import jax


@dataclass(frozen=True)
class ArrayMedium(Medium):
    """Arrays: raw data float32 (*event), x = 2 (u - low) / (high - low) - 1.

    Neither `forward` nor `inverse` clips values outside of the range.

    Attributes:
        event_shape: shape of one array, with at least one axis.
        low, high: the raw values that are mapped to -1 and 1 for the model.
    """

    event_shape: tuple[int, ...]
    low: float = -1.0
    high: float = 1.0
    has_pixels: ClassVar[bool] = False
    noun: ClassVar[str] = "arrays"
    without_picture: ClassVar[str] = "float32 arrays, which have no picture"

    @property
    def raw_range(self) -> tuple[float, float]:
        """(low, high)."""
        return self.low, self.high

    def forward(self, raw: "jax.typing.ArrayLike") -> "jax.Array":
        """Maps raw arrays to the model's range, float32."""
        import jax.numpy as jnp

        return (jnp.asarray(raw, jnp.float32) - self.low) * (2 / (self.high - self.low)) - 1

    def inverse(self, x: "jax.typing.ArrayLike") -> np.ndarray:
        """Maps x to raw arrays, float32."""
        scale = (self.high - self.low) / 2
        return ((np.asarray(x, np.float64) + 1) * scale + self.low).astype(np.float32)

    def shown(self, raw: np.ndarray) -> None:
        """Returns None."""
        return None

    def picture(self, raw: np.ndarray, columns: int | None = None) -> None:
        """Returns None."""
        return None
