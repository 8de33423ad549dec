"""Rules of sources of images at their bounds: modes, shapes, names, white levels, files that are not read."""

import contextlib
import hashlib
import struct

import numpy as np
import pytest
from PIL import Image

from experiments.data.pipeline import batches_ahead
from experiments.data.sources import Wanted, deep, folder, layout, load, names, npz, reading, splits, tree
from experiments.data.sources.base import Images
from experiments.data.sources.decoding import IMAGE_SUFFIXES, as_bytes, require_channels_last, require_several
from experiments.data.sources.rendering import Rendering, with_channels
from experiments.errors import UserError
from tests.experiments.pictures_of_files import file_of, png, tiff, with_orientation

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (4, 6), dtype=np.uint8)


@pytest.mark.parametrize(
    "mode, channels", [("1", 1), ("L", 1), ("LA", 1), ("I;16", 1), ("I", 1), ("F", 1), ("P", 3), ("RGB", 3), ("RGBA", 3),
                       ("CMYK", 3)],
)  # fmt: skip
def test_what_is_left_open_is_that_of_the_first_picture(mode, channels):
    """Grey modes have one channel; the size is the picture's, or if cropped the square of its shorter side."""
    image = Image.fromarray(GREY.astype(np.float32)) if mode == "F" else Image.fromarray(GREY).convert(mode)
    content = file_of(image, "TIFF")
    for height, crop in ((4, 4), (6, 4)):
        content = file_of(image if height == 4 else image.transpose(Image.Transpose.ROTATE_90), "TIFF")
        found = Wanted(None, None).of_first(content, "a")
        assert (found.image_size, found.num_channels) == ((height, 10 - height), channels)
        found = Wanted(None, None, "center_crop").of_first(content, "a")
        assert (found.image_size, found.num_channels) == ((crop, crop), channels)
    found = Wanted(9, 2, white=3.0, test_fraction=0.2).of_first(content, "a")
    assert found == Wanted(9, 2, white=3.0, test_fraction=0.2)


def test_pictures_whose_pixels_are_not_the_stored_ones():
    colour, clear = np.repeat(GREY[..., None], 3, -1), np.zeros((4, 6, 4), np.uint8)
    for kind in ("PNG", "JPEG", "TIFF", "WEBP"):
        assert not Wanted(4, 3).is_rendered(with_orientation(colour, 1, kind), "a")
        turned = Wanted(4, 3).is_rendered(with_orientation(colour, 6, kind), "a")
        assert turned, kind
    assert Wanted(4, 3).is_rendered(file_of(Image.fromarray(clear)), "a")
    assert not Wanted(4, 3).is_rendered(file_of(Image.fromarray(GREY)), "a")


def test_levels_are_rounded_to_bytes_and_those_beyond_are_clipped():
    levels = np.array([-3.0, 0.49, 0.51, 1.5, 2.5, 254.51, 255.4, 300.0], np.float32)
    assert as_bytes(levels).tolist() == [0, 0, 1, 2, 2, 255, 255, 255]
    given = np.array([7], np.uint8)
    assert as_bytes(given) is given


@pytest.mark.parametrize(
    "shape, first",
    [((9, 3, 32, 32), True), ((9, 4, 8, 8), True), ((9, 5, 8, 9), False), ((9, 4, 7, 8), False), ((9, 4, 8, 7), False),
     ((9, 9, 10, 10), True), ((9, 10, 10, 10), False), ((9, 11, 10, 10), False), ((9, 9, 10, 11), False),
     ((9, 1, 8, 9), True), ((9, 28, 28, 3), False)],
)  # fmt: skip
def test_shapes_that_look_channels_first(shape, first):
    with pytest.raises(UserError, match="looks channels-first") if first else contextlib.nullcontext():
        require_channels_last("a", shape)


@pytest.mark.parametrize(
    "shape, one", [((32, 32, 3), True), ((5, 5, 4), True), ((5, 5, 5), False), ((4, 4, 4), False), ((32, 31, 3), True),
                   ((31, 32, 3), True), ((3, 3, 2), False), ((5, 8, 4), True), ((5, 7, 4), False), ((5, 8, 5), False),
                   ((4, 8, 4), False)],
)  # fmt: skip
def test_shapes_that_look_like_one_image(shape, one):
    with pytest.raises(UserError, match="looks like one image") if one else contextlib.nullcontext():
        require_several("a", shape)


