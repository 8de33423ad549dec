"""Hard data consistency by optimization, then resampling of the noise of time s.

Source: Song et al. (2024), https://arxiv.org/abs/2307.08123, algorithm 1.
"""

from experiments.config.ranges import POSITIVE, Range
from experiments.inverse.records import Method


def _steps(measurement, y, noise, settings):
    from sde_lib import inverse

    return inverse.ReSample(measurement, y, noise, **settings)


METHOD = Method(
    "made to fit at each step by optimisation, then noise; any task",
    {"times": "quadratic", "steps": 100},
    {"gamma": 40.0, "fit_steps": 50},
    {"gamma": POSITIVE, "fit_steps": Range.of("[1, 1000000]", whole=True)},
    steps=_steps,
    asks="many products",
    document=__doc__,
)
