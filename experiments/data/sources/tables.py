"""Tables of images in files: `metadata.csv` and `metadata.jsonl` of Hugging Face's "imagefolder", as rows of text."""

import csv
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from experiments.data.sources.names import shown
from experiments.errors import UserError, nearest

TABLES = ("metadata.csv", "metadata.jsonl")
FILE_NAME = "file_name"
Rows = list[tuple[str, dict[str, str]]]  # the place of each, and its texts by column
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}  # of tables that are not read


def find(folder: Path) -> Path | None:
    """The table of a folder, None where there is none.

    Raises:
        UserError: there are two.
    """
    paths = [folder / name for name in TABLES if (folder / name).is_file()]
    if len(paths) > 1:
        raise UserError(f"data.source: {folder} has {' and '.join(TABLES)}: keep one of them")
    return paths[0] if paths else None


def read(path: Path, used: Collection[str]) -> tuple[list[str], Rows]:
    """The columns of a table, and each row with its place ("row 2") and its texts by column.

    Args:
        path: the table.
        used: columns whose values must be texts or whole numbers.

    Raises:
        UserError: the file is damaged, has no column `file_name`, or holds no rows.
    """
    columns, rows = (_lines if path.suffix == ".jsonl" else _commas)(path, used)
    if FILE_NAME not in columns and (rows or path.suffix == ".csv"):
        given = ", ".join(map(shown, columns)) or "(none)"
        raise UserError(
            f"data.source: {path} has the columns {given}; '{FILE_NAME}' is needed{nearest(FILE_NAME, columns)}"
        )
    if not rows:
        raise UserError(f"data.source: {path} names no images")
    return columns, rows


def _commas(path: Path, used: Collection[str]) -> tuple[list[str], Rows]:
    """Comma-separated values; the first row names the columns."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            columns = list(reader.fieldnames or [])
            separator = next((name for mark, name in SEPARATORS.items() if mark in (columns or [""])[0]), None)
            if len(columns) == 1 and separator:
                raise UserError(f"data.source: {path} has its columns separated by {separator}: commas are needed")
            return columns, [
                (f"row {number}", {name: (row[name] or "").strip() for name in columns})
                for number, row in enumerate(reader, 2)
            ]
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"data.source: {path} is not a table of comma-separated values in UTF-8 ({error})") from error


def _lines(path: Path, used: Collection[str]) -> tuple[list[str], Rows]:
    """A JSON object on each line; the columns are all keys."""
    columns, rows = {}, []
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                row, place = json.loads(line), f"line {number}"
                if not isinstance(row, dict):
                    raise UserError(f"data.source: {path}, {place}: {shown(line.strip()[:40])} is not a JSON object")
                columns.update(dict.fromkeys(row))
                rows.append((place, {name: _text(path, place, name, row.get(name)) for name in used}))
    except (ValueError, RecursionError) as error:
        place = "" if isinstance(error, UnicodeDecodeError) else f", line {number}"
        raise UserError(f"data.source: {path}{place} is not a JSON object on each line in UTF-8 ({error})") from error
    return list(columns), rows


def _text(path: Path, place: str, name: str, value: Any) -> str:
    """The text of a text or a whole number; an empty one for null and a key that is not there."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UserError(f"data.source: {path}, {place}: {name}={shown(value)} must be a text or a whole number")
    return str(value).strip()
