"""Ranges of numbers at their ends, entries of several numbers, and the ranges of settings of posterior methods."""

import numpy as np
import pytest

from experiments.config import ranges
from experiments.errors import UserError
from experiments.inverse import problems
from tests.experiments.tiny import tiny_config

# Interval, whether whole, and other values of each setting of a posterior method.
SETTINGS = {
    "zeta": ("(0, inf)", False, ()), "max_steps": ("[1, 10000]", True, ()), "rtol": ("(0, 1)", False, ()),
    "data_std": ("(0, inf)", False, ()), "daps.data_std": ("(0, inf)", False, (np.inf,)), "eta": ("[0, 1]", False, ()),
    "eta_b": ("[0, 1]", False, ()), "strength": ("(0, inf)", False, ()), "relaxation": ("(0, 1]", False, ()),
    "snr": ("[0, inf)", False, ()), "resamplings": ("[1, 10000]", True, ()), "substeps": ("[1, 10000]", True, ()),
    "gamma": ("(0, inf)", False, ()), "fit_steps": ("[1, 1000000]", True, ()), "ode_steps": ("[1, 10000]", True, ()),
    "langevin_steps": ("[1, 1000000]", True, ()), "step_size": ("(0, inf)", False, ()),
}  # fmt: skip


def test_ranges_of_settings_of_posterior_methods():
    for method, spec in problems.METHODS.items():
        found = {name: (range_.interval, range_.whole, range_.also) for name, range_ in spec.ranges.items()}
        assert found == {name: SETTINGS.get(f"{method}.{name}", SETTINGS.get(name)) for name in spec.settings}, method
    for text in ("replacement:relaxation=1", "projection:snr=0", "ddrm:eta=0,eta_b=1", "repaint:resamplings=10000"):
        problems.method(text)
    for text in (
        "replacement:relaxation=0",
        "replacement:relaxation=1.01",
        "repaint:resamplings=10001",
        "ddrm:eta_b=1.01",
    ):
        with pytest.raises(UserError, match=f"^--method={text}: "):
            problems.method(text)


@pytest.mark.parametrize(
    "interval, options, inside, outside",
    [
        ("(0, 1)", {}, (2.0**-126, 1e-37, 0.5, 0.9999999), (0, 1, 2.0**-126.1, 1e-39, 0.99999999, -1)),
        ("[0, 1]", {}, (0, 1, 0.0, 1.0, 1e-50), (-1e-9, 1.0000001)),
        ("(0, 1]", {}, (1, 1e-37), (0, 1e-50)),
        ("[0, 1)", {}, (0, 0.9), (1, 1.0)),
        ("[2, 5]", {"whole": True}, (2, 5), (1, 6, 2.0, 2.5, True)),
        ("[2, 5]", {"whole": True, "also": (0,)}, (0, 2), (1, -1)),
        ("(0, inf)", {}, (3.4e38, 1), (3.5e38, np.inf, 0)),
        ("(0, inf)", {"also": (np.inf,)}, (np.inf, 3.4e38), (-np.inf, np.nan, 0)),
        ("(0, inf)", {"also": (None,)}, (None, 1), (0, "1")),
    ],
)
def test_numbers_at_the_ends_of_ranges(interval, options, inside, outside):
    """As float32 holds them: what rounds to an excluded end is outside, and what is too small for it is 0."""
    found = ranges.Range.of(interval, **options)
    assert [value for value in inside if not found.allows(value)] == []
    assert [value for value in outside if found.allows(value)] == []
    assert found.interval == interval


@pytest.mark.parametrize(
    "value, message",
    [
        ((1,), None), ((1, 9), None), ((1,) * 64, None), ([3], None),
        ((), "k=(): must have at least 1 entry"), ((1,) * 65, "k: has 65 entries; must have at most 64"),
        ((1, 0), "k=1,0: each entry must be more than 0 and at most 9, not 0"), (3, "k=3: must be several numbers"),
        ((1, 2.0), "k=1,2.0: each entry must be a whole number, and more than 0 and at most 9, not 2.0"),
    ],
)  # fmt: skip
def test_entries_of_several_numbers(value, message):
    found = ranges.Range.of("[1, 9]", whole=True, entries=1)
    if message is None:
        found.require("k", value)
        return
    with pytest.raises(UserError) as error:
        found.require("k", value)
    assert str(error.value) == message


def test_a_least_number_of_entries_of_two_is_told_in_the_plural():
    with pytest.raises(UserError, match=r"^k=1: must have at least 2 entries$"):
        ranges.Range.of("[1, 9]", entries=2).require("k", (1,))
    ranges.Range.of("[1, 9]", entries=0).require("k", ())


def test_keys_are_checked_where_their_beginning_is_named():
    config = tiny_config()
    config.optim.lr, config.sampling.steps = -1.0, 0
    ranges.check(config, "data.", "optim.beta")
    for prefixes, key in ((("optim.",), "optim.lr"), (("sampling.st",), "sampling.steps"), ((), "optim.lr")):
        with pytest.raises(UserError, match=f"^{key}="):
            ranges.check(config, *prefixes)
    ranges.check_keys(config, ["optim.eps", "optim"])
    with pytest.raises(UserError, match=r"^sampling\.steps=0"):
        ranges.check_keys(config, ["sampling.steps"])
