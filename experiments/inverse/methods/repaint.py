"""Replacement whose steps are repeated: noise is added back to time t between the `resamplings`, each of `substeps` steps.

Source: Lugmayr et al. (2022), https://arxiv.org/abs/2201.09865, algorithm 1 and appendix B.
"""

from experiments.config.ranges import Range
from experiments.inverse.records import Method


def _steps(measurement, y, noise, settings):
    from sde_lib import inverse

    return inverse.RePaint(inverse.Replacement(measurement, y), **settings)


METHOD = Method(
    "as replacement, each step made again and again; linear, no noise",
    {"steps": 25},
    {"resamplings": 10, "substeps": 10},
    dict.fromkeys(("resamplings", "substeps"), Range.of("[1, 10000]", whole=True)),
    steps=_steps,
    noise="none",
    asks="pseudo_inverse",
    document=__doc__,
)
