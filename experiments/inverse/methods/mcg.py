"""Manifold constrained gradient: the gradient of `dps`, with its zeta, then the projection of `ddnm`.

Source: Chung et al. (2022), https://arxiv.org/abs/2206.00941, algorithm 1.
"""

from experiments.config.ranges import POSITIVE
from experiments.inverse.records import PUBLISHED, Method


def _posterior(prior, measurement, y, noise, settings):
    from sde_lib import inverse

    return inverse.ManifoldConstraint(prior, measurement, y, **settings)


METHOD = Method(
    "as dps, and what is measured put in place; linear, no noise",
    PUBLISHED,
    {"zeta": 1.0},
    {"zeta": POSITIVE},
    posterior=_posterior,
    noise="none",
    asks="pseudo_inverse",
    proportional=("zeta",),
    masks=True,
    document=__doc__,
)
