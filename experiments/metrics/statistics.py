"""Feature statistics of real images for evaluations: moments of the features, a subset of the features, their origin.

A file of statistics identifies its images (`images`), the feature network and the preprocessing. A distance to
statistics of other images or features would look plausible, so a mismatch raises an error.

    statistics = compute_statistics(blocks_of_images, network)
    statistics.save("cifar10_train.npz")
    Statistics.load("cifar10_train.npz")

A file is computed once for a data set and shared by all runs on it (`evaluation.statistics`).
"""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from experiments.errors import UserError, nearest
from experiments.files import replace_file
from experiments.metrics.moments import Moments

VERSION = 1
KEPT = 10_000  # maximum number of features stored in addition to the moments


def spread(count: int, limit: int) -> np.ndarray:
    """Returns min(count, limit) increasing indices below `count` by stratified random sampling: one per equal part.

    The indices are equal in every run. Random indices are needed because the first images or equally spaced images may
    not be representative: many data sets are sorted by class, and MNIST's training images alternate between two
    sources.
    """
    kept = min(count, limit)
    edges = np.arange(kept + 1) * count // max(kept, 1)
    return np.random.default_rng(0).integers(edges[:-1], edges[1:])


class ImageHash:
    """Hash of a set of images, independent of their order and of their division into blocks.

    It is a hash of the sum of the SHA-256 of all images, so shards may be read in any order.
    """

    def __init__(self):
        self._sum, self._count = 0, 0

    def update(self, images: np.ndarray) -> None:
        """Adds images uint8 (N, H, W, C)."""
        shape = str(images.shape[1:]).encode()
        for image in images:
            digest = hashlib.sha256(shape + np.ascontiguousarray(image).tobytes()).digest()
            self._sum = (self._sum + int.from_bytes(digest)) % 2**256
        self._count += len(images)

    def hexdigest(self) -> str:
        """Returns the hash as 64 hexadecimal digits."""
        return hashlib.sha256(f"{self._count} {self._sum:064x}".encode()).hexdigest()


def image_hash(images: np.ndarray) -> str:
    """Returns the `ImageHash` of images uint8 (N, H, W, C)."""
    hashed = ImageHash()
    hashed.update(images)
    return hashed.hexdigest()


