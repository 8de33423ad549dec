"""Interface of media (types of data)."""

import abc
import math
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from experiments.plotting import pictures

if TYPE_CHECKING:
    import jax


class Medium(abc.ABC):
    """A type of data: the shape of one datum, its scale and its display.

    Sources return raw data of any dtype; the model receives float32 in its own range.

    Attributes:
        event_shape: shape of one datum for the model.
        has_pixels: whether raw data are grey levels on a pixel grid: then image files can be read, pictures are shown,
            data can be mirrored, and likelihoods are reported in bits per dimension.
        noun: plural noun for messages.
        without_picture: description of samples without a picture, for messages.
        raw_range: the raw values that are mapped to -1 and 1 for the model.
    """

    event_shape: tuple[int, ...]
    raw_range: tuple[float, float]
    has_pixels: ClassVar[bool]
    noun: ClassVar[str]
    without_picture: ClassVar[str] = ""

    @property
    def dimensions(self) -> int:
        """The number of elements of one datum."""
        return math.prod(self.event_shape)

    @property
    def described(self) -> str:
        """The shape as text for messages, such as 32x32x3."""
        return "x".join(map(str, self.event_shape))

    @abc.abstractmethod
    def forward(self, raw: "jax.typing.ArrayLike") -> "jax.Array":
        """Maps raw data (B, *event) to the model's range, float32."""

    @abc.abstractmethod
    def inverse(self, x: "jax.typing.ArrayLike") -> np.ndarray:
        """Maps x (..., *event) in the model's range to raw data.

        Raises:
            RunError: an element is NaN and the raw dtype cannot represent NaN.
        """

    @property
    def tile(self) -> int:
        """The smaller side of one datum in a picture, in pixels."""
        return min(self.event_shape[:2])

    @abc.abstractmethod
    def shown(self, raw: np.ndarray) -> np.ndarray | None:
        """Returns one picture uint8 (..., h, w, 1 or 3) per raw datum (..., *event), or None without pictures."""

    @abc.abstractmethod
    def picture(self, raw: np.ndarray, columns: int | None = None) -> np.ndarray | None:
        """Returns one picture uint8 (h, w, 1 or 3) of raw data (N, *event), laid out row by row.

        Returns None if the medium has no pictures.

        Args:
            raw: the data.
            columns: number of columns; by default about the number of rows.
        """

    def save_picture(self, path: Path, picture: np.ndarray) -> None:
        """Writes a result of `picture` as PNG; small data are enlarged.

        Raises:
            OSError: the file cannot be written.
        """
        pictures.save(path, picture, self.tile)
