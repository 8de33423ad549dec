"""Ranges of the config's numbers: every number has one, and the documented table is current."""

import math

import pytest

import models
from configs import base
from experiments.config import files as config
from experiments.config import ranges
from experiments.config import table as config_table
from experiments.errors import UserError
from experiments.factory import check
from experiments.inverse import problems
from experiments.learning import averaging
from tests.experiments.tiny import ROOT, tiny_config


def is_numeric(value):
    """Numbers, and tuples of numbers (an empty tuple counts as one)."""
    if isinstance(value, tuple):
        return all(map(is_numeric, value))
    return isinstance(value, int | float) and not isinstance(value, bool)


def test_every_number_of_the_config_has_a_range_and_every_range_a_number():
    numbers = {key for key, value in config.leaves(base.get_config()) if is_numeric(value)}
    assert {key for key in numbers if not key.startswith("model.")} == set(ranges.KEYS)


def test_every_number_of_every_network_has_a_range_and_every_range_a_number():
    found = set()
    for network in models.names():
        for option, value in models.options(network).items():
            own = f"{network}.{option}"
            assert (ranges.of(f"model.{option}", network) is not None) == is_numeric(value), own
            found |= {own if own in ranges.OPTIONS else option} if is_numeric(value) else set()
    assert found == set(ranges.OPTIONS)


def test_every_setting_of_every_posterior_method_has_a_range_that_holds_its_default():
    for method, spec in problems.METHODS.items():
        assert spec.ranges.keys() == spec.settings.keys(), method
        for setting, default in spec.settings.items():
            assert spec.ranges[setting].allows(default), f"{method}:{setting}"


@pytest.mark.parametrize(
    "text, message",
    [
        ("dps:zeta=nan", "zeta must be finite, and more than 0"),
        ("dps:zeta=inf", "zeta must be finite, and more than 0"),
        ("mmps:rtol=0", "rtol must lie in (0, 1)"),
        ("mmps:max_steps=99999999999", "max_steps must be more than 0 and at most 10000"),
        ("repaint:substeps=-1", "substeps must be more than 0 and at most 10000"),
        ("replacement:relaxation=2", "relaxation must lie in (0, 1]"),
        ("projection:snr=-1", "snr must be at least 0; 0 disables the corrector"),
        ("pigdm:data_std=inf", "data_std must be finite, and more than 0"),
        ("ddrm:eta=2", "eta must lie in [0, 1]"),
    ],
)
def test_a_setting_outside_of_its_range_is_refused(text, message):
    with pytest.raises(UserError) as error:
        problems.method(text)
    assert str(error.value) == f"--method={text}: {message}"
    assert problems.method("daps:data_std=inf")[1]["data_std"] == math.inf


def test_the_documented_table_is_current():
    """Made again by `python -m experiments.config.table > docs/config.md`."""
    assert (ROOT / "docs" / "config.md").read_text() == config_table.markdown()


def test_every_key_has_its_comment_in_the_table():
    assert all(config_table.comments((ROOT / "configs" / "base.py").read_text()).values())
    rows = [line for line in config_table.markdown().splitlines() if line.startswith("| `")]
    assert [row for row in rows if row.endswith("|  |")] == []


