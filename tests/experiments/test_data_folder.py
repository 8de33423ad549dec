"""Folders of pictures of any size: cropped as ADM crops them, described by a table, read when needed."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from experiments.data import load
from experiments.data.sources.decoding import center_crop
from experiments.errors import UserError

# (width, height, channels, size): what `center_crop_arr` of guided_diffusion/image_datasets.py, in
# https://github.com/openai/guided-diffusion at commit 22e0df8183507e13a7813f8d38d51b072ca1e67c, gave for `picture` with
# Pillow 13.0, flattened. Halved twice and once, wide and high, enlarged, left alone, and halved three times.
PEER = {
    (23, 37, 1, 4): [40, 64, 123, 194, 67, 95, 163, 180, 95, 129, 195, 93, 127, 174, 143, 71],
    (37, 9, 3, 4): [
        74, 114, 154, 95, 135, 175, 124, 164, 204, 158, 198, 238, 91, 131, 171, 112, 152, 192, 143, 183, 223,
        178, 218, 87, 109, 149, 189, 131, 171, 211, 162, 202, 200, 198, 238, 22, 124, 164, 204, 146, 186, 226,
        178, 218, 130, 215, 127, 39,
    ],
    (4, 11, 1, 4): [15, 15, 16, 19, 20, 20, 22, 24, 25, 25, 27, 30, 30, 30, 32, 35],
    (3, 5, 1, 4): [2, 2, 2, 3, 6, 6, 6, 7, 10, 10, 10, 11, 14, 14, 13, 14],
    (4, 4, 3, 4): [
        0, 40, 80, 0, 40, 80, 1, 41, 81, 3, 43, 83, 5, 45, 85, 5, 45, 85, 6, 46, 86, 8, 48, 88, 10, 50, 90, 10,
        50, 90, 11, 51, 91, 13, 53, 93, 15, 55, 95, 15, 55, 95, 16, 56, 96, 19, 59, 99,
    ],
    (40, 71, 1, 5): [
        70, 123, 171, 101, 122, 114, 177, 105, 157, 115, 172, 150, 106, 126, 137, 176, 73, 165, 122, 119, 68,
        126, 127, 146, 131,
    ],
}  # fmt: skip


def picture(width, height, channels=1):
    y, x, k = np.meshgrid(np.arange(height), np.arange(width), np.arange(channels), indexing="ij")
    return ((x * x // 3 + 5 * y + 40 * k + x * y // 7) % 256).astype(np.uint8)


def pillow(pixels):
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    pillow(pixels).save(path)


def load4(folder, **changes):
    """4x4 grey crops of a folder's images."""
    defaults = {"image_size": 4, "num_channels": 1, "test_fraction": 0.3, "resize": "center_crop"}
    return load(f"folder:{folder}", **defaults | changes)


