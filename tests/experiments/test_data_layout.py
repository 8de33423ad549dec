"""Splits and classes by the names of folders, the files below a folder with links, and rows of tables."""

import os
from pathlib import PurePosixPath

import pytest

from experiments.data.sources import layout, tables, tree
from experiments.errors import UserError


def of(*paths, order="natural", folders=(), **more):
    images = sorted((PurePosixPath(path) for path in paths), key=lambda path: path.parts)
    folders = [PurePosixPath(path) for path in folders]
    return layout.of_tree(tree.Tree(images, folders=folders, **more), order)


# paths: (files, labels, names, splits, what is left out, warnings)
CASES = {
    "loose": (["a.png", "b.png"], None, None, None, None, [], []),
    "classes": (["x/a.png", "y/b.png", "x/c/d.png"], None, [0, 0, 1], ("x", "y"), None, [], []),
    "splits": (
        ["train/a.png", "dev/b.png", "test/c.png"], None, None, None, ["validation", "test", "train"], [], [],
    ),
    "splits of classes": (
        ["train/x/a.png", "train/y/b.png", "val/y/c.png"], None, [0, 1, 1], ("x", "y"), ["train", "train", "validation"],
        [], [],
    ),
    "training alone": (["train/x/a.png", "train/y/b.png"], None, [0, 1], ("x", "y"), ["train"] * 2, [], []),
    "training and a picture": (
        ["train/x/a.png", "b.png"], None, None, None, None, [],
        ["folders that look like splits are not used: train; splits are folders of the names train, test and validation; "
         "train needs test or validation next to it"],
    ),
    "training and a class": (
        ["train/a.png", "cat/b.png"], None, [0, 1], ("cat", "train"), None, [],
        ["folders that look like splits are classes: train; splits are folders of the names train, test and validation; "
         "train needs test or validation next to it"],
    ),
    "no training": (
        ["test/a.png", "validation/b.png"], None, [0, 1], ("test", "validation"), None, [],
        ["folders that look like splits are classes: test, validation; splits are folders of the names train, test and "
         "validation; train is missing"],
    ),
    "three classes, one like a split": (["train/a.png", "x/b.png", "y/c.png"], None, [0, 1, 2], ("train", "x", "y"), None,
                                        [], []),
    "a picture outside": (
        ["train/a.png", "test/b.png", "c.png"], "test/b.png train/a.png", None, None, ["test", "train"],
        ["1 image outside of the splits (c.png)"],
        ["images outside of the folders test, train belong to no split and are not used: 1 image (c.png); move them into "
         "one"],
    ),
    "folders outside": (
        ["train/a.png", "test/b.png", "z/c.png", "u/d.png", "w/v/e.png", "u/f.png", "zz/g.png"], "test/b.png train/a.png",
        None, None, ["test", "train"], ["5 images outside of the splits (u/, w/, z/)"],
        ["images outside of the folders test, train belong to no split and are not used: 5 images (u/, w/, z/); move them "
         "into one"],
    ),
    "folders and a picture outside": (
        ["train/a.png", "test/b.png", "u/c.png", "v.png"], "test/b.png train/a.png", None, None, ["test", "train"],
        ["2 images outside of the splits (u/)"], None,
    ),
    "a picture and folders outside": (
        ["train/a.png", "test/b.png", "A.png", "u/c.png"], "test/b.png train/a.png", None, None, ["test", "train"],
        ["2 images outside of the splits (A.png, u/)"], None,
    ),
    "loose within splits": (
        ["train/x/a.png", "train/y/b.png", "test/c.png"], None, None, None, ["test", "train", "train"], [],
        ["folders that look like classes in test, train are not used: x, y; outside of them: 1 image (c.png); move these "
         "into one"],
    ),
    "one class in splits": (
        ["train/x/a.png", "test/x/b.png"], None, None, None, ["test", "train"], [],
        ["all images in test, train lie in the one folder 'x': classes need two or more"],
    ),
    "one folder": (["x/a.png", "x/b.png"], None, None, None, None, [],
                   ["all images lie in the one folder 'x': classes need two or more"]),
    "one folder of folders": (
        ["x/u/a.png", "x/v/b.png", "x/v/c.png"], None, None, None, None, [],
        ["folders that look like classes or splits are not used: u, v; all images lie in 'x': name that folder as the "
         "source"],
    ),
    "one folder of one folder": (["x/u/a.png", "x/u/b.png"], None, None, None, None, [],
                                 ["all images lie in the one folder 'x': classes need two or more"]),
    "one folder and a picture": (["x/u/a.png", "x/v/b.png", "c.png"], None, None, None, None, [], []),
    "pictures beside classes": (
        ["x/a.png", "y/b.png", "4.png", "1.png", "3.png", "2.png"], None, None, None, None, [],
        ["folders that look like classes are not used: x, y; outside of them: 4 images (1.png, 2.png, 3.png and 1 more); "
         "move these into one"],
    ),
    "one folder within each class": (["x/u/a.png", "y/v/b.png"], None, [0, 1], ("x", "y"), None, [], []),
    "folders within a class": (
        ["x/u/a.png", "x/v/w/b.png", "y/c.png"], None, [0, 0, 1], ("x", "y"), None, [],
        ["folders within classes are not classes: x/u, x/v; the classes are the first folders, x, y"],
    ),
    "pairs": (
        ["Images/a.png", "labels/a.png", "x/a.png"], None, [0, 1, 2], ("Images", "labels", "x"), None, [],
        ["folders that look like images and their labels are classes: Images, labels; name the folder of the images as the "
         "source"],
    ),
    "half a pair": (["gt/a.png", "x/a.png"], None, [0, 1], ("gt", "x"), None, [], []),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_the_names_of_folders_say(name):
    paths, files, labels, names, parts, left_out, warnings = CASES[name]
    found = of(*paths)
    in_order = sorted(paths, key=lambda path: PurePosixPath(path).parts)
    assert list(map(str, found.files)) == (in_order if files is None else files.split())
    assert (None if found.labels is None else found.labels.tolist()) == labels
    assert found.labels is None or found.labels.dtype == "int32"
    assert (found.class_names, found.parts, list(found.left_out)) == (names, parts, left_out)
    assert warnings is None or found.warnings == warnings


def test_classes_in_the_order_of_texts_or_of_numbers():
    paths = ["10/a.png", "9/b.png", "9/c.png"]
    assert of(*paths).class_names == ("9", "10") and of(*paths).labels.tolist() == [1, 0, 0]
    assert of(*paths, order="text").class_names == ("10", "9") and of(*paths, order="text").labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    "paths, folders, empty",
    [
        (["x/a.png", "y/b.png"], ["", "x", "y", "z", "z/u", "x/u"], "z"),
        (["x/u/a.png", "y/b.png"], ["", "x", "x/u", "x/v", "y"], None),
        # A class may be without images in one split; other folders of a split, and beside splits, may not.
        (["train/x/a.png", "train/y/b.png", "test/x/c.png"], ["", "train", "train/x", "train/y", "test", "test/x", "test/y"],
         None),
        (["train/x/a.png", "train/y/b.png", "test/x/c.png"],
         ["", "train", "train/x", "train/y", "train/z", "test", "test/x", "test/w", "val", "x", "other/x"],
         "test/w, train/z, val, x"),
        (["train/a.png", "test/b.png", "u/c.png"], ["", "train", "train/v", "test", "u", "u/w"], "train/v"),
    ],
)  # fmt: skip
def test_folders_without_images_where_classes_or_splits_would_be(paths, folders, empty):
    found = [text for text in of(*paths, folders=folders).warnings if "without images" in text]
    expected = f"folders without images that are read, which are no classes or splits: {empty}"
    assert found == ([expected] if empty else [])