# Key and texts just outside of the range, then just inside.
EDGES = [
    ("optim.grad_clip", ["-1", "-1e-9", "inf", "-inf", "nan", "1e39"], ["0", "1e-9", "1"]),
    ("optim.lr", ["0", "-1e-3", "nan", "inf", "1e-46"], ["1e-9"]),
    ("optim.beta1", ["1", "-0.1", "0.99999999999"], ["0", "0.9999"]),
    ("optim.beta2", ["1", "-0.1"], ["0", "0.99999"]),
    ("optim.eps", ["0", "-1e-8", "1e-50"], ["1e-12"]),
    ("optim.momentum", ["1", "-0.1"], ["0"]),
    ("optim.weight_decay", ["-0.1", "inf"], ["0"]),
    ("optim.warmup_steps", ["-1", "1e400", "2147483648", "0.5"], ["0"]),
    ("training.num_steps", ["0", "-1", "1e400", "1e30", "nan", "true"], ["1"]),
    ("training.ema_decay", ["1", "-0.1", "0.99999999999"], ["0", "0.9999"]),
    ("training.ema_std", ["0", "0.3"], ["0.288"]),
    ("training.seed", ["-1", "4294967296", "4294967297"], ["0", "4294967295"]),
    ("evaluation.seed", ["-1", "4294967297"], ["0", "4294967295"]),
    ("condition.label.dropout", ["-0.1", "1.1"], ["0"]),
    ("sampling.rho", ["0", "-7", "nan"], ["inf", "0.5"]),
    ("sampling.churn_max", ["-1", "nan"], ["inf", "0"]),
    ("sampling.label", ["-2", "0.5"], ["-1", "0"]),
    ("sampling.eta", ["-0.1", "1.1"], ["0", "1"]),
    ("sampling.order", ["0", "4"], ["3"]),
    ("sampling.steps", ["0", "1e400"], ["2"]),
    ("evaluation.num_samples", ["3", "2", "0"], ["4"]),
    ("evaluation.neighbours", ["3"], ["4"]),
    ("evaluation.likelihood_images", ["-1", "1"], ["0", "2"]),
    ("evaluation.training_images", ["-1", "1"], ["0", "2"]),
    ("data.image_size", ["0", "-8", "1e400"], ["8"]),
    ("data.test_fraction", ["0", "1", "nan"], ["0.5"]),
    ("sde.beta_max", ["0", "inf", "nan"], ["20"]),
    ("loss.snr_gamma", ["0", "-1", "inf"], ["5"]),
    ("model.channels", ["0", "-8", "1e400"], ["32"]),
    ("model.dropout", ["1", "-0.1", "nan"], ["0", "0.5"]),
    ("model.channel_multipliers", ["()", "0,1", "1,-2", ",".join(["1"] * 65)], ["1,2"]),
    ("model.attention_resolutions", ["0", "8,-4"], ["()"]),
    ("model.norm_epsilon", ["0", "-1e-6"], ["1e-6"]),
]  # fmt: skip


def validated(key, text):
    check.ranges.check(config.apply(tiny_config(), [(key, text)]))


@pytest.mark.parametrize("key, outside, inside", EDGES, ids=[key for key, *_ in EDGES])
def test_a_number_outside_of_its_range_is_refused_by_its_key(key, outside, inside):
    for text in outside:
        with pytest.raises(UserError) as error:
            validated(key, text)
        message = str(error.value)
        assert key in message and "\n" not in message and ("must" in message or "expected" in message)
    for text in inside:
        validated(key, text)


@pytest.mark.parametrize(
    "found, words",
    [
        (ranges.Range.of("(0, inf)"), "be more than 0"),
        (ranges.Range.of("[0, inf)", note="0 disables clipping"), "be at least 0; 0 disables clipping"),
        (ranges.Range.of("[0, 1)"), "lie in [0, 1)"),
        (ranges.Range.of("[1, 9]", whole=True), "be more than 0 and at most 9"),
        (ranges.Range.of("(0, inf)", also=(math.inf,)), "be more than 0, or inf"),
        (ranges.Range.of("(-inf, inf)"), "be a finite number"),
    ],
)
def test_a_range_in_words(found, words):
    assert str(found) == words


@pytest.mark.parametrize("value", [True, False, "1", None, (1,), math.nan, math.inf, 1 + 0j])
def test_what_is_no_finite_number_is_in_no_range(value):
    assert not ranges.Range.of("(-inf, inf)").allows(value)
    with pytest.raises(UserError, match=r"optim\.lr="):
        ranges.KEYS["optim.lr"].require("optim.lr", value)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("optim.lr", math.inf, "optim.lr=inf: must be finite, and more than 0"),
        ("optim.lr", math.nan, "optim.lr=nan: must be finite, and more than 0"),
        ("optim.lr", 1e39, "optim.lr=1e+39: must be finite in float32, and more than 0"),
        ("optim.grad_clip", math.inf, "optim.grad_clip=inf: must be finite, and at least 0; 0 disables clipping"),
        ("optim.lr", -math.inf, "optim.lr=-inf: must be finite, and more than 0"),
        ("sampling.rho", math.nan, "sampling.rho=nan: must be a number, and more than 0, or inf"),
        ("optim.lr", -1.0, "optim.lr=-1.0: must be more than 0"),
    ],
)
def test_a_number_that_is_not_finite_is_described_so(key, value, message):
    with pytest.raises(UserError) as error:
        ranges.KEYS[key].require(key, value)
    assert str(error.value) == message


