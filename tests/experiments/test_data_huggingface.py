"""Data sets of Hugging Face's library: those on the disk, and streams, which are written as records. No network is used."""

import io
import pickle
import sys

import numpy as np
import pytest
from PIL import Image

from experiments.data import load
from experiments.data.prepare import prepare
from experiments.errors import UserError
from tests.experiments.pictures_of_files import png as deep_png
from tests.experiments.pictures_of_files import with_orientation

datasets = pytest.importorskip("datasets", reason="needs the extra hf")


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No network and a cache of its own; no progress bars, which would hide messages."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def pixels(i):
    return np.random.default_rng(i).integers(0, 256, (4, 4, 3), dtype=np.uint8)


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def table(numbers, image="image", images=None, **columns):
    """A table of the images of these numbers; further columns are (values, kind)."""
    files = [{"bytes": png(pixels(i)), "path": None} for i in numbers] if images is None else images
    kinds = {image: datasets.Image()} | {name: kind for name, (_, kind) in columns.items()}
    values = {image: files} | {name: values for name, (values, _) in columns.items()}
    return datasets.Dataset.from_dict(values, features=datasets.Features(kinds))


def classes(numbers, names=("ant", "bee", "cat")):
    return [i % 3 for i in numbers], datasets.ClassLabel(names=list(names))


def whole(values):
    return values, datasets.Value("int64")


def saved(tmp_path, data):
    data = datasets.DatasetDict(data) if isinstance(data, dict) else data
    data.save_to_disk(tmp_path / "saved")
    return f"hf:{tmp_path}/saved"


def load4(source, **changes):
    return load(source, **{"image_size": 4, "num_channels": 3, "test_fraction": 0.3} | changes)


def numbers(part):
    """The numbers of the images in a split."""
    of = {pixels(i).tobytes(): i for i in range(100)}
    return [of[image.tobytes()] for image in part.gather(np.arange(len(part)))["image"]]


def test_one_table_is_split_by_the_content_of_its_files(tmp_path):
    source = saved(tmp_path, table(range(40), label=classes(range(40)), text=whole(list(range(40)))))
    data, read = load4(source, validation_fraction=0.2), load4(source, validation_fraction=0.2, memory_gb=0)
    assert not hasattr(read.train, "images") and data.fingerprint() == read.fingerprint()
    assert data.num_classes == 3 and data.class_names == ("ant", "bee", "cat")
    parts = [numbers(part) for part in (data.train, data.validation, data.test)]
    assert sorted(parts[0] + parts[1] + parts[2]) == list(range(40)) and all(parts)
    for part, chosen in zip((read.train, read.validation, read.test), parts, strict=True):
        for source_ in (part, pickle.loads(pickle.dumps(part))):
            assert numbers(source_) == chosen and source_.labels.tolist() == [i % 3 for i in chosen]
    # Others are added and the order is another one: none moves.
    grown = load4(saved(tmp_path / "more", table(range(80)[::-1])), validation_fraction=0.2)
    assert set(parts[2]) < set(numbers(grown.test)) and set(parts[1]) < set(numbers(grown.validation))
    assert set(parts[0]) < set(numbers(grown.train)) and grown.num_classes == 0


def test_its_own_splits_are_kept_and_withheld_labels_are_not_used(tmp_path):
    parts = {"train": range(20), "valid": range(20, 26), "test": range(26, 30)}
    tables = {name: table(part, "img", label=classes(part)) for name, part in parts.items()}
    data = load4(saved(tmp_path, tables))
    assert [numbers(part) for part in (data.train, data.validation, data.test)] == [list(p) for p in parts.values()]
    tables["test"] = table(range(26, 30), "img", label=([-1] * 4, classes([])[1]))
    data = load4(saved(tmp_path / "withheld", tables))
    assert numbers(data.validation) == list(range(20, 26)) and set(numbers(data.test)) < set(range(20))


def test_columns(tmp_path):
    """Two columns of images, fine and coarse classes, texts for classes."""
    second = {"mask": (table(range(10, 20))[:]["image"], datasets.Image())}
    two = table(range(10), coarse_label=classes(range(10)), fine_label=whole([7] * 9 + [8]), **second)
    data = load4(saved(tmp_path / "a", two))
    assert sorted(numbers(data.train) + numbers(data.test)) == list(range(10)) and data.num_classes == 9
    text = table(range(10), "photo", label=(["x", "b"] * 5, datasets.Value("string")))
    data = load4(saved(tmp_path / "b", text))
    assert data.class_names == ("b", "x") and data.train.labels.tolist() == [1 - i % 2 for i in numbers(data.train)]
    lists = table(range(10), label=([[1, 2]] * 10, datasets.List(datasets.Value("int64"))))
    assert load4(saved(tmp_path / "c", lists)).num_classes == 0


