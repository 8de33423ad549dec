"""EDM's augmentation: its code's own numbers for given motions, what is drawn how often, and how it reaches the network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import factory
from experiments.config import files as config
from experiments.data import augmentation
from experiments.data.augmentation import Motion
from experiments.errors import UserError
from experiments.factory import check
from experiments.factory.conditions import condition_of_batch
from experiments.factory.experiment import Experiment
from experiments.learning import state
from experiments.training.train import make_step
from tests.drawn_keys import assert_each_key_once
from tests.experiments.edm_augmentation import LABELS, MOTIONS, VALUES, places
from tests.experiments.tiny import ROOT, tiny_config
from tests.models.pretrained.named import named_normal

TOLD = {"model__augment_features": 9}


def given(numbers):
    m = np.float32(numbers)
    return Motion(m[:, 0] == 1, m[:, 1] == 1, m[:, 2], m[:, 3], m[:, 4], m[:, 5], m[:, 6:])


@functools.cache
def moved():
    images = named_normal("images", len(MOTIONS), 10, 12, 3)
    return images, np.asarray(jax.jit(jax.vmap(augmentation.move))(images, given(MOTIONS)))


def test_moved_images_are_those_of_edms_code():
    _, images = moved()
    numbers = [[*image[places()], image.mean(), image.std()] for image in images]
    np.testing.assert_allclose(numbers, VALUES, atol=2e-5)


def test_labels_are_those_of_edms_code():
    np.testing.assert_allclose(jax.vmap(Motion.labels)(given(MOTIONS)), LABELS, atol=1e-6)


def test_doubling_and_halving_undo_each_other():
    """So an image that is only mirrored keeps every value, resampled or not; here it is not, to the last bit."""
    halved = augmentation._halving(10) @ augmentation._doubling(10)[2 * 10 - 7 :][: 2 * 10 + 10]
    np.testing.assert_allclose(halved, np.eye(10), atol=1e-6)
    before, after = moved()
    np.testing.assert_array_equal(after[:3], [before[0], before[1][:, ::-1], before[2][::-1]])


@functools.cache
def drawn(probability, count=20_000):
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.arange(count))
    draw = jax.jit(jax.vmap(augmentation.draw, (0, None)))
    return jax.tree.map(np.asarray, draw(keys, probability))


def test_motions_are_as_frequent_and_as_large_as_in_edm():
    p, m = 0.12, drawn(0.12)

    def near(found, expected, std):
        assert abs(found - expected) < 4 * std, (found, expected)

    def share(chosen, expected, of=20_000):
        near(np.mean(chosen), expected, np.sqrt(expected * (1 - expected) / of))

    share(m.mirror_x, 0.5)
    share(m.mirror_y, p / 2)
    for amount in (m.scale, m.angle, m.stretch, *m.shift.T):
        share(amount != 0, p)
    share(m.axis[m.stretch != 0] != 0, 0.5, of=2400)
    assert ((m.axis == 0) | (m.stretch != 0)).all() and ((m.shift[:, 0] == 0) == (m.shift[:, 1] == 0)).all()
    for normal in (m.scale, m.stretch, *m.shift.T):
        near(np.square(normal[normal != 0]).mean(), 1, np.sqrt(2 / 2400))
        near(normal[normal != 0].mean(), 0, np.sqrt(1 / 2400))
    for angle in (m.angle, m.axis):
        turns = angle[angle != 0] / np.pi
        assert np.abs(turns).max() <= 1
        near(np.square(turns).mean(), 1 / 3, np.sqrt(4 / 45 / len(turns)))
    # One does not tell of another: every pair of decisions is as frequent together as it must be.
    decisions = [m.mirror_y, m.scale != 0, m.angle != 0, m.stretch != 0, m.shift[:, 0] != 0]
    for i, one in enumerate(decisions):
        share(one & m.mirror_x, one.mean() / 2)
        for other in decisions[:i]:
            share(one & other, one.mean() * other.mean())
    amounts = np.stack([m.scale, m.stretch, *m.shift.T])[:, (m.scale != 0) & (m.stretch != 0) & (m.shift[:, 0] != 0)]
    assert np.abs(np.corrcoef(amounts) - np.eye(4)).max() < 4 / np.sqrt(amounts.shape[1])


def test_what_is_not_moved_has_labels_of_zero_and_the_reverse():
    """At probability 0 only the mirror is left."""
    m = drawn(0.0, 200)
    labels = jax.vmap(Motion.labels)(m)
    assert not np.any(labels[:, 1:]) and not any(np.any(leaf) for leaf in jax.tree.leaves(m.replace(mirror_x=0)))
    np.testing.assert_array_equal(labels[:, 0], m.mirror_x)


def test_an_example_is_moved_by_its_own_key():
    """The same in another place and beside others."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(1), jnp.arange(8))
    images = named_normal("images", 8, 6, 6, 1)

    @jax.jit
    def augment(keys, images):
        found = augmentation.augment(keys, {"data": images}, 0.5)
        return found["data"], found["augmentation"]

    together, labels = augment(keys, images)
    assert len(np.unique(labels, axis=0)) >= 6
    order = np.array([7, 2, 5, 3, 3, 3, 0, 1])
    image, label = augment(keys[order], images[order])
    np.testing.assert_array_equal(image, together[order])
    np.testing.assert_array_equal(label, labels[order])


def keys_of_a_step(step=3, size=64):
    return state.draws(jax.random.key(0), step, jnp.arange(size), size).keys


