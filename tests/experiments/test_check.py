"""Bounds of a config's keys: the last value that is allowed passes, and the next is named."""

import pytest

from configs.parts.sde import PROCESSES
from experiments import factory
from experiments.config import files as config
from experiments.errors import UserError
from experiments.factory import check
from tests.experiments.tiny import ROOT, tiny_config


@pytest.mark.parametrize(
    "allowed, refused",
    [
        ({"sampling__label": 2}, {"sampling__label": 3}),
        ({"sampling__label": -1}, {"sampling__label": 7}),
        ({"condition__label__dropout": 1.0}, {"condition__label__dropout": 1.01}),
        ({"condition__label__dropout": 0.0}, {"condition__label__dropout": -0.01}),
        ({"training__ema_decay": 0.0}, {"training__ema_decay": 1.0}),
        ({"training__max_skips": 0}, {"training__max_skips": -1}),
        ({"training__loss_bins": 0}, {"training__loss_bins": -1}),
        ({"training__ema_ramp": 0.0}, {"training__ema_ramp": -0.1}),
        ({"evaluation__training_images": 0}, {"evaluation__training_images": -1}),
        ({"evaluation__likelihood_images": 0}, {"evaluation__likelihood_images": -1}),
        ({"data__workers": 0}, {"data__workers": -1}),
        ({"sampling__t_min": 0.99}, {"sampling__t_min": 1.0}),
        ({"training__t_min": 0.99, "loss__times": "uniform"}, {"training__t_min": 1.0}),
        ({"optim__accumulate": 2}, {"optim__accumulate": 0}),
    ],
    ids=lambda changes: next(iter(changes.items())),
)
def test_bounds(allowed, refused):
    check.check(tiny_config(model__num_classes=3, **allowed))
    ((key, value),) = refused.items()
    with pytest.raises(UserError, match=f"^{key.replace('__', '.')}={value}: "):
        check.check(tiny_config(model__num_classes=3, **refused))


@pytest.mark.parametrize(
    "text, message",
    [
        ("loss.log_sigma_mean=-30 loss.log_sigma_std=0.5", "loss.log_sigma_mean=-30.0, loss.log_sigma_std=0.5: only 0 of"),
        ("loss.log_sigma_mean=20", "loss.log_sigma_mean=20.0, loss.log_sigma_std=1.0: only 0 of the distribution lies"),
        ("loss.log_sigma_mean=1000", "log(sigma / alpha) is -6.91 at training.t_min=1e-05 and 5.02 at sde.t_max=1.0"),
        ("loss.log_sigma_std=1e30", "loss.log_sigma_std=1e+30: only 0 of the distribution lies within the process"),
        ("loss.times=logit_normal loss.logit_mean=1000", "loss.logit_mean=1000.0, loss.logit_std=1.0: all its times are"),
        ("loss.times=logit_normal loss.logit_mean=-20", "loss.logit_mean=-20.0, loss.logit_std=1.0: all its times are"),
        ("loss.times=logit_normal loss.logit_std=1e30", "loss.logit_std=1e+30: 100% of its times are at the ends of the"),
        ("loss.times=discrete loss.discrete_levels=1", "loss.discrete_levels=1: all its times are at log(sigma / alpha)"),
    ],
)  # fmt: skip
def test_times_of_training_that_are_all_at_the_ends_are_refused(text, message):
    loaded = config.load(f"{ROOT}/configs/digits.py", [tuple(part.split("=")) for part in text.split()])
    with pytest.raises(UserError) as error:
        check.check(loaded, "training")
    assert message in str(error.value) and str(error.value).startswith("loss.times=")


@pytest.mark.parametrize("times", factory.losses.TIME_DISTRIBUTIONS)
@pytest.mark.parametrize("process", PROCESSES)
def test_usual_times_of_training_are_accepted(times, process):
    changes = [("loss.times", times), ("loss.discrete_levels", "15"), ("sde.num_steps", "100")]
    factory.check_training_times(config.load(f"{ROOT}/configs/digits.py:{process}", changes))