def test_endings_of_pictures_are_those_of_seven_formats():
    formats = {suffix: Image.registered_extensions()[suffix] for suffix in IMAGE_SUFFIXES}
    assert set(formats.values()) == {"BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"}
    left = {suffix for suffix, kind in Image.registered_extensions().items() if kind in formats.values()}
    assert left - set(IMAGE_SUFFIXES) == {".dib", ".apng", ".jpe", ".pnm", ".pfm"} & left
    assert not set(IMAGE_SUFFIXES) & set(tree.REASONS)


@pytest.mark.parametrize(
    "ending, reason",
    [
        *[(ending, "archive: unpack it") for ending in (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z")],
        *[(ending, "arrays: data.source=npz:FILE reads .npz") for ending in (".npy", ".npz", ".mat", ".h5", ".pkl", ".pt")],
        *[(ending, "table: data.source=hf:FOLDER reads it") for ending in (".parquet", ".arrow")],
        *[(ending, "records: data.source=arrayrecord:FOLDER reads") for ending in (".array_record", ".tfrecord")],
        *[(ending, "video") for ending in (".mp4", ".avi", ".mov", ".mkv", ".webm")],
        *[(ending, "image format that is not read") for ending in (".heic", ".svg", ".dcm", ".nii", ".nef", ".jpe", ".tga")],
        (".txt", "not an image by the ending"), ("", "not an image by the ending"),
    ],
)  # fmt: skip
def test_files_that_are_not_read_have_their_reason(tmp_path, ending, reason):
    for name in (f"a{ending.upper()}", f"b{ending}"):
        (tmp_path / name).touch()
    (text,) = tree.walk(tmp_path).left_out()
    assert text.startswith(f"2 {ending or 'without an ending'} ({reason}")


def test_six_endings_and_three_names_are_shown_of_each_reason(tmp_path):
    for number, ending in enumerate(("zip", "tar", "gz", "bz2", "xz", "7z", "rar", "zst")):
        for copy in range(9 - number):
            (tmp_path / f"{copy}.{ending}").touch()
    for name in (".a.png", ".b.png", ".c.png", ".d.png", ".e.txt", "Thumbs.db", "desktop.ini"):
        (tmp_path / name).touch()
    for name in (".f", "__MACOSX", "@eaDir", "lost+found"):
        (tmp_path / name).mkdir()
    archives, hidden = tree.walk(tmp_path).left_out()
    assert archives == "9 .zip, 8 .tar, 7 .gz, 6 .bz2, 5 .xz, 4 .7z and 2 more (archive: unpack it)"
    assert hidden == ".a.png, .b.png, .c.png and 5 more (hidden, or added by another program)"


def bits_of(value):
    """The name of a case: its bits, not its bytes."""
    return str(value) if isinstance(value, int) else "file"


def jpeg2000(ssiz, cut=0):
    """The start of a codestream with one component of so many bits (ISO/IEC 15444-1, table A.9)."""
    siz = struct.pack(">HH8IH", 41, 0, 4, 4, 0, 0, 4, 4, 0, 0, 1) + bytes([ssiz, 1, 1])
    content = b"box" + b"\xff\x4f\xff\x51" + siz
    return content[: len(content) - cut]


@pytest.mark.parametrize(
    "content, bits", [(jpeg2000(7), 8), (jpeg2000(15), 16), (jpeg2000(11), 12), (jpeg2000(0x87), 8), (jpeg2000(0), 1),
                      (jpeg2000(15, cut=3), 8), (jpeg2000(15, cut=2), 16), (b"no codestream" * 9, 8), (b"", 8)],
    ids=bits_of,
)  # fmt: skip
def test_bits_of_jpeg_2000(content, bits):
    assert deep._jpeg2000_bits(content) == bits


DEEP = RNG.integers(0, 65536, (4, 4, 3), dtype=np.uint16)


@pytest.mark.parametrize(
    "content, bits",
    [
        (png(DEEP), 16), (png(DEEP[..., :1]), 16), (tiff(DEEP), 16),
        (tiff(DEEP[..., :1].astype(np.float32), sample_format=3), 32),
        (b"P5 4 4 4095\n" + bytes(32), 12), (b"P5 4 4 4096\n" + bytes(32), 13), (b"P5 4 4 256\n" + bytes(32), 9),
        (b"P6 4 4 65535\n" + bytes(96), 16), (b"P2 4 4 300\n" + b"9 " * 16, 9),
    ],
    ids=bits_of,
)  # fmt: skip
def test_bits_of_deep_pictures_are_named(content, bits):
    with pytest.raises(UserError, match=rf"has more than 8 bits per channel \({bits}\) and levels up to"):
        Wanted(4, 3).decode(content, "a.png")


def test_a_pgm_of_255_levels_is_not_deep():
    levels = bytes(range(0, 96, 6))
    for content, white in (
        (b"P5 4 4 255\n" + levels, 255),
        (b"P4 4 4\n" + bytes(4), 1),
        (b"P5 4 4 100\n" + levels, 100),
    ):
        found = Wanted(4, 1).decode(content, "a")
        expected = np.full(16, 255) if white == 1 else np.frombuffer(levels, np.uint8) * (255 / white)
        assert found.shape == (4, 4, 1)
        np.testing.assert_allclose(found.ravel(), expected, atol=0.5)


@pytest.mark.parametrize(
    "high, said",
    [(1, "1"), (2, "255 (65535"), (255, "255 (65535"), (256, "1023 (65535"), (1023, "1023 (65535"), (1024, "4095 (65535"),
     (4096, "16383 (65535"), (16384, "65535"), (65535, "65535"), (65536, "65536"), (7e4 + 0.5, "70001")],
)  # fmt: skip
def test_the_usual_white_level_above_the_largest_is_advised(high, said):
    advised = Rendering()._advice(float(high))
    full = " (65535 for the whole range of 16 bits)" if "(" in said else ""
    assert advised == f"such as --config.data.white={said.partition(' ')[0]}{full}"


def test_white_levels_that_cannot_be():
    for white in (-1.0, np.inf, np.nan):
        with pytest.raises(UserError, match=rf"data\.white={white}: must be a level above 0, such as 65535; 0 leaves"):
            Rendering(white=white)
    with pytest.raises(UserError, match=r"^--white=-1: must"):
        Rendering(white=-1, flags="--")
    stamps = [Rendering(*of).stamp for of in (("white", 0), ("#fff", 0), ("black", 0), ("white", 255), ("#000", 255))]
    assert stamps == [
        "",
        "",
        " over (0, 0, 0), white 0",
        " over (255, 255, 255), white 255",
        " over (0, 0, 0), white 255",
    ]


@pytest.mark.parametrize(
    "highest, white, warned", [(160.0, 10 * 256.0, False), (159.9, 10 * 256.0, True), (0.0, 2560.0, False)]
)
def test_images_of_less_than_a_sixteenth_of_the_white_level_are_warned_of_as_dark(highest, white, warned):
    found = Rendering(white=white).warnings(np.array([0.0, highest]), "a")
    assert [("makes dark images" in text) for text in found] == [True] * warned


@pytest.mark.parametrize("above, warned", [(10, False), (11, True)])
def test_more_than_a_hundredth_of_levels_above_white_is_warned_of(above, warned):
    values = np.where(np.arange(1000) < above, 2.01, 2.0)
    found = Rendering(white=2.0).warnings(values, "a")
    assert [(f"{above / 10:.3g} % of the levels" in text) for text in found] == [True] * warned
    assert Rendering().warnings(values, "a") == [] and Rendering(white=2.0).warnings(values[:0], "a") == []


def test_channels_are_repeated_or_weighed_by_luma_or_left():
    colours = RNG.random((2, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(with_channels(colours, 1)[..., 0], colours @ [0.299, 0.587, 0.114], rtol=1e-6)
    np.testing.assert_array_equal(with_channels(colours[..., :1], 3), np.repeat(colours[..., :1], 3, -1))
    assert with_channels(colours, 3) is colours
    assert [with_channels(colours[..., :given], wanted) for given, wanted in ((2, 1), (2, 3), (1, 2), (2, 4))] == [
        None
    ] * 4
    for given in (1, 3):
        opaque = with_channels(colours[..., :given], 4)
        np.testing.assert_array_equal(opaque[..., :3], with_channels(colours[..., :given], 3))
        assert (opaque[..., 3] == 255).all() and opaque.dtype == np.float32


@pytest.mark.parametrize(
    "name, kind",
    [("evaluation", "eva"), ("Data_Evaluation", "eva"),
     ("Train", "tra"), ("training", "tra"), ("train_images", "tra"), ("trainA", "tra"), ("img_test", "tes"),
     ("TESTED", "tes"),
     ("val2017", "val"), ("valid", "val"), ("validation", "val"), ("dev", "dev"), ("eval", "eva"),
     ("data-test", "tes"), ("testset", "tes"), ("valley", ""), ("trains_", "")],
)  # fmt: skip
def test_the_kind_of_split_that_a_name_resembles(name, kind):
    assert layout.looks_like_split(name) == kind


@pytest.mark.parametrize(
    "found, alike",
    [(["Train", "TEST"], ["Train", "TEST"]), (["train"], ["train"]), (["train", "cat"], ["train"]),
     (["train", "cat", "dog"], []), (["train", "train_2", "cat"], []), (["train", "val", "cat"], ["train", "val"]),
     (["cat"], [])],
)  # fmt: skip
def test_one_name_like_a_split_among_three_may_be_a_class(found, alike):
    assert layout.split_like(found) == alike


def test_names_of_splits():
    assert layout.SPLITS == {
        "train": "train", "test": "test", "validation": "validation", "valid": "validation", "val": "validation",
        "dev": "validation",
    }  # fmt: skip


def test_numbers_with_nouns_and_lists_that_are_cut():
    assert [names.counted(n, "image") for n in (0, 1, 2, 1000)] == ["0 images", "1 image", "2 images", "1,000 images"]
    assert [names.counted(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]
    assert names.listed("abc", 3) == "a, b, c" and names.listed("abcd", 3) == "a, b, c and 1 more"
    assert names.listed([0] * 10) == ", ".join("0" * 10) and names.listed([0] * 11).endswith("0 and 1 more")
    assert [names.class_title(3, name) for name in (None, "3", "cat", "4")] == ["3", "3", "3 'cat'", "3 '4'"]
    assert names.shown("a\nb\u200b\udce9é") == "a\\nb\\u200b\\udce9é" and names.quoted("a'b") == "'a'b'"


def test_class_numbers_go_up_to_the_largest_whose_count_fits_32_bits():
    (found,), known = names.class_numbers({"a: 'l'": np.array([0, 2**31 - 2])})
    assert found.tolist() == [0, 2**31 - 2] and found.dtype == np.int32 and known is None
    for label in (2**31 - 1, 2**31):
        with pytest.raises(UserError, match=f"a: 'l' has the label {label}, and class numbers go up to 2147483646"):
            names.class_numbers({"a: 'l'": np.array([0, label])})
    (found,), _ = names.class_numbers({"a": np.array([True, False])})
    assert found.tolist() == [1, 0]
    for values in ({"a": np.zeros(0)}, {"a": np.zeros(0, object)}):
        with pytest.raises(UserError, match="a must hold whole numbers or texts"):
            names.class_numbers(values)
    (first, second), known = names.class_numbers({"a": np.array(["b", "a"]), "b": np.array([b"c"])}, order="text")
    assert (first.tolist(), second.tolist(), known) == ([1, 0], [2], ("a", "b", "c"))
    (found,), known = names.class_numbers({"a": np.array([1, 0])}, names=["x", "y"])
    assert known == ("x", "y")
    with pytest.raises(UserError, match="a has class 2, but there are 2 names: 0 to 1"):
        names.class_numbers({"a": np.array([2])}, names=["x", "y"])


def test_decimal_numbers_of_many_digits_are_in_the_order_of_their_values():
    assert names.natural_order(["12345.5", "-200", "+3", "3.25"]) == ["-200", "+3", "3.25", "12345.5"]
    digits = ["1" * 300, "9" * 299]
    assert names.natural_order(digits) == digits[::-1]
    assert names.ORDERS["text"](["b", "10", "9", "b"]) == ["10", "9", "b"]


@pytest.mark.parametrize(
    "shape, wanted, crop",
    [
        ((8, 8, 3), Wanted(8, 3), None), ((8, 8, 3), Wanted(4, 3), None), ((8, 8, 3), Wanted(8, 3, "center_crop"), None),
        ((8, 8, 3), Wanted(4, 3, "center_crop"), 4), ((8, 8, 3), Wanted(None, 3, "center_crop"), None),
        ((8, 6, 3), Wanted(8, 3, "center_crop"), 8), ((8, 6, 3), Wanted(None, 3, "center_crop"), 6),
        ((6, 8, 1), Wanted(None, 1, "center_crop"), 6),
    ],
)  # fmt: skip
def test_images_are_cropped_where_they_do_not_fit(shape, wanted, crop):
    source = Images(RNG.integers(0, 256, (2, *shape), dtype=np.uint8), np.array([1, 0], np.int32))
    found = reading.cropped(source, wanted)
    if crop is None:
        assert found is source
        return
    assert found.image_shape == (crop, crop, shape[2]) and len(found) == 2 and found.labels.tolist() == [1, 0]
    np.testing.assert_array_equal(found.identities(), source.identities())
    assert found.pixels(np.array([1])).shape == (1, crop, crop, shape[2])
    assert found.take(np.array([1])).labels.tolist() == [0]


def test_prints_of_crops_differ_by_size_and_content_and_tell_bands_from_colours():
    def printed(channels, size, seed=0):
        images = np.random.default_rng(seed).integers(0, 256, (2, 8, 8, channels), dtype=np.uint8)
        return reading.CenterCropped(Images(images), size).fingerprint()

    four = (4, 4)
    sizes = (four, (5, 5), (4, 5), (5, 4))
    assert len({*(printed(3, size) for size in sizes), printed(3, four, 1), printed(1, four), printed(2, four)}) == 7
    assert printed(3, four) == printed(3, four) and printed(3, four).startswith("sha256:")
    inner = Images(np.random.default_rng(0).integers(0, 256, (2, 8, 8, 2), dtype=np.uint8)).fingerprint()
    expected = hashlib.sha256(f"center_crop of bands 4 {inner.partition(':')[2]}".encode()).hexdigest()
    assert printed(2, four) == f"sha256:{expected}"


def keeps(identities, labels, test, validation):
    identities, labels = np.array(identities, np.uint64) << np.uint64(56), np.array(labels)
    u = splits.uniform(identities)
    trained = (u >= test) & (u < 1 - validation)
    return splits._kept_for_their_class(u, identities, labels, trained, test).tolist()


def test_the_image_that_a_class_keeps_is_the_test_image_of_the_largest_hash_or_else_the_first_of_validation():
    """Hashes in 256ths; below 64 are test images, from 192 on validation images."""
    assert keeps([10, 60, 30, 200, 100], [0, 0, 0, 0, 1], 0.25, 0.25) == [False, True, False, False, False]
    assert keeps([250, 200, 100], [0, 0, 1], 0.25, 0.25) == [False, True, False]
    assert keeps([10, 60, 60, 60], [0, 1, 1, 2], 0.25, 0.25) == [True, True, True, True]  # equal images are one
    assert keeps([64, 10], [0, 0], 0.25, 0.25) == [False, False]  # a training image is there
    assert keeps([10, 20, 200, 220, 30, 240], [2, 2, 5, 5, 7, 7], 0.25, 0.25) == [False, True, True, False, True, False]


def test_files_with_frames_are_looked_for_among_the_first_thousand(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "LOOKED_AT", 2)
    pictures = [Image.fromarray(GREY + np.uint8(i)) for i in range(2)]
    for name in "abc":
        pictures[0].save(tmp_path / f"{name}.gif", save_all=True, append_images=pictures[1:])
    pictures[0].save(tmp_path / "z.gif")
    Image.fromarray(GREY).save(tmp_path / "d.png")
    (tmp_path / "broken.tif").write_bytes(b"")
    found = [str(file) for file in folder.with_frames(tmp_path, tree.walk(tmp_path).images)]
    assert found == ["a.gif", "b.gif"]
    for looked_at, count in ((1, 1), (3, 2), (4, 3)):  # the third is broken
        monkeypatch.setattr(folder, "LOOKED_AT", looked_at)
        assert len(folder.with_frames(tmp_path, tree.walk(tmp_path).images)) == count


@pytest.mark.parametrize(
    "file, hint",
    [("a.npz", "did you mean 'npz:{}/a.npz'?"), ("a.ZIP", "unpack it"), ("a.tgz", "unpack it"),
     ("a.JPG", "name the folder that holds it: 'folder:{}'"), ("a.txt", "name a folder of image files")],
)  # fmt: skip
def test_a_file_for_a_folder_has_its_hint(tmp_path, file, hint):
    (tmp_path / file).touch()
    with pytest.raises(UserError) as error:
        folder.load(str(tmp_path / file), Wanted(4, 1))
    assert str(error.value).endswith(f"is a file, not a folder; {hint.format(tmp_path)}")


def saved(path, **arrays):
    np.savez(path / "a.npz", **arrays)
    return str(path / "a.npz")


PIXELS = RNG.integers(0, 256, (6, 4, 4), dtype=np.uint8)


def test_an_array_file_has_its_own_validation_images_or_all_three_kinds_of_labels(tmp_path):
    arrays = {"x_train": PIXELS, "x_test": PIXELS[:2], "x_validation": PIXELS[2:5]}
    labels = {"y_train": np.arange(6), "y_test": np.arange(2), "y_validation": np.arange(2, 5)}
    found = npz.load(saved(tmp_path, **arrays, **labels), Wanted(4, 1))
    assert {name: len(part) for name, part in found.sources.items()} == {"train": 6, "test": 2, "validation": 3}
    assert {name: part.labels.tolist() for name, part in found.sources.items()} == {
        "train": [0, 1, 2, 3, 4, 5], "test": [0, 1], "validation": [2, 3, 4],
    }  # fmt: skip
    assert found.left_out == found.warnings == () and found.class_names is None
    for left, count in ((["y_train"], "two"), (["y_train", "y_test"], "one")):
        given = {key: value for key, value in labels.items() if key not in left}
        with pytest.raises(UserError, match=f"has only {count} of the keys 'y_train' and 'y_test' and 'y_validation'"):
            npz.load(saved(tmp_path, **arrays, **given), Wanted(4, 1))


def test_splits_of_other_sizes_are_read_where_they_are_cropped(tmp_path):
    arrays = {"x_train": PIXELS, "x_test": RNG.integers(0, 256, (6, 5, 8), dtype=np.uint8)}
    found = load(
        f"npz:{saved(tmp_path, **arrays)}", image_size=4, num_channels=1, test_fraction=0.5, resize="center_crop"
    )
    assert found.train.image_shape == found.test.image_shape == (4, 4, 1)


@pytest.mark.parametrize(
    "key, warned",
    [("label", "labels"), ("classes", "labels"), ("targets", "labels"), ("category", "labels"), ("names", "labels"),
     ("y", "labels"),
     ("ys", "labels"), ("Attributes", "labels"), ("condition", "labels"), ("x_val", "images"), ("Test", "images"),
     ("xs", "images"), ("test_images", "images"), ("features", ""), ("yes", "")],
)  # fmt: skip
def test_arrays_that_are_not_read_and_look_like_labels_or_images(tmp_path, key, warned):
    found = npz.load(saved(tmp_path, images=PIXELS, **{key: np.zeros(6)}), Wanted(4, 1))
    assert found.left_out == (f"arrays {key} (keys that are not read)",)
    said = {"labels": f"{key} looks like labels and is not used: name the key labels",
            "images": f"{key} looks like images of a split and is not used"}  # fmt: skip
    assert [said.get(warned, "") in text for text in found.warnings] == [True] * bool(warned)
    labelled = npz.load(saved(tmp_path, images=PIXELS, labels=np.arange(6), **{key: np.zeros(6)}), Wanted(4, 1))
    if warned == "labels":
        assert labelled.warnings[0].endswith(f"{key} looks like labels or their names and is not used")
    else:
        assert len(labelled.warnings) == bool(warned)


def test_batches_are_made_ahead_four_or_two_for_each_worker():
    assert [batches_ahead(workers) for workers in (0, 1, 2, 3, 8)] == [4, 4, 4, 6, 16]
