"""Conditions: the leaf of a batch, the null, and the dropout of each condition by the keys of the examples."""

import zlib
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sde_lib
from experiments import factory
from experiments.conditions import AugmentationCondition, Condition, LabelCondition
from experiments.data.augmentation import Motion, augment, move
from experiments.data.pipeline import training_batches
from experiments.data.sources import Images
from experiments.errors import UserError
from experiments.factory import check, conditions
from experiments.factory.conditions import CONDITIONS
from experiments.factory.experiment import Experiment
from experiments.learning import state
from tests.experiments.tiny import tiny_config

BATCH = 64
KEYS = state.draws(jax.random.key(0), 3, jnp.arange(BATCH), BATCH).keys
LABELS = jnp.arange(BATCH) % 3
BOTH = {"model__num_classes": 3, "model__augment_features": 9}


class Caption(Condition):
    """A condition of the tests: a pytree of tokens and their mask."""

    name, option, noun = "caption", "caption_length", "caption"

    def __init__(self, length=4):
        self.length = length

    def spec(self, medium):
        return {"tokens": jax.ShapeDtypeStruct((self.length, 2), jnp.float32), "mask": jax.ShapeDtypeStruct((4,), bool)}

    def of_batch(self, keys, batch):
        return batch["caption"]

    def of_user(self, value):
        raise ValueError("no captions")

    def null(self, leaf):
        return {"tokens": jnp.full_like(leaf["tokens"], -1), "mask": jnp.zeros_like(leaf["mask"])}


CAPTIONS = {"tokens": jnp.ones((BATCH, 4, 2)), "mask": jnp.ones((BATCH, 4), bool)}


def expected_drops(noun, probability):
    """By the definition, example by example."""
    tag = zlib.crc32(f"{noun} dropout".encode())
    return np.array([float(jax.random.uniform(jax.random.fold_in(key, tag))) < probability for key in KEYS])


def test_the_null_of_the_label_is_the_class_after_the_last_and_of_the_augmentation_zeros():
    null = LabelCondition(3).null(LABELS)
    assert (null.tolist(), null.dtype) == ([3] * BATCH, LABELS.dtype)
    np.testing.assert_array_equal(AugmentationCondition(9).null(jnp.ones((5, 9))), np.zeros((5, 9)))
    config = tiny_config(**BOTH)
    nulls = conditions.null(config, {"label": LABELS, "augmentation": jnp.ones((BATCH, 9))})
    np.testing.assert_array_equal(nulls["label"], 3)
    np.testing.assert_array_equal(nulls["augmentation"], 0)
    assert conditions.null(config, None) is None


@pytest.mark.parametrize("condition, leaf", [(LabelCondition(3), LABELS), (Caption(), CAPTIONS)])
def test_an_example_loses_its_leaf_by_its_own_key(condition, leaf):
    """Example i depends on key i alone: in any order, and in any part of the batch."""
    found = jax.device_get(condition.dropped(KEYS, leaf, 0.5))
    lost, null = expected_drops(condition.noun, 0.5), condition.null(leaf)

    def chosen(null, value):
        return np.where(lost.reshape(-1, *[1] * (value.ndim - 1)), null, value)

    jax.tree.map(np.testing.assert_array_equal, found, jax.tree.map(chosen, null, leaf))
    assert 16 <= lost.sum() <= 48
    order = np.random.default_rng(0).permutation(BATCH)[:11]
    part = condition.dropped(KEYS[order], jax.tree.map(lambda value: value[order], leaf), 0.5)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(part), jax.tree.map(lambda value: value[order], found))


@pytest.mark.parametrize("probability, lost", [(0.0, 0), (1.0, BATCH)])
def test_the_ends_of_the_probability(probability, lost):
    assert int((LabelCondition(3).dropped(KEYS, LABELS, probability) == 3).sum()) == lost


def test_two_conditions_are_dropped_independently(monkeypatch):
    """Each by its own probability and random numbers: all four cases occur, as often as they must."""
    monkeypatch.setitem(CONDITIONS, "caption", Caption)
    config = tiny_config(**BOTH, condition__label__dropout=0.5)
    with config.unlocked():
        config.model.caption_length = 4
        config.condition.caption = {"dropout": 0.25}
    keys = jax.random.split(jax.random.key(1), 2000)
    leaves = {
        "label": jnp.zeros(2000, int), "augmentation": jnp.ones((2000, 9)),
        "caption": jax.tree.map(lambda value: jnp.repeat(value[:1], 2000, 0), CAPTIONS),
    }  # fmt: skip
    found = conditions.dropped(config, keys, leaves)
    label, caption = np.asarray(found["label"] == 3), ~np.asarray(found["caption"]["mask"]).all(1)
    for lost, expected in ((label, 0.5), (caption, 0.25), (label & caption, 0.125)):
        assert abs(lost.mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / 2000)
    assert found["augmentation"] is leaves["augmentation"]  # has no dropout
    alone = tiny_config(**BOTH, condition__label__dropout=0.5)
    np.testing.assert_array_equal(conditions.dropped(alone, keys, {"label": leaves["label"]})["label"], found["label"])
    assert conditions.dropped(config, keys, None) is None


