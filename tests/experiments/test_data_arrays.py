"""Arrays of numbers of any shape: allowed contents of files, and errors of files that do not fit."""

import numpy as np
import pytest

from experiments import factory
from experiments.data import Arrays, load, training_batches
from experiments.data.sources import arrays
from experiments.errors import UserError
from experiments.factory.experiment import Experiment
from experiments.loading.dataset import load_data, summary
from tests.experiments.test_media import array_config

RNG = np.random.default_rng(0)
VALUES = RNG.uniform(-3, 5, (40, 3, 2))


def stored(folder, **values):
    np.savez(folder / "a.npz", **values)
    return f"npz:{folder}/a.npz"


def load32(source, **changes):
    shape, low, high = ((3, 2), -3.0, 5.0)
    wanted = Arrays(changes.pop("shape", shape), changes.pop("low", low), changes.pop("high", high))
    return load(source, image_size=8, num_channels=1, test_fraction=0.25, arrays=wanted, **changes)


@pytest.mark.parametrize("key", ["data", "images"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int16])
def test_arrays_are_read_as_float32_and_divided_by_their_content(tmp_path, key, dtype):
    values = (VALUES * (100 if dtype == np.int16 else 1)).astype(dtype)
    labels = np.arange(40) % 3
    found = load32(stored(tmp_path, **{key: values}, labels=labels), low=-300.0, high=500.0)
    assert len(found.train) + len(found.test) == 40 and len(found.test) > 2 and found.num_classes == 3
    rows = {row.tobytes(): label for row, label in zip(values.astype(np.float32), labels, strict=True)}
    for part in (found.train, found.test):
        assert part.image_shape == (3, 2) and part.images.dtype == np.float32
        batch = part.gather(np.arange(len(part)))
        assert [rows[row.tobytes()] for row in batch["image"]] == batch["label"].tolist()
    assert found.fingerprint() == load32(stored(tmp_path, data=values, labels=labels)).fingerprint()


def test_arrays_with_their_own_split(tmp_path):
    found = load32(stored(tmp_path, x_train=VALUES[:30], x_test=VALUES[30:]))
    np.testing.assert_array_equal(found.train.images, VALUES[:30].astype(np.float32))
    np.testing.assert_array_equal(found.test.images, VALUES[30:].astype(np.float32))


@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 3, 4, 5)])
def test_batches_of_arrays_are_never_mirrored(tmp_path, shape):
    values = RNG.normal(size=(8, *shape)).astype(np.float32)
    settings = array_config(data__source=stored(tmp_path, x_train=values, x_test=values), data__event_shape="()")
    settings = factory.complete(settings)
    assert settings.data.event_shape == shape and settings.data.random_flip is False
    settings.data.random_flip = True
    dataset = load_data(Experiment(settings))
    from experiments.training.train import training_stream

    with training_stream(Experiment(settings), dataset.train) as stream:
        rows = {row.tobytes() for row in next(stream)["image"]}
    assert rows <= {row.tobytes() for row in values}
    with training_batches(dataset.train, batch_size=8, seed=0, flip=False) as plain:
        assert {row.tobytes() for row in next(plain)["image"]} == {row.tobytes() for row in values}
    sides = "x".join(map(str, shape))
    assert f"8 training, 8 test arrays of {sides}; no classes" in summary(Experiment(settings), dataset)