@pytest.fixture
def sizes(tmp_path):
    """Forty pictures of as many sizes, in two classes."""
    for i in range(40):
        save(tmp_path / "pictures" / "ab"[i % 2] / f"{i}.png", picture(3 + i, 30 - i // 2))
    return tmp_path / "pictures"


@pytest.mark.parametrize("case", PEER)
def test_crops_are_adms(case):
    width, height, channels, size = case
    cropped = center_crop(pillow(picture(width, height, channels)), (size, size))
    assert cropped.ravel().tolist() == PEER[case]


@pytest.mark.parametrize("height, width, top, left", [(4, 7, 0, 1), (9, 4, 2, 0), (4, 6, 0, 1), (4, 4, 0, 0)])
def test_an_odd_margin_is_larger_at_the_right_and_below(height, width, top, left):
    pixels = picture(width, height)
    expected = pixels[top : top + 4, left : left + 4, 0]
    np.testing.assert_array_equal(center_crop(pillow(pixels), (4, 4)), expected)


def test_a_folder_of_all_sizes_is_cropped(sizes):
    data = load4(sizes)
    expected = {center_crop(pillow(picture(3 + i, 30 - i // 2)), (4, 4)).tobytes(): i % 2 for i in range(40)}
    assert len(data.train) + len(data.test) == 40
    for part in (data.train, data.test):
        assert part.images.shape[1:] == (4, 4, 1)
        assert [expected[image.tobytes()] for image in part.images] == part.labels.tolist()


@pytest.mark.parametrize("folders, classes", [((), 0), (("a",), 0), (("a", "b"), 2), (("a", "b", "c"), 3)])
def test_classes_are_two_folders_or_more(tmp_path, folders, classes):
    for i in range(20):
        save(tmp_path.joinpath("pictures", *folders[i % max(len(folders), 1) :][:1], f"{i}.png"), picture(4, 4) + i)
    dataset = load4(tmp_path / "pictures")
    assert dataset.num_classes == classes
    assert dataset.class_names == (folders if classes else None)
    assert (dataset.train.labels is None) == (classes == 0)


def test_arrays_are_cropped_too(tmp_path):
    images = np.stack([picture(9, 6, 3) + i for i in range(20)])
    np.savez(tmp_path / "a.npz", images=images)
    data = load(f"npz:{tmp_path}/a.npz", image_size=4, num_channels=3, test_fraction=0.3, resize="center_crop")
    expected = {center_crop(pillow(image), (4, 4)).tobytes() for image in images}
    assert {image.tobytes() for part in (data.train, data.test) for image in part.images} == expected
    # The split is by the uncropped image, so that it is one for all sizes.
    other = load(f"npz:{tmp_path}/a.npz", image_size=3, num_channels=3, test_fraction=0.3, resize="center_crop")
    np.testing.assert_array_equal(data.test.identities(), other.test.identities())
    assert data.fingerprint() != other.fingerprint()


def test_what_does_not_fit_in_memory_is_read_when_needed_and_is_the_same(sizes):
    kept, read = load4(sizes), load4(sizes, memory_gb=0)
    assert not hasattr(read.train, "images")
    for name in ("train", "test"):
        a, b = getattr(kept, name), getattr(read, name)
        order = np.random.default_rng(0).permutation(len(a))
        for x, y in ((a, b), (a.take(order), pickle.loads(pickle.dumps(b)).take(order))):
            places = np.arange(len(a))[::-1]
            np.testing.assert_array_equal(x.gather(places)["image"], y.gather(places)["image"])
            np.testing.assert_array_equal(x.gather(places)["label"], y.gather(places)["label"])
        np.testing.assert_array_equal(a.identities(), b.identities())
    assert kept.fingerprint() == read.fingerprint()


def test_the_budget_counts_all_images_decoded(sizes):
    assert hasattr(load4(sizes, memory_gb=40 * 16e-9).train, "images")
    assert not hasattr(load4(sizes, memory_gb=39.9 * 16e-9).train, "images")


def test_a_bad_file_that_is_met_later_is_named(sizes):
    data = load4(sizes, memory_gb=0)
    (sizes / "b" / "39.png").write_bytes(b"not a PNG")
    with pytest.raises(UserError, match=r"b/39\.png cannot be read as an image \(not of a known format\)"):
        for part in (data.train, data.test):
            part.gather(np.arange(len(part)))
    (sizes / "b" / "39.png").unlink()
    with pytest.raises(UserError, match=r"b/39\.png cannot be read as an image \(No such file"):
        data.train.in_memory(), data.test.in_memory()


def test_the_fingerprint_is_of_names_labels_crop_and_content(sizes, tmp_path):
    def fingerprint(**changes):
        return load4(sizes, memory_gb=0, **changes).train.fingerprint()

    before = fingerprint()
    assert before.startswith("names-and-sample:") and fingerprint() == before
    assert fingerprint(image_size=5) != before
    train = load4(sizes, memory_gb=0).train
    path = sizes / train.files[0]
    content = path.read_bytes()
    path.write_bytes(content + b"\0")
    assert fingerprint() != before
    path.write_bytes(content)
    assert fingerprint() == before
    path.rename(path.with_name("other.png"))
    assert fingerprint() != before


def test_adding_files_moves_none(sizes):
    def files():
        data = load4(sizes, memory_gb=0, validation_fraction=0.2)
        return [set(getattr(data, name).files) for name in ("train", "validation", "test")]

    before = files()
    for i in range(60):
        save(sizes / "ab"[i % 2] / f"new{i}.png", picture(5, 5))
    after = files()
    assert all(a >= b for a, b in zip(after, before, strict=True))
    assert sum(map(len, after)) == 100 and sum(map(len, before)) == 40


def table(folder, text, name="metadata.csv"):
    for i in range(6):
        save(folder / "some" / f"{i}.png", picture(4, 4) + i)
    save(folder / "unlisted.png", picture(9, 9))
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def numbers(part):
    """The number of each image that `table` made."""
    return (part.images[:, 0, 0, 0] - picture(4, 4)[0, 0, 0]).tolist()


def test_metadata_gives_classes_and_splits(tmp_path):
    rows = ["some/5.png,dog,test", "some/0.png,cat,train", "some/3.png,ant,train", "some/1.png,dog,val"]
    data = load4(table(tmp_path, "\ufefffile_name,label,split\n" + "\n".join(rows) + "\n"))
    assert (numbers(data.train), numbers(data.validation), numbers(data.test)) == ([0, 3], [1], [5])
    assert data.train.labels.tolist() == [1, 0] and data.test.labels.tolist() == [2]
    assert data.num_classes == 3 and data.class_names == ("ant", "cat", "dog")


def test_metadata_may_give_numbers_or_no_classes(tmp_path):
    rows = "".join(f"some/{i}.png,a text,{10 * i}\n" for i in range(6))
    data = load4(table(tmp_path, "file_name,text,label\n" + rows))
    for part in (data.train, data.test):
        assert part.labels.tolist() == [10 * n for n in numbers(part)]
    assert data.num_classes == 51 and data.class_names is None and len(data.train) + len(data.test) == 6
    assert load4(table(tmp_path, "file_name\nsome/0.png\nsome/1.png\nsome/2.png\n"), test_fraction=0.5).num_classes == 0


@pytest.mark.parametrize(
    "text, phrases",
    [
        ("name,label\na,b\n", ["metadata.csv has the columns name, label", "'file_name' is needed"]),
        ("", ["metadata.csv has the columns (none)"]),
        (
            "file_name;label\nsome/0.png;a\n",
            ["metadata.csv has its columns separated by semicolons: commas are needed"],
        ),
        ("file_name\tlabel\nsome/0.png\ta\n", ["separated by tabs: commas are needed"]),
        ("file_name\n", ["names no images"]),
        ("file_name\nsome/0.png\nsome/7.png\n", ["row 3", "some/7.png does not exist", "did you mean '"]),
        ("file_name\nsome/0.png\n./some/0.png\n", ["row 3", "some/0.png has a row already"]),
        ("file_name\n/etc/hostname\n", ["row 2", "must be a path within the folder"]),
        ("file_name\nsome/../../x.png\n", ["row 2", "must be a path within the folder"]),
        ("file_name,label\nsome/0.png,a\nsome/1.png,\n", ["row 3 has no label"]),
        ("file_name,label\nsome/0.png,a\nsome/1.png\n", ["row 3 has no label"]),
        ("file_name,split\nsome/0.png,train\nsome/1.png,tests\n", ["row 3", "split='tests'", "did you mean 'test'"]),
        ("file_name,split\nsome/0.png,test\n", ["no image to the split 'train'"]),
        ('file_name\n"some/0.png\n', ["is not a table of comma-separated values"]),
    ],
)
def test_a_wrong_table_is_one_clear_line(tmp_path, text, phrases):
    with pytest.raises(UserError) as error:
        load4(table(tmp_path, text))
    assert "\n" not in str(error.value)
    assert all(phrase in str(error.value) for phrase in phrases), str(error.value)


def test_json_lines_are_read_as_comma_separated_values_are(tmp_path):
    """The same images, classes and splits from both; numbers stay numbers and keys may be left out."""
    rows = [("some/5.png", "dog", "test"), ("some/0.png", "cat", "train"), ("some/3.png", "ant", "train")]
    lines = "".join(json.dumps(dict(zip(("file_name", "label", "split"), row, strict=True))) + "\n\n" for row in rows)
    data = load4(table(tmp_path / "names", "\ufeff" + lines, "metadata.jsonl"))
    assert (numbers(data.train), numbers(data.test)) == ([0, 3], [5])
    assert data.train.labels.tolist() == [1, 0] and data.class_names == ("ant", "cat", "dog")
    lines = "".join(f'{{"file_name": "some/{i}.png", "text": ["a"], "label": {10 * i}}}\n' for i in range(6))
    data = load4(table(tmp_path / "counts", lines, "metadata.jsonl"))
    assert data.train.labels.tolist() == [10 * n for n in numbers(data.train)] and data.class_names is None


@pytest.mark.parametrize(
    "text, phrases",
    [
        ("", ["metadata.jsonl names no images"]),
        ('{"name": "some/0.png"}\n', ["has the columns name", "'file_name' is needed"]),
        ('{"file_name": "some/0.png"}\n\n{"file_name": \n', ["line 3 is not a JSON object on each line"]),
        ('{"file_name": "some/0.png"}\n[1]\n', ["line 2: [1] is not a JSON object"]),
        ('{"file_name": "some/0.png", "label": 1.5}\n', ["line 1: label=1.5 must be a text or a whole number"]),
        ('{"file_name": "some/0.png", "label": true}\n', ["line 1: label=True must be a text or a whole number"]),
        ('{"file_name": {"a": 1}}\n', ["line 1: file_name={'a': 1} must be a text"]),
        (
            '{"file_name": "some/0.png", "label": 1}\n{"file_name": "some/1.png", "label": null}\n',
            ["line 2 has no label"],
        ),
        ('{"file_name": "some/0.png", "label": 1}\n{"file_name": "some/1.png"}\n', ["line 2 has no label"]),
        ('{"file_name": "some/0.png"}\n{"file_name": "some/7.png"}\n', ["line 2: some/7.png does not exist"]),
        ('{"file_name": "some/0.png", "label": ' + "9" * 5000 + "}\n", ["line 1 is not"]),
        ("[" * 100_000, ["line 1 is not"]),
    ],
)
def test_a_wrong_line_of_json_is_one_clear_line(tmp_path, text, phrases):
    with pytest.raises(UserError) as error:
        load4(table(tmp_path, text, "metadata.jsonl"))
    assert "\n" not in str(error.value)
    assert all(phrase in str(error.value) for phrase in phrases), str(error.value)


def test_two_tables_are_refused(tmp_path):
    table(tmp_path, "file_name\nsome/0.png\n")
    with pytest.raises(UserError, match=r"has metadata\.csv and metadata\.jsonl: keep one of them"):
        load4(table(tmp_path, '{"file_name": "some/0.png"}\n', "metadata.jsonl"))


def test_train_and_validation_folders_are_splits_and_test_comes_from_training(tmp_path):
    for i in range(40):
        save(tmp_path / ("train", "val")[i % 2] / "ab"[i // 2 % 2] / f"{i}.png", picture(4, 4) + i)
    data = load4(tmp_path)
    assert sorted(numbers(data.validation)) == list(range(1, 40, 2))
    assert sorted(numbers(data.train) + numbers(data.test)) == list(range(0, 40, 2)) and len(data.test)
    assert data.num_classes == 2


@pytest.mark.parametrize("channels", [0, 2, 5])
def test_pictures_have_one_three_or_four_channels(tmp_path, channels):
    save(tmp_path / "a.png", picture(4, 4))
    with pytest.raises(
        UserError, match=rf"^data\.num_channels={channels} is not allowed for image files: choose 1, 3 or 4$"
    ):
        load4(tmp_path, num_channels=channels)
