"""How names of Hugging Face data sets, their splits and their columns are read, and blocks of a stream."""

import itertools

import numpy as np
import pytest
from PIL import Image

from experiments.data.digests import digest
from experiments.data.sources import Wanted, huggingface
from experiments.errors import UserError
from tests.experiments.pictures_of_files import file_of

datasets = pytest.importorskip("datasets", reason="needs the extra hf")


@pytest.mark.parametrize(
    "opened, expected",
    [
        ("one", {"all": "one"}), ({"x": 1}, {"all": 1}), ({"train": 1}, {"all": 1}), ({"test": 1}, {"all": 1}),
        ({"train": 1, "test": 2, "valid": 3, "x": 4}, {"train": 1, "test": 2, "validation": 3}),
        ({"train": 1, "x": 2}, {"train": 1}), ({"train": 1, "dev": 2}, {"train": 1, "validation": 2}),
        ({"x": 1, "y": 2}, None), ({"test": 1, "val": 2}, None),
    ],
)  # fmt: skip
def test_one_split_is_everything_and_of_several_those_of_known_names_are_used(opened, expected):
    if expected is None:
        with pytest.raises(UserError, match=rf"has the splits {', '.join(opened)}; 'train' is needed"):
            huggingface._splits("a", opened)
        return
    assert huggingface._splits("a", opened) == expected


class Split:
    """Stands for a split: its columns."""

    def __init__(self, **kinds):
        self.features = kinds


IMAGE, TEXT, CLASS = datasets.Image(), datasets.Value("string"), datasets.ClassLabel(names=["a", "b"])


@pytest.mark.parametrize(
    "kinds, chosen",
    [
        ({"photo": IMAGE}, ("photo", None)), ({"a": IMAGE, "img": IMAGE}, ("img", None)),
        ({"img": IMAGE, "image": IMAGE}, ("image", None)), ({"image": IMAGE, "y": TEXT}, ("image", None)),
        ({"image": IMAGE, "target": TEXT}, ("image", "target")), ({"image": IMAGE, "labels": TEXT}, ("image", "labels")),
        ({"image": IMAGE, "target": CLASS, "labels": CLASS, "label": CLASS}, ("image", "label")),
        ({"image": IMAGE, "target": CLASS, "fine_label": CLASS, "labels": CLASS}, ("image", "labels")),
        ({"image": IMAGE, "target": CLASS, "class": TEXT, "fine_label": CLASS}, ("image", "fine_label")),
        ({"image": IMAGE, "target": CLASS, "class": TEXT}, ("image", "class")),
        ({"image": IMAGE, "label": datasets.List(TEXT), "class": TEXT}, ("image", "class")),
    ],
)  # fmt: skip
def test_the_columns_of_images_and_classes(kinds, chosen):
    assert huggingface._columns("a", {"all": Split(**kinds)}) == chosen


@pytest.fixture
def asked(monkeypatch):
    """What the library is asked to open."""
    calls = []

    class Library:
        @staticmethod
        def load_from_disk(path):
            calls.append(("disk", path))

        @staticmethod
        def load_dataset(*name, streaming):
            calls.append((*name, streaming))

    monkeypatch.setattr(huggingface, "_library", lambda: Library)
    return calls


