"""Tables of classes and splits beside pictures: their separators, places of rows, and what is a class number or a name."""

import numpy as np
import pytest

from experiments.data.sources import metadata, tables, tree
from experiments.errors import UserError


@pytest.mark.parametrize("mark, name", [(";", "semicolons"), ("\t", "tabs"), ("|", "bars"), (",", None), (":", None)])
def test_a_table_of_other_separators_is_told_so(tmp_path, mark, name):
    path = tmp_path / "metadata.csv"
    path.write_text(f"file_name{mark}label\na{mark}b\n")
    if mark == ",":
        assert tables.read(path, ()) == (["file_name", "label"], [("row 2", {"file_name": "a", "label": "b"})])
        return
    with pytest.raises(UserError) as error:
        tables.read(path, ())
    said = (
        f"has its columns separated by {name}: commas are needed" if name else f"has the columns file_name{mark}label;"
    )
    assert said in str(error.value)


def test_places_of_rows_and_texts_without_blanks(tmp_path):
    path = tmp_path / "metadata.csv"
    path.write_text("file_name,a;b\n x.png , 1 \ny.png\n")
    columns, found = tables.read(path, ())
    assert columns == ["file_name", "a;b"]
    assert found == [("row 2", {"file_name": "x.png", "a;b": "1"}), ("row 3", {"file_name": "y.png", "a;b": ""})]
    path = tmp_path / "metadata.jsonl"
    path.write_text('\n{"file_name": " x.png ", "n": 7, "z": [1]}\n\n{"file_name": "y.png", "n": null}\n')
    columns, found = tables.read(path, ("file_name", "n", "label"))
    assert columns == ["file_name", "n", "z"]
    assert found == [
        ("line 2", {"file_name": "x.png", "n": "7", "label": ""}), ("line 4", {"file_name": "y.png", "n": "", "label": ""}),
    ]  # fmt: skip
    assert tables.find(tmp_path / "none") is None
    (tmp_path / "metadata.csv").unlink()
    assert tables.find(tmp_path) == path


def layout_of(tmp_path, text):
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).touch()
    (tmp_path / "metadata.csv").write_text(text)
    return metadata.read(tmp_path / "metadata.csv", tree.walk(tmp_path), "natural")


@pytest.mark.parametrize(
    "labels, expected, names, warned",
    [
        (("0", "10", "2"), [0, 10, 2], None, False), (("b", "a10", "a9"), [2, 1, 0], ("a9", "a10", "b"), False),
        (("1.5", "0.5", "0.5"), [1, 0, 0], ("0.5", "1.5"), True), (("-1", "0", "1"), [0, 1, 2], ("-1", "0", "1"), True),
        (("1", "x", "2"), [0, 2, 1], ("1", "2", "x"), False), (("1e3", "nan", "2"), [0, 2, 1], ("1e3", "2", "nan"), True),
        (("\u0663", "1", "2"), [2, 0, 1], ("1", "2", "\u0663"), True),
    ],
)  # fmt: skip
def test_whole_numbers_are_class_numbers_and_all_else_are_names(tmp_path, labels, expected, names, warned):
    rows_ = "".join(f"{name}.png,{label}\n" for name, label in zip("abc", labels, strict=True))
    found = layout_of(tmp_path, f"file_name,label\n{rows_}")
    assert found.labels.tolist() == expected and found.class_names == names and found.labels.dtype == np.int32
    assert [("are taken for names" in text) for text in found.warnings] == [True] * warned


@pytest.mark.parametrize(
    "split, kind", [("train", "train"), ("val", "validation"), ("dev", "validation"), ("test", "test")]
)
def test_splits_of_a_table(tmp_path, split, kind):
    found = layout_of(tmp_path, f"file_name,split\na.png,train\nb.png, {split} \nc.png,validation\n")
    assert found.parts == ["train", kind, "validation"] and found.labels is None and found.warnings == []
    with pytest.raises(UserError, match=r"row 3: split='tests' is unknown: choose from train, test, validation; did"):
        layout_of(tmp_path, "file_name,split\na.png,train\nb.png,tests\n")


@pytest.mark.parametrize(
    "file, warned", [("labels.csv", True), ("x/Annotations.XML", True), ("x/y/labels.csv", False), ("split.txt", True),
                     ("notes.txt", False), ("metadata.md", False), ("test.npz", True), ("attributes.json", True)],
)  # fmt: skip
def test_files_that_look_like_tables_are_warned_of_in_the_folder_and_one_below(tmp_path, file, warned):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).touch()
    layout = metadata.Layout([])
    metadata.warn_of_tables(layout, tree.walk(tmp_path))
    assert [(file in text) for text in layout.warnings] == [True] * warned
