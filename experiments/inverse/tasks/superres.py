"""A smaller image is measured: bicubic interpolation with antialiasing, as in Pillow, or means of blocks.

Source: Keys (1981), https://doi.org/10.1109/TASSP.1981.1163711, eq. 15, for the bicubic kernel.
"""

from experiments.inverse.records import Task


def _make(shape, options):
    from sde_lib import inverse

    make = {"bicubic": inverse.SuperResolution.bicubic, "average": inverse.SuperResolution.average}
    return make[options["downsampling"]](shape, options["factor"])


def _bicubic(measurement, y, std):
    from experiments.inverse import baselines

    return baselines.bicubic(measurement, y)


TASK = Task(
    "a smaller image (--factor)",
    {"factor": 4.0, "downsampling": "bicubic"},
    {"downsampling": {"bicubic": (), "average": ()}},
    make=_make,
    baselines={"bicubic": _bicubic},
    help={"factor": "how many times smaller", "downsampling": "bicubic (default) or average"},
    cases={"superres": (0.05, {"factor": 4.0})},
    document=__doc__,
)