def test_a_dropout_of_a_condition_that_the_network_does_not_take_is_refused():
    with pytest.raises(
        UserError,
        match=r"^condition\.label\.dropout=0\.1: model\.num_classes=0 leaves no class to drop \(a network named",
    ):
        check.check(tiny_config(condition__label__dropout=0.1))


@pytest.mark.parametrize(
    "changes, names",
    [({}, []), (BOTH, ["augmentation", "label"]), ({"model__num_classes": 3}, ["label"]), ({"model__name": "dit"}, [])],
)
def test_an_experiment_has_the_conditions_that_its_network_takes(changes, names):
    experiment = Experiment(tiny_config(**changes))
    assert list(experiment.conditions) == names
    assert experiment.condition(None) is None
    batch = {"label": LABELS, "augmentation": jnp.ones((BATCH, 9)), "data": jnp.zeros((BATCH, 8, 8, 1))}
    found = experiment.condition_of_batch(KEYS, batch)
    assert (found and list(found)) == (names or None)
    assert all(found[name] is batch[name] for name in names)
    labels = experiment.condition(LABELS)
    assert (labels and list(labels)) == (["label"] if "label" in names else None)


def test_a_batch_that_is_not_augmented_has_the_null_of_the_augmentation():
    found = AugmentationCondition(9).of_batch(KEYS, {"data": jnp.zeros((BATCH, 8, 8, 1))})
    np.testing.assert_array_equal(found, np.zeros((BATCH, 9), np.float32))


def test_values_of_the_user():
    names = LabelCondition(3, ("cat", "2", "dog"))
    assert [int(names.of_user(value)) for value in ("cat", "dog", "2", 2, 0)] == [0, 2, 1, 1, 0]
    assert LabelCondition(3).of_user("2").dtype == jnp.int32 and int(LabelCondition(3).of_user("000000002")) == 2
    for value in ("3", 3, "-1", "bird", "1.0", "²", "\u0661", "", "0" * 10, True):
        with pytest.raises(ValueError):
            names.of_user(value)
    np.testing.assert_array_equal(AugmentationCondition(2).of_user((1, 0)), [1, 0])
    with pytest.raises(ValueError, match="2 labels"):
        AugmentationCondition(2).of_user((1, 0, 0))


def test_specs_are_the_shapes_that_a_network_begins_with():
    found = conditions.placeholder(tiny_config(**BOTH), 2)
    assert {name: (leaf.shape, str(leaf.dtype)) for name, leaf in found.items()} == {
        "label": ((2,), "int32"), "augmentation": ((2, 9), "float32"),
    }  # fmt: skip
    assert conditions.placeholder(tiny_config()) is None


def test_what_the_network_is_trained_with_is_the_dropped_label_and_the_motion_of_the_image():
    """By a network that keeps what it is given."""
    seen = {}

    class Keeping:
        def apply(self, variables, x, noise_level, condition, **mode):
            seen.update(condition)
            return x

    config = tiny_config(**BOTH, condition__label__dropout=0.5, data__augmentation=0.5)
    images = np.random.default_rng(0).integers(0, 256, (BATCH, 8, 8, 1), dtype=np.uint8)
    examples = factory.preparation(config)(KEYS, {"image": images, "label": LABELS})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.factory.model.network", lambda config: Keeping())
        drawn = state.draws(jax.random.key(0), 3, jnp.arange(BATCH), BATCH)
        condition = conditions.condition_of_batch(config, KEYS, examples)
        factory.loss(config)(drawn, None, examples["data"], condition)
    np.testing.assert_array_equal(seen["label"], np.where(expected_drops("class", 0.5), 3, LABELS))
    np.testing.assert_array_equal(seen["augmentation"], examples["augmentation"])
    assert np.any(seen["augmentation"] != 0)
    np.testing.assert_array_equal(examples["label"], LABELS)


