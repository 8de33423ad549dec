"""What every source of images is: N examples behind one interface, whether they lie in memory or are read when asked for.

    batch = source.gather(indices)      # {"image": uint8 (B, H, W, C), "label": int32 (B,)}; fresh arrays

A source knows no order, epoch, worker or host: those are the pipeline's. What is read anew at every `gather` (files, records)
can be pickled, so that worker processes get it as a list of names and not as pixels.
"""

import abc
from dataclasses import dataclass

import numpy as np


class Source(abc.ABC):
    """N images of one shape and, perhaps, their classes, to be had by index.

    Attributes:
        image_shape: (H, W, C) of every image; C is 1 for grey levels and 3 for RGB.
        labels: int32 (N,), classes numbered from 0; or None. They lie in memory in every source: 4 bytes each.
    """

    image_shape: tuple[int, int, int]
    labels: np.ndarray | None

    @abc.abstractmethod
    def __len__(self) -> int:
        """N."""

    @abc.abstractmethod
    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """The images uint8 (B, H, W, C) at `indices` (B,), in 0..255, in an array of the caller's own.

        Raises:
            UserError: an image cannot be read; the message names it.
        """

    @abc.abstractmethod
    def take(self, indices: np.ndarray) -> "Source":
        """The source of the images at `indices` (numbers, or bool (N,)) alone; reads none of them."""

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The examples at `indices`, integers (B,) in [0, N): `{"image": uint8 (B, H, W, C), "label": int32 (B,)}`.

        `"label"` is absent where the source has none. The arrays are fresh: writing to them changes no data.

        Raises:
            UserError: an image cannot be read; the message names it.
        """
        indices = np.asarray(indices)
        batch = {"image": self.pixels(indices)}
        if self.labels is not None:
            batch["label"] = self.labels[indices]
        return batch

    def in_memory(self) -> "Images":
        """All N images, read now."""
        return Images(self.pixels(np.arange(len(self))), self.labels)


@dataclass
class Images(Source):
    """Images that lie in memory.

    Attributes:
        images: uint8 (N, H, W, C), grey levels or RGB in 0..255.
        labels: int32 (N,), classes numbered from 0; or None.
    """

    images: np.ndarray
    labels: np.ndarray | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of every image."""
        return self.images.shape[1:]

    def __len__(self) -> int:
        return len(self.images)

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """The images at `indices`: one copy by numpy."""
        return self.images[indices]

    def take(self, indices: np.ndarray) -> "Images":
        """The images, with their labels, at `indices` (a numpy index)."""
        return Images(self.images[indices], None if self.labels is None else self.labels[indices])

    def in_memory(self) -> "Images":
        """Itself."""
        return self


@dataclass
class Dataset:
    """Training and held-out test images of one source.

    Attributes:
        name: the source as the config names it.
        train, test: the two splits; both have labels, or neither has.
        num_classes: number of classes, 0 without labels.
    """

    name: str
    train: Source
    test: Source
    num_classes: int
