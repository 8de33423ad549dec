"""What training takes from an objective: its players, loss, frozen weights and picture. Nothing is trained."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import data
from experiments.learning.players import Player
from experiments.objectives.denoising import Denoising
from experiments.training import train
from tests.experiments.tiny import tiny_config

WIDE, NARROW = (lambda n: 0.5), (lambda n: 0.25)


def halves(tree):
    return jax.tree.map(lambda x: x / 2, tree)


NETWORK, CRITIC = Player(optax.sgd(0.1), (WIDE, NARROW), halves), Player(optax.adam(0.1), (WIDE,))
TEAM = {"network": NETWORK, "critic": CRITIC}
WEIGHTS = {"network": {"w": np.full(3, 8.0, np.float32)}, "critic": {"w": np.full(2, 4.0, np.float32)}}


def experiment(**objective):
    """Stands for an experiment with an objective of these parts."""
    parts = {"players": TEAM, "loss": lambda *given: given, "frozen": lambda: None}
    training = SimpleNamespace(seed=9, num_steps=70, accumulate=3)
    return SimpleNamespace(
        objective=SimpleNamespace(**parts | objective), preparation=lambda keys, batch: ("prepared", keys, batch),
        training=training, skips_nonfinite=False, init_params=lambda *strategy: WEIGHTS,
    )  # fmt: skip


@pytest.mark.parametrize("strategy", [None, SimpleNamespace(axis_name="devices", mean_gradient="their mean")])
def test_a_step_is_of_the_players_and_of_all_settings_of_training(monkeypatch, strategy):
    """The loss sees examples that are prepared by their own keys, and the frozen weights."""
    made = []
    monkeypatch.setattr(train.state, "make_train_step", lambda *given, **named: made.append((given, named)) or "step")
    assert train.make_step(experiment(), strategy) == "step"
    (((losses, optimizer), named),) = made
    drawn = SimpleNamespace(keys="keys")
    assert losses(drawn, "params", "batch", "frozen") == (drawn, "params", ("prepared", "keys", "batch"), "frozen")
    emas = named.pop("emas")
    assert [rule(5) for rule in emas] == [{"network": 0.5, "critic": 0.5}, {"network": 0.25}]
    project = named.pop("project")(WEIGHTS)
    np.testing.assert_array_equal(project["network"]["w"], [4, 4, 4])
    np.testing.assert_array_equal(project["critic"]["w"], [4, 4])
    expected = {"seed": 9, "num_steps": 70, "accumulate": 3, "has_aux": True}
    assert named == expected | {
        "axis_name": strategy and "devices", "mean_gradient": strategy and "their mean",
    }  # fmt: skip
    assert optimizer.init(WEIGHTS).keys() == TEAM.keys()


class Strategy:
    """Lays out weights by naming them."""

    def place(self, tree):
        return {"placed": tree}

    def create(self, function, weights):
        return function(weights.get("placed", weights))


@pytest.mark.parametrize("given", [None, jax.tree.map(lambda x: 2 * x, WEIGHTS)])
@pytest.mark.parametrize("frozen", [None, {"teacher": np.ones(2)}])
@pytest.mark.parametrize("strategy", [None, Strategy()])
def test_a_state_begins_with_projected_weights_of_all_players_and_the_frozen_ones(given, frozen, strategy):
    """Each average is of the players that have so many; frozen weights are laid out as the others."""
    made = train.initial_state(experiment(frozen=lambda: frozen), given, strategy)
    scale = 1 if given is None else 2
    for tree in (made.params, *made.emas):
        np.testing.assert_array_equal(tree["network"]["w"], [4 * scale] * 3)
        if "critic" in tree:
            np.testing.assert_array_equal(tree["critic"]["w"], [4 * scale] * 2)
    assert [sorted(tree) for tree in made.emas] == [["critic", "network"], ["network"]]
    assert made.skipped is None and made.step == 0 and made.opt_state.keys() == TEAM.keys()
    if frozen is None:
        assert made.frozen is None
    else:
        assert (made.frozen if strategy is None else made.frozen["placed"])["teacher"] is frozen["teacher"]


@pytest.fixture
def pictured(monkeypatch):
    """(count of images, changes) -> the picture of a state whose averages are numbered, and what it was made of."""

    def make(count, samples=False, pixels=True, first=True, place=1):
        asked = []

        def sampler(made, strategy, size, guide):
            asked.append(("sampler", strategy, size, guide))
            return lambda weights, number, seed: asked.append(("drawn", weights, number, seed)) or "samples"

        monkeypatch.setattr(train, "Sampler", sampler)
        monkeypatch.setattr(train, "load_guide", lambda made: ("guide of", made.name))
        monkeypatch.setattr(train.distributed, "is_first", lambda: first)
        made = SimpleNamespace(
            name="experiment", sampling_ema=place,
            medium=SimpleNamespace(has_pixels=pixels, picture=lambda drawn: ("picture of", drawn)),
            objective=SimpleNamespace(
                samples=samples, network_variables=lambda tree: f"network of {tree}",
                picture=lambda *given: asked.append(given) or "own",
            ),
        )  # fmt: skip
        levels = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
        images = data.Images(levels, np.arange(count, dtype=np.int32) % 7)
        strategy = SimpleNamespace(to_host=lambda tree: f"{tree} on the host")
        state = SimpleNamespace(emas=["zeroth", "first", "second"])
        return train._picture(made, strategy, images)(state), asked, strategy

    return make


@pytest.mark.parametrize("count, shown", [(5, 5), (64, 64), (70, 64)])
def test_an_objective_without_samples_shows_what_it_does_with_the_first_examples(pictured, count, shown):
    """Of the average that is chosen, on the first process alone."""
    picture, ((weights, images, labels),), _ = pictured(count)
    assert (picture, weights) == ("own", "network of first on the host")
    np.testing.assert_array_equal(images[:, 0, 0, 0], np.arange(shown))
    np.testing.assert_array_equal(labels, np.arange(shown) % 7)
    assert pictured(count, first=False)[:2] == (None, [])


def test_samples_are_drawn_of_the_chosen_average_with_the_guide_on_every_process(pictured):
    for first in (True, False):
        picture, asked, strategy = pictured(5, samples=True, first=first, place=2)
        assert picture == ("picture of", "samples")
        assert asked == [("sampler", strategy, 64, ("guide of", "experiment")), ("drawn", "network of second", 64, 0)]
    for samples in (True, False):
        assert pictured(5, samples=samples, pixels=False)[:2] == (None, [])


@pytest.mark.parametrize("arrays, flips", [(False, True), (True, False)])
def test_only_images_are_mirrored(monkeypatch, arrays, flips):
    asked = {}
    monkeypatch.setattr(train.data, "training_batches", lambda images, **named: asked.update(named))
    settings = SimpleNamespace(batch_size=8, random_flip=True, workers=0, worker_timeout=1.0)
    made = SimpleNamespace(
        data=settings, training=SimpleNamespace(seed=1), medium=SimpleNamespace(has_pixels=not arrays)
    )
    train.training_stream(made, None)
    assert asked["flip"] is flips
    settings.random_flip = False
    train.training_stream(made, None)
    assert asked["flip"] is False


def test_operations_of_a_step_are_those_of_the_global_batch_without_rematerialization(monkeypatch):
    """Batches of a host are stacked along a first axis; the shapes counted are those of one step of all hosts."""
    counted = []
    monkeypatch.setattr(train, "flops", lambda *given: counted.append(given) or 5)
    monkeypatch.setattr(train, "make_step", lambda made, strategy: ("step", made, strategy))
    monkeypatch.setattr(train, "abstract_state", lambda made: ("state", made))
    made = SimpleNamespace(without_remat=lambda: "once", data=SimpleNamespace(batch_size=32))
    batches = {"image": np.zeros((4, 8, 6, 5, 1), np.uint8), "label": np.zeros((4, 8), np.int32)}
    assert train.step_flops(made, batches) == 5
    ((step, state, shapes),) = counted
    assert step == ("step", "once", None) and state == ("state", made)
    assert {name: (x.shape, x.dtype) for name, x in shapes.items()} == {
        "image": ((32, 6, 5, 1), np.uint8), "label": ((32,), np.int32),
    }  # fmt: skip
    assert jnp.issubdtype(shapes["label"].dtype, jnp.integer) and tiny_config().training.measure_peak is True


def test_denoising_is_conditioned_by_the_keys_of_the_examples():
    made = SimpleNamespace(condition_of_batch=lambda *given: ("condition", *given), loss=lambda *given: given)
    drawn, example = SimpleNamespace(keys="keys", shared="shared"), {"data": "x0", "label": "labels"}
    found = Denoising(made).loss(drawn, "params", example, None)
    assert found == (drawn, "params", "x0", ("condition", "keys", example))
