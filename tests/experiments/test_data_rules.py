"""Defaults of sources, splits and their words, keys of array files, patterns of records."""

import inspect
import json

import numpy as np
import pytest

from configs import base
from experiments import data
from experiments.data import prepare, records, sources
from experiments.data.sources import Wanted, arrayrecord, names, npz, rendering, splits
from experiments.data.sources.base import Dataset, Images, Parts
from experiments.errors import UserError
from experiments.factory.experiment import Experiment
from experiments.loading import dataset
from experiments.metrics import prepared as prepared_statistics
from experiments.runs.workdir import Workdir
from tests.experiments.tiny import tiny_config

RNG = np.random.default_rng(0)


def pictures(count, channels=1, size=4):
    return RNG.integers(0, 256, (count, size, size, channels), dtype=np.uint8)


def defaults(function):
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def test_defaults_are_those_of_the_config():
    config = base.get_config().data
    shared = ("resize", "background", "white", "validation_fraction", "memory_gb")
    found = defaults(sources.load)
    assert found == {key: config[key] for key in shared} | {"class_order": "natural", "arrays": None}
    stream = defaults(data.training_batches)
    workers = {"workers": config.workers, "worker_timeout": config.worker_timeout}
    assert stream == {"host": 0, "hosts": 1, "in_plane": ("image",)} | workers
    written = defaults(prepare.prepare)
    assert written == {key: config[key] for key in shared[:3]} | {
        "image_size": None, "num_channels": None, "stream": False, "shard_mb": 256, "statistics": None,
    }  # fmt: skip
    assert (config.test_fraction, config.validation_fraction, config.memory_gb) == (0.1, 0.0, 4.0)


def test_a_source_is_loaded_by_every_key_of_the_config(monkeypatch):
    given, made = {}, Dataset("x", *[Images(pictures(4))] * 3, 0)
    monkeypatch.setattr(dataset.data, "load", lambda source, **options: given.update(options, source=source) or made)
    keys = {
        "image_size": 5, "num_channels": 3, "test_fraction": 0.2, "validation_fraction": 0.3, "resize": "center_crop",
        "memory_gb": 2.5, "background": "black", "white": 9.0,
    }  # fmt: skip
    config = tiny_config(data__source="npz:a", **{f"data__{key}": value for key, value in keys.items()})
    assert dataset.load_data(Experiment(config)) is made
    assert given == keys | {"image_size": (5, 5), "source": "npz:a", "class_order": "natural", "arrays": None}


@pytest.mark.parametrize("class_names, differs", [(("10", "2"), True), (("1", "2"), False), (None, False)])
def test_the_order_of_texts_is_said_where_it_is_another(monkeypatch, tmp_path, class_names, differs):
    labels = np.array([0, 1, 1, 0], np.int32)
    made = Dataset("x", *[Images(pictures(4), labels)] * 3, 2, class_names, warnings=("first",))
    monkeypatch.setattr(dataset.data, "load", lambda source, **options: made)
    Workdir(tmp_path).data.write_text(json.dumps({"class_order": "text"}))
    found = dataset.load_data(Experiment(tiny_config()), Workdir(tmp_path)).warnings
    text = "the classes of this run are numbered in the order of texts, in which it was begun: 0 '10', 1 '2'"
    assert found == ("first", *[text] * differs)


@pytest.mark.parametrize(
    "labels, wanted, said",
    [
        (
            [1, 2],
            2,
            "has 3 classes (0 to 2); its labels begin at 1: number them from 0; 0 trains an unconditional model",
        ),
        ([1, 2], 4, "has 3 classes (0 to 2): set --config.model.num_classes=3; 0 trains an unconditional model"),
        ([0, 2], 2, "has 3 classes (0 to 2): set --config.model.num_classes=3; 0 trains an unconditional model"),
        ([2, 3], 3, "has 4 classes (0 to 3): set --config.model.num_classes=4; 0 trains an unconditional model"),
        (None, 2, "has no classes; 0 trains an unconditional model"),
    ],
)
def test_another_number_of_classes_in_words(labels, wanted, said):
    images = Images(pictures(2), labels and np.array(labels, np.int32))
    warnings = ("a label is odd", "something else", "no class")
    found = Dataset("x", images, images, images, max(labels) + 1 if labels else 0, warnings=warnings)
    text = dataset._wrong_number_of_classes(
        Experiment(tiny_config(data__source="npz:a", model__num_classes=wanted)), found
    )
    assert text == f"model.num_classes={wanted}: data.source='npz:a' {said}; a label is odd; no class"