def test_the_largest_width_of_a_power_average_is_that_of_its_rule():
    assert averaging.power_exponent(ranges.LARGEST_STD) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="at most"):
        averaging.power_exponent(ranges.LARGEST_STD + 1e-8)


SMALL = {"model__channels": 8, "model__channel_multipliers": "1,1"}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model__name": "mlp", "model__width": 7}, "model: MLP: x has shape"),
        ({"model__name": "ncsnpp", **SMALL, "model__channels": 6, "model__embedding": "positional"}, None),
        (
            {"model__name": "ncsnpp", **SMALL, "model__channels": 7, "model__embedding": "positional"},
            "model: NCSNpp: channels=7 must be even and at least 4 for embedding='positional'",
        ),
        (
            {"model__name": "ncsnpp", **SMALL, "model__fir_kernel": "1,-1"},
            "model: NCSNpp: fir_kernel=(1, -1) needs a sum other than 0",
        ),
        (
            {"model__name": "ncsnpp", **SMALL, "model__embedding": "discrete", "model__sigma_min": 50},
            "model: NCSNpp: sigma_min=50.0 must be more than 0 and less than sigma_max=50.0",
        ),
        (
            {"model__name": "ncsn", "model__channels": 8, "model__sigma_min": 2},
            "model: NCSN: sigma_min=2.0 must be more than 0 and less than sigma_max=1.0",
        ),
        (
            {"model__name": "dit", "model__depth": 1, "model__mlp_ratio": 0.001},
            "model: DiT: mlp_ratio=0.001 of width=384 leaves no feature in the MLP",
        ),
        (
            {"model__name": "dit", "model__depth": 1, "model__num_heads": 5},
            "model: DiT: num_heads=5 does not divide width=384",
        ),
        (
            {"model__name": "dit", "model__depth": 1, "model__out_channels": 2},
            "model: the output of dit is 8x8x2 for images of 8x8x1; model.out_channels=0 takes the number of the images",
        ),
        ({"model__head_channels": 3}, "model: UNet: head_channels=3 does not divide 8 channels"),
        (
            {"model__head_channels": 0, "model__num_heads": 3},
            "model: Attention: num_heads=3 does not divide 8 channels",
        ),
        ({"model__norm_groups": 3}, "model: GroupNorm: num_groups=3 does not divide 8 channels"),
        ({"data__image_size": 9, "model__channel_multipliers": "1,1"}, "model: UNet: height 9 is not divisible by 2"),
    ],
    ids=str,
)
def test_options_of_a_network_that_do_not_fit_each_other_are_one_line(changes, message):
    pairs = [(key.replace("__", "."), str(value)) for key, value in changes.items()]
    settings = config.load(f"{ROOT}/configs/digits.py", pairs) if "model__name" in changes else tiny_config(**changes)
    if message is None:
        check.check(settings, "model")
        return
    with pytest.raises(UserError) as error:
        check.check(settings, "model")
    assert message in str(error.value)


def test_a_level_without_channels_is_named():
    settings = tiny_config()
    settings.model.channel_multipliers = (0.01,)
    with pytest.raises(UserError, match=r"channel_multipliers: 0\.01 of channels=8 leaves no channel"):
        check.check(settings, "model")


def test_images_of_any_size_are_checked_without_memory():
    """The shapes of a network for 16,384 pixels: its input alone would take a gigabyte."""
    settings = tiny_config(data__image_size=16384, data__num_channels=4, model__attention_resolutions="()")
    settings.model.middle_attention = False
    check.check(settings, "model")