def test_links_to_folders_that_are_read_already_are_named_where_classes_would_be():
    links = [PurePosixPath(path) for path in ("y", "x/z", "b")]
    found = of("x/a.png", "c/b.png", repeated_folders=links)
    assert found.warnings == ["folders that are links to what is read already are not used: b, y"]
    assert found.left_out == ("b, x/z, y (links to what is read already)",)


def touched(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names_of(found):
    return {
        field: [str(path) for path in getattr(found, field)]
        for field in tree.Tree.__dataclass_fields__
        if getattr(found, field)
    }


def test_each_kind_of_file_below_a_folder(tmp_path):
    root, outer = tmp_path / "root", tmp_path / "outer"
    touched(
        root, "b/2.PNG", "b/10.png", "a.jpg", "b-c/1.png", "n.txt", "x/.h.png", "x/.h.txt", "x/Thumbs.db", "y/z/w/d.gif"
    )
    touched(root, "__MACOSX/b/1.png", ".git/1.png")
    touched(outer, "o/1.png", "o/2.txt", "p.png", "q.txt")
    os.mkfifo(root / "pipe.png")
    os.mkfifo(root / "pipe")
    os.symlink(outer / "o", root / "linked")
    os.symlink(outer / "o", root / "linked_again")
    os.symlink(root / "b", root / "own")
    os.symlink("..", root / "x" / "up")
    os.symlink(outer / "p.png", root / "p1.png")
    os.symlink(outer / "p.png", root / "p2.png")
    os.symlink(outer / "q.txt", root / "q.txt")
    os.symlink("a.jpg", root / "c.jpg")
    os.symlink("gone.jpg", root / "broken.jpg")
    assert names_of(tree.walk(root)) == {
        "images": ["a.jpg", "b/10.png", "b/2.PNG", "b-c/1.png", "linked/1.png", "p1.png", "y/z/w/d.gif"],
        "others": ["n.txt", "linked/2.txt", "q.txt"],
        "folders": [".", "b", "b-c", "x", "y", "y/z", "y/z/w", "linked"],
        "hidden": [".git", "__MACOSX", "x/.h.png"],
        "above": ["x/up"],
        "repeated": ["c.jpg", "p2.png"],
        "repeated_folders": ["linked_again", "own"],
        "broken": ["broken.jpg"],
        "unreadable": ["pipe.png"],
    }


def test_links_of_linked_folders_lead_in_no_circle(tmp_path):
    root, outer = tmp_path / "root", tmp_path / "outer"
    touched(root, "1.png")
    touched(outer, "p/q/2.png", "p/3.png", "4.png")
    os.symlink(outer / "p" / "q", root / "a")
    os.symlink(outer / "p", root / "b")  # holds a folder that is found by then
    os.symlink("..", outer / "p" / "q" / "up")
    os.symlink(root, outer / "p" / "root")
    assert names_of(tree.walk(root)) == {
        "images": ["1.png", "a/2.png", "b/3.png"],
        "folders": [".", "a", "b"],
        "above": ["a/up", "b/root"],
        "repeated_folders": ["b/q"],
    }


def test_reasons_for_what_is_left_out_are_in_order_with_three_names_each():
    def paths(*names):
        return [PurePosixPath(name) for name in names]

    found = tree.Tree(
        others=paths("a.txt", "b.TXT", "c.zip", "d", "e/f.md", "g.txt"), hidden=paths("z.png", "y.png", "x.png", "w.png"),
        above=paths("a"), repeated=paths("r"), repeated_folders=paths("q"), broken=paths("b"), unreadable=paths("u"),
    )  # fmt: skip
    assert found.left_out() == (
        "3 .txt, 1 without an ending, 1 .md (not an image by the ending)", "1 .zip (archive: unpack it)",
        "w.png, x.png, y.png and 1 more (hidden, or added by another program)", "a (links to a folder above)",
        "q, r (links to what is read already)", "b (links to nothing)", "u (cannot be opened)",
    )  # fmt: skip
    assert tree.Tree(images=paths("a.png"), folders=paths("x")).left_out() == ()
    assert tree.folders_of(paths("b/x.png", "a.png", "B/y/z.png", "b/c/d.png")) == ["B", "b"]


def test_values_of_a_table_of_json_are_texts_and_whole_numbers(tmp_path):
    path = tmp_path / "metadata.jsonl"
    found = [tables._text(path, "line 2", "label", value) for value in (None, "", " a b ", 0, -3, 2**70)]
    assert found == ["", "", "a b", "0", "-3", str(2**70)]
    for value, text in ((True, "True"), (1.0, "1.0"), ([1], "[1]"), ({}, "{}")):
        with pytest.raises(UserError, match="line 2: label=") as error:
            tables._text(path, "line 2", "label", value)
        assert str(error.value) == f"data.source: {path}, line 2: label={text} must be a text or a whole number"


@pytest.mark.parametrize(
    "text, message",
    [
        ("file_name;label\na.png;1\n", "has its columns separated by semicolons: commas are needed"),
        ("file_name\tlabel\na.png\t1\n", "has its columns separated by tabs: commas are needed"),
        ("file_name|label\na.png|1\n", "has its columns separated by bars: commas are needed"),
        ("file_name\n", "names no images"),
        (
            "filename,label\na.png,1\n",
            "has the columns filename, label; 'file_name' is needed; did you mean 'filename'?",
        ),
        ("", "has the columns (none); 'file_name' is needed"),
    ],
)
def test_tables_that_are_not_of_commas_or_name_no_images(tmp_path, text, message):
    (tmp_path / "metadata.csv").write_text(text)
    with pytest.raises(UserError) as error:
        tables.read(tmp_path / "metadata.csv", ("file_name",))
    assert str(error.value) == f"data.source: {tmp_path}/metadata.csv {message}"


def test_rows_of_tables_have_their_places_and_stripped_texts(tmp_path):
    csv, lines = tmp_path / "metadata.csv", tmp_path / "metadata.jsonl"
    csv.write_text("\ufefffile_name,a;b,label\n x.png ,1\ny.png,, 2 \n")
    assert tables.read(csv, ("file_name", "label")) == (
        ["file_name", "a;b", "label"],
        [
            ("row 2", {"file_name": "x.png", "a;b": "1", "label": ""}),
            ("row 3", {"file_name": "y.png", "a;b": "", "label": "2"}),
        ],
    )  # fmt: skip
    lines.write_text('{"file_name": "x.png", "b": 1.5}\n\n{"label": 3, "file_name": "y.png"}\n')
    assert tables.read(lines, ("file_name", "label")) == (
        ["file_name", "b", "label"],
        [("line 1", {"file_name": "x.png", "label": ""}), ("line 3", {"file_name": "y.png", "label": "3"})],
    )
    with pytest.raises(UserError, match=r"has metadata\.csv and metadata\.jsonl: keep one of them"):
        tables.find(tmp_path)
    csv.unlink()
    assert tables.find(tmp_path) == lines
    lines.unlink()
    assert tables.find(tmp_path) is None


@pytest.mark.parametrize(
    "names, remedy",
    [
        ("Train Dev", ": rename 'Train' to train, 'Dev' to validation"),
        ("training TESTING", ": rename 'training' to train, 'TESTING' to test"),
        ("train_images val2017", ": rename 'train_images' to train, 'val2017' to validation"),
        ("evaluation Dev_set", ": rename 'evaluation' to validation, 'Dev_set' to validation; train is missing"),
        ("train Valid", ": rename 'Valid' to validation"), ("train", "; train needs test or validation next to it"),
        ("test dev", "; train is missing"), ("dev", "; train is missing"),
    ],
)  # fmt: skip
def test_the_remedy_for_folders_like_splits_has_each_kind(names, remedy):
    assert layout._instead(names.split()) == remedy


def test_of_links_to_one_file_the_first_by_its_path_is_read(tmp_path):
    """Folder by folder: `a/z.png` comes before `b.png`, whichever is met first; the file itself before all links."""
    root, outer = tmp_path / "root", tmp_path / "outer"
    touched(root, "a/own.png", "k.png")
    touched(outer, "p.png")
    for link in ("b.png", "a/z.png", "a/y.png"):
        os.symlink(outer / "p.png", root / link)
    os.symlink(root / "k.png", root / "a" / "b.png")
    found = names_of(tree.walk(root))
    assert found["images"] == ["a/own.png", "a/y.png", "k.png"] and found["repeated"] == ["a/b.png", "a/z.png", "b.png"]


NAMES_OF_PAIRS = ["images", "image", "imgs", "img", "labels", "label", "masks", "mask", "annotations", "gt", "targets"]


@pytest.mark.parametrize("name", NAMES_OF_PAIRS)
def test_every_name_of_a_pair_of_folders_is_warned_of(name):
    partner = "masks" if name in ("images", "image", "imgs", "img") else "images"
    partner = "img" if name == partner else partner
    for first in (name, name.upper()):
        (warning,) = of(f"{first}/a.png", f"{partner}/a.png", "cats/b.png").warnings
        both = ", ".join(sorted((first, partner)))
        assert warning.startswith("folders that look like images and their labels are classes: ") and both in warning
    assert of(f"{name}/a.png", "cats/b.png").warnings == []


REASONS = {
    "image format that is not read: convert to PNG or JPEG":
        "heic heif avif jxl jp2 j2k svg psd tga exr hdr ico pcx dds cr2 cr3 nef arw dng orf raf rw2 raw jpe jif apng pnm "
        "pfm dcm nii webp2 wp2 qoi",
    "archive: unpack it": "zip tar gz tgz bz2 xz zst 7z rar",
    "arrays: data.source=npz:FILE reads .npz": "npy npz mat h5 hdf5 pkl pt",
    "table: data.source=hf:FOLDER reads it": "parquet arrow",
    "records: data.source=arrayrecord:FOLDER reads what `prepare` wrote": "array_record tfrecord",
    "video": "mp4 avi mov mkv webm",
}  # fmt: skip


def test_every_ending_of_files_that_are_not_read_has_its_reason():
    expected = {f".{ending}": reason for reason, endings in REASONS.items() for ending in endings.split()}
    for ending in (*expected, ".txt", ".pngx", ""):
        found = tree.Tree(others=[PurePosixPath(f"a{ending.upper()}")]).left_out()
        reason = expected.get(ending, "not an image by the ending")
        assert found == (f"1 {ending or 'without an ending'} ({reason})",)