def test_images_of_one_example_are_moved_together():
    """Paired images by one motion, which differs from example to example; other fields stay."""
    first, second = np.random.default_rng(0).normal(size=(2, 6, 8, 8, 2)).astype(np.float32)
    examples = {"data": jnp.asarray(first), "paired": jnp.asarray(second), "label": LABELS[:6]}
    keys = KEYS[:6]
    moved = augment(keys, examples, 0.9, ("data", "paired"))
    swapped = augment(keys, {"data": examples["paired"]}, 0.9)
    np.testing.assert_array_equal(moved["paired"], swapped["data"])
    np.testing.assert_array_equal(moved["augmentation"], swapped["augmentation"])
    assert moved["label"] is examples["label"] and len(np.unique(moved["augmentation"], axis=0)) == 6
    assert augment(keys, examples, 0.9)["paired"] is examples["paired"]


def test_a_condition_in_the_plane_of_the_image_is_augmented_with_it(monkeypatch):
    class Paired(Caption):
        name, option, in_plane = "paired", "paired_channels", True

    monkeypatch.setitem(CONDITIONS, "paired", Paired)
    config = tiny_config(**BOTH, data__augmentation=0.5)
    with config.unlocked():
        config.model.paired_channels = 1
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1), dtype=np.uint8)
    x0 = factory.medium(config).forward(images)
    examples = factory.preparation(config)(KEYS[:8], {"image": images, "paired": x0, "label": LABELS[:8]})
    np.testing.assert_array_equal(examples["paired"], examples["data"])
    assert np.abs(examples["data"] - x0).max() > 0.1


def test_a_flip_mirrors_all_images_of_an_example():
    class Pairs(Images):
        def gather(self, places):
            batch = super().gather(places)
            return batch | {"paired": 255 - batch["image"], "other": batch["image"].copy()}

    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 1), dtype=np.uint8)
    options = {"batch_size": 40, "seed": 0, "flip": True}
    with training_batches(Pairs(images), **options, in_plane=("image", "paired")) as stream:
        batch = next(stream)
    np.testing.assert_array_equal(batch["paired"], 255 - batch["image"])
    flipped = (batch["image"] != batch["other"]).any((1, 2, 3))
    np.testing.assert_array_equal(batch["image"][flipped], batch["other"][flipped, :, ::-1])
    assert 8 <= flipped.sum() <= 32
    with training_batches(Images(images), **options) as stream:
        np.testing.assert_array_equal(next(stream)["image"], batch["image"])


@pytest.mark.parametrize("scale", [0.0, 0.7, 1.0, 3.0])
def test_classifier_free_guidance_of_a_dict_is_that_of_two_evaluations(scale):
    """With the real network, whose condition has both leaves; the null of the augmentation may be left out."""
    config = tiny_config(**BOTH)
    shapes = factory.abstract_variables(config)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)
    plain = factory.denoiser(config, variables, 1e-3)
    x, t = jnp.asarray(rng.normal(size=(4, 8, 8, 1)), jnp.float32), jnp.float32(0.4)
    leaves = {"label": LABELS[:4], "augmentation": jnp.asarray(rng.normal(size=(4, 9)), jnp.float32)}
    with_condition, without = (plain.replace(condition=c)(x, t) for c in (leaves, conditions.null(config, leaves)))
    guided = sde_lib.ClassifierFree(plain, leaves, conditions.null(config, leaves), scale)(x, t)
    size = float(np.abs(with_condition - without).max())
    assert size > 0.01
    np.testing.assert_allclose(guided, without + scale * (with_condition - without), atol=1e-4 + 1e-5 * size)
    left_out = plain.replace(condition={"label": jnp.full(4, 3)})(x, t)
    np.testing.assert_allclose(left_out, without, atol=1e-5)


def test_samples_of_a_class_are_guided_away_from_its_null():
    config = tiny_config(model__num_classes=3, condition__label__dropout=0.1)
    config.sampling.guidance.scale = 2.0
    denoiser = sde_lib.exact.Gaussian(sde_lib.VPSDE())
    found = Experiment(config).guided(SimpleNamespace(replace=lambda **given: denoiser), jnp.array([0, 2]))
    assert found.condition["label"].tolist() == [0, 2] and found.no_condition["label"].tolist() == [3, 3]


def test_one_motion_of_all_that_is_drawn_moves_nothing_where_it_is_zero():
    zero = Motion(False, False, 0.0, 0.0, 0.0, 0.0, np.zeros(2, np.float32))
    image = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)
    np.testing.assert_array_equal(move(image, jax.tree.map(jnp.asarray, zero)), image)
    np.testing.assert_array_equal(jax.tree.map(jnp.asarray, zero).labels(), np.zeros(9))
