"""The files below a folder, each real one once, and what of them is not read.

Symbolic links are followed, after all that is not a link, but for those to a folder above, which would lead in a circle, and
to files or folders that have been found already. Hidden files and folders (`.name`) and what archive programs add
(`__MACOSX`) are not read.
"""

import os
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from experiments.data.sources.decoding import IMAGE_SUFFIXES
from experiments.data.sources.names import listed

EXAMPLES = 3  # names of files in a message
ENDINGS = 6
OTHER = "not an image by the ending"
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
# Why files of an ending are not read: ending -> reason.
REASONS = {
    **dict.fromkeys(
        (".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".svg", ".psd", ".tga", ".exr", ".hdr", ".ico", ".pcx", ".dds",
         ".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".raf", ".rw2", ".raw", ".jpe", ".jif", ".apng", ".pnm", ".pfm",
         ".dcm", ".nii", ".webp2", ".wp2", ".qoi"),
        "image format that is not read: convert to PNG or JPEG",
    ),
    **dict.fromkeys(ARCHIVES, "archive: unpack it"),
    **dict.fromkeys((".npy", ".npz", ".mat", ".h5", ".hdf5", ".pkl", ".pt"), "arrays: data.source=npz:FILE reads .npz"),
    **dict.fromkeys((".parquet", ".arrow"), "table: data.source=hf:FOLDER reads it"),
    **dict.fromkeys((".array_record", ".tfrecord"), "records: data.source=arrayrecord:FOLDER reads what `prepare` wrote"),
    **dict.fromkeys((".mp4", ".avi", ".mov", ".mkv", ".webm"), "video"),
}  # fmt: skip
ADDED = {"__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir", "lost+found"}  # by archive programs and file managers


@dataclass
class Tree:
    """The files below a folder, as paths within it.

    Attributes:
        images: those with the ending of an image that is read, sorted.
        others: those with other endings.
        folders: all folders that were looked into.
        hidden: image files and folders that are hidden, or added by other programs.
        above: links to a folder above.
        repeated: links to files that are found already.
        repeated_folders: links to folders that are found already.
        broken: links to nothing.
        unreadable: folders without permission, and what is neither file nor folder.
    """

    images: list[PurePosixPath] = field(default_factory=list)
    others: list[PurePosixPath] = field(default_factory=list)
    folders: list[PurePosixPath] = field(default_factory=list)
    hidden: list[PurePosixPath] = field(default_factory=list)
    above: list[PurePosixPath] = field(default_factory=list)
    repeated: list[PurePosixPath] = field(default_factory=list)
    repeated_folders: list[PurePosixPath] = field(default_factory=list)
    broken: list[PurePosixPath] = field(default_factory=list)
    unreadable: list[PurePosixPath] = field(default_factory=list)

    def left_out(self) -> tuple[str, ...]:
        """Texts that name the files that are not read, by ending and reason."""
        by_reason: dict[str, list[str]] = {}
        for ending, count in Counter(path.suffix.lower() for path in self.others).most_common():
            reason = REASONS.get(ending, OTHER)
            by_reason.setdefault(reason, []).append(f"{count:,} {ending or 'without an ending'}")
        texts = [f"{listed(found, ENDINGS)} ({reason})" for reason, found in by_reason.items()]
        for paths, reason in (
            (self.hidden, "hidden, or added by another program"),
            (self.above, "links to a folder above"),
            (self.repeated + self.repeated_folders, "links to what is read already"),
            (self.broken, "links to nothing"),
            (self.unreadable, "cannot be opened"),
        ):
            if paths:
                texts.append(f"{listed(sorted(paths), EXAMPLES)} ({reason})")
        return tuple(texts)


def walk(folder: Path) -> Tree:
    """Finds the files below a folder; opens none."""
    tree, root = Tree(), Path(os.path.realpath(folder))
    above = {root, *root.parents}
    inner, links, met, names = deque([(PurePosixPath(), root)]), deque(), {root}, {}
    linked_files = []
    while inner or links:
        if inner:
            within, real = inner.popleft()
        else:
            within, real, holder = links.popleft()
            if real in above or real in holder.parents:
                tree.above.append(within)
                continue
            if real in met:
                tree.repeated_folders.append(within)
                continue
            met.add(real)
        try:
            with os.scandir(real) as entries:
                entries = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            tree.unreadable.append(within)
            continue
        tree.folders.append(within)
        names[real] = set()
        for entry in entries:
            path = within / entry.name
            if _is_hidden(entry):
                if entry.is_dir(follow_symlinks=False) or _is_image(path):
                    tree.hidden.append(path)
            elif entry.is_symlink():
                target = Path(os.path.realpath(entry.path))
                if target.is_dir():
                    links.append((path, target, real / entry.name))
                else:
                    linked_files.append((path, target))
            elif entry.is_dir(follow_symlinks=False):
                if real / entry.name in met:  # by another link
                    tree.repeated_folders.append(path)
                else:
                    met.add(real / entry.name)
                    inner.append((path, real / entry.name))
            elif entry.is_file(follow_symlinks=False):
                names[real].add(entry.name)
                _add(tree, path)
            elif _is_image(path):
                tree.unreadable.append(path)
    for path, target in sorted(linked_files):
        if not target.is_file():
            tree.broken.append(path)
        elif target.name in names.setdefault(target.parent, set()):
            tree.repeated.append(path)
        else:
            names[target.parent].add(target.name)
            _add(tree, path)
    tree.images.sort(key=lambda path: path.parts)
    return tree


def _add(tree: Tree, path: PurePosixPath) -> None:
    (tree.images if _is_image(path) else tree.others).append(path)


def _is_image(path: PurePosixPath) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _is_hidden(entry: os.DirEntry) -> bool:
    return entry.name.startswith(".") or entry.name in ADDED


def folders_of(paths: Iterable[PurePosixPath]) -> list[str]:
    """The first folders of paths, in the order of texts; paths without a folder have none."""
    return sorted({path.parts[0] for path in paths if len(path.parts) > 1})
