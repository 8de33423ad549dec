"""`metadata.csv`: a table that gives the images of a folder their classes and splits.

Hugging Face's "imagefolder": a row for each image, with the columns `file_name` (path within the folder) and perhaps `label`
(numbers from 0, or names) and `split` (train, validation, test). Files without a row are not used.
"""

import csv
from pathlib import Path, PurePosixPath

import numpy as np

from experiments.data.sources.layout import SPLITS, Layout, split_like
from experiments.data.sources.names import LARGEST, ORDERS, class_numbers, counted, listed, shown, too_large
from experiments.data.sources.tree import EXAMPLES, Tree, folders_of
from experiments.errors import UserError, nearest

METADATA = "metadata.csv"
LABEL_LIKE = ("label", "labels", "class", "classes", "category", "target", "class_name", "label_name", "class_id", "y")
SPLIT_LIKE = ("split", "splits", "set", "subset", "partition", "fold", "phase")
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}  # of tables that are not read
TABLES = {
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


def read(folder: Path, tree: Tree, order: str) -> Layout:
    """The images that `metadata.csv` in the folder lists, in the order of its rows.

    Args:
        folder: that holds the table.
        tree: of the folder.
        order: of class names, one of `names.ORDERS`.

    Raises:
        UserError: the table is damaged, lacks a column, or has a row that cannot be used.
    """
    path = folder / METADATA
    columns, rows = _table(path)
    files = _files(path, rows)
    tree.others = [file for file in tree.others if str(file) != METADATA]
    layout = Layout(files, left_out=tree.left_out())
    if "label" in columns:
        layout.labels, layout.class_names = _labels(path, rows, order, layout.warnings)
    if "split" in columns:
        layout.parts = _splits(path, rows)
    for column, alike in (("label", LABEL_LIKE), ("split", SPLIT_LIKE)):
        found = [name for name in columns if name and name.strip().lower() in alike]
        if column not in columns and found:
            layout.warnings.append(
                f"{METADATA}: the column {listed(found)} looks like a {column} and is not used: name it {column!r}"
            )
    listed_files = set(files)
    unlisted = [image for image in tree.images if image not in listed_files]
    if unlisted:
        layout.left_out += (f"{counted(len(unlisted), 'image')} without a row in {METADATA}",)
        layout.warnings.append(
            f"images without a row in {METADATA} are not used: {counted(len(unlisted), 'image')} "
            f"({listed(unlisted, EXAMPLES)})"
        )
    tops = folders_of(files)
    if layout.parts is None and (alike := split_like(tops)):
        layout.warnings.append(
            f"folders that look like splits are not used: {listed(alike)}; {METADATA} has no column 'split'"
        )
    elif layout.labels is None and len(tops) > 1 and layout.parts is None and all(len(f.parts) > 1 for f in files):
        layout.warnings.append(
            f"folders that look like classes are not used: {listed(tops)}; {METADATA} has no column 'label'"
        )
    return layout


def warn_of_tables(layout: Layout, tree: Tree) -> None:
    """Adds a warning for files that look like tables of labels or splits, other than `metadata.csv` in the folder."""
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
        if path.suffix.lower() in TABLES and any(word in path.stem.lower() for word in words) and len(path.parts) <= 2
    ]
    if found:
        layout.warnings.append(
            f"files that look like labels or splits are not read: {listed(found, EXAMPLES)}; {METADATA} with the columns "
            "file_name, label, split is"
        )


def _table(path: Path) -> tuple[list[str], list[dict]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            columns = reader.fieldnames or []
            separator = next((name for mark, name in SEPARATORS.items() if mark in (columns or [""])[0]), None)
            if len(columns) == 1 and separator:
                raise UserError(f"data.source: {path} has its columns separated by {separator}: commas are needed")
            if "file_name" not in columns:
                given = ", ".join(columns) or "(none)"
                raise UserError(
                    f"data.source: {path} has the columns {given}; 'file_name' is needed{nearest('file_name', columns)}"
                )
            rows = list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"data.source: {path} is not a table of comma-separated values in UTF-8 ({error})") from error
    if not rows:
        raise UserError(f"data.source: {path} names no images")
    return columns, rows


def _files(path: Path, rows: list[dict]) -> list[PurePosixPath]:
    files, seen = [], set()
    for number, row in enumerate(rows, 2):
        name = PurePosixPath((row["file_name"] or "").strip())
        if name.is_absolute() or ".." in name.parts:
            raise UserError(
                f"data.source: {path}, row {number}: file_name={str(name)!r} must be a path within the folder"
            )
        if name in seen:
            raise UserError(f"data.source: {path}, row {number}: {name} has a row already")
        if not (path.parent / name).is_file():
            there = [entry.name for entry in (path.parent / name).parent.glob("*")]
            raise UserError(f"data.source: {path}, row {number}: {name} does not exist{nearest(name.name, there)}")
        seen.add(name)
        files.append(name)
    return files


def _labels(path: Path, rows: list[dict], order: str, warnings: list[str]) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Class numbers int32 (N,), as written, or of the names in their order; and those names."""
    texts = [(row["label"] or "").strip() for row in rows]
    if "" in texts:
        raise UserError(f"data.source: {path}, row {texts.index('') + 2} has no label: give all rows one, or none")
    title = f"data.source: {path}: the column 'label'"
    if all(text.isascii() and text.isdecimal() for text in texts):
        numbers = [int(text) if len(text) < 20 else LARGEST + 1 for text in texts]
        if max(numbers) > LARGEST:
            raise too_large(title, max(texts, key=len))
        return np.array(numbers, np.int32), None
    names = ORDERS[order](texts)
    if all(_is_number(name) for name in names):
        warnings.append(
            f"{METADATA}: labels such as {shown(names[-1])} are taken for names; whole numbers from 0 are class numbers"
        )
    ((labels,), names) = class_numbers({title: np.array(texts, object)}, order=order)
    return labels, names


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _splits(path: Path, rows: list[dict]) -> list[str]:
    texts = [(row["split"] or "").strip() for row in rows]
    for number, text in enumerate(texts, 2):
        if text not in SPLITS:
            allowed = ", ".join(dict.fromkeys(SPLITS.values()))
            raise UserError(
                f"data.source: {path}, row {number}: split={text!r} is unknown: choose from {allowed}{nearest(text, SPLITS)}"
            )
    if "train" not in texts:
        raise UserError(f"data.source: {path} gives no image to the split 'train'")
    return [SPLITS[text] for text in texts]