@pytest.mark.parametrize(
    "stored, found, classes, other",
    [
        (("a", "b"), ("a", "b"), 2, None), (("a", "c"), ("a", "b"), 2, 1), (("a", "c"), ("a", "b"), 0, None),
        (None, ("a", "b"), 2, None), (("a", "b"), None, 2, None), (("a", "b"), ("a", "b", "c"), 3, None),
    ],
)  # fmt: skip
def test_names_of_classes_are_those_of_the_run(tmp_path, stored, found, classes, other):
    workdir, images = Workdir(tmp_path), Images(pictures(2))
    if stored:
        workdir.data.write_text(json.dumps({"class_names": list(stored)}))
    config = tiny_config(model__num_classes=classes)
    made = Dataset("x", images, images, images, classes, found)
    if other is None:
        dataset.check_names(Experiment(config), made, workdir)
        return
    with pytest.raises(UserError) as error:
        dataset.check_names(Experiment(config), made, workdir)
    assert f"class 1 is 'b' here and 'c' in the run {tmp_path}, so that" in str(error.value)


@pytest.mark.parametrize(
    "test, validation, refused",
    [
        (1e-9, 0.0, None), (0.999, 0.0, None), (0.5, 0.4999, None), (0.0, 0.0, "test_fraction=0.0 is not"),
        (1.0, 0.0, "test_fraction=1.0 is not"), (-0.1, 0.0, "test_fraction=-0.1 is not"),
        (0.5, -1e-9, "validation_fraction=-1e-09 is not"), (0.5, 1.0, "validation_fraction=1.0 is not"),
        (0.5, 0.5, "leave nothing to train on"), (np.nan, 0.0, "test_fraction=nan is not"),
        (0.5, np.nan, "validation_fraction=nan is not"),
    ],
)  # fmt: skip
def test_fractions_at_their_bounds(test, validation, refused):
    if refused is None:
        splits.check_fractions(test, validation)
        return
    with pytest.raises(UserError, match=refused):
        splits.check_fractions(test, validation)


def divided(own, test=0.3, validation=0.2, **more):
    return splits.split("x", Parts(own, **more), test_fraction=test, validation_fraction=validation)


@pytest.mark.parametrize(
    "own, validation, by_hash",
    [
        (("all",), 0.2, ("test", "validation")), (("all",), 0.0, ("test",)), (("train", "test"), 0.2, ("validation",)),
        (("train", "test"), 0.0, ()), (("train", "validation"), 0.2, ("test",)),
        (("train", "test", "validation"), 0.2, ()),
    ],
)  # fmt: skip
def test_splits_that_a_hash_decides_and_what_is_kept_of_the_source(own, validation, by_hash):
    labels = np.arange(40, dtype=np.int32) % 2
    parts = {name: Images(pictures(40), labels) for name in own}
    found = divided(parts, validation=validation, class_names=("a", "b"), left_out=("l",), warnings=("w",))
    assert (found.by_hash, found.name, found.num_classes) == (by_hash, "x", 2)
    assert (found.class_names, found.left_out, found.warnings) == (("a", "b"), ("l",), ("w",))
    sizes = {name: len(part) for name, part in found.splits.items()}
    assert sum(sizes.values()) == 40 * len(own)
    assert all(sizes[name] < 40 for name in by_hash) and (sizes["validation"] > 0) == ("validation" in (*by_hash, *own))
    assert found.splits["validation"].labels.dtype == np.int32
    if not by_hash:
        assert found.train is parts["train"]