def test_a_folder_of_parquet_files_and_crops(tmp_path):
    (tmp_path / "in").mkdir()
    files = [{"bytes": png(np.full((6 + i, 9, 3), i, np.uint8)), "path": None} for i in range(20)]
    table(range(20), images=files, label=classes(range(20))).to_parquet(tmp_path / "in" / "train.parquet")
    data = load4(f"hf:{tmp_path}/in", resize="center_crop")
    for part in (data.train, data.test):
        assert (part.images == part.images[:, :1, :1, :1]).all()
        assert part.labels.tolist() == (part.images[:, 0, 0, 0] % 3).tolist()
    assert len(data.train) + len(data.test) == 20


def test_a_folder_of_pictures_whose_files_are_read_when_needed(tmp_path):
    for i in range(20):
        (tmp_path / "in" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / "ab"[i % 2] / f"{i}.png").write_bytes(png(pixels(i)))
    data = load4(f"hf:{tmp_path}/in", memory_gb=0)
    found = numbers(data.train)
    assert sorted(found + numbers(data.test)) == list(range(20)) and data.train.labels.tolist() == [
        i % 2 for i in found
    ]
    (tmp_path / "in" / "ab"[found[3] % 2] / f"{found[3]}.png").unlink()
    with pytest.raises(UserError, match=rf"in, all, row \d+ cannot be read .*{found[3]}\.png"):
        data.train.gather([0, 3])


