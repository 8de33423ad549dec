"""Tables of classes and splits beside pictures: their separators, places of rows, and what is a class number or a name."""

import hashlib
from pathlib import PurePosixPath

import numpy as np
import pytest
from PIL import Image

from experiments.data.sources import Wanted, digits, folder, metadata, tables, tree
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


@pytest.mark.parametrize(
    "files, columns, rows, warnings",
    [
        ("a b", "file_name,label,class", "a.png,0,1 b.png,1,1", []),
        ("a b", "file_name, Class ,fold", "a.png,0,1 b.png,1,1",
         ["the column  Class  looks like a label and is not used: name it 'label'",
          "the column fold looks like a split and is not used: name it 'split'"]),
        ("a b", "file_name,target,y,sets", "a.png,0,1,1",
         ["the column target, y looks like a label and is not used: name it 'label'",
          "images without a row in metadata.csv are not used: 1 image (b.png)"]),
        ("a b c d e", "file_name", "b.png", ["images without a row in metadata.csv are not used: 4 images (a.png, c.png, "
                                             "d.png and 1 more)"]),
        ("train/a test/b", "file_name", "train/a.png test/b.png",
         ["folders that look like splits are not used: test, train; metadata.csv has no column 'split'"]),
        ("train/a test/b", "file_name,split", "train/a.png,train test/b.png,test", []),
        ("x/a y/b", "file_name", "x/a.png y/b.png",
         ["folders that look like classes are not used: x, y; metadata.csv has no column 'label'"]),
        ("x/a y/b", "file_name,label", "x/a.png,0 y/b.png,1", []),
        ("x/a y/b", "file_name,split", "x/a.png,train y/b.png,test", []),
        ("x/a y/b c", "file_name", "x/a.png y/b.png c.png", []), ("x/a x/b", "file_name", "x/a.png x/b.png", []),
    ],
)  # fmt: skip
def test_what_a_table_leaves_unused_is_warned_of(tmp_path, files, columns, rows, warnings):
    for name in files.split():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.png").touch()
    (tmp_path / "metadata.csv").write_text("\n".join([columns, *rows.split(), ""]))
    found = metadata.read(tmp_path / "metadata.csv", tree.walk(tmp_path), "natural")
    assert [text.removeprefix("metadata.csv: ") for text in found.warnings] == warnings
    assert [str(file) for file in found.files] == [row.split(",")[0] for row in rows.split()]
    count = len(files.split()) - len(rows.split())
    assert list(found.left_out) == [f"{count} image{'s' * (count > 1)} without a row in metadata.csv"] * (count > 0)


