"""Odd sources of images, as users have them: what each holds, and what `train` must say of it.

A case makes its files in an empty folder and gives the source; grey images of 4x4 pixels, all different.
"""

import os
from pathlib import Path

import numpy as np
from PIL import Image

SHAPE = (4, 4)


def pixels(number):
    """Image number i, different for each i."""
    return np.random.default_rng(number).integers(0, 256, SHAPE, dtype=np.uint8)


def images(folder, count, first=0, ending="png"):
    """Writes `count` images into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + count):
        Image.fromarray(pixels(i)).save(folder / f"{i}.{ending}")


def files(folder, *names, content=b"something"):
    """Writes files that are no images."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def npz(folder, **arrays):
    """An .npz file in the folder."""
    np.savez(folder / "data.npz", **arrays)
    return f"npz:{folder}/data.npz"


def stack(count, first=0):
    """Images as one array (N, 4, 4)."""
    return np.stack([pixels(i) for i in range(first, first + count)])


def heic(folder):
    """Ten PNG files among thirty of a phone."""
    images(folder, 10)
    files(folder, *[f"IMG_{i}.HEIC" for i in range(30)])


def unsupported(folder):
    """Formats, archives and arrays that are not read."""
    images(folder, 12)
    files(
        folder, "a.avif", "b.AVIF", "c.jxl", "d.zip", "e.npy", "f.mp4", "notes.txt", "Thumbs.db", "g.cr2", "no_ending"
    )


def stray_preview(folder):
    """A stray picture next to the splits."""
    for i, part in enumerate(("train", "test")):
        for j, name in enumerate(("cat", "dog")):
            images(folder / part / name, 6, 20 * i + 10 * j)
    images(folder, 1, 99)
    (folder / "99.png").rename(folder / "preview.png")


def extra_folder(folder):
    """A folder next to the splits."""
    images(folder / "train", 8), images(folder / "val", 5, 10), images(folder / "test", 5, 20)
    images(folder / "unlabeled", 7, 30)


def capital_splits(folder):
    """Splits that are written in other case."""
    images(folder / "Train", 8), images(folder / "TEST", 5, 10)


def named_splits(folder):
    """Splits with more to their names."""
    images(folder / "train_images", 8), images(folder / "test_images", 5, 10)


def lone_train(folder):
    """Training images alone, in classes."""
    images(folder / "train" / "cat", 12), images(folder / "train" / "dog", 12, 20)


def stray_in_classes(folder):
    """A stray picture next to the classes."""
    images(folder / "cat", 12), images(folder / "dog", 12, 20), images(folder, 1, 50)


def wrapper(folder):
    """Classes one folder deeper than the source."""
    images(folder / "pets" / "cat", 12), images(folder / "pets" / "dog", 12, 20)


def one_class(folder):
    """A single class folder."""
    images(folder / "cat", 20)


def nested(folder):
    """Classes within classes."""
    for i, name in enumerate(("animals/cat", "animals/dog", "vehicles/bus", "vehicles/car")):
        images(folder / name, 6, 10 * i)


def empty_classes(folder):
    """Classes without images, or with those of a phone alone."""
    images(folder / "cat", 10), images(folder / "dog", 10, 20)
    (folder / "bird").mkdir()
    files(folder, "fish/1.heic")


def pairs(folder):
    """Images and their masks."""
    images(folder / "images", 10), images(folder / "masks", 10, 20)


def hidden(folder):
    """Files that systems add: hidden folders and files, resource forks, thumbnails."""
    images(folder / "cat", 10), images(folder / "dog", 10, 20)
    images(folder / ".thumbnails", 2, 40), images(folder / "__MACOSX" / "cat", 2, 50)
    files(folder, "cat/._0.png", ".DS_Store", "cat/Thumbs.db")


def numbered_classes(folder):
    """Twelve folders with numbers for names, and no order of texts."""
    for i in range(12):
        images(folder / str(i), 4, 10 * i)