@dataclass(frozen=True)
class Statistics:
    """Statistics of the features of images.

    Attributes:
        network: name of the feature network.
        sha256: SHA-256 of the weights of the network.
        preprocessing: description of the preprocessing.
        image_shape: (H, W, C).
        images: `ImageHash` of the images.
        fingerprint: fingerprint of the source of the images (`data.Source.fingerprint`), which can be computed without
            reading all images; "" if there is none.
        pool: moments of the features (d,).
        spatial: moments of the spatial features; None if the network has none.
        features: all features (K, d) in order if there are no more than the maximum number, else a random subset.
    """

    network: str
    sha256: str
    preprocessing: str
    image_shape: tuple[int, int, int]
    images: str
    fingerprint: str
    pool: Moments
    spatial: Moments | None
    features: np.ndarray

    @property
    def count(self) -> int:
        """The number of images."""
        return self.pool.count

    def save(self, path: str | Path) -> None:
        """Writes an .npz file, atomically."""
        path = Path(path)
        arrays = {"features": self.features, "count": self.count}
        for name, moments in (("", self.pool), ("spatial_", self.spatial)):
            if moments is not None:
                arrays |= {f"{name}mean": moments.mean, f"{name}covariance": moments.covariance}
        with replace_file(path) as file:
            np.savez(file, about=json.dumps(self._about()), **arrays)

    def _about(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "network": self.network,
            "sha256": self.sha256,
            "preprocessing": self.preprocessing,
            "image_shape": list(self.image_shape),
            "images": self.images,
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads a file of `save`. Pickled objects are not loaded, so no code in the file is executed.

        Raises:
            UserError: the file does not exist, is damaged, or is not a file of statistics.
        """
        path = Path(path).expanduser()
        if not path.is_file():
            siblings = [entry.name for entry in path.parent.glob("*.npz")] if path.parent.is_dir() else []
            raise UserError(f"statistics: {path} does not exist{nearest(path.name, siblings)}")
        try:
            with np.load(path, allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                if about["version"] != VERSION:
                    raise UserError(f"statistics: {path} is of version {about['version']}; {VERSION} is read here")
                count = int(file["count"])
                return cls(
                    network=about["network"],
                    sha256=about["sha256"],
                    preprocessing=about["preprocessing"],
                    image_shape=tuple(about["image_shape"]),
                    images=about["images"],
                    fingerprint=about["fingerprint"],
                    pool=Moments.of_covariance(count, file["mean"], file["covariance"]),
                    spatial=Moments.of_covariance(count, file["spatial_mean"], file["spatial_covariance"])
                    if "spatial_mean" in file.files
                    else None,
                    features=file["features"],
                )
        except KeyError as error:
            raise UserError(
                f"statistics: {path} has no {error.args[0]!r}: only files of `prepare` are supported; other files do "
                "not identify their images and features"
            ) from error
        except (ValueError, TypeError, AttributeError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"statistics: {path} is not a file of statistics, or it is damaged") from error

    def check(self, name: str, network: Any) -> None:
        """Checks that the statistics were computed with the given feature network.

        Args:
            name: name of the statistics in the message, such as the file.
            network: the expected feature network.

        Raises:
            UserError: network, preprocessing or weights differ.
        """
        for what, stored, expected in (
            ("feature network", self.network, network.name),
            ("preprocessing", self.preprocessing, network.preprocessing),
            ("weights' SHA-256", self.sha256, network.sha256),
        ):
            if stored != expected:
                raise UserError(f"{name}: its {what} is {stored!r}, not {expected!r}")

    def check_images(self, name: str, fingerprint: str, blocks: Iterable[np.ndarray]) -> None:
        """Checks that the statistics are those of the given images.

        Args:
            name: as in `check`.
            fingerprint: fingerprint of the source of the images; if it equals that of the statistics, no image is read.
            blocks: the images (N, H, W, C) in blocks, in any order.

        Raises:
            UserError: the statistics are of other images.
        """
        if fingerprint and fingerprint == self.fingerprint:
            return
        actual = ImageHash()
        for block in blocks:
            actual.update(block)
        if actual.hexdigest() != self.images:
            raise UserError(
                f"{name}: it is of other images (hash {self.images[:12]}) than those to compare with (hash "
                f"{actual.hexdigest()[:12]})"
            )


def compute_statistics(
    images: Iterable[np.ndarray], network: Any, keep: int = KEPT, fingerprint: str = ""
) -> Statistics:
    """Computes the statistics of images in the features of a network, with only one block of images in memory.

    Args:
        images: blocks uint8 (N, H, W, C), such as batches, all with the same image shape.
        network: a feature network (`experiments/metrics/feature_networks.py`).
        keep: maximum number of features to store in addition to the moments; of more images, a random subset, which is
            equal in every run.
        fingerprint: fingerprint of the source of the images, if any; with it, `check_images` need not read the images.

    Raises:
        UserError: there are no images.
    """
    hashed, shape = ImageHash(), None
    pool, spatial, reservoir = [], [], _Reservoir(keep)
    for block in images:
        if not len(block):
            continue
        shape = shape or block.shape[1:]
        hashed.update(block)
        features = network(block)
        reservoir.add(features["pool"])
        _add(pool, features["pool"])
        _add(spatial, features.get("spatial"))
    if shape is None:
        raise UserError("statistics: there are no images")
    return Statistics(
        network=network.name,
        sha256=network.sha256,
        preprocessing=network.preprocessing,
        image_shape=tuple(shape),
        images=hashed.hexdigest(),
        fingerprint=fingerprint,
        pool=pool[0],
        spatial=spatial[0] if spatial else None,
        features=reservoir.features(),
    )


def _add(total: list[Moments], features: np.ndarray | None) -> None:
    """Adds the moments of a block to `total`, a list of no or one moments."""
    if features is not None:
        total[:] = [Moments.merge([*total, Moments.of(features)])]


class _Reservoir:
    """Reservoir sampling: a uniform random subset of the rows of a stream of unknown length.

    As long as the reservoir is not full, it has all rows in order. Source: Vitter (1985),
    https://doi.org/10.1145/3147.3165, algorithm R.
    """

    def __init__(self, size: int):
        self._size, self._seen, self._rows = size, 0, []
        self._draws = np.random.default_rng(0)

    def add(self, rows: np.ndarray) -> None:
        room = max(self._size - self._seen, 0)
        self._rows += [row.copy() for row in rows[:room]]
        for number, row in enumerate(rows[room:], self._seen + min(room, len(rows)) + 1):
            place = self._draws.integers(number)
            if place < self._size:
                self._rows[place] = row.copy()
        self._seen += len(rows)

    def features(self) -> np.ndarray:
        return np.stack(self._rows) if self._rows else np.empty((0, 0))
