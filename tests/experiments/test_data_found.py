"""Findings in a source of images, and the text of `train` on them: nothing is dropped without a word."""

import json
import os
import re

import numpy as np
import pytest
from PIL import Image

from experiments import factory
from experiments.__main__ import main
from experiments.data import load
from experiments.data.sources.folder import image_files
from experiments.data.sources.layout import looks_like_split
from experiments.data.sources.names import natural_order
from experiments.errors import UserError
from experiments.factory.experiment import Experiment
from experiments.loading import dataset, runs
from experiments.reports import report
from experiments.runs.workdir import Workdir
from tests.experiments import odd_sources
from tests.experiments.odd_sources import ARRAYS, FOLDERS, folder_source, images, npz, pixels, stack
from tests.experiments.tiny import ROOT, flags, tiny_config

DIGITS = f"{ROOT}/configs/digits.py"
SIZE = {"data__image_size": 4, "data__test_fraction": 0.3}


def config_of(data__source, **changes):
    return tiny_config(**{"data__source": data__source} | SIZE | changes)


def printed(config, capsys, workdir=None):
    """The line of `train` on the images, and its warnings."""
    found = dataset.load_data(Experiment(config), workdir)
    capsys.readouterr()
    dataset.announce(Experiment(config), found)
    line, *warnings = capsys.readouterr().out.splitlines()
    assert all(text.startswith("warning: ") for text in warnings)
    return line, warnings


def assert_said(config, capsys, in_line, in_warnings):
    line, warnings = printed(config, capsys)
    for phrase in in_line:
        assert phrase in line, line
    assert len(warnings) == len(in_warnings), warnings
    for phrase in in_warnings:
        assert any(phrase in text for text in warnings), warnings
    assert line.isprintable() and all(text.isprintable() for text in warnings)


@pytest.mark.parametrize("name", FOLDERS)
def test_train_says_what_it_found_in_an_odd_folder(name, tmp_path, capsys):
    """Each phrase in the line or in a warning, and as many warnings as the case names."""
    assert_said(config_of(folder_source(name, tmp_path / "pictures")), capsys, *FOLDERS[name][1:])


@pytest.mark.parametrize("name", ARRAYS)
def test_train_says_what_it_found_in_an_odd_array_file(name, tmp_path, capsys):
    arrays, in_line, in_warnings = ARRAYS[name]
    assert_said(config_of(npz(tmp_path, **arrays)), capsys, in_line, in_warnings)


def test_every_image_is_in_a_split_or_named_as_left_out(tmp_path):
    """The counts of the line add up to the files with an image's ending."""
    for name, (make, *_) in FOLDERS.items():
        folder = tmp_path / name.replace(" ", "_")
        folder.mkdir()
        make(folder)
        found = dataset.load_data(Experiment(config_of(f"folder:{folder}")))
        outside = sum(
            int(match[1].replace(",", ""))
            for text in found.left_out
            if (match := re.match(r"([\d,]+) images? (outside|without)", text))
        )
        used = sum(len(part) for part in found.splits.values())
        assert used + outside == len(image_files(folder)), name
        assert used and len({str(path) for path in image_files(folder)}) == used + outside


def test_a_run_keeps_what_was_found_and_shows_it_on_its_page(tmp_path, capsys, monkeypatch):
    """By the command line, cut short before anything is compiled."""
    source = folder_source("stray preview", tmp_path / "pictures")
    monkeypatch.setattr("experiments.training.train._continue_run", lambda *_: None)
    arguments = [f"--config={DIGITS}", f"--workdir={tmp_path}/run", *flags(data__source=source, data__image_size=4)]
    assert main(["train", *arguments]) == 0
    line, warning = capsys.readouterr().out.splitlines()
    assert line.startswith(f"Data of {source}: 12 training, 12 test images of 4x4x1; 2 classes (0 'cat', 1 'dog'")
    assert "1 image (preview.png)" in warning
    stored = json.loads((tmp_path / "run" / "data.json").read_text())
    assert stored["summary"] == line and [f"warning: {text}" for text in stored["warnings"]] == [warning]
    assert stored["class_names"] == ["cat", "dog"] and stored["class_counts"] == {"train": [6, 6], "test": [6, 6]}
    assert stored["images"] == {"train": 12, "validation": 0, "test": 12}
    report.write(Workdir(tmp_path / "run"))
    page = (tmp_path / "run" / "report.html").read_text()
    assert "12 training, 12 test images of 4x4x1" in page and "Warning: images outside of the folders" in page
    assert "<td>0 &#x27;cat&#x27;</td><td>6</td><td>6</td>" in page