BAD = {
    "shape": ({"data": VALUES[..., 0]}, ["holds arrays of shape 3 but data.event_shape=3,2", "--config.data.event_shape=3"]),
    "numbers": ({"data": np.arange(40.0)}, ["float64 (40,)", "(N, *event)"]),
    "empty": ({"data": VALUES[:0]}, ["(0, 3, 2)", "N >= 1"]),
    "texts": ({"data": VALUES.astype(str)}, ["real numbers (N, *event)"]),
    "complex": ({"data": VALUES + 1j}, ["complex128", "real numbers"]),
    "nan": ({"data": np.where(VALUES > 4, np.nan, VALUES)}, ["values are not finite in float32"]),
    "huge": ({"data": VALUES * 1e300}, ["240 of 240 values are not finite in float32"]),
    "keys": ({"values": VALUES}, ["has the keys values", "needed are 'data'"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_files_that_hold_something_else_are_one_line(tmp_path, name):
    content, phrases = BAD[name]
    with pytest.raises(UserError) as error:
        load32(stored(tmp_path, **content))
    assert all(phrase in str(error.value) for phrase in ("a.npz", *phrases)) and "\n" not in str(error.value)


def test_other_sources_have_no_arrays(tmp_path):
    for source, phrase in (
        ("digits", "has no arrays of numbers: choose from npz:PATH"),
        ("npz", "a path is needed"),
    ):
        with pytest.raises(UserError, match=phrase):
            load32(source)
        with pytest.raises(UserError, match="arrays are read from npz:PATH"):
            arrays.event_shape(source, (0.0, 0.0))


def test_a_range_that_is_not_stated_is_refused_with_the_range_of_the_file(tmp_path):
    source = stored(tmp_path, data=np.linspace(-3, 4.5, 80).reshape(10, 4, 2))
    settings = array_config(data__source=source, data__event_shape="()", data__range="0,0")
    with pytest.raises(UserError, match=r"^data\.range=0,0: .* from -3 to 4\.5: pass --config\.data\.range=-3,4\.5$"):
        factory.complete(settings)
    settings.data.range = (-3, 4.5)
    assert factory.complete(settings).data.event_shape == (4, 2) and settings.data.event_shape == ()


@pytest.mark.parametrize(
    "low, high, text",
    [(-3, 5, None), (-2, 5, "% of the values of"), (-200, 200, "fill little of data.range=-200,200")],
)
def test_a_range_that_does_not_fit_is_a_warning(tmp_path, low, high, text):
    warnings = load32(stored(tmp_path, data=VALUES), low=float(low), high=float(high)).warnings
    assert (text is None and not warnings) or (len(warnings) == 1 and text in warnings[0])


@pytest.mark.parametrize(
    "beyond, highest, high, text",
    [
        (1, 1.0, 1.0, None),
        (2, 1.0, 1.0, "2 % of the values of {} are outside of data.range=0,1: they are from 0 to 2"),
        (0, 1.0, 16.0, None),
        (0, 1.0, 16.001, "the values of {} fill little of data.range=0,16.001: they are from 0 to 1"),
        (0, 0.5, 8.001, "the values of {} fill little of data.range=0,8.001: they are from 0 to 0.5"),
    ],
)
def test_a_hundredth_beyond_the_range_and_a_sixteenth_of_it_are_enough(tmp_path, beyond, highest, high, text):
    """Of a hundred values from 0 to `highest`, some of which are 2."""
    values = np.linspace(0, highest, 100)
    values[1 : 1 + beyond] = 2
    parts = arrays.load(stored(tmp_path, data=values.reshape(50, 2)).removeprefix("npz:"), Arrays((2,), 0.0, high))
    assert parts.warnings == (() if text is None else (text.format(f"{tmp_path}/a.npz ('data')"),))
    assert parts.sources["all"].images.dtype == np.float32


def test_values_below_the_range_are_beyond_it_too(tmp_path):
    source = stored(tmp_path, x_train=np.linspace(-1, 1, 100).reshape(50, 2), x_test=np.full((4, 2), 0.5))
    (first, second) = arrays.load(source.removeprefix("npz:"), Arrays((2,), 0.0, 1.0)).warnings
    assert first.startswith("50 % of the values of") and "'x_train'" in first
    assert "'x_test'" in second and second.endswith("fill little of data.range=0,1: they are from 0.5 to 0.5")


def test_the_shape_of_arrays_is_that_of_the_first_that_would_be_read(tmp_path):
    """`data` before `images` before the splits; the range must be stated, if only in part."""
    files = {
        "data": np.zeros((3, 2)),
        "images": np.zeros((3, 4)),
        "x_train": np.zeros((3, 5)),
        "x_test": np.zeros((3, 6)),
    }
    for names, shape in (
        ("data images x_train x_test", (2,)),
        ("images x_train x_test", (4,)),
        ("x_test x_train", (5,)),
    ):
        source = stored(tmp_path, **{name: files[name] for name in names.split()})
        for stated in ((0.0, 1.0), (-1.0, 0.0)):
            assert arrays.event_shape(source, stated) == shape
    for stated in ((1.0, 1.0), (2.0, 1.0), (0.0, np.inf), (np.nan, 1.0), (0.0,), (0.0, 1.0, 2.0)):
        with pytest.raises(UserError, match="must be two finite numbers"):
            arrays.checked_range(stated)
    found = arrays.checked_range((0, 1))
    assert found == (0.0, 1.0) and all(type(value) is float for value in found)
