"""The image itself is measured, with noise."""

from experiments.inverse.records import Task


def _make(shape, options):
    from sde_lib import inverse

    return inverse.Denoising(event_shape=shape)


def _total_variation(measurement, y, std):
    from experiments.inverse import baselines

    return baselines.total_variation(measurement, y, std)


TASK = Task(
    "the image with noise",
    noise=0.3,
    make=_make,
    baselines={"total variation": _total_variation},
    cases={"denoise": (0.3, {})},
    document=__doc__,
)
