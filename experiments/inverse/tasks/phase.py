"""The magnitudes of the Fourier transform of the image among zeros are measured; the phases are lost."""

import numpy as np

from experiments.inverse.records import Task, between


def _make(shape, options):
    from sde_lib import inverse

    return inverse.PhaseRetrieval(oversampling=between("--oversampling", options["oversampling"], 1, 8))


def _hybrid_input_output(measurement, y, std):
    from experiments.inverse import baselines

    return baselines.hybrid_input_output(measurement, y)


def _view(measurement, y):
    """The logarithm of magnitudes, zero frequency in the middle, from the least to the largest of each."""
    y = np.fft.fftshift(np.log10(np.maximum(y, 0) + 1e-3), (1, 2))  # noise makes some less than 0
    low, high = y.min((1, 2, 3), keepdims=True), y.max((1, 2, 3), keepdims=True)
    return 2 * (y - low) / np.maximum(high - low, 1e-6) - 1


TASK = Task(
    "magnitudes of the Fourier transform",
    {"oversampling": 2.0},
    image=False,
    make=_make,
    baselines={"hybrid input-output": _hybrid_input_output},
    help={"oversampling": "of the Fourier transform"},
    view=_view,
    cases={"phase": (0.05, {})},
    document=__doc__,
)
