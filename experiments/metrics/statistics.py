"""What evaluation needs to know of real images: the moments of their features, some features, and whose they are.

A file of statistics says of which images it is (`images`), in which features and after which preprocessing. A figure against
statistics of other images or features would look like any other, so a mismatch is refused.

    statistics = compute_statistics(blocks_of_images, network)
    statistics.save("cifar10_train.npz")
    Statistics.load("cifar10_train.npz")

Computed once for a data set, such a file serves all runs on it (`evaluation.statistics`).
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
KEPT = 10_000  # features kept beside the moments


def spread(count: int, limit: int) -> np.ndarray:
    """The numbers of at most `limit` of `count` things, rising: one at random of each of so many equal parts of them.

    They are the same in every run. Data sets are often sorted by class, so that the first ones would not do, or have two
    sources in turns, as MNIST's training images, so that every twelfth would be of one source.
    """
    kept = min(count, limit)
    edges = np.arange(kept + 1) * count // max(kept, 1)
    return np.random.default_rng(0).integers(edges[:-1], edges[1:])


class ImageHash:
    """The hash of a set of images, whatever their order and however they are divided into blocks.

    It is the sum of the SHA-256 of each image, so that shards may be read in any order, or by several processes.
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
        """64 hexadecimal digits."""
        return hashlib.sha256(f"{self._count} {self._sum:064x}".encode()).hexdigest()


def image_hash(images: np.ndarray) -> str:
    """The `ImageHash` of images uint8 (N, H, W, C)."""
    hashed = ImageHash()
    hashed.update(images)
    return hashed.hexdigest()


@dataclass(frozen=True)
class Statistics:
    """Statistics of the features of images.

    Attributes:
        network: the feature network's name.
        sha256: of its weights.
        preprocessing: of the images, in words.
        image_shape: (H, W, C).
        images: the images' `ImageHash`.
        fingerprint: of the source that they came from (`data.Source.fingerprint`), which may be had without reading all of
            them; "" where there was none.
        pool: moments of the features (d,).
        spatial: moments of the spatial features, where the network has them; else None.
        features: some of the features (K, d): all, in order, if they were no more than asked for, or a random choice.
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
        """Writes an .npz file, all at once: an interruption leaves no half of one."""
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
        """Reads what `save` wrote. Nothing in the file is executed.

        Raises:
            UserError: there is no such file, or it is something else or damaged.
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
                f"statistics: {path} has no {error.args[0]!r}: `prepare` writes such files; others do not say of which "
                "images and features they are"
            ) from error
        except (ValueError, TypeError, AttributeError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"statistics: {path} is not a file of statistics, or it is damaged") from error

    def check(self, name: str, network: Any) -> None:
        """Makes sure that these are statistics in the features of a network.

        Args:
            name: what to call them in the message: the file.
            network: a feature network.

        Raises:
            UserError: they are in others.
        """
        for what, mine, wanted in (
            ("feature network", self.network, network.name),
            ("preprocessing", self.preprocessing, network.preprocessing),
            ("weights' SHA-256", self.sha256, network.sha256),
        ):
            if mine != wanted:
                raise UserError(f"{name}: its {what} is {mine!r}, not {wanted!r}")

    def check_images(self, name: str, fingerprint: str, blocks: Iterable[np.ndarray]) -> None:
        """Makes sure that these are statistics of certain images.

        Args:
            name: as in `check`.
            fingerprint: of the source of the images; where it is that of the statistics, no image is read.
            blocks: the images (N, H, W, C) in blocks, in any order.

        Raises:
            UserError: they are of others.
        """
        if fingerprint and fingerprint == self.fingerprint:
            return
        found = ImageHash()
        for block in blocks:
            found.update(block)
        if found.hexdigest() != self.images:
            raise UserError(
                f"{name}: it is of other images (hash {self.images[:12]}) than those to compare with (hash "
                f"{found.hexdigest()[:12]})"
            )


def compute_statistics(
    images: Iterable[np.ndarray], network: Any, keep: int = KEPT, fingerprint: str = ""
) -> Statistics:
    """The statistics of images in the features of a network; no more than one block of images is in memory.

    Args:
        images: blocks uint8 (N, H, W, C), such as batches, all of one image shape.
        network: a feature network (`experiments/metrics/feature_networks.py`).
        keep: how many features to keep beside the moments: those of all images, or else of a random choice, which is the
            same each time.
        fingerprint: of the source that the images come from, if they do: it saves reading them to compare their hash.

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
    """Adds a block to the moments in a list of one or none."""
    if features is not None:
        total[:] = [Moments.merge([*total, Moments.of(features)])]


class _Reservoir:
    """Keeps rows of a stream of unknown length: each with the same probability, in their order while there is room.

    Source: Vitter (1985), https://doi.org/10.1145/3147.3165, algorithm R.
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
