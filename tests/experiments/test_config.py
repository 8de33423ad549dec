"""Configs: every file builds, overrides keep types, and what is stored comes back."""

import json

import numpy as np
import pytest

import models
from configs.parts.sde import PROCESSES
from experiments import factory
from experiments.config import files as config
from experiments.errors import UserError
from experiments.factory import check
from sde_lib import DEIS, SSCS, UniPC
from tests.experiments.tiny import ROOT, tiny_config

OURS = ("cifar10", "digits", "mnist")  # the experiments that take any process; tests/configs has those of the papers


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("process", ["", *PROCESSES])
def test_every_process_builds_and_has_the_keys_of_base(name, process):
    loaded = config.load(f"{ROOT}/configs/{name}.py:{process}")
    check.check(loaded)
    base = config.load(f"{ROOT}/configs/base.py")
    assert [key for key, _ in config.leaves(loaded)] == [key for key, _ in config.leaves(base)]
    assert loaded.sde.name == (process or "vp")


def test_every_process_starts_sampling_at_a_small_noise_level():
    """t_min means another noise level in each process; the configs choose it so that all end near 0.01.

    EDM's ends at its published 0.002; latent diffusion's table begins at its first beta of 0.0015.
    """
    published = {"edm": 0.002, "scaled_linear": np.sqrt(0.0015 / (1 - 0.0015))}
    for process in factory.PROCESSES:
        loaded = tiny_config(process)
        sde = factory.sde(loaded, loaded.sampling.t_min)
        level, highest = sde.noise_to_signal(sde.t_min), sde.noise_to_signal(sde.t_max)
        assert np.isclose(level, published.get(process, level), rtol=1e-4)
        assert process in published or 0.009 < level < 0.013
        assert 19 < highest < 250 and sde.t_min >= loaded.training.t_min


@pytest.mark.parametrize(
    "key, text, value",
    [
        ("data.batch_size", "1e3", 1000),
        ("optim.lr", "3", 3.0),
        ("optim.lr", "1e-4", 1e-4),
        ("sampling.churn_max", "inf", float("inf")),
        ("data.random_flip", "true", True),
        ("data.source", "npz:a=b.npz", "npz:a=b.npz"),
        ("model.attention_resolutions", "(16, 8)", (16, 8)),
        ("model.attention_resolutions", "16", (16,)),
        ("model.attention_resolutions", "()", ()),
    ],
)
def test_override_keeps_the_type(key, text, value):
    loaded = tiny_config()
    config.override(loaded, key, text)
    section, name = key.split(".")
    assert loaded[section][name] == value and type(loaded[section][name]) is type(value)


def test_json_round_trip_and_differences():
    loaded = tiny_config()
    back = config.from_json(config.to_json(loaded))
    assert config.differences(loaded, back) == [] and back.to_dict() == loaded.to_dict()
    back.optim.lr, back.model.channel_multipliers = 0.5, (1, 2, 3)
    expected = ["model.channel_multipliers: (1,) -> (1, 2, 3)", "optim.lr: 0.002 -> 0.5"]
    assert config.differences(loaded, back) == expected


def test_learning_rate_warms_up_and_falls_as_a_cosine():
    loaded = tiny_config(training__num_steps=104, optim__warmup_steps=4)
    rate = factory.learning_rate(loaded)
    assert [float(rate(s)) for s in (0, 2, 4)] == pytest.approx([0, 1e-3, 2e-3])
    assert float(rate(54)) == pytest.approx(1e-3) and float(rate(104)) == pytest.approx(0, abs=1e-9)
    loaded.optim.schedule, loaded.optim.warmup_steps = "constant", 0
    assert float(factory.learning_rate(loaded)(77)) == pytest.approx(2e-3)


@pytest.mark.parametrize(
    "decay_steps, steps, rates",
    [
        (
            70_000,
            (0, 1, 2500, 5000, 70_000, 140_000, 1_048_576),
            (0, 2.4000000000000003e-06, 0.006, 0.012, 0.012, 0.00848528137423857, 0.003100489817653817),
        ),
        (1_000, (500, 2000, 4000, 9000), (0.0012, 0.003394112549695428, 0.0048, 0.004)),
    ],
)
def test_inverse_sqrt_is_the_published_rate(decay_steps, steps, rates):
    """learning_rate_schedule(2048 step, 2048, ref_lr=0.012, ref_batches=decay_steps, rampup_Mimg=10.24), a ramp of 5000,
    of https://github.com/NVlabs/edm2/blob/4bf8162f601bcc09472ce8a32dd0cbe8889dc8fc/training/training_loop.py."""
    loaded = tiny_config(
        optim__schedule="inverse_sqrt", optim__lr=0.012, optim__warmup_steps=5000, optim__decay_steps=decay_steps
    )
    rate = factory.learning_rate(loaded)
    np.testing.assert_allclose([rate(step) for step in steps], rates, rtol=1e-5)
    loaded.optim.warmup_steps = 0
    np.testing.assert_allclose(factory.learning_rate(loaded)(4 * decay_steps), 0.006, rtol=1e-6)


