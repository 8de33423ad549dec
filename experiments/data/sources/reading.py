"""Sources that make their pixels when asked: from encoded files, or by cropping those of another source."""

import abc
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from experiments.config import sizes
from experiments.data.sources.base import Images, Source
from experiments.data.sources.cropping import center_crop
from experiments.data.sources.decoding import PILLOW_MODES, Wanted

# Pillow lets go of the interpreter lock while it decodes, and files are waited for.
THREADS = 2 * (os.cpu_count() or 1)
SAMPLE = 1024  # files whose content the fingerprint is of
RENDERED = b"upright, over the background"


class Encoded(Source):
    """Image files (in a folder, in a table), decoded by several threads at each `gather`.

    Args:
        wanted: the pixels to make; nothing is left open in it.
        labels: int32 (N,) or None.

    Attributes:
        content_is_identity: whether the identities are hashes of the files' contents.
    """

    content_is_identity = False

    def __init__(self, wanted: Wanted, labels: np.ndarray | None):
        self.wanted = wanted
        self.labels = labels
        self.image_shape = (*wanted.image_size, wanted.num_channels)

    @abc.abstractmethod
    def name(self, index: int) -> str:
        """The name of a file, for messages."""

    @abc.abstractmethod
    def content(self, index: int) -> bytes:
        """The bytes of a file.

        Raises:
            UserError: it cannot be read.
        """

    def _decoded(self, indices: np.ndarray, threads: ThreadPoolExecutor) -> Iterator[np.ndarray]:
        return threads.map(lambda i: self.wanted.decode(self.content(i), self.name(i)), map(int, indices))

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """Decodes the images at `indices`; the first bad one, in their order, ends it with its name."""
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        show = len(indices) == len(self)  # what is read in one go, at the start, can take minutes
        with ThreadPoolExecutor(min(THREADS, max(len(indices), 1))) as threads:
            decoded = self._decoded(indices, threads)
            try:
                progress = tqdm(decoded, "decoding images", len(indices), unit=" images", delay=2, disable=not show)
                for i, image in enumerate(progress):
                    images[i] = image
            except BaseException:
                threads.shutdown(cancel_futures=True)
                raise
        return images

    def in_memory(self) -> Images:
        """All images, decoded now."""
        if len(self):
            self.pixels(np.arange(1))  # before the memory: most faults are every file's
        return super().in_memory()

    def fingerprint(self) -> str:
        """Of the identities, labels and preprocessing of all, and of the content of the 1,024 files of least identity.

        Where the identities are of the files' contents: `files:`, which is of them all. A file of these 1,024 that is turned
        upright or composited counts as `RENDERED`: its pixels are other than those that earlier versions made of it.
        """
        identities = self.identities()
        preprocessing = f"{self.wanted.resize}{self.wanted.rendering.stamp}"
        total = hashlib.sha256(repr((len(self), self.image_shape, preprocessing)).encode())
        total.update(np.ascontiguousarray(identities, "<u8"))
        total.update(b"" if self.labels is None else np.ascontiguousarray(self.labels, "<i4"))
        for index in map(int, np.argsort(identities, kind="stable")[:SAMPLE]):
            content = self.content(index)
            if not self.content_is_identity:
                total.update(hashlib.sha256(content).digest())
            if self.wanted.is_rendered(content, self.name(index)):
                total.update(RENDERED)
        return f"{'files' if self.content_is_identity else 'names-and-sample'}:{total.hexdigest()}"


class CenterCropped(Source):
    """Another source's images, cropped and resized to `size` (height, width) by `center_crop` at each `gather`."""

    def __init__(self, source: Source, size: sizes.Size):
        self.source = source
        self.size = size
        self.labels = source.labels
        self.image_shape = (*size, source.image_shape[2])

    def __len__(self) -> int:
        return len(self.source)

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """Crops the images at `indices`."""
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        for i, image in enumerate(self.source.pixels(indices)):
            images[i] = center_crop(image, self.size)
        return images

    def take(self, indices: np.ndarray) -> "CenterCropped":
        """The images at `indices`."""
        return CenterCropped(self.source.take(indices), self.size)

    def identities(self) -> np.ndarray:
        """Those of the uncropped images."""
        return self.source.identities()

    def fingerprint(self) -> str:
        """Of the uncropped images and the crop."""
        method, _, inner = self.source.fingerprint().partition(":")
        # Earlier versions cropped images of other than 1 or 3 channels, if at all, as colours with alpha.
        crop = "center_crop" if self.image_shape[2] in PILLOW_MODES else "center_crop of bands"
        return f"{method}:{hashlib.sha256(f'{crop} {sizes.written(self.size)} {inner}'.encode()).hexdigest()}"


def cropped(source: Source, wanted: Wanted) -> Source:
    """The source, or where its images have another size than wanted, and may be cropped, their crops."""
    size = wanted.image_size or (min(source.image_shape[:2]),) * 2
    return CenterCropped(source, size) if wanted.crops and size != source.image_shape[:2] else source