# Splits and classes of the folders above, as users mean them.


def test_a_stray_picture_takes_neither_splits_nor_classes_away(tmp_path):
    found = load(folder_source("stray preview", tmp_path / "pictures"), image_size=4, num_channels=1, test_fraction=0.3)
    expected = {i // 20: stack(6, i) for i in (0, 20)}
    np.testing.assert_array_equal(found.train.images[found.train.labels == 0, ..., 0], expected[0])
    np.testing.assert_array_equal(found.test.images[found.test.labels == 0, ..., 0], expected[1])


def test_numbered_folders_have_their_numbers(tmp_path):
    """With folders 0 to 11, class 2 is folder 2, not folder 10."""
    found = load(folder_source("numbered classes", tmp_path / "p"), image_size=4, num_channels=1, test_fraction=0.3)
    assert found.class_names == tuple(map(str, range(12)))
    for part in (found.train, found.test):
        for image, label in zip(part.images[..., 0], part.labels, strict=True):
            assert any(np.array_equal(image, odd_sources.pixels(10 * label + i)) for i in range(4))


@pytest.mark.parametrize(
    "names",
    [
        ["0", "1", "2", "9", "10", "11", "100"],
        ["-1", "0", "0.25", "0.5", "3"],
        ["1a", "2a", "10a", "b", "b1", "b2", "b10"],
        ["class_2_x", "class_10_a", "class_10_b"],
        ["01", "1", "02", "3"],
        ["a002", "a10", "a0011", "b"],
        ["n01440764", "n01443537", "n15075141"],
    ],
)
def test_natural_order(names):
    assert natural_order(reversed(names)) == names and natural_order([*names, *names]) == names


@pytest.mark.parametrize(
    "name", ["Train", "TEST", "train_images", "test-set", "val2017", "trainA", "Training", "img_test"]
)
def test_names_that_look_like_splits(name):
    assert looks_like_split(name)


@pytest.mark.parametrize("name", ["trainer", "testudo", "valley", "cat", "contest", "device", "evaporation", "images"])
def test_names_that_are_words(name):
    assert not looks_like_split(name)


def test_each_real_file_is_found_once_and_links_to_other_places_are_followed(tmp_path):
    root = tmp_path / "root"
    odd_sources.parent_links(root)
    found = [str(path) for path in image_files(root)]
    assert sorted(found) == sorted([f"a/{i}.png" for i in range(10)] + [f"b/{i}.png" for i in range(20, 30)])
    images(tmp_path / "elsewhere" / "deep", 3, 40)
    os.symlink(tmp_path / "elsewhere", root / "d")
    os.symlink(tmp_path / "elsewhere" / "deep" / "40.png", root / "40.png")
    os.symlink("..", tmp_path / "elsewhere" / "deep" / "up")  # a circle beyond the folder
    new = {str(path) for path in image_files(root)} - set(found)
    assert new == {"d/deep/40.png", "d/deep/41.png", "d/deep/42.png"}


def test_links_beyond_the_folder_lead_to_no_folder_above(tmp_path):
    """Neither above the place that a link leads to, nor above the source, whose neighbours are other data."""
    root, outer = tmp_path / "x" / "root", tmp_path / "y"
    images(root, 2), images(outer / "deep", 2, 10)
    images(tmp_path / "x", 2, 20), images(outer, 2, 30)  # other data
    os.symlink(outer / "deep", root / "linked")
    os.symlink("..", outer / "deep" / "above_the_link")
    os.symlink(tmp_path / "x", outer / "deep" / "above_the_source")
    assert [str(path) for path in image_files(root)] == ["0.png", "1.png", "linked/10.png", "linked/11.png"]


@pytest.mark.parametrize(
    "folders, remedy",
    [
        (["test/a", "test/b"], "train, test and validation; train is missing"),
        (["test/a", "TEST_2/a"], "train, test and validation: rename 'TEST_2' to test; train is missing"),
        (["Train", "test"], "train, test and validation: rename 'Train' to train"),
        (["train", "other"], "train, test and validation; train needs test or validation next to it"),
    ],
)
def test_the_remedy_for_folders_like_splits_names_wrong_names_alone(tmp_path, folders, remedy):
    for number, name in enumerate(folders):
        images(tmp_path / name, 12, 20 * number)
    found = [
        text
        for text in dataset.load_data(Experiment(config_of(f"folder:{tmp_path}"))).warnings
        if "like splits" in text
    ]
    assert len(found) == 1 and found[0].endswith(remedy)


# Classes and training images.


def test_every_class_keeps_a_training_image(tmp_path):
    """Of six classes of one image each, and one whose two images are equal."""
    for seed in range(20):
        pixels, labels = stack(60, 100 * seed), np.arange(60) // 10
        labels[50:56] = 5 + np.arange(6)
        labels[56:] = 11
        pixels[57:] = pixels[56]
        source = npz(tmp_path, images=pixels, labels=labels)
        (tmp_path / "unlabelled").mkdir(exist_ok=True)
        unlabelled = npz(tmp_path / "unlabelled", images=pixels)
        for fractions in ({"test_fraction": 0.5}, {"test_fraction": 0.4, "validation_fraction": 0.4}):
            found = load(source, image_size=4, num_channels=1, **fractions)
            assert set(found.train.labels) == set(range(12)) and len(found.test)
            splits = [{image.tobytes() for image in part.images} for part in found.splits.values()]
            assert sum(map(len, splits)) == len(set.union(*splits)) == 57  # equal images are in one split
            hashed = load(unlabelled, image_size=4, num_channels=1, **fractions)
            assert splits[2] <= {image.tobytes() for image in hashed.test.images}  # images are only kept, never added


def test_larger_fractions_keep_the_same_image(tmp_path):
    source = npz(tmp_path, images=stack(40), labels=np.repeat(np.arange(10), 4))
    splits = [load(source, image_size=4, num_channels=1, test_fraction=f) for f in (0.5, 0.7, 0.9)]
    trained = [{image.tobytes() for image in found.train.images} for found in splits]
    assert trained[0] >= trained[1] >= trained[2] and len(trained[2]) >= 10


def test_a_class_for_each_image_is_split_by_the_hash_alone_and_said(tmp_path, capsys):
    _, warnings = printed(config_of(npz(tmp_path, images=stack(30), labels=np.arange(30))), capsys)
    assert any("the hash of each image alone decides" in text for text in warnings)
    assert any("have no training images" in text for text in warnings)


@pytest.mark.parametrize(
    "name, classes, phrase",
    [
        ("labels 1 to 10", 11, "1 of 11 classes has no training images: 0, and samples of them would be noise"),
        ("labels 1 to 10", 10, "has 11 classes (0 to 10); its labels begin at 1: number them from 0"),
        ("test class alone", 3, "1 of 3 classes has no training images: 2"),
        ("test class alone", 2, "set --config.model.num_classes=3"),
        ("key label", 2, "has no classes; 0 trains an unconditional model; "),
        ("key label", 2, "label looks like labels and is not used: name the key labels"),
    ],
)
def test_a_class_conditional_model_is_refused_where_a_class_would_be_noise(fails, tmp_path, name, classes, phrase):
    source = npz(tmp_path, **ARRAYS[name][0])
    changes = flags(data__source=source, data__image_size=4, model__num_classes=classes)
    assert phrase in fails("train", f"--config={DIGITS}", f"--workdir={tmp_path}/run", *changes)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "labels, phrases",
    [
        (np.arange(20) - 1, ["some of 'labels' are less than 0 (1 of 20, the smallest is -1)", "number the classes"]),
        (np.arange(20) / 2, ["is float64: number the classes, as np.unique"]),
        (np.arange(20.0), ["is float64: store them as labels.astype(np.int64)"]),
        (np.where(np.arange(20) < 3, np.nan, 1), ["3 of 20 are not finite: leave images without a class out"]),
        (np.arange(20) + 2**32, ["the label 4294967315", "number the classes from 0"]),
        (np.full(20, 2**31 - 1), ["the label 2147483647"]),
        (np.full(20, 2**64 - 1, np.uint64), ["the label 18446744073709551615"]),
        (np.arange(20)[:, None], ["'labels' has shape (20, 1)", "store labels[:, 0]"]),
        (np.eye(20, 5), ["'labels' has shape (20, 5)", "of one-hot rows, store labels.argmax(1)"]),
        (np.array(["cat", ""] * 10), ["'labels': 10 of 20 are empty: leave images without a class out"]),
        (np.arange(20) * 1j, ["'labels' must hold whole numbers", "complex128"]),
    ],
    ids=str,
)
def test_labels_that_are_no_class_numbers_are_refused(tmp_path, labels, phrases):
    with pytest.raises(UserError) as error:
        dataset.load_data(Experiment(config_of(npz(tmp_path, images=stack(20), labels=labels))))
    assert "\n" not in str(error.value) and all(phrase in str(error.value) for phrase in phrases), error.value