def test_a_name_is_a_folder_on_the_disk_or_a_data_set_of_the_hub_with_its_configuration(asked, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for folder, file in (("saved", "state.json"), ("several", "dataset_dict.json"), ("files", "a.parquet")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).touch()
    for text in ("~/saved", f"{tmp_path}/several", "~/files", "owner/name", "owner/name:small"):
        for streaming in (False, True):
            huggingface._open(text, streaming=streaming)
    both = [[("disk", f"{tmp_path}/saved")], [("disk", f"{tmp_path}/several")]]
    expected = [*both[0] * 2, *both[1] * 2]
    for name in ((f"{tmp_path}/files",), ("owner/name", None), ("owner/name", "small")):
        expected += [(*name, False), (*name, True)]
    assert asked == expected
    for text in ("~/gone", f"{tmp_path}/gone", "./gone"):
        with pytest.raises(UserError, match="gone does not exist"):
            huggingface._open(text, streaming=False)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is a file; hf:PATH is a folder"):
        huggingface._open("~/file", streaming=False)
    assert len(asked) == len(expected)


def picture(number):
    return file_of(Image.fromarray(np.full((2, 2), number, np.uint8)))


class Rows(list):
    """Stands for rows that come over the network."""

    def skip(self, count):
        return Rows(self[count:])


def rows(*labels):
    return Rows({"image": {"bytes": picture(i), "path": None}, "y": label} for i, label in enumerate(labels))


def test_a_stream_gives_blocks_from_its_start_on_with_labels_and_identities():
    stream = huggingface.Stream(rows(4, 3, 2, 1, 0), "image", "y", Wanted(2, 1), "hf:a, train")
    assert stream.image_shape == (2, 2, 1)
    blocks = list(stream.blocks(1, itertools.cycle([2, 1])))
    assert [pixels[:, 0, 0, 0].tolist() for pixels, *_ in blocks] == [[1, 2], [3], [4]]
    assert [labels.tolist() for _, labels, _ in blocks] == [[3, 2], [1], [0]]
    assert all(labels.dtype == np.int32 for _, labels, _ in blocks)
    expected = int.from_bytes(digest(picture(3))[:8], "little")
    assert blocks[1][2].tolist() == [expected]
    unlabelled = huggingface.Stream(rows(None, None), "image", None, Wanted(2, 1), "hf:a, train")
    ((_, labels, _),) = unlabelled.blocks(0, itertools.cycle([9]))
    assert labels.tolist() == [-1, -1]


@pytest.mark.parametrize("start", [0, 1, 3])
@pytest.mark.parametrize(
    "file, message",
    [
        (None, "has no image"),
        ({"bytes": None, "path": None}, "cannot be read"),
        ({"bytes": b"broken", "path": None}, "cannot be read as an image"),
    ],
)
def test_a_bad_image_of_a_stream_is_named_by_its_row_in_the_split(start, file, message):
    """Whichever block it is in, and however many rows were left out before."""
    bad = rows(*range(8))
    bad[5]["image"] = file
    found = huggingface.Stream(bad, "image", "y", Wanted(2, 1), "hf:a, train").blocks(start, itertools.cycle([2]))
    with pytest.raises(UserError, match=f"hf:a, train, row 5 {message}"):
        list(found)


def test_an_image_of_a_table_is_named_by_its_row_wherever_it_is_taken():
    table = huggingface.Table(rows(*range(8)), np.arange(8), np.arange(8), Wanted(2, 1), "hf:a, train")
    taken = table.take(np.array([6, 2, 5])).take(np.array([2, 0]))
    assert [taken.name(i) for i in range(len(taken))] == ["hf:a, train, row 5", "hf:a, train, row 6"]
    assert taken.labels.tolist() == [5, 6]


def test_files_of_a_table_are_read_once_for_their_identities(monkeypatch):
    """Those of rows that are taken then need no further reading; those taken before are the same."""
    read = []
    content = huggingface._content
    monkeypatch.setattr(huggingface, "_content", lambda row, title: read.append(title) or content(row, title))
    images = Rows({"image": row["image"]} for row in rows(*range(4)))
    table = huggingface.Table(images, np.arange(4), None, Wanted(2, 1), "t")
    places = np.array([3, 0, 3])
    before = table.take(places)
    expected = [int.from_bytes(digest(picture(number))[:8], "little") for number in range(4)]
    assert table.identities().tolist() == table.identities().tolist() == expected and len(read) == 4
    assert table.take(places).identities().tolist() == [expected[i] for i in places] and len(read) == 4
    assert before.identities().tolist() == [expected[i] for i in places] and read[4:] == [
        "t, row 3",
        "t, row 0",
        "t, row 3",
    ]


def test_reasons_of_the_library_are_one_line_of_300_characters():
    assert huggingface._one_line(OSError("two\nlines  of it")) == "OSError: two lines of it"
    assert huggingface._one_line(ValueError("ab " * 200)) == f"ValueError: {'ab ' * 100}"


@pytest.mark.parametrize("label", [-1, 0.5, "a", None, True])
def test_a_stream_needs_whole_numbers_from_zero(label):
    stream = huggingface.Stream(rows(4, 3, 2, label), "image", "y", Wanted(2, 1), "hf:a, train")
    found = stream.blocks(1, itertools.cycle([2]))
    next(found)
    if label is True:  # of the library's own kinds none is a boolean; Python counts it as 1
        assert next(found)[1].tolist() == [1]
        return
    with pytest.raises(UserError, match="hf:a, train, rows 3 to 3: the column 'y' does not hold whole numbers from 0"):
        next(found)


def test_the_image_of_a_row_lies_in_it_or_in_a_file(tmp_path):
    (tmp_path / "a.png").write_bytes(b"content")
    assert huggingface._content({"x": {"bytes": b"given", "path": str(tmp_path / "a.png")}}, "t") == b"given"
    assert huggingface._content({"x": {"bytes": None, "path": str(tmp_path / "a.png")}}, "t") == b"content"
    assert huggingface._content({"x": {"bytes": b"", "path": str(tmp_path / "a.png")}}, "t") == b""
    for file, message in (({"bytes": None, "path": None}, "t cannot be read"), (None, "t has no image"),
                          ({"bytes": None, "path": str(tmp_path / "gone")}, "t cannot be read")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            huggingface._content({"x": file}, "t")


class Column(list):
    """Stands for rows: one column of labels."""

    def __init__(self, values=(), **kinds):
        super().__init__(values)
        self.features = kinds or {"label": datasets.Value("int64")}

    def with_format(self, form):
        return {"label": np.array(list(self))} if form == "numpy" else None


def test_labels_of_each_split_and_those_that_are_withheld():
    """Only a split whose labels are all -1 withholds them."""
    found, known = huggingface._labels("x", {"train": Column([1, 0]), "test": Column([-1, -1])}, "label", "natural")
    assert {name: (of.tolist(), of.dtype) for name, of in found.items()} == {
        "train": ([1, 0], np.int32), "test": ([-1, -1], np.int32),
    }  # fmt: skip
    assert known is None
    named = {"train": Column([1, 0], label=CLASS), "test": Column([0], label=CLASS)}
    found, known = huggingface._labels("x", named, "label", "natural")
    assert known == ("a", "b") and found["test"].tolist() == [0]
    texts = {"train": Column(["10", "9"]), "test": Column(["9"])}
    for order, numbers, expected in (("natural", [1, 0], ("9", "10")), ("text", [0, 1], ("10", "9"))):
        found, known = huggingface._labels("x", texts, "label", order)
        assert (found["train"].tolist(), known) == (numbers, expected)
    assert huggingface._labels("x", texts, None, "natural") == ({"train": None, "test": None}, None)
    with pytest.raises(UserError, match=r"'hf:x', test: some of the column 'label' are less than 0 \(1 of 2"):
        huggingface._labels("x", {"train": Column([1]), "test": Column([-1, 0])}, "label", "natural")


def test_splits_and_columns_of_the_hub_that_are_not_used():
    text, number, image = datasets.Value("string"), datasets.Value("int64"), datasets.Image()
    kinds = {"img": image, "label": CLASS, "Coarse_Category": number, "TARGETS": text, "odd": CLASS, "caption": text}
    train, other = Column([1, 0], **kinds), Column([1] * 1200)
    found = {"train": train}
    left_out, warnings = huggingface._unused(
        "x", {"train": train, "Test": other, "extra": other}, found, "img", "label"
    )
    assert left_out == [
        "1,200 images of the split Test", "1,200 images of the split extra",
        "columns Coarse_Category, TARGETS, odd, caption (not read)",
    ]  # fmt: skip
    assert warnings == [
        "splits that are not used: Test; those of the names train, test, validation, valid, val, dev are",
        "columns that look like labels are not used: Coarse_Category, TARGETS, odd; the classes are the column 'label'",
    ]
    only = Column([1], img=image, label=CLASS)
    assert huggingface._unused("x", {"train": only}, {"all": only}, "img", "label") == ([], [])
    assert huggingface._unused("x", only, {"all": only}, "img", None) == (
        ["columns label (not read)"],
        ["columns that look like labels are not used: label; classes are a column named label, labels, fine_label, class, "
         "target"],
    )  # fmt: skip


class Streamed(Rows):
    """Stands for a split that comes over the network: an image and a label in each row."""

    def __init__(self, *labels, names=None):
        super().__init__(rows(*labels))
        self.features = {"image": IMAGE, "y": datasets.ClassLabel(names=names) if names else datasets.Value("int64")}

    def cast_column(self, name, kind):
        assert name == "image" and not kind.decode
        return self


@pytest.fixture
def streamed(monkeypatch):
    """(splits) -> what `stream` makes of them, by labels of the column `y`."""
    monkeypatch.setattr(huggingface, "LABELS", ("y",))

    def stream(**splits):
        monkeypatch.setattr(
            huggingface, "_open", lambda text, *, streaming: splits if len(splits) > 1 else splits["all"]
        )
        return huggingface.stream("a", Wanted(None, None))

    return stream


def test_streams_have_the_labels_of_their_splits_and_leave_out_those_that_are_withheld(streamed):
    found, names, left_out, warnings = streamed(train=Streamed(0, 1, names="ab"), test=Streamed(-1, -1, names="ab"))
    assert list(found) == ["train"] and names == ("a", "b") and warnings == []
    assert left_out == ["the split test, whose labels are withheld (-1)"]
    assert found["train"].image_shape == (2, 2, 1)
    ((_, labels, _),) = found["train"].blocks(0, iter([2]))
    assert labels.tolist() == [0, 1]
    with pytest.raises(
        UserError, match=r"^data\.source='hf:a': the column 'y' of the split 'train' withholds all labels"
    ):
        streamed(train=Streamed(-1), test=Streamed(0))
    with pytest.raises(UserError, match=r"^data\.source: hf:a, test has no images$"):
        streamed(train=Streamed(0), test=Streamed())


@pytest.mark.parametrize("splits", [("all",), ("train", "test")])
def test_streams_that_all_withhold_their_labels_have_no_classes(streamed, splits):
    found, names, left_out, warnings = streamed(**{name: Streamed(-1, -1, names="ab") for name in splits})
    assert list(found) == list(splits) and names is None and left_out == []
    assert warnings == [
        "the column 'y' is -1 in the first row of each split, which withholds the labels: there are no classes"
    ]
    for stream in found.values():
        ((pixels, labels, _),) = stream.blocks(0, iter([2]))
        assert labels.tolist() == [-1, -1] and pixels[:, 0, 0, 0].tolist() == [0, 1]
