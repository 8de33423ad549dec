"""Proximal steps on the likelihood: |y - A x_0|^2 / s^2 + strength |x_0 - D|^2 / n^2 is minimized.

Source: Zhu et al. (2023), https://arxiv.org/abs/2305.08995, eq. 12 and algorithm 1.
"""

from experiments.config.ranges import POSITIVE
from experiments.inverse.records import ANCESTRAL, Method


def _posterior(prior, measurement, y, noise, settings):
    from sde_lib import inverse

    return inverse.DiffPIR(prior, measurement, y, noise, **settings)


METHOD = Method(
    "a compromise at each step; any task",
    ANCESTRAL,
    {"strength": 3.0},
    {"strength": POSITIVE},
    posterior=_posterior,
    document=__doc__,
)