@pytest.mark.parametrize("text", [str(2**31), "9" * 50, "9" * 5000])
def test_labels_of_a_table_that_are_no_class_numbers_are_refused(tmp_path, text):
    images(tmp_path, 8)
    rows = "".join(f"{i}.png,{text if i else 0}\n" for i in range(8))
    (tmp_path / "metadata.csv").write_text(f"file_name,label\n{rows}")
    with pytest.raises(UserError, match="number the classes from 0"):
        dataset.load_data(Experiment(config_of(f"folder:{tmp_path}")))


@pytest.mark.parametrize(
    "arrays, phrase",
    [
        ({"labels": np.arange(20) % 3, "label_names": np.array(["a", "b"])}, "has class 2, but there are 2 names"),
        ({"labels": np.arange(20) % 2, "label_names": np.array(["a", "a"])}, "has a name twice: a, a"),
        ({"labels": np.arange(20) % 2, "label_names": np.arange(2)}, "texts (K,) are needed"),
        ({"labels": np.array(["cat", "dgo"] * 10), "label_names": np.array(["cat", "dog"])}, "did you mean 'dog'?"),
    ],
)
def test_label_names_that_do_not_fit_are_refused(tmp_path, arrays, phrase):
    with pytest.raises(UserError) as error:
        dataset.load_data(Experiment(config_of(npz(tmp_path, images=stack(20), **arrays))))
    assert phrase in str(error.value)


