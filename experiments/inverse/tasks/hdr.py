"""clip(contrast x, -1, 1) is measured: the darkest and the lightest pixels are lost."""

from experiments.inverse.records import Task, between


def _make(shape, options):
    from sde_lib import inverse

    return inverse.HighDynamicRange(scale=between("--contrast", options["contrast"], 1, 1000))


TASK = Task(
    "clip(contrast x): what is darkest and lightest is lost",
    {"contrast": 2.0},
    make=_make,
    baselines={"y / contrast": lambda measurement, y, std: y / measurement.scale},
    help={"contrast": "by which the image is stretched"},
    cases={"hdr": (0.05, {})},
    document=__doc__,
)
