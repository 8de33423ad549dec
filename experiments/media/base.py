"""The interface of media."""

import abc
import math
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from experiments.plotting import pictures

if TYPE_CHECKING:
    import jax


class Medium(abc.ABC):
    """The type of one datum: its shape, its scale and its display.

    A source holds raw data, of any dtype; the model sees float32 in its own range.

    Attributes:
        event_shape: of one datum as the model sees it.
        has_pixels: whether raw data are grey levels of pixels, rows and columns: files of pictures can be read, pictures
            are shown, data can be mirrored, and levels have bits per dimension.
        noun: for messages, in the plural.
        without_picture: description of samples without a picture, for messages.
        raw_range: the raw values that are -1 and 1 for the model.
    """

    event_shape: tuple[int, ...]
    raw_range: tuple[float, float]
    has_pixels: ClassVar[bool]
    noun: ClassVar[str]
    without_picture: ClassVar[str] = ""

    @property
    def dimensions(self) -> int:
        """The number of values of one datum."""
        return math.prod(self.event_shape)

    @property
    def described(self) -> str:
        """The shape for messages, as 32x32x3."""
        return "x".join(map(str, self.event_shape))

    @abc.abstractmethod
    def forward(self, raw: "jax.typing.ArrayLike") -> "jax.Array":
        """Returns raw data (B, *event) in the model's range, float32."""

    @abc.abstractmethod
    def inverse(self, x: "jax.typing.ArrayLike") -> np.ndarray:
        """Returns raw data of x (..., *event) in the model's range.

        Raises:
            RunError: an element is NaN and raw data cannot hold it.
        """

    @property
    def tile(self) -> int:
        """The pixels of the smaller side of one datum in a picture."""
        return min(self.event_shape[:2])

    @abc.abstractmethod
    def shown(self, raw: np.ndarray) -> np.ndarray | None:
        """Returns pictures uint8 (..., h, w, 1 or 3) of raw data (..., *event), one of each; None for no pictures."""

    @abc.abstractmethod
    def picture(self, raw: np.ndarray, columns: int | None = None) -> np.ndarray | None:
        """Returns a picture uint8 (h, w, 1 or 3) of raw data (N, *event), laid out row by row; None for no picture.

        Args:
            raw: the data.
            columns: of the layout; by default about as many as rows.
        """

    def save_picture(self, path: Path, picture: np.ndarray) -> None:
        """Writes a PNG of what `picture` returns, small data enlarged."""
        pictures.save(path, picture, self.tile)