def test_dequantization_is_uniform_within_each_grey_levels_bin():
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1), dtype=np.uint8)
    prepare = factory.preparation(tiny_config(data__dequantization="uniform"))
    found = prepare(keys_of_a_step(), {"image": images})
    x0 = found["data"]
    places = (np.asarray(x0, np.float64) + 1) * 127.5 - images
    assert found.keys() == {"data"} and np.abs(places).max() <= 0.5 + 1e-4
    ranks = np.sort(places.ravel()) + 0.5
    assert np.abs(ranks - (np.arange(4096) + 0.5) / 4096).max() < 1.95 / np.sqrt(4096)  # Kolmogorov, 1 in 1,000
    again = prepare(keys_of_a_step()[5:6], {"image": images[5:6]})
    np.testing.assert_array_equal(again["data"][0], x0[5])
    other = prepare(keys_of_a_step(4), {"image": images})
    assert np.abs(other["data"] - x0).mean() > 1e-3


def test_by_default_nothing_is_drawn():
    images = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    prepare = factory.preparation(tiny_config())
    assert "random" not in str(jax.make_jaxpr(prepare)(keys_of_a_step(size=4), {"image": images}))
    found = prepare(keys_of_a_step(size=4), {"image": images, "label": np.arange(4)})
    np.testing.assert_array_equal(found.pop("label"), np.arange(4))
    assert found.keys() == {"data"}
    np.testing.assert_allclose(found["data"], images / 127.5 - 1, atol=1e-6)


class Dropping:
    """Stands for the network: in training, example i draws a number by its key."""

    def apply(self, weights, x, noise_level, condition, *, train, dropout_keys=None):
        return x + jax.vmap(jax.random.normal)(dropout_keys)[:, None, None, None]


@pytest.mark.parametrize("low_discrepancy", [False, True])
def test_no_two_draws_of_a_step_share_a_key(monkeypatch, low_discrepancy):
    """Augmentation takes three; dequantization, the class, the time, the noise and dropout one each; of 5 examples."""
    options = {"data__augmentation": 0.5, "data__dequantization": "uniform", **TOLD}
    options |= {"model__num_classes": 3, "condition__label__dropout": 0.5, "loss__low_discrepancy": low_discrepancy}
    monkeypatch.setattr("experiments.factory.model.network", lambda config: Dropping())
    settings = tiny_config(**options)
    prepare, loss = factory.preparation(settings), factory.loss(settings)
    drawn = state.draws(jax.random.key(0), 3, jnp.arange(5), 5)

    def step():
        batch = {"image": np.zeros((5, 8, 8, 1), np.uint8), "label": jnp.zeros(5, jnp.int32)}
        examples = prepare(drawn.keys, batch)
        return loss(drawn, None, examples["data"], condition_of_batch(settings, drawn.keys, examples))

    assert_each_key_once(jax.jit(step), 5 * 8 if not low_discrepancy else 5 * 7 + 1)


class Told:
    """Stands for the network: its output tells of the labels, if there are any."""

    def init(self, key, x, noise_level, condition):
        return {"w": jnp.ones(9)}

    def apply(self, weights, x, noise_level, condition, *, train, dropout_keys=None):
        return x if condition is None else x + (condition["augmentation"] @ weights["w"])[:, None, None, None]


def test_the_network_is_told_in_training(monkeypatch):
    """The weights of the labels have a gradient where, and only where, images are augmented; and sampling tells nothing."""
    monkeypatch.setattr("experiments.factory.model.network", lambda config: Told())

    def gradient(probability):
        settings = tiny_config(**TOLD, data__augmentation=probability, optim__grad_clip=0)
        start = state.create({"w": jnp.ones(9)}, factory.optimizer(settings))
        batch = {"image": np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1), dtype=np.uint8)}
        after, _ = jax.jit(make_step(Experiment(settings), None))(start, batch)
        return np.asarray(optax.tree.get(after.opt_state, "mu")["w"])

    assert (gradient(0.5) != 0).all()  # each of the nine labels
    assert (gradient(0.0) == 0).all()
    sampling = factory.denoiser(tiny_config(), {"w": jnp.full(9, jnp.nan)}, 1e-3)
    assert jnp.isfinite(sampling(jnp.ones((2, 8, 8, 1)), jnp.float32(0.5))).all()


@pytest.mark.parametrize(
    "changes, phrases",
    [
        ({"data__augmentation": 1.5, **TOLD}, ["data.augmentation=1.5", "[0, 1]"]),
        ({"data__augmentation": 0.12}, ["data.augmentation=0.12", "model.augment_features=0", "9 labels"]),
        ({"data__augmentation": 0.12, "model__name": "dit"}, ["model.name='dit' has no augment_features"]),
        ({"data__dequantization": "unifrom"}, ["data.dequantization='unifrom'", "did you mean 'uniform'?"]),
        ({"data__workers": -1}, ["data.workers=-1"]),
        ({"data__worker_timeout": 0}, ["data.worker_timeout=0"]),
    ],
)
def test_what_does_not_fit_is_said(changes, phrases):
    with pytest.raises(UserError) as error:
        check.check(tiny_config(**changes))
    assert all(phrase in str(error.value) for phrase in phrases)


@pytest.mark.parametrize(
    "experiment, probability",
    [("cifar10:edm,ddpmpp", 0.12), ("cifar10:edm,ncsnpp,conditional", 0.12), ("ffhq:64,edm,ddpmpp", 0.15),
     ("imagenet64:edm,adm", 0.0)],
)  # fmt: skip
def test_edms_experiments_have_edms_augmentation_and_no_other_mirror(experiment, probability):
    """README.md of https://github.com/NVlabs/edm, and the defaults of its train.py: --augment=0.12 --xflip=False."""
    name, _, argument = experiment.partition(":")
    loaded = config.load(f"{ROOT}/configs/{name}.py:{argument}")
    assert (loaded.data.augmentation, loaded.data.random_flip) == (probability, False)
    assert not probability or loaded.model.augment_features == 9
