"""Configs: every file builds, overrides keep types, and what is stored comes back."""

import json

import numpy as np
import pytest

from configs.parts.sde import PROCESSES
from experiments import build, check, config
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
    for process in build.PROCESSES:
        loaded = tiny_config(process)
        sde = build.sde(loaded, loaded.sampling.t_min)
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
    rate = build.learning_rate(loaded)
    assert [float(rate(s)) for s in (0, 2, 4)] == pytest.approx([0, 1e-3, 2e-3])
    assert float(rate(54)) == pytest.approx(1e-3) and float(rate(104)) == pytest.approx(0, abs=1e-9)
    loaded.optim.schedule, loaded.optim.warmup_steps = "constant", 0
    assert float(build.learning_rate(loaded)(77)) == pytest.approx(2e-3)


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
    rate = build.learning_rate(loaded)
    np.testing.assert_allclose([rate(step) for step in steps], rates, rtol=1e-5)
    loaded.optim.warmup_steps = 0
    np.testing.assert_allclose(build.learning_rate(loaded)(4 * decay_steps), 0.006, rtol=1e-6)


def test_a_stored_config_has_defaults_for_keys_that_came_later():
    """A run of an older version goes on, and is sampled, as if the keys had been there with their defaults."""
    stored = tiny_config("ve", optim__lr=3e-3).to_dict()
    del stored["sampling"]["tolerance"], stored["parallel"], stored["optim"]["decay_steps"]
    for key in ("ema", "ema_half_life", "ema_ramp", "ema_std", "class_dropout"):
        del stored["training"][key]
    read = config.from_json(json.dumps(stored))
    assert config.differences(read, tiny_config("ve", optim__lr=3e-3)) == []


@pytest.mark.parametrize(
    "changes, method",
    [
        ({"method": "deis", "order": 3, "variable": "angle", "corrected": "true"}, DEIS(3, "angle", corrected=True)),
        ({"method": "unipc", "order": 1, "variable": "time", "stochastic": 0.5}, UniPC(1, "time", stochastic=0.5)),
        ({"method": "sscs", "order": 1}, SSCS(1)),
    ],
    ids=lambda value: value["method"] if isinstance(value, dict) else "",
)
def test_the_settings_of_a_method_reach_it(changes, method):
    assert build.method(tiny_config(**{f"sampling__{key}": value for key, value in changes.items()})) == method