def test_names_of_classes_of_a_table_in_the_order_of_texts(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.png").touch()
    (tmp_path / "metadata.csv").write_text("file_name,label\na.png,x9\nb.png,x10\n")
    found = {
        order: metadata.read(tmp_path / "metadata.csv", tree.walk(tmp_path), order) for order in ("text", "natural")
    }
    assert {order: (of.class_names, of.labels.tolist()) for order, of in found.items()} == {
        "text": (("x10", "x9"), [1, 0]), "natural": (("x9", "x10"), [0, 1]),
    }  # fmt: skip


@pytest.mark.parametrize("sampled, turned", [(1024, False), (1, False), (1024, True)])
def test_the_print_of_files_is_that_of_their_names_labels_and_a_sample_of_their_contents(
    tmp_path, monkeypatch, sampled, turned
):
    """As other releases compute it: of 1,024 files at most, those of the least hashes of their names."""
    monkeypatch.setattr("experiments.data.sources.reading.SAMPLE", sampled)
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    for number, name in enumerate(("x/a.png", "y/b.png", "y/c.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4), number, np.uint8)).save(tmp_path / name, exif=exif)
    source = folder.load(str(tmp_path), Wanted(4, 1)).sources["all"]
    digests = {
        name: hashlib.blake2b(name.encode(), digest_size=16).digest()[:8] for name in ("x/a.png", "y/b.png", "y/c.png")
    }
    total = hashlib.sha256(
        b"(3, (4, 4, 1), 'none')" + b"".join(digests.values()) + np.array([0, 1, 1], "<i4").tobytes()
    )
    for name in sorted(digests, key=lambda name: int.from_bytes(digests[name], "little"))[:sampled]:
        total.update(hashlib.sha256((tmp_path / name).read_bytes()).digest())
        total.update(b"upright, over the background" * turned)
    assert source.fingerprint() == f"names-and-sample:{total.hexdigest()}"
    identities = [int.from_bytes(digest, "little") for digest in digests.values()]
    assert source.identities().tolist() == identities and source.name(1) == f"{tmp_path}/y/b.png"


@pytest.mark.parametrize("fraction, tested", [(None, 0), (0.1, 180), (0.5, 898), (0.25, 449)])
def test_digits_are_split_by_one_permutation(fraction, tested):
    """Of 1,797 images, round(1797 f) to the even number."""
    parts = digits.load("", Wanted(8, 1, test_fraction=fraction)).sources
    if fraction is None:
        assert (
            list(parts) == ["all"] and len(parts["all"]) == 1797 and parts["all"].labels[:5].tolist() == [0, 1, 2, 3, 4]
        )
        return
    order = np.random.default_rng(0).permutation(1797)
    everything = digits.load("", Wanted(8, 1)).sources["all"]
    np.testing.assert_array_equal(parts["train"].labels, everything.labels[order[: 1797 - tested]])
    np.testing.assert_array_equal(parts["test"].images, everything.images[order[1797 - tested :]])
    assert len(parts["test"]) == tested and parts["train"].labels.dtype == np.int32
    with pytest.raises(UserError, match=r"^data\.source='digits:8': the digits have no path; write 'digits'$"):
        digits.load("8", Wanted(8, 1))


@pytest.mark.parametrize("label", ["2147483647", "4294967296", "9" * 19, "9" * 400])
def test_the_label_that_is_too_large_is_named(tmp_path, label):
    text = f"file_name,label\na.png,5\nb.png,{label}\nc.png,12\n"
    with pytest.raises(
        UserError, match=rf"metadata\.csv: the column 'label' has the label {label}, and class numbers go up"
    ):
        layout_of(tmp_path, text)
    found = layout_of(tmp_path, "file_name,label\na.png,2147483646\nb.png,007\n")
    assert found.labels.tolist() == [2147483646, 7] and found.class_names is None


WORDS = ["metadata", "label", "class", "annot", "split", "categor", "target", "train", "test", "val", "attr", "meta"]
SUFFIXES = [
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
]
LIKE_LABELS = ["label", "labels", "class", "classes", "category", "target", "class_name", "label_name", "class_id", "y"]
LIKE_SPLITS = ["split", "splits", "set", "subset", "partition", "fold", "phase"]


def test_every_word_and_every_ending_of_a_table_is_warned_of(tmp_path):
    files = [f"my_{word}s.csv" for word in WORDS] + [f"label{suffix}" for suffix in SUFFIXES]
    for file in files:
        layout = metadata.Layout([])
        metadata.warn_of_tables(layout, tree.Tree(others=[PurePosixPath(file)]))
        assert len(layout.warnings) == 1 and layout.warnings[0].startswith(
            f"files that look like labels or splits are not read: {file}; metadata.csv and metadata.jsonl with the columns "
        ), file
    for file in ("label.md", "label.png", "labels", "notes.csv", "data.npz", "image.json"):
        layout = metadata.Layout([])
        metadata.warn_of_tables(layout, tree.Tree(others=[PurePosixPath(file)]))
        assert layout.warnings == [], file


@pytest.mark.parametrize("kind, names", [("label", LIKE_LABELS), ("split", LIKE_SPLITS)])
def test_columns_that_are_named_like_labels_or_splits(tmp_path, kind, names):
    """In any case; where the column itself is there, no other is."""
    values = {"label": "cat", "split": "train"}
    for name in names:
        given = layout_of(tmp_path, f"file_name,{name.upper()}\na.png,1\nb.png,1\nc.png,1\n").warnings
        assert given == [
            f"metadata.csv: the column {name.upper()} looks like a {kind} and is not used: name it {kind!r}"
        ], name
        if name != kind:
            rows = f"a.png,1,{values[kind]}\nb.png,1,{values[kind]}\nc.png,1,{values[kind]}\n"
            assert layout_of(tmp_path, f"file_name,{name},{kind}\n{rows}").warnings == [], name
    for name in ("caption", "width", "year", "settings", "index"):
        assert layout_of(tmp_path, f"file_name,{name}\na.png,1\nb.png,1\nc.png,1\n").warnings == []