def parent_links(folder):
    """Links to folders above, and one to another that is there."""
    images(folder / "a", 10), images(folder / "b", 10, 20)
    os.symlink("..", folder / "a" / "up")
    os.symlink(folder, folder / "b" / "loop")
    os.symlink(folder.parent, folder / "outside")
    os.symlink("a", folder / "c")
    os.symlink("0.png", folder / "a" / "again.png")
    os.symlink("gone.png", folder / "a" / "broken.png")


def test_is_a_link(folder):
    """Test images that are the training images."""
    images(folder / "train", 20)
    os.symlink("train", folder / "test")


def outer_links(folder):
    """Classes that are links to folders elsewhere."""
    outer = folder.parent / f"{folder.name}_elsewhere"
    images(outer / "x", 10), images(outer / "y", 10, 20)
    os.symlink(outer / "x", folder / "cat")
    os.symlink(outer / "y", folder / "dog")


def jsonl(folder):
    """A table in JSON lines, of some of the images, with a column of another name."""
    images(folder, 20)
    rows = "".join(f'{{"file_name": "{i}.png", "label": {i % 2}, "set": "train"}}\n' for i in range(15))
    files(folder, "metadata.jsonl", content=rows.encode())


def labels_in_csv(folder):
    """A table of another name."""
    images(folder, 20)
    files(folder, "labels.csv", content=b"file_name,label\n0.png,1\n")


def unlisted(folder):
    """A table of some of the images, with other names of columns."""
    images(folder, 20)
    rows = "".join(f"{i}.png,{'ab'[i % 2]},train\n" for i in range(15))
    files(folder, "metadata.csv", content=f"file_name,class,Split\n{rows}".encode())


def mixed_labels(folder):
    """A table whose missing labels are -1."""
    images(folder, 20)
    rows = "".join(f"{i}.png,{i % 3 - 1}\n" for i in range(20))
    files(folder, "metadata.csv", content=f"file_name,label\n{rows}".encode())


def table_without_classes(folder):
    """A table without labels of images in class folders."""
    images(folder / "cat", 10), images(folder / "dog", 10, 20)
    rows = "".join(f"{'cat' if i < 10 else 'dog'}/{i + 10 * (i >= 10)}.png\n" for i in range(20))
    files(folder, "metadata.csv", content=f"file_name\n{rows}".encode())


def copies(folder):
    """The same pictures in training and test."""
    images(folder / "train", 12), images(folder / "test", 6, 8)


def archive_and_images(folder):
    """Class folders next to the archive that holds them."""
    images(folder / "cat", 10), images(folder / "dog", 10, 20)
    files(folder, "pets.zip", "pets.tar.gz", "train.parquet")


def rare(folder):
    """Classes of one image each, and two large ones."""
    for i in range(6):
        images(folder / f"rare{i}", 1, i)
    images(folder / "common", 30, 10), images(folder / "usual", 30, 50)


def frames(folder):
    """An animation and a file of pages among pictures."""
    images(folder, 20)
    for start, name in ((30, "walk.gif"), (35, "pages.tif")):
        first, *others = (Image.fromarray(pixels(i)) for i in range(start, start + 3))
        first.save(folder / name, save_all=True, append_images=others)
    Image.fromarray(pixels(40)).save(folder / "one.gif")


