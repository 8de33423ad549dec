"""A blurred image is measured as a camera sees it: the blur acts on light, before the values are coded (sRGB)."""

from experiments.inverse import kernels
from experiments.inverse.records import Task


def _make(shape, options):
    from sde_lib import inverse

    return inverse.NonlinearBlur(kernel=kernels.kernel(shape, options))


TASK = Task(
    "as deblur, of the light before it is coded: not linear",
    kernels.FLAGS,
    {"kernel": kernels.CHOICES},
    make=_make,
    baselines={"as measured": lambda measurement, y, std: y},
    help=kernels.HELP,
    kinds=kernels.KINDS,
    cases={"deblur-light": (0.05, {"kernel": "motion"})},
    document=__doc__,
)
