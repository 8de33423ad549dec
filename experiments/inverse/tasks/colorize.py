"""The grey levels of a colour image are measured: the mean of its three channels."""

from experiments.errors import UserError, counted
from experiments.inverse.records import Task


def _make(shape, options):
    from sde_lib import inverse

    if shape[2] != 3:
        raise UserError(f"--task=colorize: the model's images have {counted(shape[2], 'channel')}; colours are 3")
    return inverse.Colorization(event_shape=shape)


TASK = Task(
    "the grey levels of a colour image",
    make=_make,
    baselines={"grey": lambda measurement, y, std: measurement.pseudo_inverse(y)},
    cases={"colorize": (0.05, {})},
    document=__doc__,
)