def colours(folder):
    """Grey pictures as RGB, with hidden colours and with the rounding of JPEG, and two in colour."""
    images(folder, 4)
    for i in range(4, 8):
        rgb = np.repeat(pixels(i)[..., None], 3, 2)
        if i < 6:
            rgb[0, 0] = 200, 10, 30
        Image.fromarray(rgb).save(folder / f"{i}.png")
    hidden = np.dstack([np.repeat(pixels(8)[..., None], 3, 2), np.full(SHAPE, 255, np.uint8)])
    hidden[0, 0] = 200, 10, 30, 0
    Image.fromarray(hidden).save(folder / "8.png")
    Image.fromarray(np.repeat(pixels(9)[..., None], 3, 2)).save(folder / "9.jpg")
    Image.fromarray(np.repeat(pixels(10)[..., None] // 2, 3, 2) + np.uint8([0, 0, 9])).save(
        folder / "z.png"
    )  # not compared


def case(folder):
    """A class that is written in two ways."""
    images(folder / "Cat", 10), images(folder / "cat", 10, 20), images(folder / "dog", 10, 40)


def odd_names(folder):
    """Names that do not fit one line of text."""
    images(folder / "a\nb", 10), images(folder / os.fsdecode(b"caf\xe9"), 10, 20)


# name: (makes the files, what the printed text must contain: in the line, and in warnings)
FOLDERS = {
    "heic": (heic, ["8 training", "2 test", "30 .heic (image format that is not read"], []),
    "unsupported": (
        unsupported,
        ["2 .avif, 1 .jxl, 1 .cr2 (image format", "1 .zip (archive: unpack it)", "1 .npy (arrays", "1 .mp4 (video)",
         "1 without an ending, 1 .txt (not an image"],
        [],
    ),
    "stray preview": (
        stray_preview,
        ["12 training, 12 test images", "2 classes (0 'cat', 1 'dog'; 6 training images each",
         "1 image outside of the splits (preview.png)"],
        ["outside of the folders test, train belong to no split and are not used: 1 image (preview.png)"],
    ),
    "extra folder": (
        extra_folder,
        ["8 training, 5 validation, 5 test images", "7 images outside of the splits (unlabeled/)"],
        ["outside of the folders test, train, val belong to no split and are not used: 7 images (unlabeled/)"],
    ),
    "capital splits": (
        capital_splits,
        ["2 classes (0 'TEST', 1 'Train'"],
        ["folders that look like splits are classes: TEST, Train; splits are"],
    ),
    "named splits": (named_splits, ["2 classes"], ["look like splits are classes: test_images, train_images"]),
    "lone train": (lone_train, ["2 classes (0 'cat', 1 'dog'", "test (data.test_fraction=0.3)"], []),
    "stray in classes": (
        stray_in_classes,
        ["no classes"],
        ["folders that look like classes are not used: cat, dog; outside of them: 1 image (50.png)"],
    ),
    "wrapper": (wrapper, ["no classes"], ["not used: cat, dog; all images lie in 'pets': name that folder as the source"]),
    "one class": (one_class, ["no classes"], ["all images lie in the one folder 'cat': classes need two or more"]),
    "nested": (
        nested,
        ["2 classes (0 'animals', 1 'vehicles'"],
        ["folders within classes are not classes: animals/cat, animals/dog, vehicles/bus and 1 more"],
    ),
    "empty classes": (
        empty_classes,
        ["2 classes (0 'cat', 1 'dog'", "1 .heic"],
        ["folders without images that are read, which are no classes or splits: bird, fish"],
    ),
    "pairs": (pairs, ["2 classes (0 'images', 1 'masks'"], ["look like images and their labels are classes: images, masks"]),
    "hidden": (
        hidden,
        ["2 classes (0 'cat', 1 'dog'", ".thumbnails, __MACOSX, cat/._0.png (hidden, or added by another program)"],
        [],
    ),
    "numbered classes": (numbered_classes, ["12 classes (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11;"], []),
    "parent links": (
        parent_links,
        ["2 classes (0 'a', 1 'b'",
         "a/up, b/loop, outside (links to a folder above)", "a/again.png, c (links to what is read already)",
         "a/broken.png (links to nothing)"],
        ["folders that are links to what is read already are not used: c"],
    ),
    "test is a link": (
        test_is_a_link,
        ["test (data.test_fraction=0.3)", "test (links to what is read already)"],
        ["folders that are links to what is read already are not used: test"],
    ),
    "outer links": (outer_links, ["2 classes (0 'cat', 1 'dog'", "nothing left out"], []),
    "metadata.jsonl": (
        jsonl,
        ["2 classes", "5 images without a row in metadata.jsonl"],
        ["metadata.jsonl: the column set looks like a split", "are not used: 5 images"],
    ),
    "labels.csv": (labels_in_csv, ["no classes"], ["look like labels or splits are not read: labels.csv"]),
    "unlisted": (
        unlisted,
        ["no classes", "5 images without a row in metadata.csv"],
        ["column class looks like a label", "column Split looks like a split", "are not used: 5 images"],
    ),
    "mixed labels": (
        mixed_labels,
        ["3 classes (0 '-1', 1 '0', 2 '1'"],
        ["labels such as 1 are taken for names", "'-1' is a class, and looks like a missing label"],
    ),
    "table without classes": (
        table_without_classes,
        ["no classes"],
        ["folders that look like classes are not used: cat, dog; metadata.csv has no column 'label'"],
    ),
    "copies": (copies, ["12 training, 6 test"], ["4 of 6 test images are training images too (equal pixels)"]),
    "archives": (archive_and_images, ["1 .gz, 1 .zip (archive", "1 .parquet (table"], ["train.parquet"]),
    "rare": (rare, ["8 classes", "1 to "], []),
    "frames": (
        frames,
        ["no classes", "nothing left out"],
        ["files with several frames or pages, whose first alone is used: 2 (pages.tif, walk.gif)"],
    ),
    "colours": (
        colours,
        ["8 training, 3 test", "nothing left out"],
        ["pictures in colour become grey (data.num_channels=1): 2 of the first 10 (4.png, 5.png); data.num_channels=3"],
    ),
    "case": (case, ["3 classes (0 'Cat', 1 'cat', 2 'dog'"], ["names differ in case or spaces alone: 'Cat', 'cat'"]),
    "odd names": (odd_names, ["2 classes (0 'a\\nb', 1 'caf\\udce9'"], []),
}  # fmt: skip

ARRAYS = {
    "key label": (
        {"images": stack(20), "label": np.arange(20) % 2},
        ["no classes", "arrays label (keys that are not read)"],
        ["label looks like labels and is not used: name the key labels"],
    ),
    "keys y": (
        {"x_train": stack(12), "x_test": stack(6, 20), "Y_train": np.arange(12), "x_val": stack(6, 40)},
        ["12 training, 6 test", "arrays Y_train, x_val (keys that are not read)"],
        ["Y_train looks like labels and is not used: name the key y_train and y_test", "x_val looks like images"],
    ),
    "labels 1 to 10": (
        {"images": stack(60), "labels": np.arange(60) % 10 + 1},
        ["11 classes (0 to 10"],
        ["1 of 11 classes has no training images: 0"],
    ),
    "gaps": (
        {"images": stack(60), "labels": np.arange(60) % 3 * 500},
        ["1,001 classes (0 to 1000"],
        ["998 of 1,001 classes have no training images: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 988 more"],
    ),
    "texts": ({"images": stack(24), "labels": np.array(["b10", "b2", "a"] * 8)}, ["(0 'a', 1 'b2', 2 'b10';"], []),
    "missing texts": (
        {"images": stack(24), "labels": np.array(["cat", "nan", "dog"] * 8)},
        ["3 classes (0 'cat', 1 'dog', 2 'nan'"],
        ["'nan' is a class, and looks like a missing label"],
    ),
    "label_names": (
        {"images": stack(24), "labels": np.arange(24) % 2, "label_names": np.array(["cat", "dog"])},
        ["2 classes (0 'cat', 1 'dog'"],
        [],
    ),
    "test class alone": (
        {"x_train": stack(12), "y_train": np.arange(12) % 2, "x_test": stack(6, 20), "y_test": np.arange(6) % 3},
        ["3 classes"],
        ["1 of 3 classes has no training images: 2"],
    ),
}  # fmt: skip


def folder_source(name: str, folder: Path) -> str:
    """Makes a case of FOLDERS in an empty folder; its source."""
    folder.mkdir(parents=True, exist_ok=True)
    FOLDERS[name][0](folder)
    return f"folder:{folder}"