@pytest.mark.parametrize(
    "own, said",
    [
        ({"all": (0, None)}, "has no training images"), ({"train": (0, 1), "test": (2, 1)}, "has no training images"),
        ({"train": (9, 1), "test": (0, 1)}, "has no test images"),
        ({"train": (9, 1), "test": (2, 1), "validation": (0, 1)}, "has no validation images"),
        ({"train": (9, 1), "test": (2, None)}, "test and training images must all have labels, or none"),
        ({"train": (9, None), "test": (2, None), "validation": (2, 1)}, "validation and training images must all have"),
    ],
)  # fmt: skip
def test_splits_that_lack_images_or_labels(own, said):
    parts = {
        name: Images(pictures(count), labelled and np.zeros(count, np.int32)) for name, (count, labelled) in own.items()
    }
    with pytest.raises(UserError, match=f"^data.source='x'.*{said}"):
        divided(parts)


def test_a_class_keeps_a_training_image_where_something_remains_to_be_held_out():
    """Eight images of one class and of 256ths as hashes: the only test image of class 1 stays, or is kept."""

    class Hashed(Images):
        def __init__(self, hashes, labels):
            super().__init__(pictures(len(hashes)), np.array(labels, np.int32))
            self.hashes = np.array(hashes)

        def identities(self):
            return self.hashes.astype(np.uint64) << np.uint64(56)

        def take(self, indices):
            return Hashed(self.hashes[indices], self.labels[indices])

    def hashes(*of, **options):
        found = divided({"all": Hashed(*of)}, 0.25, **options)
        return {name: part.hashes.tolist() for name, part in found.splits.items()}, found.warnings

    kept, warnings = hashes([10, 20, 100, 200], [0, 1, 0, 0], validation=0.25)
    assert (kept, warnings) == ({"train": [20, 100], "validation": [200], "test": [10]}, ())
    kept, warnings = hashes([10, 20, 100], [0, 1, 0], validation=0.0)
    assert (kept, warnings) == ({"train": [20, 100], "validation": [], "test": [10]}, ())
    kept, warnings = hashes([20, 100, 200], [1, 0, 0], validation=0.25)
    assert kept == {"train": [100], "validation": [200], "test": [20]}
    assert warnings == (
        "classes have too few images for each to keep a training image and some to be held out: the hash of each image "
        "alone decides its split",
    )


def saved(path, **arrays):
    np.savez(path / "a.npz", **arrays)
    return str(path / "a.npz")


def test_names_of_classes_in_an_array_file_are_one_text_each(tmp_path):
    images, labels = pictures(4), np.array([0, 1, 1, 0])
    for given, expected in (
        (["x", "y"], ("x", "y")),
        ([b"x", "\u00e9".encode()], ("x", "\u00e9")),
        (["x", "y", "z"],) * 2,
    ):
        found = npz.load(saved(tmp_path, images=images, labels=labels, label_names=np.array(given)), Wanted(4, 1))
        assert found.class_names == tuple(expected) and found.num_classes == len(expected)
    for given in (np.array([["x", "y"]]), np.array("x"), np.arange(2)):
        with pytest.raises(UserError, match=r"'label_names' is .*; texts \(K,\) are needed, one a class"):
            npz.load(saved(tmp_path, images=images, labels=labels, label_names=given), Wanted(4, 1))
    unlabelled = npz.load(saved(tmp_path, images=images, label_names=np.array(["x"])), Wanted(4, 1))
    assert unlabelled.class_names is None and unlabelled.sources["all"].labels is None


def test_labels_of_splits_that_are_not_read_are_told_from_those_that_are(tmp_path):
    arrays = {"x_train": pictures(4), "x_test": pictures(2), "attr": np.zeros(4)}
    found = npz.load(saved(tmp_path, **arrays), Wanted(4, 1))
    assert found.warnings[0].endswith("attr looks like labels and is not used: name the key y_train and y_test")
    labels = {"y_train": np.zeros(4, int), "y_test": np.zeros(2, int)}
    found = npz.load(saved(tmp_path, **arrays, **labels), Wanted(4, 1))
    assert found.warnings == (f"{tmp_path}/a.npz: attr looks like labels or their names and is not used",)
    assert found.left_out == ("arrays attr (keys that are not read)",)


