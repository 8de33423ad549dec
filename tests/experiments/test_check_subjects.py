"""The keys that each subject of a config validates, averages of the weights by their text, and snapshots that make one."""

import numpy as np
import pytest

from experiments import factory
from experiments.config import ranges
from experiments.errors import UserError
from experiments.factory import check
from experiments.learning import averaging
from tests.experiments.tiny import tiny_config

pytestmark = pytest.mark.devices

DATA = ("image_size", "num_channels", "test_fraction", "validation_fraction", "memory_gb", "white")
FLOW = ("t_min", "steps", "rho", "batch_size")
# Subject -> beginnings of the keys whose numbers it validates.
SUBJECTS = {
    "model": ("sde.", "model.", "parameterization.", "data.image_size", "data.num_channels",
              "data.event_shape", "loss.uncertainty_channels"),
    "average": ("sampling.ema_std",),
    "flow": ("sde.", *(f"sampling.{key}" for key in FLOW)),
    "times": ("sde.", *(f"sampling.{key}" for key in FLOW)),
    "sampler": ("sde.", "sampling."),
    "label": ("sampling.label",),
    "sampling": ("sde.", "sampling."),
    "data": tuple(f"data.{key}" for key in DATA),
    "training": ("training.", "optim.", "loss.", "data.", "condition."),
    "evaluation": ("evaluation.",),
    "writers": (),
    "files": (),
}  # fmt: skip


@pytest.mark.parametrize("subject", check.SUBJECTS)
def test_a_subject_validates_its_numbers_and_no_others(monkeypatch, subject):
    """So that a command is not refused for what it does not read."""
    checked = []
    monkeypatch.setattr(ranges, "check", lambda config, *prefixes: checked.extend(prefixes))
    check.check(tiny_config(), subject)
    keys = [key for key in (*ranges.KEYS, *(f"model.{name}" for name in ranges.OPTIONS))]
    found = {key for key in keys if key.startswith(tuple(checked))}
    assert found == {key for key in keys if key.startswith(SUBJECTS[subject])}


def test_training_reads_what_is_used_from_its_start_to_the_evaluation_at_its_end(monkeypatch):
    order = []
    monkeypatch.setattr(
        check, "SUBJECTS", {name: lambda config, name=name: order.append(name) for name in check.SUBJECTS}
    )
    check.check(tiny_config())
    assert order == ["model", "average", "sampling", "data", "training", "writers", "evaluation", "files"]
    order.clear()
    check.check(tiny_config(), "data", "label")
    assert order == ["data", "label"]
    config = tiny_config()
    config.optim.lr = -1.0
    check.check(config, "data", overrides=[("optim.eps", "1")])
    with pytest.raises(UserError, match=r"^optim\.lr=-1\.0"):
        check.check(config, "data", overrides=[("optim.eps", "1"), ("optim.lr", "-1")])


@pytest.mark.parametrize("section", ["training", "sampling", "evaluation"])
def test_the_smallest_time_is_less_than_that_of_the_prior(section):
    config = tiny_config(loss__times="uniform")
    for t_min, fits in ((0.99, True), (1.0, False), (1.5, False)):
        config[section].t_min = t_min
        if fits:
            check._check_smallest_time(config, section)
            continue
        with pytest.raises(UserError, match=rf"^{section}\.t_min={t_min}: must be less than sde\.t_max=1\.0"):
            check._check_smallest_time(config, section)


EMAS = {"ema_decay": 0.9, "ema_half_life": 3000, "ema_ramp": 0.2, "ema_std": 0.07}


