"""Splits and classes by the names of a folder's sub-folders, and warnings for names that look like either and are not used.

- `train` with `test` or `validation` (`valid`, `val`, `dev`), or `train` alone and everything in it: the splits. Images
  outside of them belong to no split; they are left out, and named.
- two or more sub-folders that hold all images (of all splits): classes, in natural order.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np

from experiments.data.sources.names import ORDERS, counted, listed, quoted
from experiments.data.sources.tree import EXAMPLES, Tree, folders_of

SPLITS = {"train": "train", "test": "test", "validation": "validation", "valid": "validation", "val": "validation",
          "dev": "validation"}  # fmt: skip
# Folders of images and of what belongs to each of them.
PAIRS = {"images", "image", "imgs", "img", "labels", "label", "masks", "mask", "annotations", "gt", "targets"}
_KIND = r"(train|test|valid|val|dev|eval)"
_LIKE_SPLIT = re.compile(
    rf"{_KIND}(ing|ation|uation|set|ed)?(|[^a-z].*|[ab]|images?|imgs?|pics?|data|set|split)|"
    rf"(images?|imgs?|data|set|split)?[^a-z]*{_KIND}(ing|ation|uation)?"
)


@dataclass
class Layout:
    """The images of a folder, with their classes and splits.

    Attributes:
        files: N paths that are used.
        labels: int32 (N,), or None.
        class_names: by number, or None.
        parts: the split of each, or None where there are no splits.
        left_out: what is not read, by ending and reason.
        warnings: names that look like splits, classes or labels and are not used; a line each.
    """

    files: list[PurePosixPath]
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    parts: list[str] | None = None
    left_out: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)


def looks_like_split(name: str) -> str:
    """The kind of split that a name resembles (`Train`, `test_images`, `val2017`), or an empty text."""
    match = _LIKE_SPLIT.fullmatch(name.lower())
    return (match[1] or match[5])[:3] if match else ""


def split_like(names: Sequence[str]) -> list[str]:
    """Those of the names that look like splits: two kinds, or one among few names (`train` may be a class of vehicles)."""
    alike = {name: kind for name in names if (kind := looks_like_split(name))}
    return list(alike) if len(set(alike.values())) > 1 or len(names) <= 2 else []


def of_tree(tree: Tree, order: str) -> Layout:
    """Splits and classes from the names of the sub-folders.

    Args:
        tree: with at least one image.
        order: of class names, one of `names.ORDERS`.
    """
    tops = folders_of(tree.images)
    loose = [path for path in tree.images if len(path.parts) == 1]
    splits = [top for top in tops if top in SPLITS]
    if "train" in splits and (len(splits) > 1 or (len(tops) == 1 and not loose)):
        layout = _of_splits(tree, splits, order)
    else:
        layout = Layout(list(tree.images))
        layout.labels, layout.class_names = _classes(tree.images, order)
        if alike := split_like(tops):
            use = "are classes" if layout.class_names else "are not used"
            layout.warnings.append(
                f"folders that look like splits {use}: {listed(alike)}; splits are folders of the names train, test and "
                f"validation{_instead(alike)}"
            )
        if layout.class_names and (pair := [name for name in tops if name.lower() in PAIRS]) and len(pair) > 1:
            layout.warnings.append(
                f"folders that look like images and their labels are classes: {listed(pair)}; name the folder of the images "
                "as the source"
            )
        _warn_of_classes(layout, tree.images, "")
    layout.left_out += tree.left_out()
    _warn_of_empty_folders(layout, tree)
    if links := sorted(path for path in tree.repeated_folders if len(path.parts) == 1):
        layout.warnings.append(f"folders that are links to what is read already are not used: {listed(links)}")
    return layout


def _of_splits(tree: Tree, splits: list[str], order: str) -> Layout:
    files = [path for path in tree.images if path.parts[0] in splits and len(path.parts) > 1]
    outside = [path for path in tree.images if path.parts[0] not in splits or len(path.parts) == 1]
    inside = [path.relative_to(path.parts[0]) for path in files]
    layout = Layout(files, parts=[SPLITS[path.parts[0]] for path in files])
    layout.labels, layout.class_names = _classes(inside, order)
    if outside:
        where = listed([path if len(path.parts) == 1 else f"{path.parts[0]}/" for path in outside[:1]] + [
            f"{top}/" for top in folders_of(outside)[:EXAMPLES] if top != outside[0].parts[0]
        ])  # fmt: skip
        layout.left_out += (f"{counted(len(outside), 'image')} outside of the splits ({where})",)
        layout.warnings.append(
            f"images outside of the folders {', '.join(splits)} belong to no split and are not used: "
            f"{counted(len(outside), 'image')} ({where}); move them into one"
        )
    _warn_of_classes(layout, inside, f" in {', '.join(splits)}")
    return layout


def _classes(files: Sequence[PurePosixPath], order: str) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    """Class numbers int32 (N,) and names, by the first sub-folder of each path; None unless two or more hold all files."""
    names = ORDERS[order](file.parts[0] for file in files)
    if len(names) < 2 or any(len(file.parts) == 1 for file in files):
        return None, None
    number = {name: i for i, name in enumerate(names)}
    return np.array([number[file.parts[0]] for file in files], np.int32), tuple(names)


def _warn_of_classes(layout: Layout, files: Sequence[PurePosixPath], where: str) -> None:
    """Adds warnings for sub-folders that could be classes, for paths as `_classes` takes them."""
    tops, loose = folders_of(files), [path for path in files if len(path.parts) == 1]
    if layout.class_names is None and len(tops) > 1:
        outside = f"{counted(len(loose), 'image')} ({listed(sorted(loose), EXAMPLES)})"
        layout.warnings.append(
            f"folders that look like classes{where} are not used: {listed(tops)}; outside of them: {outside}; move these "
            "into one"
        )
    elif layout.class_names is None and tops:
        inner = folders_of([path.relative_to(tops[0]) for path in files if len(path.parts) > 1])
        if len(inner) > 1 and not loose:
            layout.warnings.append(
                f"folders that look like classes or splits are not used: {listed(inner)}; all images lie in "
                f"{quoted(tops[0])}: name that folder as the source"
            )
        elif not loose:
            layout.warnings.append(
                f"all images{where} lie in the one folder {quoted(tops[0])}: classes need two or more"
            )
        return
    deep = sorted({"/".join(path.parts[:2]) for path in files if len(path.parts) > 2}, key=lambda text: text.split("/"))
    parents = [text.split("/")[0] for text in deep]
    if layout.class_names and len(set(parents)) < len(parents):
        layout.warnings.append(
            f"folders within classes are not classes: {listed(deep, EXAMPLES)}; the classes are the first folders, "
            f"{listed(layout.class_names, EXAMPLES)}"
        )


def _warn_of_empty_folders(layout: Layout, tree: Tree) -> None:
    """Adds a warning for folders without images where classes or splits would be."""
    parents = {path.parent for path in tree.images}
    holding = {folder for parent in parents for folder in (parent, *parent.parents)}
    tops = {PurePosixPath(path.parts[0]) for path in layout.files} if layout.parts else set()
    empty = [path for path in tree.folders if path.parent in {PurePosixPath()} | tops and path not in holding]
    if layout.parts:  # a class may have no image in some split
        classes = set(layout.class_names or ())
        empty = [path for path in empty if len(path.parts) == 1 or path.name not in classes]
    if empty:
        layout.warnings.append(
            f"folders without images that are read, which are no classes or splits: {listed(sorted(empty))}"
        )


def _instead(alike: Sequence[str]) -> str:
    """Returns the remedy for folders that look like splits and are not used: new names, and the folder that is missing."""
    kinds = {"tra": "train", "tes": "test", "val": "validation", "dev": "validation", "eva": "validation"}
    names = {name: kinds[looks_like_split(name)] for name in alike}
    renamed = [f"{quoted(name)} to {kind}" for name, kind in names.items() if name not in SPLITS]
    remedy = f": rename {listed(renamed)}" if renamed else ""
    if "train" not in names.values():
        return f"{remedy}; train is missing"
    return remedy or "; train needs test or validation next to it"
