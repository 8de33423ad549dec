"""Denoising diffusion restoration models: each singular direction of A has a step by its noise.

Source: Kawar et al. (2022), https://arxiv.org/abs/2201.11793, eq. 7 and 8.
"""

from experiments.config.ranges import Range
from experiments.inverse.records import Method


def _steps(measurement, y, noise, settings):
    from sde_lib import inverse

    return inverse.DDRM(measurement, y, noise, **settings)


METHOD = Method(
    "each singular direction by itself; linear, spectral",
    {"times": "quadratic", "steps": 50},
    {"eta": 0.85, "eta_b": 1.0},
    {"eta": Range.of("[0, 1]"), "eta_b": Range.of("[0, 1]")},
    steps=_steps,
    asks="singular_values",
    document=__doc__,
)
