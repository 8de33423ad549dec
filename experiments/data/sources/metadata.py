"""`metadata.csv` or `metadata.jsonl`: a table that gives the images of a folder their classes and splits.

Hugging Face's "imagefolder": a row for each image, with the columns `file_name` (path within the folder) and perhaps `label`
(numbers from 0, or names) and `split` (train, validation, test). Files without a row are not used.
"""

from pathlib import Path, PurePosixPath

import numpy as np

from experiments.data.sources import tables
from experiments.data.sources.layout import SPLITS, Layout, split_like
from experiments.data.sources.names import LARGEST, ORDERS, class_numbers, counted, listed, shown, too_large
from experiments.data.sources.tree import EXAMPLES, Tree, folders_of
from experiments.errors import UserError, nearest

LABEL_LIKE = ("label", "labels", "class", "classes", "category", "target", "class_name", "label_name", "class_id", "y")
SPLIT_LIKE = ("split", "splits", "set", "subset", "partition", "fold", "phase")
TABLE_SUFFIXES = {
    ".csv",
    ".tsv",
    ".json",
    ".jsonl",
    ".txt",
    ".xlsx",
    ".xml",
    ".yaml",
    ".yml",
    ".parquet",
    ".mat",
    ".npy",
    ".npz",
}


def read(path: Path, tree: Tree, order: str) -> Layout:
    """The images that a table lists, in the order of its rows.

    Args:
        path: the table, in the folder of the images.
        tree: of that folder.
        order: of class names, one of `names.ORDERS`.

    Raises:
        UserError: the table is damaged, lacks a column, or has a row that cannot be used.
    """
    columns, rows = tables.read(path, ("file_name", "label", "split"))
    files = _files(path, rows)
    tree.others = [file for file in tree.others if str(file) != path.name]
    layout = Layout(files, left_out=tree.left_out())
    if "label" in columns:
        layout.labels, layout.class_names = _labels(path, rows, order, layout.warnings)
    if "split" in columns:
        layout.parts = _splits(path, rows)
    for column, alike in (("label", LABEL_LIKE), ("split", SPLIT_LIKE)):
        found = [name for name in columns if name and name.strip().lower() in alike]
        if column not in columns and found:
            layout.warnings.append(
                f"{path.name}: the column {listed(found)} looks like a {column} and is not used: name it {column!r}"
            )
    listed_files = set(files)
    unlisted = [image for image in tree.images if image not in listed_files]
    if unlisted:
        layout.left_out += (f"{counted(len(unlisted), 'image')} without a row in {path.name}",)
        layout.warnings.append(
            f"images without a row in {path.name} are not used: {counted(len(unlisted), 'image')} "
            f"({listed(unlisted, EXAMPLES)})"
        )
    tops = folders_of(files)
    if layout.parts is None and (alike := split_like(tops)):
        layout.warnings.append(
            f"folders that look like splits are not used: {listed(alike)}; {path.name} has no column 'split'"
        )
    elif layout.labels is None and len(tops) > 1 and layout.parts is None and all(len(f.parts) > 1 for f in files):
        layout.warnings.append(
            f"folders that look like classes are not used: {listed(tops)}; {path.name} has no column 'label'"
        )
    return layout


def warn_of_tables(layout: Layout, tree: Tree) -> None:
    """Adds a warning for files that look like tables of labels or splits, other than `tables.TABLES` in the folder."""
    words = (
        "metadata",
        "label",
        "class",
        "annot",
        "split",
        "categor",
        "target",
        "train",
        "test",
        "val",
        "attr",
        "meta",
    )
    found = [
        path
        for path in tree.others
        if path.suffix.lower() in TABLE_SUFFIXES
        and any(word in path.stem.lower() for word in words)
        and len(path.parts) <= 2
    ]
    if found:
        layout.warnings.append(
            f"files that look like labels or splits are not read: {listed(found, EXAMPLES)}; "
            f"{' and '.join(tables.TABLES)} with the columns file_name, label, split are"
        )


def _files(path: Path, rows: tables.Rows) -> list[PurePosixPath]:
    files, seen = [], set()
    for place, row in rows:
        name = PurePosixPath(row["file_name"])
        if name.is_absolute() or ".." in name.parts:
            raise UserError(f"data.source: {path}, {place}: file_name={str(name)!r} must be a path within the folder")
        if name in seen:
            raise UserError(f"data.source: {path}, {place}: {name} has a row already")
        if not (path.parent / name).is_file():
            there = [entry.name for entry in (path.parent / name).parent.glob("*")]
            raise UserError(f"data.source: {path}, {place}: {name} does not exist{nearest(name.name, there)}")
        seen.add(name)
        files.append(name)
    return files


def _labels(
    path: Path, rows: tables.Rows, order: str, warnings: list[str]
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Class numbers int32 (N,), as written, or of the names in their order; and those names."""
    texts = [row["label"] for _, row in rows]
    if "" in texts:
        raise UserError(f"data.source: {path}, {rows[texts.index('')][0]} has no label: give all rows one, or none")
    title = f"data.source: {path}: the column 'label'"
    if all(text.isascii() and text.isdecimal() for text in texts):
        numbers = [int(text) if len(text) < 20 else LARGEST + 1 for text in texts]
        if max(numbers) > LARGEST:
            raise too_large(title, max(texts, key=len))
        return np.array(numbers, np.int32), None
    names = ORDERS[order](texts)
    if all(_is_number(name) for name in names):
        warnings.append(
            f"{path.name}: labels such as {shown(names[-1])} are taken for names; whole numbers from 0 are class numbers"
        )
    ((labels,), names) = class_numbers({title: np.array(texts, object)}, order=order)
    return labels, names


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _splits(path: Path, rows: tables.Rows) -> list[str]:
    texts = [row["split"] for _, row in rows]
    for (place, _), text in zip(rows, texts, strict=True):
        if text not in SPLITS:
            allowed = ", ".join(dict.fromkeys(SPLITS.values()))
            raise UserError(
                f"data.source: {path}, {place}: split={text!r} is unknown: choose from {allowed}{nearest(text, SPLITS)}"
            )
    if "train" not in texts:
        raise UserError(f"data.source: {path} gives no image to the split 'train'")
    return [SPLITS[text] for text in texts]
