"""A data set in words and in `data.json`, and the images that an evaluation needs: at the bounds of each rule."""

import json

import numpy as np
import pytest

from experiments.data.sources.base import Dataset, Images
from experiments.errors import UserError
from experiments.factory.experiment import Experiment
from experiments.loading import dataset
from experiments.runs.workdir import Workdir
from tests.experiments.tiny import tiny_config


def images(count, labels=None, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 1), dtype=np.uint8)
    return Images(pixels, None if labels is None else np.resize(np.array(labels, np.int32), count))


def made(train=(9,), validation=(0,), test=(9,), names=None, **more):
    """A data set of (count, labels) for each split; labels are repeated."""
    parts = [images(*of, seed=i) for i, of in enumerate((train, validation, test))]
    largest = max((int(part.labels.max(initial=-1)) for part in parts if part.labels is not None), default=-1)
    return Dataset("x", *parts, max(largest + 1, len(names or ())), names, **more)


def test_one_line_on_the_images():
    config = tiny_config(data__source="npz:a\nb", data__test_fraction=0.25, data__validation_fraction=0.125)
    assert dataset.summary(Experiment(config), made()) == (
        "Data of npz:a\\nb: 9 training, 9 test images of 4x4x1; no classes; nothing left out"
    )
    found = made((1200, (0, 1, 1)), (3, (0,)), (5, (1,)), ("cat", "1"), by_hash=("test",), left_out=("a", "b"))
    assert dataset.summary(Experiment(config), found) == (
        "Data of npz:a\\nb: 1,200 training, 3 validation, 5 test (data.test_fraction=0.25) images of 4x4x1; "
        "2 classes (0 'cat', 1; 400 to 800 training images each; not used, as model.num_classes=0); left out: a; b"
    )
    found = made((6, (0, 1)), (3, (0,)), (5, (1,)), by_hash=("validation",))
    config.model.num_classes = 2
    assert dataset.summary(Experiment(config), found) == (
        "Data of npz:a\\nb: 6 training, 3 validation (data.validation_fraction=0.125), 5 test images of 4x4x1; "
        "2 classes (0 to 1; 3 training images each); nothing left out"
    )
    assert "1 class (0; 6 training images each)" in dataset.summary(
        Experiment(config), made((6, (0,)), (0, ()), (5, (0,)))
    )


def test_twelve_classes_are_named_and_the_rest_counted():
    many = tuple(f"n{i:02}" for i in range(14))
    for count, more in ((12, ""), (13, " and 1 more"), (14, " and 2 more")):
        found = made((9, (0,)), (0, ()), (9, (0,)), many[:count])
        assert dataset.classes(found) == ", ".join(f"{i} 'n{i:02}'" for i in range(12)) + more
    assert dataset.classes(made((9, (0, 11)), (0, ()), (9, (0,)))) == "0 to 11"


def test_ten_classes_without_training_images_are_named_and_the_rest_counted():
    assert dataset.untrained(made((9, (0,)), (0, ()), (9, (0,)))) == ""
    assert dataset.untrained(made((9, (0, 2)), (0, ()), (9, (0,)))) == "1 of 3 classes has no training images: 1"
    found = dataset.untrained(made((9, (10,)), (0, ()), (9, (0,))))
    assert found == "10 of 11 classes have no training images: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert dataset.untrained(made((9, (11,)), (0, ()), (9, (0,)))).endswith("8, 9 and 1 more")


@pytest.mark.parametrize("name", ["nan", "None", " NULL ", "na", "N/A", "-1", "?"])
def test_classes_that_look_like_a_missing_label_are_warned_of(name):
    found = made((9, (0, 1)), (0, ()), (9, (0,)), ("cat", name), warnings=("first",))
    assert dataset.warnings(Experiment(tiny_config()), found) == [
        "first", f"'{name}' is a class, and looks like a missing label: leave images without a class out",
    ]  # fmt: skip
    usual = made((9, (0, 1)), (0, ()), (9, (0,)), ("cat", "nano"))
    assert dataset.warnings(Experiment(tiny_config()), usual) == []


def test_classes_that_differ_in_case_or_spaces_alone_are_warned_of():
    found = made((9, (0, 1, 2, 3)), (0, ()), (9, (0,)), ("a  B", "ab", "A b", "c"))
    assert dataset.warnings(Experiment(tiny_config()), found) == [
        "classes whose names differ in case or spaces alone: 'a  B', 'A b'"
    ]


@pytest.mark.parametrize("labels, counted", [((0, 999), True), ((0, 1000), False), (None, False)])
def test_images_of_up_to_a_thousand_classes_are_counted_one_by_one(labels, counted):
    found = made(*((9, labels), (0, labels and ()), (4, labels)))
    stored = dataset.describe(Experiment(tiny_config()), found, "text")
    assert ("class_counts" in stored) == counted
    if counted:
        assert {name: (row[0], row[1], row[999]) for name, row in stored["class_counts"].items()} == {
            "train": (5, 0, 4), "test": (2, 0, 2),
        }  # fmt: skip
    assert stored["class_order"] == "text" and stored["images"] == {"train": 9, "validation": 0, "test": 4}
    assert stored["num_classes"] == (labels[1] + 1 if labels else 0) and stored["image_shape"] == [4, 4, 1]
    assert stored["source"] == "digits" and stored["class_names"] is None and stored["by_hash"] == []