def test_a_stream_becomes_the_same_records(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.data.prepare.MB", 48 * 15)
    monkeypatch.setattr("experiments.data.prepare.BLOCK_BYTES", 48 * 4)
    (tmp_path / "in").mkdir()
    for name, part in (("train", range(40)), ("test", range(40, 50))):
        table(part, label=classes(part)).to_parquet(tmp_path / "in" / f"{name}.parquet")
    source = f"hf:{tmp_path}/in"
    stored = prepare(source, tmp_path / "stored", shard_mb=1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        count = iter(range(6))
        patch.setattr("experiments.data.records.ShardWriter.write", interrupting(count))
        prepare(source, tmp_path / "stream", shard_mb=1, stream=True)
    kept = sorted(path.name for path in (tmp_path / "stream.partial").glob("*.index.npy"))
    assert kept == ["train-00000.index.npy"]
    assert prepare(source, tmp_path / "stream", shard_mb=1, stream=True) == stored
    names = sorted(path.name for path in (tmp_path / "stored").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "stream").iterdir()) and len(names) == 9
    for name in names:
        assert (tmp_path / "stored" / name).read_bytes() == (tmp_path / "stream" / name).read_bytes()
    assert numbers(load4(f"arrayrecord:{tmp_path}/stream").train) == list(range(40))


def interrupting(count):
    from experiments.data.records import ShardWriter

    write = ShardWriter.write

    def wrapper(self, index, pixels):
        if next(count, None) is None:
            raise KeyboardInterrupt
        write(self, index, pixels)

    return wrapper


def bad_files(folder):
    files = [{"bytes": png(pixels(i)), "path": None} for i in range(4)]
    return table(range(4), images=[*files[:3], folder])


FAULTS = {
    "no images": (lambda f: datasets.Dataset.from_dict({"a": [1]}), ["no column of type Image", "a (Value)"]),
    "too many": (
        lambda f: table([0], "x", y=([{"bytes": png(pixels(0)), "path": None}], datasets.Image())),
        ["several columns of images, none named image or img"],
    ),
    "no train": (lambda f: {"a": table([0]), "test": table([1])}, ["has the splits a, test; 'train' is needed"]),
    "negative": (lambda f: table(range(2), label=whole([0, -2])), ["some of the column 'label' are less than 0"]),
    "real": (lambda f: table(range(2), label=([0.5, 1], datasets.Value("float32"))), ["whole numbers or texts"]),
    "missing label": (lambda f: table(range(2), label=whole([0, None])), ["whole numbers or texts, none missing"]),
    "missing image": (lambda f: bad_files(None), ["saved, all, row 3 has no image"]),
    "broken": (lambda f: bad_files({"bytes": b"broken", "path": None}), ["row 3 cannot be read as an image"]),
    "size": (
        lambda f: table(range(9), images=[{"bytes": png(np.full((5, 5, 3), i, np.uint8)), "path": None} for i in range(9)]),
        ["5x5x3", "--config.data.image_size=5", "--config.data.resize=center_crop"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_data_set_is_one_clear_line(name, tmp_path):
    make, phrases = FAULTS[name]
    source = saved(tmp_path, make(tmp_path))
    with pytest.raises(UserError) as error:
        load4(source)
    assert "\n" not in str(error.value)
    assert all(phrase in str(error.value) for phrase in phrases), str(error.value)


def test_what_is_not_there_is_named(tmp_path, monkeypatch):
    saved(tmp_path, table(range(4)))
    (tmp_path / "file").touch()
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "program.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for text, phrase in (
        (f"{tmp_path}/save", r"save does not exist; did you mean 'saved'"),
        (f"{tmp_path}/file", r"file is a file; hf:PATH is a folder"),
        (f"{tmp_path}/program", r"program cannot be read as a data set"),
        ("nobody/nothing", r"'hf:nobody/nothing' cannot be loaded, neither as a folder nor from the hub"),
    ):
        with pytest.raises(UserError, match=phrase) as error:
            load4(f"hf:{text}")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists(), "a data set's program was run"
    for source, phrase in ((f"hf:{tmp_path}/saved", "lies on the disk as it is"), ("digits", "is no stream")):
        with pytest.raises(UserError, match=phrase):
            prepare(source, tmp_path / "out", stream=True)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"needs the extra hf: pip install -e '\.\[hf\]'"):
        load4(f"hf:{tmp_path}/saved")


def test_what_is_not_used_is_said(tmp_path):
    """Splits and columns that look like splits and labels, and a split whose labels are withheld."""
    parts = {"train": range(20), "test": range(20, 26), "Val": range(26, 30), "extra": range(30, 33)}
    tables = {name: table(part, fine_label=classes(part), coarse_label=classes(part)) for name, part in parts.items()}
    tables["test"] = table(range(20, 26), fine_label=([-1] * 6, classes([])[1]), coarse_label=classes(range(20, 26)))
    data = load4(saved(tmp_path, tables))
    assert data.left_out == (
        "4 images of the split Val",
        "3 images of the split extra",
        "columns coarse_label (not read)",
        "6 images of the split test, whose labels are withheld (-1)",
    )
    splits, columns = data.warnings
    assert splits.startswith("splits that are not used: Val; ")
    assert (
        columns == "columns that look like labels are not used: coarse_label; the classes are the column 'fine_label'"
    )


def test_columns_of_other_names_are_no_classes_and_said(tmp_path):
    data = load4(
        saved(tmp_path, table(range(10), digit_class=whole([1] * 10), caption=(["a"] * 10, datasets.Value("string"))))
    )
    assert data.num_classes == 0 and data.left_out == ("columns digit_class, caption (not read)",)
    (warning,) = data.warnings
    assert (
        "columns that look like labels are not used: digit_class; classes are a column named label, labels," in warning
    )


def test_texts_are_numbered_in_natural_order(tmp_path):
    texts = [str(i % 12) for i in range(24)]
    data = load4(saved(tmp_path, table(range(24), label=(texts, datasets.Value("string")))))
    assert data.class_names == tuple(map(str, range(12)))
    for part in (data.train, data.test):
        assert part.labels.tolist() == [i % 12 for i in numbers(part)]


def test_labels_that_are_withheld_from_training_are_none(tmp_path):
    data = load4(saved(tmp_path / "a", table(range(10), label=whole([-1] * 10))))
    assert data.num_classes == 0 and "is -1 in all rows" in data.warnings[0]
    tables = {"train": table(range(9), label=whole([-1] * 9)), "test": table(range(9, 12), label=whole([0, 1, 1]))}
    with pytest.raises(UserError, match="the column 'label' of the split 'train' withholds all labels"):
        load4(saved(tmp_path / "b", tables))
    with pytest.raises(UserError, match="has the label 4294967296"):
        load4(saved(tmp_path / "c", table(range(2), label=whole([0, 2**32]))))


def test_transparency_orientation_and_depth_are_resolved_as_in_folders(tmp_path):
    """Of tables on the disk and of streams: over the background, upright, scaled by the white level."""
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[..., 3] = np.arange(4) // 2 * 255
    sideways = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    deep = np.arange(48).reshape(4, 4, 3) * 85
    contents = [png(rgba), with_orientation(sideways, 6, "PNG"), deep_png(deep)]
    expected = [
        np.repeat(255 - rgba[..., 3:] // 255 * np.uint8(255), 3, -1) // 255 * np.uint8(0x80),
        np.rot90(sideways, -1),
        np.rint(deep / 3995 * 255).astype(np.uint8),
    ]
    data = datasets.DatasetDict(
        {part: table(range(3), images=[{"bytes": c, "path": None} for c in contents]) for part in ("train", "test")}
    )
    source = saved(tmp_path, data)
    found = load4(source, background="#808080", white=3995.0).train.gather(np.arange(3))["image"]
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(UserError, match=r"row 2 has more than 8 bits per channel.*--config\.data\.white=4095"):
        load4(source)
    with pytest.raises(UserError, match=r"row 2 has more than 8 bits per channel.*--white=4095"):
        prepare(source, tmp_path / "out")