def test_records_keep_the_names_of_the_classes(tmp_path, capsys):
    arrays = {"images": stack(40), "labels": np.arange(40) % 2, "label_names": np.array([b"cat", b"dog"])}
    assert main(["prepare", f"--source={npz(tmp_path, **arrays)}", f"--out={tmp_path}/records"]) == 0
    assert "2 classes: 0 'cat', 1 'dog'" in capsys.readouterr().out.splitlines()
    assert dataset.load_data(Experiment(config_of(f"arrayrecord:{tmp_path}/records"))).class_names == ("cat", "dog")


def test_prepare_says_what_is_left_out(tmp_path, capsys):
    source = folder_source("extra folder", tmp_path / "pictures")
    assert main(["prepare", f"--source={source}", f"--out={tmp_path}/records"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "left out: 7 images outside of the splits (unlabeled/)" in lines
    assert any(line.startswith("warning: images outside of the folders") for line in lines)
    config = config_of(f"arrayrecord:{tmp_path}/records")
    line, warnings = printed(config, capsys)
    assert "left out: 7 images outside of the splits (unlabeled/)" in line
    assert len(warnings) == 1 and warnings[0].startswith("warning: images outside of the folders")
    path = tmp_path / "records" / "dataset.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({key: stored[key] for key in stored if key not in ("left_out", "warnings")}))
    assert "nothing left out" in printed(config, capsys)[0]  # written before both were kept


def test_equal_images_are_named_as_the_reason_of_too_few(tmp_path):
    source = npz(tmp_path, images=np.repeat(stack(1), 200, axis=0))
    with pytest.raises(
        UserError, match=r"has 200 images, 1 different \(equal images are one: they stay in one split\)"
    ):
        dataset.load_data(Experiment(config_of(source)))


# The evaluation at the end of training.


@pytest.mark.parametrize("held_out", [1, 2, 3])
def test_too_few_held_out_images_are_refused_at_the_start_with_the_fraction_that_helps(fails, tmp_path, held_out):
    for first in range(0, 4000, 40):
        source = npz(tmp_path, images=stack(40, first))
        if len(load(source, image_size=4, num_channels=1, test_fraction=0.05).test) == held_out:
            break
    settings = {"data__source": source, "data__image_size": 4, "data__test_fraction": 0.05}
    message = fails("train", f"--config={DIGITS}", f"--workdir={tmp_path}/run", *flags(**settings))
    assert f"has {held_out} test images, and the evaluation at the end of training needs 4 or more" in message
    fraction = float(re.search(r"set --config\.data\.test_fraction=([\d.]+)", message)[1])
    found = dataset.load_data(Experiment(tiny_config(**settings | {"data__test_fraction": fraction})))
    assert len(found.test) >= 4
    dataset.check_evaluation(Experiment(tiny_config()), found)


@pytest.mark.parametrize(
    "test, validation, key", [(0.4, 0.5, "validation_fraction=0.5"), (0.5, 0.4, "test_fraction=0.5")]
)
def test_too_few_training_images_are_refused_with_the_larger_fraction(tmp_path, test, validation, key):
    for first in range(0, 4000, 40):
        config = config_of(
            npz(tmp_path, images=stack(20, first)), data__test_fraction=test, data__validation_fraction=validation
        )
        found = dataset.load_data(Experiment(config))
        if len(found.test) > 4 > len(found.train):
            break
    with pytest.raises(UserError, match=f"training images, and .*: choose data.{key} smaller"):
        dataset.check_evaluation(Experiment(config), found)


@pytest.mark.parametrize(
    "train, test, phrase",
    [
        (
            stack(12),
            stack(3, 20),
            "has 3 test images, and the evaluation at the end of training needs 4 or more: give more",
        ),
        (stack(3), stack(12, 20), "has 3 training images"),
        (stack(12), np.zeros((6, 4, 4), np.uint8), "all 6 test images are equal"),
    ],
)
def test_own_splits_that_cannot_be_evaluated_are_refused_at_the_start(fails, tmp_path, train, test, phrase):
    source = npz(tmp_path, x_train=train, x_test=test)
    changes = flags(data__source=source, data__image_size=4)
    assert phrase in fails("train", f"--config={DIGITS}", f"--workdir={tmp_path}/run", *changes)


@pytest.mark.parametrize("memory_gb", [0, 4])
def test_equal_reference_images_are_found_in_memory_and_on_disk(tmp_path, memory_gb):
    """20 equal test images are refused; that the last of 20 differs is enough."""
    images(tmp_path / "train", 12)
    for i in range(20):
        (tmp_path / "test").mkdir(exist_ok=True)
        Image.fromarray(pixels(50)).save(tmp_path / "test" / f"{i:02}.png")
    config = config_of(f"folder:{tmp_path}", data__memory_gb=memory_gb)
    with pytest.raises(
        UserError, match=r"data\.source=.*: all 20 test images are equal.*: give the test split different"
    ):
        dataset.check_evaluation(Experiment(config), dataset.load_data(Experiment(config)))
    Image.fromarray(pixels(51)).save(tmp_path / "test" / "19.png")
    dataset.check_evaluation(Experiment(config), dataset.load_data(Experiment(config)))


# Runs and their class names.


def stored_run(path, names=None, order="natural", checkpoint=True, **changes):
    """A run's folder as far as its images go; with a checkpoint it was trained before."""
    workdir = Workdir(path)
    workdir.claim(config_of(**{"data__source": "digits"} | changes))
    if checkpoint:
        (workdir.checkpoints / "8").mkdir(parents=True)
    if names:
        workdir.data.write_text(json.dumps({"class_names": names, "class_order": order}))
    return workdir


def test_a_run_from_before_names_were_stored_keeps_its_classes(tmp_path, capsys):
    """It was trained with folder 10 as class 2; a new run has folder 2."""
    source = folder_source("numbered classes", tmp_path / "pictures")
    texts = ("0", "1", "10", "11", "2", "3", "4", "5", "6", "7", "8", "9")
    old, new = stored_run(tmp_path / "old"), stored_run(tmp_path / "new", checkpoint=False)
    config = config_of(source, model__num_classes=12)
    assert dataset.load_data(Experiment(config), old).class_names == texts
    assert any("in the order of texts" in text for text in printed(config, capsys, old)[1])
    assert dataset.load_data(Experiment(config), new).class_names == tuple(map(str, range(12)))
    dataset.store(Experiment(config), dataset.load_data(Experiment(config), old), old)
    assert old.class_names() == texts and dataset.load_data(Experiment(config), old).class_names == texts


def test_classes_of_other_names_are_refused(tmp_path):
    workdir = stored_run(tmp_path / "run", ["ant", "dog"])
    for name in ("cat", "dog"):
        images(tmp_path / "p" / name, 12, 20 * (name == "dog"))
    config = config_of(f"folder:{tmp_path}/p", model__num_classes=2)
    with pytest.raises(UserError, match="class 0 is 'cat' here and 'ant' in the run"):
        dataset.check_names(Experiment(config), dataset.load_data(Experiment(config), workdir), workdir)
    unconditional = config_of(f"folder:{tmp_path}/p")
    dataset.check_names(Experiment(unconditional), dataset.load_data(Experiment(unconditional), workdir), workdir)


def test_classes_of_other_names_are_warned_of_on_request(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("experiments.training.train._continue_run", lambda *_: None)
    for name in ("cat", "dog"):
        images(tmp_path / "p" / name, 12, 20 * (name == "dog"))
    changes = {"data__source": f"folder:{tmp_path}/p", "model__num_classes": 2} | SIZE
    workdir = stored_run(tmp_path / "run", ["ant", "dog"], checkpoint=False, **changes)
    arguments = ["train", f"--config={DIGITS}", f"--workdir={workdir.path}", "--resume_with_changes", *flags(**changes)]
    assert main(arguments) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "class 0 is" in line)
    assert line.startswith("warning: ") and "class 0 is 'cat' here and 'ant' in the run" in line
    assert workdir.class_names() == ("cat", "dog")


# Classes by name.


@pytest.fixture
def pets(tmp_path):
    """The folder of a class-conditional run with the classes 1 (number 0), 10 (number 1) and dog (number 2)."""
    stored_run(tmp_path / "run", ["1", "10", "dog"], model__num_classes=3, data__image_size=8)
    odd_sources.images(tmp_path / "in", 1)
    return tmp_path / "run"


@pytest.mark.parametrize(
    "command",
    [
        "sample --out={out}/s.npz --label={label}",
        "sample --out={out}/s.npz --config.sampling.label={label}",
        "evaluate --config.sampling.label={label}",
        "edit --input={out}/in --out={out}/o --label={label}",
        "interpolate --input={out}/in --to={out}/in --out={out}/o --label={label}",
        "translate --input={out}/in --out={out}/o --from_label=1 --label={label}",
        "translate --input={out}/in --out={out}/o --label=1 --from_label={label}",
        "restore --task=denoise --truth={out}/in --out={out}/o --config.sampling.label={label}",
    ],
)
def test_every_command_takes_classes_by_name_and_gives_the_nearest(fails, pets, tmp_path, command):
    name, *rest = command.format(out=tmp_path, label="dgo").split()
    message = fails(name, f"--workdir={pets}", *rest)
    assert "label=dgo: the classes are 0 '1', 1 '10', 2 'dog'; did you mean 'dog'?" in message


@pytest.mark.parametrize("label, number", [("dog", 2), ("1", 0), ("10", 1), ("0", 0), ("2", 2), (2, 2)])
def test_a_name_comes_before_a_number(label, number):
    """Of folders 1, 10 and dog, class `1` is folder 1."""
    config = config_of("digits", model__num_classes=3)
    assert factory.class_number(config, "--label", label, ("1", "10", "dog")) == number
    assert factory.check_class(config, "--label", label, names=("1", "10", "dog")) == number


@pytest.mark.parametrize("label", ["3", "-1", "dog", "1.0", "", "9" * 5000])
def test_a_class_of_a_run_without_names_is_a_number(label):
    with pytest.raises(UserError, match=r"--label=.*: the classes are 0 to 2"):
        factory.class_number(config_of("digits", model__num_classes=3), "--label", label)


def test_overrides_have_classes_by_number(pets):
    config = Workdir(pets).read_config()
    given = [("sampling.steps", "4"), ("sampling.label", "dog"), ("sampling.label", "-1"), ("sampling.label", "10")]
    assert runs.by_number(pets, config, given) == [*given[:1], *(("sampling.label", n) for n in ("2", "-1", "1"))]


def test_results_and_messages_name_the_class():
    config = config_of("digits", model__num_classes=3)
    names = ("1", "10", "dog")
    assert factory.class_record("dog", 2, names) == {"label": 2, "class_name": "dog"}
    assert factory.class_record("2", 2, None) == {"label": 2} and factory.class_record(None, 3, names) == {
        "label": None
    }
    assert factory.sampled_classes(config, names) == "each class in turn: 0 '1', 1 '10', 2 'dog'"
    assert (
        factory.sampled_classes(config_of("digits", model__num_classes=3, sampling__label=2), names) == "class 2 'dog'"
    )
    assert factory.sampled_classes(config_of("digits")) == ""


@pytest.mark.parametrize(
    "label, classes, message",
    [
        (3, 0, "sampling.label=3: this model has no classes (model.num_classes=0); leave the label at -1"),
        (0, 0, "sampling.label=0: this model has no classes"),
        (10, 10, "sampling.label=10: the classes are 0 to 9; -1 takes each in turn"),
        (-2, 10, "sampling.label=-2: must be at least 0 and at most 2147483647, or -1"),
    ],
)
def test_a_label_that_no_class_has_is_refused(fails, tmp_path, label, classes, message):
    changes = flags(sampling__label=label, model__num_classes=classes)
    assert message in fails("train", f"--config={DIGITS}", f"--workdir={tmp_path}/run", *changes)


def test_the_page_names_the_classes_of_the_samples(pets):
    (pets / "samples" / "step_00000008.png").write_bytes(b"")
    report.write(Workdir(pets))
    assert (
        "Row by row, each class in turn: 0 &#x27;1&#x27;, 1 &#x27;10&#x27;, 2 &#x27;dog&#x27;."
        in (pets / "report.html").read_text()
    )
