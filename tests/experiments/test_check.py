"""Bounds of a config's keys: the last value that is allowed passes, and the next is named."""

import pytest

from experiments import check
from experiments.errors import UserError
from tests.experiments.tiny import tiny_config


@pytest.mark.parametrize(
    "allowed, refused",
    [
        ({"sampling__label": 2}, {"sampling__label": 3}),
        ({"sampling__label": -1}, {"sampling__label": 7}),
        ({"training__class_dropout": 1.0}, {"training__class_dropout": 1.01}),
        ({"training__class_dropout": 0.0}, {"training__class_dropout": -0.01}),
        ({"training__ema_decay": 0.0}, {"training__ema_decay": 1.0}),
        ({"training__max_skips": 0}, {"training__max_skips": -1}),
        ({"training__loss_bins": 0}, {"training__loss_bins": -1}),
        ({"training__ema_ramp": 0.0}, {"training__ema_ramp": -0.1}),
        ({"evaluation__training_images": 0}, {"evaluation__training_images": -1}),
        ({"evaluation__likelihood_images": 0}, {"evaluation__likelihood_images": -1}),
        ({"data__workers": 0}, {"data__workers": -1}),
        ({"sampling__t_min": 0.99}, {"sampling__t_min": 1.0}),
        ({"training__t_min": 0.99}, {"training__t_min": 1.0}),
        ({"optim__accumulate": 2}, {"optim__accumulate": 0}),
    ],
    ids=lambda changes: next(iter(changes.items())),
)
def test_bounds(allowed, refused):
    check.check(tiny_config(model__num_classes=3, **allowed))
    ((key, value),) = refused.items()
    with pytest.raises(UserError, match=f"^{key.replace('__', '.')}={value}: "):
        check.check(tiny_config(model__num_classes=3, **refused))
