"""What every source of images is: N examples behind one interface, whether they lie in memory or are read when asked for.

    batch = source.gather(indices)      # {"image": uint8 (B, H, W, C), "label": int32 (B,)}; fresh arrays

A source knows no order, epoch, worker or host: those are the pipeline's. One that reads its images anew at every `gather`
(from files, from records) can be pickled, and worker processes get it as a list of names and not as pixels.
"""

import abc
import hashlib
import itertools
from dataclasses import dataclass

import numpy as np

from experiments.data.digests import content_fingerprint, digest, identities_of, stack_digests
from experiments.data.sources.names import class_title


class Source(abc.ABC):
    """N images of one shape and, perhaps, their classes, to be had by index.

    Attributes:
        image_shape: (H, W, C) of every image, C being 1 for grey levels, 3 for RGB and 4 for RGB multiplied by alpha, and
            alpha; of arrays of numbers, their event shape.
        labels: int32 (N,), classes numbered from 0; or None. They lie in memory in every source: 4 bytes each.
    """

    image_shape: tuple[int, int, int]
    labels: np.ndarray | None

    @abc.abstractmethod
    def __len__(self) -> int:
        """N."""

    @abc.abstractmethod
    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """The images uint8 (B, H, W, C) at `indices`, integers (B,) in [0, N), in an array of the caller's own.

        Raises:
            UserError: an image cannot be read; the message names it.
        """

    @abc.abstractmethod
    def take(self, indices: np.ndarray) -> "Source":
        """The source of the images at `indices` (numbers, or bool (N,)) alone; of those that are read anew, reads none."""

    @abc.abstractmethod
    def identities(self) -> np.ndarray:
        """uint64 (N,): a hash of what each example is, whatever its place; it decides the split (`splits`)."""

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """`METHOD:HEX`, another one for other images, another order or other labels; the same on every machine.

        `sha256:` is of every pixel; it is the same whatever kind of source the images come from. `names-and-sample:` is
        of the names, labels and preprocessing of all images, and of the content of a fixed sample of the files: what can be
        had in seconds where reading everything takes hours. (It would not notice a change of the content of few files
        under their old names; `prepare` makes records with the full hash.) `files:` is of the contents of all files.
        """

    def digests(self) -> np.ndarray | None:
        """uint8 (N, 16), a digest of each image's pixels, where they are known without reading files; else None."""
        return None

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
        return Images(self.pixels(np.arange(len(self))), self.labels, self)


@dataclass
class Images(Source):
    """Images that lie in memory.

    Attributes:
        images: uint8 (N, H, W, C), grey levels or RGB in 0..255; or float32 (N, *event), arrays of numbers.
        labels: int32 (N,), classes numbered from 0; or None.
        origin: the source they were read from, which gives the identities and the fingerprint; None: their content does.
    """

    images: np.ndarray
    labels: np.ndarray | None = None
    origin: Source | None = None

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
        labels = None if self.labels is None else self.labels[indices]
        return Images(self.images[indices], labels, None if self.origin is None else self.origin.take(indices))

    def in_memory(self) -> "Images":
        """Itself."""
        return self

    def digests(self) -> np.ndarray:
        """uint8 (N, 16), a digest of each image's pixels."""
        return stack_digests([digest(np.ascontiguousarray(image)) for image in self.images])

    def identities(self) -> np.ndarray:
        """Those of where they were read from; else hashes of the pixels, so that equal images are one."""
        return identities_of(self.digests()) if self.origin is None else self.origin.identities()

    def fingerprint(self) -> str:
        """That of where they were read from; else of all pixels and labels."""
        if self.origin is not None:
            return self.origin.fingerprint()
        return content_fingerprint(self.image_shape, self.digests(), self.labels)


@dataclass(frozen=True)
class Parts:
    """What a kind of source gives: its own splits, or everything undivided.

    Attributes:
        sources: {"all": everything}; or {"train": ..., "test": ..., "validation": ...}, the splits that it has.
        class_names: by number; None without classes or names.
        left_out: what the source has and is not read, with the reason; a text for each kind.
        warnings: names that look like splits, classes or labels and are not used, and the like; a line each.
    """

    sources: dict[str, Source]
    class_names: tuple[str, ...] | None = None
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 without labels."""
        largest = max(
            (int(s.labels.max(initial=-1)) for s in self.sources.values() if s.labels is not None), default=-1
        )
        return max(largest + 1, len(self.class_names or ()))


@dataclass
class Dataset:
    """The splits of one source; no image is in two of them.

    Attributes:
        name: the source as the config names it.
        train: what the model learns from.
        validation: for choices (of checkpoints, of settings); empty unless the source or the config sets it apart.
        test: held out to the end.
        num_classes: number of classes, 0 without labels; all splits have labels, or none has.
        class_names: by number; None without classes or names.
        by_hash: the splits that a hash of each image decides, not the source.
        left_out, warnings: as of `Parts`.
    """

    name: str
    train: Source
    validation: Source
    test: Source
    num_classes: int
    class_names: tuple[str, ...] | None = None
    by_hash: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def splits(self) -> dict[str, Source]:
        """The three splits by name; validation may be empty."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def class_counts(self, split: str = "train") -> dict[int, int]:
        """Images of each class that has any in a split, by class number; empty without labels."""
        labels = self.splits[split].labels
        if labels is None:
            return {}
        classes, counts = np.unique(labels, return_counts=True)
        return dict(zip(classes.tolist(), counts.tolist(), strict=True))

    def untrained_classes(self) -> tuple[list[int], int]:
        """The first classes (at most 1,000) that have no training image, and the number of all of them."""
        present = self.class_counts("train")
        missing = (number for number in range(self.num_classes) if number not in present)
        return list(itertools.islice(missing, 1000)), self.num_classes - len(present)

    def class_name(self, number: int) -> str:
        """A class in messages: its name, with its number where the name does not say it."""
        name = None if self.class_names is None else self.class_names[number]
        return class_title(number, name)

    def fingerprint(self) -> str:
        """One fingerprint of the three splits, of the method of theirs; see `Source.fingerprint`."""
        parts = [self.train.fingerprint(), self.validation.fingerprint(), self.test.fingerprint()]
        return f"{parts[0].partition(':')[0]}:{hashlib.sha256(' '.join(parts).encode()).hexdigest()}"