def test_a_stored_config_has_defaults_for_keys_that_came_later():
    """A run of an older version goes on, and is sampled, as if the keys had been there with their defaults."""
    stored = tiny_config("ve", optim__lr=3e-3).to_dict()
    del stored["sampling"]["tolerance"], stored["parallel"], stored["optim"]["decay_steps"]
    for key in ("ema", "ema_half_life", "ema_ramp", "ema_std"):
        del stored["training"][key]
    del stored["condition"]
    read = config.from_json(json.dumps(stored))
    assert config.differences(read, tiny_config("ve", optim__lr=3e-3)) == []


def test_a_config_that_was_stored_under_old_names_is_read_under_those_of_today():
    changes = {"model__num_classes": 3, "condition__label__dropout": 0.25, "sampling__sampler": "ddim"}
    stored = tiny_config(**changes).to_dict()
    del stored["condition"]
    stored["training"]["class_dropout"] = 0.25
    stored["sampling"]["method"] = stored["sampling"].pop("sampler")
    assert config.differences(config.from_json(json.dumps(stored)), tiny_config(**changes)) == []
    with pytest.raises(UserError, match=r"--config.sampling.method=ddim: this key was renamed to sampling.sampler"):
        config.override(tiny_config(), "sampling.method", "ddim")


@pytest.mark.parametrize(
    "changes, method",
    [
        ({"sampler": "deis", "order": 3, "variable": "angle", "corrected": "true"}, DEIS(3, "angle", corrected=True)),
        ({"sampler": "unipc", "order": 1, "variable": "time", "stochastic": 0.5}, UniPC(1, "time", tau=0.5)),
        ({"sampler": "sscs", "order": 1}, SSCS(1)),
    ],
    ids=lambda value: value["sampler"] if isinstance(value, dict) else "",
)
def test_the_settings_of_a_method_reach_it(changes, method):
    assert factory.sampler(tiny_config(**{f"sampling__{key}": value for key, value in changes.items()})) == method


@pytest.mark.parametrize(
    "name, keys, meant",
    [
        ("rate", ("a.rat", "a.rater"), "a.rater"),  # the nearest in spelling
        ("learning_rate", ("a.lr", "a.learning"), "a.lr"),  # initials before shared words
        ("lr", ("a.learning_rate", "a.lrs_of"), "a.learning_rate"),
        ("ch_mult", ("a.channel_multipliers", "a.ch"), "a.channel_multipliers"),
        ("steps", ("a.num_steps", "a.stop"), "a.num_steps"),
        ("num_steps", ("a.steps", "b.num_steps"), "a.steps"),  # its own section first
        ("num_steps_max", ("a.steps", "a.other"), "a.steps"),
        ("width", ("a.depth", "b.width"), "b.width"),  # the same name in another section before a likeness
        ("deptth", ("a.depth", "b.deptth"), "a.depth"),  # but not before one that is all but spelt alike
        ("heads", ("a.depth", "b.num_heads"), "b.num_heads"),
        ("windth", ("a.x", "b.width"), "b.width"),
    ],
)
def test_an_unknown_key_is_taken_for_the_one_that_is_meant(name, keys, meant):
    assert config._nearest_key(f"a.{name}", keys) == f"; did you mean {meant!r}?"
    assert config._nearest_key(f"a.{name}", keys[::-1]) == f"; did you mean {meant!r}?"


def test_an_unknown_key_like_no_other_gets_the_keys_of_its_section_or_the_sections():
    keys = ("b.one", "a.two", "a.three", "c.four")
    assert config._nearest_key("a.xyzw", keys) == "; a has two, three"
    assert config._nearest_key("d.xyzw", keys) == "; the sections are b, a, c"


@pytest.mark.parametrize(
    "short, name, expected",
    [
        ("lr", "learning_rate", True),
        ("l", "learning", True),
        ("lr", "learning", False),
        ("ln", "learning", False),
        ("ch_mult", "channel_multipliers", True),
        ("ch_ult", "channel_multipliers", False),
        ("ch_mult_x", "channel_multipliers", False),
        ("lrs", "learning_rate_scale", True),
        ("ls", "learning_rate_scale", False),
    ],
)
def test_short_forms_are_initials_or_beginnings_of_all_words(short, name, expected):
    assert config._is_short_for(short, name) == expected


@pytest.mark.parametrize(
    "current, texts",
    [
        (False, {"true": True, "TRUE": True, "1": True, "false": False, "False": False, "0": False}),
        (3, {"4": 4, "4.0": 4, "-2": -2, "1e3": 1000}),
        (0.5, {"2": 2.0, "1e-3": 1e-3, "inf": float("inf"), "Infinity": float("inf"), "-1.5": -1.5}),
        ("text", {"5": "5", "": "", "a,b": "a,b", "true": "true"}),
        (("a", "b"), {"c": ("c",), "c,d": ("c", "d"), "('c', \"d\")": ("c", "d"), "[c, d,]": ("c", "d"), "()": ()}),
        ((1, 2), {"3": (3,), "3,4": (3, 4), "(3,)": (3,), "[3, 4]": (3, 4), "()": ()}),
        ((0.5, 2), {"3": (3,), "0.25,4": (0.25, 4)}),
    ],
    ids=str,
)
def test_a_text_becomes_a_value_of_the_kind_that_is_there(current, texts):
    for text, value in texts.items():
        found = config._parse("a.key", text, current)
        assert found == value and type(found) is type(value), text
        if isinstance(value, tuple):
            assert list(map(type, found)) == list(map(type, value)), text


