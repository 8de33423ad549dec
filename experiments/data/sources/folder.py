"""`folder:PATH`: image files of any of Pillow's common formats, in sub-folders too.

Splits and classes are those of a table in the folder, `metadata.csv` or `metadata.jsonl` (`metadata`), or else of the names
of its sub-folders (`layout`). Which files are found, and which are not read, says `tree`.

The identity of an image is its path within the folder, by which it stays in its split when others come and go.
"""

import contextlib
import itertools
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from experiments.data.digests import digest, identities_of, stack_digests
from experiments.data.sources import layout as layouts
from experiments.data.sources import metadata, tables
from experiments.data.sources.base import Parts
from experiments.data.sources.decoding import CHANNELS, IMAGE_SUFFIXES, Wanted
from experiments.data.sources.names import listed
from experiments.data.sources.paths import existing
from experiments.data.sources.reading import Encoded
from experiments.data.sources.tree import ARCHIVES, EXAMPLES, walk
from experiments.errors import UserError

FRAMES = (".gif", ".tif", ".tiff", ".webp")
LOOKED_AT = 1000  # files whose frames are counted
COMPARED = 10  # files whose channels are compared
MOST_CHROMA = 8  # levels between the channels of a grey picture, which JPEG's rounding makes


class Files(Encoded):
    """Image files in a folder.

    Args:
        folder: that the paths begin at.
        files: N paths within it.
        labels, wanted: see `Encoded`.
    """

    def __init__(self, folder: Path, files: np.ndarray, labels: np.ndarray | None, wanted: Wanted):
        super().__init__(wanted, labels)
        self.folder = folder
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        """The file's path."""
        return str(self.folder / self.files[index])

    def content(self, index: int) -> bytes:
        """The file's bytes."""
        return _content(self.folder / self.files[index])

    def take(self, indices: np.ndarray) -> "Files":
        """The files at `indices`."""
        labels = None if self.labels is None else self.labels[indices]
        return Files(self.folder, self.files[indices], labels, self.wanted)

    def identities(self) -> np.ndarray:
        """Of the paths within the folder."""
        return identities_of(stack_digests([digest(os.fsencode(file)) for file in self.files]))


def load(text: str, wanted: Wanted) -> Parts:
    """Image files of a folder and its sub-folders, of which this reads the first alone.

    Raises:
        UserError: there are none, the first is not an image, or the table is wrong.
    """
    folder = existing(text)
    if not folder.is_dir():
        suffix, hint = folder.suffix.lower(), "name a folder of image files"
        if suffix == ".npz":
            hint = f"did you mean 'npz:{folder}'?"
        elif suffix in ARCHIVES:
            hint = "unpack it"
        elif suffix in IMAGE_SUFFIXES:
            hint = f"name the folder that holds it: 'folder:{folder.parent}'"
        raise UserError(f"data.source: {folder} is a file, not a folder; {hint}")
    if wanted.num_channels not in (*CHANNELS, None):
        raise UserError(f"data.num_channels={wanted.num_channels} is not allowed for image files: choose 1, 3 or 4")
    tree = walk(folder)
    if table := tables.find(folder):
        layout = metadata.read(table, tree, wanted.class_order)
    elif tree.images:
        layout = layouts.of_tree(tree, wanted.class_order)
    else:
        found = f"; there are {'; '.join(tree.left_out())}" if tree.left_out() else ""
        raise UserError(f"data.source: {folder} holds no image files ({' '.join(IMAGE_SUFFIXES)}){found}")
    metadata.warn_of_tables(layout, tree)
    if several := with_frames(folder, layout.files):
        layout.warnings.append(
            f"files with several frames or pages, whose first alone is used: {len(several):,} ({listed(several, EXAMPLES)})"
        )
    if wanted.num_channels == 1 and (coloured := in_colour(folder, layout.files)):
        layout.warnings.append(
            f"pictures in colour become grey (data.num_channels=1): {len(coloured):,} of the first "
            f"{min(len(layout.files), COMPARED)} ({listed(coloured, EXAMPLES)}); data.num_channels=3 keeps colours"
        )
    files = [str(file) for file in layout.files]
    wanted = wanted.of_first(_content(folder / files[0]), folder / files[0])
    everything = Files(folder, np.array(files, object), layout.labels, wanted)
    sources = {"all": everything}
    if layout.parts is not None:
        parts = np.array(layout.parts)
        sources = {part: everything.take(parts == part) for part in dict.fromkeys(layout.parts)}
    return Parts(sources, layout.class_names, layout.left_out, tuple(layout.warnings))


def with_frames(folder: Path, files: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    """The files with more than one frame or page, among the first 1,000 of the formats that have them."""
    several = []
    for file in itertools.islice((file for file in files if file.suffix.lower() in FRAMES), LOOKED_AT):
        with (
            contextlib.suppress(Exception),
            Image.open(folder / file) as image,
        ):  # what is damaged is named when decoded
            if getattr(image, "n_frames", 1) > 1:
                several.append(file)
    return several


def in_colour(folder: Path, files: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    """The files among the first `COMPARED` with visible pixels that are not grey."""
    coloured = []
    for file in itertools.islice(files, COMPARED):
        with contextlib.suppress(Exception), Image.open(folder / file) as image:  # named when decoded
            image.draft("RGB", (256, 256))
            levels = np.asarray(image.convert("RGBA"), np.int16)
            if np.ptp(levels[..., :3][levels[..., 3] > 0], axis=1).max(initial=0) > MOST_CHROMA:
                coloured.append(file)
    return coloured


def image_files(folder: Path) -> list[PurePosixPath]:
    """Paths of the image files, relative to `folder` and sorted, each real file once, without hidden files and folders."""
    return walk(folder).images


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"data.source: {path} cannot be read as an image ({error.strerror})") from error


# By the name that a config gives, with the form of data.source.
SOURCES = {"folder": (load, "folder:PATH")}