def test_texts_and_numbers_are_not_mixed():
    text, number = np.array(["a"]), np.array([0])
    for values in ({"one": text, "two": number}, {"two": number, "one": text}):
        with pytest.raises(UserError, match=r"^one must hold whole numbers or texts, none missing"):
            names.class_numbers(values)
    with pytest.raises(UserError, match=r"^one must hold .*; it is a mixture, or some are missing$"):
        names.class_numbers({"one": np.array(["a", None], object)})
    with pytest.raises(UserError, match=r"^one holds texts that are not UTF-8$"):
        names.class_numbers({"one": np.array([b"\xff"])})
    with pytest.raises(UserError, match=r"^one: 2 of 3 are empty"):
        names.class_numbers({"one": np.array(["a", " ", ""])})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Records of 5 training and 3 test images, two in a shard, black behind what is transparent."""
    path = tmp_path_factory.mktemp("records")
    np.savez(path / "a.npz", x_train=pictures(5), x_test=pictures(3), more=np.zeros(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "MB", 2 * 16)
        patch.setattr(prepare, "BLOCK_BYTES", 1)
        made = prepare.prepare(f"npz:{path}/a.npz", path / "out", resize="center_crop", background="black", shard_mb=1)
    return path / "out", made


def test_records_say_how_they_were_made(prepared):
    folder, made = prepared
    assert made == records.Description.read(folder)
    assert (made.resize, made.background, made.white, made.image_shape) == ("center_crop", "black", 0.0, (4, 4, 1))
    assert {name: [shard.count for shard in shards] for name, shards in made.splits.items()} == {
        "train": [2, 2, 1], "test": [2, 1],
    }  # fmt: skip
    assert made.left_out == ("arrays more (keys that are not read)",) and made.fingerprints.keys() == made.splits.keys()
    assert not (folder.parent / "out.partial").exists() and not {"plan.json", "lock"} & {
        p.name for p in folder.iterdir()
    }


def test_an_image_that_is_larger_than_a_shard_has_one_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "MB", 1)
    monkeypatch.setattr(prepare, "BLOCK_BYTES", 1)
    images = pictures(3)
    made = prepare.prepare(f"npz:{saved(tmp_path, images=images)}", tmp_path / "out", shard_mb=1)
    assert [shard.count for shard in made.splits["all"]] == [1, 1, 1]
    found = arrayrecord.load(str(tmp_path / "out"), Wanted(4, 1)).sources["all"]
    np.testing.assert_array_equal(found.pixels(np.array([2, 0])), images[[2, 0]])


def test_some_files_of_records_are_read_and_the_others_counted(prepared):
    folder, made = prepared
    parts = arrayrecord.load(f"{folder}/train-*", Wanted(4, 1))
    assert {name: len(part) for name, part in parts.sources.items()} == {"train": 5}
    assert parts.left_out == (*made.left_out, "3 records in files of test that do not match train-*")
    parts = arrayrecord.load(f"{folder}/*-0000[02]*", Wanted(4, 1))
    assert {name: len(part) for name, part in parts.sources.items()} == {"train": 3, "test": 2}
    assert parts.left_out[1:] == (
        "2 records in files of train that do not match *-0000[02]*", "1 records in files of test that do not match "
        "*-0000[02]*",
    )  # fmt: skip
    whole = arrayrecord.load(str(folder), Wanted(4, 1)).sources["train"]
    np.testing.assert_array_equal(parts.sources["train"].pixels(np.arange(3)), whole.pixels(np.array([0, 1, 4])))
    assert arrayrecord.load(str(folder), Wanted(4, 1)).left_out == made.left_out
    with pytest.raises(UserError, match="test-\\* leaves none of the training images of"):
        arrayrecord.load(f"{folder}/test-*", Wanted(4, 1))


@pytest.mark.parametrize(
    "options, fits", [({}, True), ({"background": "black"}, True), ({"background": "#000"}, True),
                      ({"background": "white"}, True), ({"background": "red"}, False), ({"white": 9.0}, False),
                      ({"background": "black", "white": 9.0}, False)],
)  # fmt: skip
def test_records_were_made_over_one_background(prepared, options, fits):
    """White, the default, asks for nothing."""
    folder, _ = prepared
    if fits:
        arrayrecord.load(str(folder), Wanted(4, 1, **options))
        return
    with pytest.raises(UserError, match=r"was prepared with background=black and white=0; data\.background="):
        arrayrecord.load(str(folder), Wanted(4, 1, **options))
    assert rendering.Rendering().stamp == ""


def test_records_over_white_are_not_taken_for_others(prepared, tmp_path):
    for file in prepared[0].iterdir():
        (tmp_path / file.name).symlink_to(file)
    stored = json.loads((tmp_path / "dataset.json").read_text())
    for change, refused in (({}, {"background": "black"}), ({"white": 9.0}, {"white": 8.0})):
        (tmp_path / "dataset.json").unlink()
        (tmp_path / "dataset.json").write_text(json.dumps(stored | {"background": "white"} | change))
        for fits in ({}, {"background": "white"}, change):
            arrayrecord.load(str(tmp_path), Wanted(4, 1, **fits))
        with pytest.raises(UserError, match="was prepared with background=white and white="):
            arrayrecord.load(str(tmp_path), Wanted(4, 1, **refused))


def test_statistics_are_of_the_fractions_of_the_config(prepared, monkeypatch):
    folder, _ = prepared
    given, files = [], []
    real = prepared_statistics.load
    monkeypatch.setattr(
        prepared_statistics,
        "load",
        lambda source, **options: given.append((source, options)) or real(source, **options),
    )

    class Statistics:
        def save(self, path):
            files.append(path.name)

    counts = []
    monkeypatch.setattr(
        prepared_statistics,
        "compute_statistics",
        lambda blocks, network, fingerprint: counts.append(list(map(len, blocks))) or Statistics(),
    )
    monkeypatch.setattr(prepared_statistics, "BLOCK_BYTES", 2 * 16)
    config = tiny_config(data__validation_fraction=0.25, data__test_fraction=0.4)
    monkeypatch.setattr(prepared_statistics.base, "get_config", lambda: config)

    class Network:
        name = "means"

    paths = prepared_statistics.FeatureStatistics(Network())(folder)
    assert given == [(f"arrayrecord:{folder}", {"image_size": (4, 4), "num_channels": 1, "test_fraction": 0.4,
                                                "validation_fraction": 0.25, "memory_gb": 0})]  # fmt: skip
    assert files == [path.name for path in paths] == ["training_means.npz", "held_out_means.npz"]
    assert counts[1] == [2, 1] and all(count == 2 for count in counts[0][:-1])


def test_a_kind_of_source_is_given_its_path_and_what_is_wanted(monkeypatch):
    """And its splits are made by the fractions that are asked for."""
    given, images = [], Images(pictures(40, size=8))
    parts = Parts({"all": images}, left_out=("l",), warnings=("w",))
    monkeypatch.setitem(sources.KINDS, "npz", (lambda path, wanted: given.append((path, wanted)) or parts, "npz:PATH"))
    options = {"image_size": 4, "num_channels": 1, "resize": "center_crop", "background": "black", "white": 9.0}
    found = sources.load("npz:a:b", **options, test_fraction=0.3, validation_fraction=0.2, class_order="text")
    assert given == [("a:b", Wanted(4, 1, "center_crop", 0.3, class_order="text", background="black", white=9.0))]
    expected = splits.split("npz:a:b", parts, test_fraction=0.3, validation_fraction=0.2)
    for name, part in found.splits.items():
        np.testing.assert_array_equal(part.identities(), expected.splits[name].identities())
        assert part.image_shape == (4, 4, 1) and isinstance(part, Images)
    assert (found.left_out, found.warnings, found.by_hash) == (("l",), ("w",), ("test", "validation"))
    assert sources.read("npz:a", Wanted(8, 1)).sources["all"] is images
    with pytest.raises(UserError, match=r"^data\.source='latents': the model is of an autoencoder's latents"):
        sources.read("latents", Wanted(8, 1))


def test_examples_are_gathered_in_arrays_of_the_callers_own():
    images, labels = pictures(4), np.arange(4, dtype=np.int32)
    for source in (Images(images, labels), Images(images)):
        batch = source.gather([2, 0, 2])
        np.testing.assert_array_equal(batch["image"], images[[2, 0, 2]])
        assert list(batch) == ["image", "label"][: 1 + (source.labels is not None)]
        batch["image"][:] = 0
        assert images[2].any() and (source.labels is None or batch["label"].tolist() == [2, 0, 2])
        np.testing.assert_array_equal(source.take(np.array([False, True, True, False])).images, images[1:3])
