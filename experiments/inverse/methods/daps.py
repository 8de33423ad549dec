"""Decoupled annealing posterior sampling: x_0 is drawn given x_t and y by Langevin dynamics, then noise is added.

Source: Zhang et al. (2024), https://arxiv.org/abs/2407.01521, algorithm 1.
"""

from experiments.config.ranges import POSITIVE, Range
from experiments.inverse.records import Method


def _steps(measurement, y, noise, settings):
    from sde_lib import inverse

    return inverse.DAPS(measurement, y, noise, **settings)


METHOD = Method(
    "data drawn anew at each noise level by Langevin dynamics; any task",
    {"steps": 100},
    {"ode_steps": 5, "langevin_steps": 100, "step_size": 0.1, "data_std": float("inf")},
    {
        "ode_steps": Range.of("[1, 10000]", whole=True),
        "langevin_steps": Range.of("[1, 1000000]", whole=True),
        "step_size": POSITIVE,
        "data_std": Range.of("(0, inf)", also=(float("inf"),)),
    },
    steps=_steps,
    asks="many products",
    document=__doc__,
)