@pytest.mark.parametrize(
    "text, rule",
    [
        ("warmup", averaging.warmup(0.9)), ("warmup:0.5", averaging.warmup(0.5)), ("constant", averaging.constant(0.9)),
        ("constant:0", averaging.constant(0.0)), ("half_life", averaging.half_life(3000, 0.2, 16)),
        ("half_life:500", averaging.half_life(500, 0.2, 16)), ("half_life:500:0.1", averaging.half_life(500, 0.1, 16)),
        ("half_life:500:0", averaging.half_life(500, 0.0, 16)), ("power", averaging.power(0.07)),
        ("power:0.2", averaging.power(0.2)),
    ],
)  # fmt: skip
def test_the_numbers_of_an_average_are_those_of_its_text_and_else_of_the_config(text, rule):
    config = tiny_config(training__ema=text, **{f"training__{key}": value for key, value in EMAS.items()})
    (found,) = factory.emas(config).values()
    shares = [[float(of(n)) for n in (1, 2, 10, 1000)] for of in (found, rule)]
    np.testing.assert_allclose(*shares, rtol=1e-6)
    assert factory.power_emas(config) == (
        {0: float(text.partition(":")[2] or 0.07)} if text.startswith("power") else {}
    )


def test_averages_have_places_in_the_order_of_their_text():
    config = tiny_config(training__ema="power:0.1,warmup,power:0.05")
    assert list(factory.emas(config)) == factory.ema_names(config) == ["power:0.1", "warmup", "power:0.05"]
    assert factory.power_emas(config) == {0: 0.1, 2: 0.05} and factory.sampling_ema(config) == 0
    for place, name in enumerate(factory.ema_names(config)):
        config.sampling.ema = name
        assert factory.sampling_ema(config) == place


@pytest.mark.parametrize(
    "text", ["half_life:1.5", "half_life:0", "warmup:1", "constant:-0.1", "power:0", "power:0.289", "power:inf", "power:",
             "warmup:0.5:1", "half_life:1:1:1", "Warmup", "warmup,warmup", "half_life:5:-1", "power:nan"],
)  # fmt: skip
def test_averages_whose_numbers_do_not_fit(text):
    with pytest.raises(UserError, match=r"^training\.ema="):
        factory.emas(tiny_config(training__ema=text))


def snapshots(every, last, std, emas="power:0.1"):
    return tiny_config(
        training__ema=emas, training__ema_snapshot_every=every, training__num_steps=last, sampling__ema_std=std
    )


def test_snapshots_of_one_width_make_averages_near_to_it_and_many_make_every_average():
    check._check_averages(snapshots(8, 40, 0.1))
    with pytest.raises(
        UserError, match=r"the 5 snapshots of training\.ema_snapshot_every=8 do not make such an average"
    ):
        check._check_averages(snapshots(8, 40, 0.005))
    with pytest.raises(UserError, match="the 10 snapshots of"):  # two widths
        check._check_averages(snapshots(8, 40, 0.005, "power:0.1,warmup,power:0.05"))
    with pytest.raises(UserError, match="the 6 snapshots of"):  # the last step is one
        check._check_averages(snapshots(8, 41, 0.005))
    check._check_averages(snapshots(1, 501, 0.0001))
    with pytest.raises(UserError, match=r"the 500 snapshots"):
        check._check_averages(snapshots(1, 500, 0.0001))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"optim__accumulate": 2}, None), ({"optim__accumulate": 4}, "16 on 8 devices has 2 examples on each, which"),
        ({"data__batch_size": 8}, None), ({"data__batch_size": 8, "optim__accumulate": 2}, "has 1 example on each, which"),
        ({"data__batch_size": 12}, "data.batch_size=12 cannot be shared by 8 devices: choose a multiple of 8"),
    ],
)  # fmt: skip
def test_a_batch_is_shared_by_the_devices_and_then_split_into_equal_parts(changes, message):
    """On the eight devices of the tests."""
    config = tiny_config(**changes)
    if message is None:
        check._check_batch(config)
        return
    with pytest.raises(UserError) as error:
        check._check_batch(config)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "augmentation, told, fits",
    [(0.0, 0, True), (0.0, 9, True), (0.1, 9, True), (0.1, 0, False), (0.1, 8, False), (0.1, 10, False)],
)
def test_augmentation_is_told_to_the_network_by_nine_labels(augmentation, told, fits):
    config = tiny_config(data__augmentation=augmentation, model__augment_features=told)
    if fits:
        check._check_augmentation(config)
        return
    with pytest.raises(UserError, match=f"model.augment_features={told}, but there are 9 labels"):
        check._check_augmentation(config)
