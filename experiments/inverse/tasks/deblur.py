"""A blurred image is measured: Gaussian, anisotropic, motion, camera shake, or the kernel in a picture.

Default widths are those of the papers for 256 pixels (Gaussian 3 and motion 61 of DPS, https://arxiv.org/abs/2209.14687;
anisotropic 20 of DDRM, https://arxiv.org/abs/2201.11793), in proportion to the side for smaller images.
"""

from experiments.inverse import kernels
from experiments.inverse.records import Task


def _make(shape, options):
    from sde_lib import inverse

    kernel = kernels.kernel(shape, options)
    if options["kernel"] == "gaussian":
        row = kernel.sum(0)
        return inverse.SeparableBlur.of_kernels(shape, row, row, border=options["border"])
    if options["border"] == "wrap":
        return inverse.PeriodicBlur(event_shape=shape, kernel=kernel)
    return inverse.Blur(event_shape=shape, kernel=kernel, border=options["border"])


def _wiener(measurement, y, std):
    from experiments.inverse import baselines

    return baselines.wiener(measurement, y, std)


TASK = Task(
    "a blurred image (--kernel)",
    {**kernels.FLAGS, "border": "reflect"},
    {"kernel": kernels.CHOICES, "border": {"reflect": (), "wrap": ()}},
    make=_make,
    baselines={"Wiener": _wiener},
    help={**kernels.HELP, "border": "reflect (default), or wrap (the image repeats)"},
    kinds=kernels.KINDS,
    cases={"deblur": (0.05, {"kernel": "gaussian"}), "deblur-motion": (0.05, {"kernel": "motion"})},
    document=__doc__,
)