def test_a_description_is_stored_where_it_is_another(tmp_path):
    workdir, config = Workdir(tmp_path), tiny_config()
    dataset.store(Experiment(config), made(), workdir)
    first = workdir.data.stat().st_ino
    dataset.store(Experiment(config), made(), workdir)
    assert workdir.data.stat().st_ino == first and workdir.data.read_text().endswith("}\n")
    dataset.store(Experiment(config), made((8,)), workdir)
    assert workdir.data.stat().st_ino != first and workdir.read_data()["images"]["train"] == 8


@pytest.mark.parametrize(
    "stored, checkpoint, order", [(None, False, "natural"), (None, True, "text"), ({"class_order": "text"}, False, "text"),
                                  ({"a": 1}, True, "natural"), ({"class_order": "natural"}, True, "natural")],
)  # fmt: skip
def test_the_order_of_a_runs_class_names(tmp_path, stored, checkpoint, order):
    workdir = Workdir(tmp_path)
    if stored is not None:
        workdir.data.write_text(json.dumps(stored))
    if checkpoint:
        (workdir.checkpoints / "8").mkdir(parents=True)
    assert dataset.class_order(workdir) == order and dataset.class_order(None) == "natural"


@pytest.mark.parametrize("train, test, refused", [(4, 4, ""), (3, 4, "3 training"), (4, 3, "3 test"), (3, 3, "3 test")])
def test_four_images_of_each_split_are_enough_to_evaluate(train, test, refused):
    """Precision and recall compare three nearest neighbours."""
    if not refused:
        dataset.check_evaluation(Experiment(tiny_config()), made((train,), (0,), (test,)))
        return
    with pytest.raises(
        UserError, match=f"has {refused} images, and the evaluation at the end of training needs 4 or more"
    ):
        dataset.check_evaluation(Experiment(tiny_config()), made((train,), (0,), (test,)))


@pytest.mark.parametrize("reference, part", [("training", "train"), ("held_out", "test")])
def test_images_of_reference_must_differ(reference, part):
    """Of 35, read 16 at once after the first, that the last or the second differs is enough."""
    config = tiny_config(evaluation__reference=reference)
    for different in (None, 1, 16, 17, 34):
        found = made((35,), (0,), (35,))
        pixels = getattr(found, part).images
        pixels[:] = 7
        if different is not None:
            pixels[different, 3, 3] = 8
            dataset.check_evaluation(Experiment(config), found)
            continue
        with pytest.raises(UserError, match=f"all 35 {'training' if part == 'train' else 'test'} images are equal"):
            dataset.check_evaluation(Experiment(config), found)


def test_a_class_conditional_model_has_as_many_classes_as_the_data(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.random.default_rng(0).integers(0, 256, (20, 8, 8)).astype(np.uint8),
             labels=np.arange(20) % 3)  # fmt: skip
    source = {"data__source": f"npz:{tmp_path}/a.npz"}
    for classes in (0, 3):
        assert dataset.load_data(Experiment(tiny_config(**source, model__num_classes=classes))).num_classes == 3
    for classes in (2, 4):
        with pytest.raises(
            UserError, match=rf"num_classes={classes}: .* has 3 classes \(0 to 2\): set --config.model.num_c"
        ):
            dataset.load_data(Experiment(tiny_config(**source, model__num_classes=classes)))


class Hashed(Images):
    """Images with hashes of their own."""

    def __init__(self, u):
        super().__init__(images(len(u)).images)
        self.u = u

    def identities(self):
        return np.array([int(u * 2**64) for u in self.u], np.uint64)


@pytest.mark.parametrize(
    "name, count, by_hash, fractions, advice",
    [
        ("test", 10, ("test",), (0.1, 0.9), "set --config.data.test_fraction=0.36"),
        ("test", 10, ("test", "validation"), (0.1, 0.6), "set --config.data.test_fraction=0.36"),
        ("test", 10, ("test", "validation"), (0.1, 0.64),
         "set --config.data.test_fraction=0.36 and choose data.validation_fraction below 0.64"),
        ("test", 8, ("test",), (0.1, 0.0), "set --config.data.test_fraction=0.44"),
        ("test", 7, ("test",), (0.1, 0.0), "give more images"),
        ("test", 10, (), (0.1, 0.0), "give more images to its split 'test'"),
        ("test", 10, ("validation",), (0.1, 0.5), "give more images to its split 'test'"),
        ("train", 10, ("test", "validation"), (0.3, 0.5), "choose data.validation_fraction=0.5 smaller"),
        ("train", 10, ("test", "validation"), (0.5, 0.3), "choose data.test_fraction=0.5 smaller"),
        ("train", 7, ("test",), (0.5, 0.3), "give more images"),
        ("train", 10, (), (0.5, 0.3), "give more images to its split 'train'"),
    ],
)  # fmt: skip
def test_the_setting_that_gives_a_split_enough_images(name, count, by_hash, fractions, advice):
    """Of hashes in even steps, (i + 1/2) / N: the fourth of ten is 0.35."""
    u = (np.arange(count) + 0.5) / count
    nothing = Hashed(u[:0])
    parts = {"train": Hashed(u[1:]), "validation": nothing, "test": Hashed(u[:1]) if "test" in by_hash else images(3)}
    if "test" not in by_hash:
        parts["train"] = Hashed(u)
    config = tiny_config(data__test_fraction=fractions[0], data__validation_fraction=fractions[1])
    found = Dataset("x", parts["train"], parts["validation"], parts["test"], 0, by_hash=by_hash)
    assert dataset._advice(Experiment(config), found, name, 4) == advice
