"""Every source gives the images that went into it, and a bad input one line that says what would have been right."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.data import load
from experiments.errors import UserError

REAL_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def load4(source, **changes):
    """Loads a source of 4x4 grey images; `changes` replace the expectations."""
    return load(source, **{"image_size": 4, "num_channels": 1, "test_fraction": 0.25} | changes)


def random_images(n, *shape):
    return np.random.default_rng(n).integers(0, 256, (n, *shape), dtype=np.uint8)


def save_npz(folder, **arrays):
    np.savez(folder / "data.npz", **arrays)
    return f"npz:{folder}/data.npz"


def save_png(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def as_set(images):
    return {image.tobytes() for image in images}


def test_digits_are_scikit_learns_spread_over_255_levels():
    from sklearn.datasets import load_digits

    data = load("digits", image_size=8, num_channels=1, test_fraction=0.5)
    assert (len(data.train), len(data.test), data.num_classes) == (899, 898, 10)
    order = np.random.default_rng(0).permutation(1797)
    digits = load_digits()
    images = np.concatenate([data.train.images, data.test.images])
    assert images.dtype == np.uint8 and images.shape == (1797, 8, 8, 1)
    assert np.abs(images[..., 0] / 255 - digits.images[order] / 16).max() <= 0.5 / 255 + 1e-9
    np.testing.assert_array_equal(np.concatenate([data.train.labels, data.test.labels]), digits.target[order])


def test_npz_without_a_split_is_split_once_and_for_all(tmp_path):
    images, labels = random_images(40, 4, 4), np.arange(40) % 3
    source = save_npz(tmp_path, images=images, labels=labels)
    data = load4(source)
    assert len(data.train) + len(data.test) == 40 and len(data.validation) == 0 and data.num_classes == 3
    assert as_set(data.train.images) | as_set(data.test.images) == as_set(images)
    assert not as_set(data.train.images) & as_set(data.test.images)
    label_of = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    for part in (data.train, data.test):
        assert [label_of[image.tobytes()] for image in part.images] == part.labels.tolist()
        assert part.labels.dtype == np.int32
    # In another order, with other labels: the same images are held out.
    other = load4(save_npz(tmp_path, images=images[::-1].copy(), labels=np.arange(40)))
    assert as_set(other.test.images) == as_set(data.test.images)


def test_npz_keeps_a_split_of_its_own_and_its_order(tmp_path):
    train, test = random_images(7, 4, 4, 1), random_images(3, 4, 4, 1)
    source = save_npz(tmp_path, x_train=train, y_train=np.arange(7), x_test=test, y_test=np.array([9, 0, 1]))
    data = load4(source)
    np.testing.assert_array_equal(data.train.images, train)
    np.testing.assert_array_equal(data.test.images, test)
    np.testing.assert_array_equal(data.test.labels, [9, 0, 1])
    assert data.num_classes == 10
    unlabelled = load4(save_npz(tmp_path, x_train=train, x_test=test))
    assert unlabelled.train.labels is None and unlabelled.num_classes == 0


def test_relative_and_home_paths(tmp_path, monkeypatch):
    save_npz(tmp_path, images=random_images(8, 4, 4))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(load4("npz:data.npz").train) == len(load4("npz:~/data.npz").train) > 0


def test_folder_of_classes(tmp_path):
    images = random_images(12, 4, 4)
    for i, image in enumerate(images):
        # Class names sort as cat, dog; files of several kinds, some of them deeper down.
        save_png(tmp_path / ("dog" if i % 3 else "cat/deep") / f"{i}.{('png', 'BMP', 'tif')[i % 3]}", image)
    save_png(tmp_path / ".thumbnails" / "0.png", images[0])
    (tmp_path / "notes.txt").write_text("not an image")
    data = load4(f"folder:{tmp_path}")
    assert len(data.train) + len(data.test) == 12 and data.num_classes == 2 and data.class_names == ("cat", "dog")
    class_of = {image.tobytes(): int(i % 3 > 0) for i, image in enumerate(images)}
    for part in (data.train, data.test):
        assert [class_of[image.tobytes()] for image in part.images] == part.labels.tolist()
    np.testing.assert_array_equal(load4(f"folder:{tmp_path}").train.images, data.train.images)


def test_folder_without_classes(tmp_path):
    for i, image in enumerate(random_images(8, 4, 4)):
        save_png(tmp_path / ("a" if i else "") / f"{i}.png", image)
    data = load4(f"folder:{tmp_path}")
    assert data.train.labels is None and data.num_classes == 0


def test_folder_with_a_split_of_its_own(tmp_path):
    images = random_images(6, 4, 4)
    for i, image in enumerate(images):
        save_png(tmp_path / ("train" if i < 4 else "test") / "ab"[i % 2] / f"{i}.png", image)
    data = load4(f"folder:{tmp_path}")
    assert as_set(data.train.images) == as_set(images[:4]) and as_set(data.test.images) == as_set(images[4:])
    np.testing.assert_array_equal(data.train.labels, [0, 0, 1, 1])  # sorted by path: a before b
    assert data.num_classes == 2


def test_folder_converts_between_grey_and_colour(tmp_path):
    grey, colour = random_images(1, 4, 4)[0], np.full((4, 4, 3), (255, 0, 0), np.uint8)
    for part in ("train", "test"):
        save_png(tmp_path / "grey" / part / "0.png", grey)
        save_png(tmp_path / "red" / part / "0.png", colour)
    as_colour = load4(f"folder:{tmp_path}/grey", num_channels=3).train.images
    np.testing.assert_array_equal(as_colour[0], np.repeat(grey[..., None], 3, axis=-1))
    as_grey = load4(f"folder:{tmp_path}/red").train.images
    assert as_grey.shape == (1, 4, 4, 1) and (as_grey == 76).all()  # ITU-R 601 luma: 0.299 * 255


def npz_case(**arrays):
    return lambda folder: save_npz(folder, **arrays)


def text_file(folder):
    (folder / "data.npz").write_text("hello")
    return f"npz:{folder}/data.npz"


def single_array(folder):
    np.save(folder / "data.npy", random_images(8, 4, 4))
    return f"npz:{folder}/data.npy"


def damaged_npz(folder):
    source = save_npz(folder, images=random_images(80, 4, 4))
    path = folder / "data.npz"
    content = bytearray(path.read_bytes())
    content[600] ^= 0xFF
    path.write_bytes(content)
    return source


def truncated_npz(folder):
    source = save_npz(folder, images=random_images(80, 4, 4))
    path = folder / "data.npz"
    path.write_bytes(path.read_bytes()[:500])
    return source


def folder_with(name, content):
    def case(folder):
        for i, image in enumerate(random_images(8, 4, 4)):
            save_png(folder / f"{i}.png", image)
        (folder / name).write_bytes(content)
        return f"folder:{folder}"

    return case


def png(width, height, bit_depth=8):
    """A grey PNG of zeros, written by the PNG specification, so that its parts can be damaged."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bit_depth, 0, 0, 0, 0)
    rows = b"".join(b"\0" * (1 + width * bit_depth // 8) for _ in range(height))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b"")


def sub_folder_named(name):
    def case(folder):
        (folder / name).mkdir()
        return f"folder:{folder}"

    return case


IMAGES = random_images(8, 4, 4)
# name: (makes the source in an empty folder, what the message must say)
BAD_INPUTS = {
    "unknown": (lambda folder: "digit", ["data.source='digit'", "npz:PATH", "did you mean 'digits'"]),
    "unknown kind": (lambda folder: "nzp:a.npz", ["data.source='nzp:a.npz'", "did you mean 'npz'"]),
    "kind forgotten": (lambda folder: "a.npz", ["did you mean 'npz:a.npz'"]),
    "no path": (lambda folder: "npz:", ["data.source='npz:'", "a path is needed", "npz:PATH"]),
    "no name": (lambda folder: "hf", ["data.source='hf'", "a name is needed", "hf:NAME"]),
    "picture as folder": (
        lambda folder: folder_with("7.png", png(4, 4))(folder) + "/7.png",
        ["is a file, not a folder; name the folder that holds it: 'folder:"],
    ),
    "missing file": (
        lambda folder: npz_case(images=IMAGES)(folder).replace("data", "dta"),
        ["dta.npz does not exist", "did you mean 'data.npz'"],
    ),
    "missing folder": (
        lambda folder: sub_folder_named("faces")(folder) + "/face",
        ["face does not exist", "did you mean 'faces'"],
    ),
    "folder as npz": (lambda folder: f"npz:{folder}", ["is a folder", "'folder:"]),
    "npz as folder": (
        lambda folder: npz_case(images=IMAGES)(folder).replace("npz:", "folder:"),
        ["is a file", "'npz:"],
    ),
    "keys": (npz_case(pictures=IMAGES, y=IMAGES), ["pictures, y", "'images'", "'x_train'"]),
    "half a split": (npz_case(x_train=IMAGES), ["has the keys x_train", "'x_test'"]),
    "half of the labels": (
        npz_case(x_train=IMAGES, x_test=IMAGES, y_test=np.arange(8)),
        ["only one of the keys 'y_train' and 'y_test'"],
    ),
    "dtype": (npz_case(images=IMAGES / 255), ["'images' is float64", "uint8"]),
    "rank": (npz_case(images=IMAGES.reshape(8, 16)), ["shape (8, 16)", "(N, H, W)"]),
    "count of labels": (npz_case(images=IMAGES, labels=np.arange(7)), ["'labels' has shape (7,)", "8 images", "(8,)"]),
    "real labels": (npz_case(images=IMAGES, labels=np.zeros(8)), ["'labels'", "integers from 0", "float64"]),
    "negative labels": (npz_case(images=IMAGES, labels=np.arange(8) - 1), ["'labels'", "integers from 0"]),
    "size": (
        npz_case(images=random_images(8, 5, 5)),
        ["data.npz", "5x5x1", "data.image_size=4", "--config.data.image_size=5", "--config.data.resize=center_crop"],
    ),
    "channels": (npz_case(images=random_images(8, 4, 4, 3)), ["data.npz", "--config.data.num_channels=3"]),
    "size of the test images": (npz_case(x_train=IMAGES, x_test=random_images(8, 5, 5)), ["'x_test'", "5x5x1"]),
    "not square": (
        npz_case(images=random_images(8, 4, 5)),
        ["holds 4x5x1 images", "pass --config.data.image_size=4x5;", "--config.data.resize=center_crop"],
    ),
    "too few": (npz_case(images=IMAGES[:1]), ["1 images", "too few", "data.test_fraction=0.25"]),
    "empty split": (npz_case(x_train=IMAGES, x_test=IMAGES[:0]), ["no test images"]),
    "not an npz": (text_file, ["data.npz is not an .npz file"]),
    "single array": (single_array, ["single array", "'images'"]),
    "damaged npz": (damaged_npz, ["data.npz", "damaged"]),
    "truncated npz": (truncated_npz, ["data.npz", "damaged"]),
    "pickled objects": (npz_case(images=np.array([{"a": 1}], object)), ["'images' is not a plain array"]),
    "empty folder": (sub_folder_named("empty"), ["no image files", ".png"]),
    "image of another size": (folder_with("7.png", png(6, 6)), ["7.png", "6x6", "--config.data.image_size=6"]),
    "broken image": (folder_with("7.png", b"not a PNG"), ["7.png cannot be read as an image"]),
    "truncated image": (folder_with("7.png", png(4, 4)[:55]), ["7.png cannot be read as an image"]),
    "16-bit image": (folder_with("7.png", png(4, 4, bit_depth=16)), ["7.png", "8 bits"]),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_input_is_one_clear_line(name, tmp_path):
    make, phrases = BAD_INPUTS[name]
    with pytest.raises(UserError) as error:
        load4(make(tmp_path))
    message = str(error.value)
    assert "\n" not in message
    for phrase in phrases:
        assert phrase in message


def test_wholesome_neighbours_of_the_damaged_images_are_read(tmp_path):
    """The damage alone, not the way these files are made, is what the cases above refuse."""
    data = load4(folder_with("7.png", png(4, 4))(tmp_path))
    assert len(data.train) + len(data.test) == 8


@pytest.mark.parametrize(
    "source, expected, phrases",
    [
        ("digits", {"image_size": 32}, ["8x8x1", "data.image_size=32", "--config.data.image_size=8"]),
        ("digits", {"test_fraction": 1.0}, ["data.test_fraction=1.0", "between 0 and 1"]),
        ("digits", {"validation_fraction": -0.1}, ["data.validation_fraction=-0.1", "0 or more"]),
        ("digits", {"validation_fraction": 0.5}, ["data.validation_fraction=0.5", "less than 1"]),
        ("digits", {"resize": "centre_crop"}, ["data.resize='centre_crop'", "did you mean 'center_crop'"]),
        ("digits", {"memory_gb": -1}, ["data.memory_gb=-1", "0 (nothing"]),
        ("digits:8", {}, ["write 'digits'"]),
        ("folder:.", {"num_channels": 2}, ["data.num_channels=2", "1, 3 or 4"]),
    ],
)
def test_bad_expectations(source, expected, phrases):
    with pytest.raises(UserError) as error:
        load(source, **{"image_size": 8, "num_channels": 1, "test_fraction": 0.5} | expected)
    assert all(phrase in str(error.value) for phrase in phrases)


@pytest.mark.skipif(
    not (REAL_DATA / "mnist.npz").exists(), reason="needs mnist.npz in shared/data beside the repository"
)
def test_mnist_has_its_published_statistics():
    """Mean 0.1307 and standard deviation 0.3081 of the 60,000 training images; the first labels are 5 0 4 1 9."""
    data = load(f"npz:{REAL_DATA}/mnist.npz", image_size=28, num_channels=1, test_fraction=0.1)
    assert (len(data.train), len(data.test), data.num_classes) == (60000, 10000, 10)
    np.testing.assert_allclose(
        [data.train.images.mean() / 255, data.train.images.std() / 255], [0.1307, 0.3081], atol=5e-5
    )
    np.testing.assert_array_equal(data.train.labels[:5], [5, 0, 4, 1, 9])


@pytest.mark.parametrize("channels", [1, 3])
def test_splits_of_other_shapes_are_said_to_differ(tmp_path, channels):
    """For each number of channels: no advice that the other split would refuse."""
    shapes = {"x_train": (9, 8, 8, channels), "x_test": (9, 8, 8, 4 - channels)}
    np.savez(tmp_path / "a.npz", **{key: np.zeros(shape, np.uint8) for key, shape in shapes.items()})
    with pytest.raises(UserError) as error:
        load(f"npz:{tmp_path}/a.npz", image_size=8, num_channels=channels, test_fraction=0.5)
    message = f"the splits differ: 'x_test' holds 8x8x{4 - channels} images and 'x_train' 8x8x{channels}"
    assert message in str(error.value) and "--config" not in str(error.value)


@pytest.mark.parametrize(
    "shape, axis",
    [((9, 8, 8, 0), "channels"), ((9, 0, 8, 1), "height"), ((9, 8, 0, 1), "width"), ((9, 0, 8), "height"),
     ((8, 8, 0), "width")],
)  # fmt: skip
def test_an_empty_axis_of_images_is_named(tmp_path, shape, axis):
    np.savez(tmp_path / "a.npz", images=np.zeros(shape, np.uint8))
    with pytest.raises(UserError) as error:
        load(f"npz:{tmp_path}/a.npz", image_size=8, num_channels=1, test_fraction=0.5)
    assert f"the axis of {axis} is empty" in str(error.value) and "--config" not in str(error.value)