@pytest.mark.parametrize(
    "current, texts, wanted",
    [
        (True, ("2", "yes", "", "None"), "true or false, such as True"),
        (3, ("1.5", "true", "x", "inf", "1,2", "None"), "a whole number, such as 3"),
        (0.5, ("true", "x", "1,2", "nan()", "None"), "a number, such as 0.5"),
        ((1, 2), ("1.5", "true", "a", "True,2", "1,2.0"), "whole numbers with commas between, such as 1,2"),
        ((0.5,), ("true", "a", "0.5,True"), "numbers with commas between, such as 0.5"),
    ],
    ids=str,
)
def test_a_text_of_another_kind_is_refused_with_an_example(current, texts, wanted):
    for text in texts:
        with pytest.raises(UserError) as error:
            config._parse("a.key", text, current)
        assert str(error.value) == f"--config.a.key={text}: expected {wanted}", text


def test_options_of_a_network_that_are_set_are_kept_when_the_others_are_filled_in():
    loaded = tiny_config()
    loaded.model = config.ConfigDict({"name": "dit", "width": 48})
    filled = config.complete(loaded).model
    assert filled.width == 48 and filled.to_dict() == {"name": "dit"} | models.options("dit") | {"width": 48}


def test_another_network_begins_with_its_own_defaults_and_the_same_one_stays():
    loaded = tiny_config(model__channels=24)
    config.override(loaded, "model.name", "unet")
    assert loaded.model.channels == 24
    config.override(loaded, "model.name", "ncsnpp")
    assert loaded.model.to_dict() == {"name": "ncsnpp"} | models.options("ncsnpp")


@pytest.mark.parametrize(
    "key, value", [("sampling.sampler", "ddim"), ("sampling.steps", "7"), ("sampling.times", "uniform")]
)
def test_a_sampler_set_by_hand_takes_the_place_of_the_recommended_one(key, value):
    loaded = config.apply(tiny_config(), [("sampling.evaluations", "10")])
    assert loaded.sampling.evaluations == 10
    assert config.apply(loaded, [("sampling.rho", "5")]).sampling.evaluations == 10
    assert config.apply(loaded, [(key, value)]).sampling.evaluations == 0
    with pytest.raises(
        UserError, match=f"sampling.evaluations=10 chooses the sampler by itself: leave out either it or {key}"
    ):
        config.apply(tiny_config(), [("sampling.evaluations", "10"), (key, value)])


def test_keys_that_a_command_does_not_allow_are_refused():
    allowed = ("sampling.", "data.source")
    for key, value in (("sampling.rho", "5"), ("data.source", "npz:a"), ("sampling.label", "-1")):
        config.apply(tiny_config(), [(key, value)], allowed=allowed, command="look")
    for key, value in (("data.white", "5"), ("optim.lr", "1")):
        with pytest.raises(
            UserError, match=f"^--config.{key}={value}: cannot be changed after training; look takes keys of "
        ):
            config.apply(tiny_config(), [(key, value)], allowed=allowed, command="look")


def test_stored_values_stay_where_the_defaults_are_others():
    """And those that are missing have the defaults, section by section; tuples are tuples again."""
    stored = {"optim": {"lr": 0.5}, "model": {"name": "unet", "channel_multipliers": [1, 4]}, "sde": {"beta_max": 7}}
    read, defaults = config.from_json(json.dumps(stored)), config.load(f"{ROOT}/configs/base.py")
    changed = {key: value for key, value in config.leaves(read) if value != dict(config.leaves(defaults))[key]}
    assert changed == {"optim.lr": 0.5, "model.channel_multipliers": (1, 4), "sde.beta_max": 7}
    stored["model"] = {"name": "dit", "width": None}
    assert config.from_json(json.dumps(stored)).model.width is None


def test_a_config_lists_its_values_by_dotted_key():
    nested = config.ConfigDict({"a": {"b": 1, "c": {"d": (2, 3)}}, "e": "f"})
    assert list(config.leaves(nested)) == [("a.b", 1), ("a.c.d", (2, 3)), ("e", "f")]
    assert list(config.leaves(nested.a, "a.")) == [("a.b", 1), ("a.c.d", (2, 3))]
    other = config.ConfigDict({"a": {"b": 1, "c": {"d": (2,)}}, "g": 0})
    assert config.differences(nested, other) == ["a.c.d: (2, 3) -> (2,)", "e: f -> absent", "g: absent -> 0"]
