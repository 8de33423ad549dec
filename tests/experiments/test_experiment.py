"""The experiment of a config: settings by name, what is checked, what later changes reach, and what guidance costs."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import optax
import pytest

from experiments.errors import UserError
from experiments.factory import settings
from experiments.factory.experiment import Experiment
from experiments.learning.players import Player
from tests.experiments.tiny import tiny_config

CLASSES = {"model__num_classes": 3, "condition__label__dropout": 0.1}


def test_a_setting_is_from_the_first_section_that_has_its_name():
    @dataclasses.dataclass(frozen=True)
    class Settings:
        a: int
        b: int
        c: int

    found = settings.read(Settings, {"a": 1, "other": 9}, {"a": 2, "b": 3}, {"a": 4, "b": 5, "c": 6})
    assert found == Settings(1, 3, 6)
    with pytest.raises(KeyError, match="c"):
        settings.read(Settings, {"a": 1, "b": 2})


def test_settings_are_the_keys_of_their_sections():
    """With those of two other sections that the training loop reads."""
    made = Experiment(tiny_config(optim__accumulate=2, data__batch_size=24, training__seed=7, evaluation__seed=8))
    for section in ("data", "sampling", "evaluation", "training"):
        known = dict(made.config[section]) | {"accumulate": 2, "batch_size": 24 if section != "sampling" else 16}
        for name, value in dataclasses.asdict(getattr(made, section)).items():
            assert value == known[name], (section, name)
    assert (made.training.seed, made.evaluation.seed) == (7, 8)


@pytest.mark.parametrize(
    "subjects, of_model", [((), True), (("model",), True), (("average", "model"), True), (("sampling",), False)]
)
def test_the_objective_is_checked_where_the_model_is(monkeypatch, subjects, of_model):
    """After the config, of which a message is one line."""
    events, overrides = [], [("sampling.steps", "3")]
    monkeypatch.setattr(
        "experiments.factory.check.check", lambda config, *of, overrides: events.append((of, list(overrides)))
    )
    monkeypatch.setattr("experiments.objectives.objective.Objective.check", lambda self: events.append("objective"))
    monkeypatch.setattr(
        "experiments.factory.objective.check_loss",
        lambda config, made, shape: events.append((type(made).__name__, shape)),
    )
    Experiment.from_config(tiny_config(data__num_channels=3), *subjects, overrides=overrides)
    expected = ["objective", ("Denoising", (8, 8, 3))] if of_model else []
    assert events == [(subjects, overrides), *expected]

    def refuse(self):
        raise ValueError("too\n  much")

    monkeypatch.setattr("experiments.objectives.objective.Objective.check", refuse)
    if of_model:
        with pytest.raises(UserError, match=r"^too much$"):
            Experiment.from_config(tiny_config(), *subjects)
    else:
        Experiment.from_config(tiny_config(), *subjects)


def test_later_changes_of_a_config_do_not_reach_its_experiment():
    config = tiny_config(sampling__steps=5)
    made = Experiment(config)
    config.sampling.steps = 9
    assert made.sampling.steps == 5 and made.sampler_and_steps[1] == 5
    assert made.to_json() == Experiment(tiny_config(sampling__steps=5)).to_json() != Experiment(config).to_json()
    assert made.record("sde", "optim") == {"sde": made.config.sde.to_dict(), "optim": made.config.optim.to_dict()}


@pytest.mark.parametrize("model", ["unet", "mlp"])
def test_an_experiment_without_rematerialization_is_another_one(model):
    """A network that has no such option stays as it is."""
    config = tiny_config()
    if model == "unet":
        config.model.remat = True
    else:
        config.model = type(config)({"name": "mlp"})
    made = Experiment(config)
    once = made.without_remat()
    assert once is not made and made.config.model.get("remat", None) is (True if model == "unet" else None)
    assert once.config.model.to_dict() == made.config.model.to_dict() | ({"remat": False} if model == "unet" else {})


def test_a_denoiser_is_from_the_smallest_time_of_sampling_on_unless_one_is_given(monkeypatch):
    times = []
    monkeypatch.setattr("experiments.factory.model.denoiser", lambda config, variables, t_min: times.append(t_min))
    made = Experiment(tiny_config(sampling__t_min=0.25, training__t_min=0.5))
    for given in ((), (None,), (0.0,), (0.125,)):
        made.denoiser("weights", *given)
    assert times == [0.25, 0.25, 0.0, 0.125] and made.sde(0.75).t_min == 0.75


@pytest.mark.parametrize(
    "changes, scale, guide, guided, cost",
    [
        ({}, 1.0, "", False, 1), (CLASSES, 1.0, "", False, 1), (CLASSES, 0.0, "", True, 2), (CLASSES, 2.0, "", True, 2),
        ({}, 1.0, "run", True, 2), (CLASSES, 1.0, "run", False, 1), (CLASSES, 2.0, "run@8", True, 2),
    ],
)  # fmt: skip
def test_guidance_is_at_another_scale_than_1_or_to_the_classes_of_a_guide(changes, scale, guide, guided, cost):
    config = tiny_config(**changes, sampling__sampler="ddim", sampling__steps=6)
    config.sampling.guidance.update(scale=scale, guide=guide)
    made = Experiment(config)
    assert (made.is_guided, made.guidance_cost, made.guidance_scale) == (guided, cost, scale)
    assert made.guide == (guide if guided else "")
    assert (made.evaluations, made.network_evaluations) == (6, 6 * cost)
    expected = {"guidance": config.sampling.guidance.to_dict()} if guided else {}
    assert made.guidance_record == expected


def test_another_scale_of_guidance_is_another_experiment():
    made = Experiment(tiny_config(**CLASSES))
    strong = made.with_guidance(2)
    assert (made.guidance_scale, strong.guidance_scale) == (1.0, 2.0) and type(strong.guidance_scale) is float
    assert strong.with_guidance(1.0).config.to_dict() == made.config.to_dict()
    with pytest.raises(UserError, match=r"^sampling\.guidance\.scale=2: this model has no classes"):
        Experiment(tiny_config()).with_guidance(2)
    assert not Experiment(tiny_config()).with_guidance(1).is_guided


def test_an_average_has_the_weights_of_the_players_that_have_it(monkeypatch):
    """Of one player all of them, whatever the place."""
    made = Experiment(tiny_config(training__ema="warmup,power:0.1"))
    shapes = {"a": "weights of a", "b": "weights of b"}
    made.__dict__["abstract_params"] = shapes
    assert made.abstract_average(0) is made.abstract_average(1) is shapes
    rule = (lambda n: 0.5,)
    team = {"a": Player(optax.sgd(0.1), rule), "b": Player(optax.sgd(0.1), 2 * rule)}
    for players, expected in (
        (team, [shapes, {"b": "weights of b"}]), ({"a": Player(optax.sgd(0.1), 2 * rule)}, [shapes, shapes]),
    ):  # fmt: skip
        made.__dict__["objective"] = SimpleNamespace(has_own_players=True, players=players)
        assert [made.abstract_average(place) for place in (0, 1)] == expected


def test_parts_of_an_experiment_are_built_once():
    made = Experiment(tiny_config())
    for name in (
        "medium",
        "data",
        "network",
        "objective",
        "optimizer",
        "emas",
        "sampler",
        "training",
        "loss",
        "strategy",
    ):
        assert getattr(made, name) is getattr(made, name), name
    assert made.objective.experiment is made
    assert (made.title, made.sde_name, made.model_name) == ("digits, vp, unet", "vp", "unet")
    assert made.event_shape == (8, 8, 1) and made.compute_dtype == "float32" and made.num_classes == 0
    grid = np.asarray(made.times(made.sde(0.25)))
    assert grid[0] == 1 and list(grid[-2:]) == [0.25, 0]
