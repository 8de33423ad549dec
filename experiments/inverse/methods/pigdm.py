"""Pseudo-inverse guidance (PiGDM): the covariance of x_0 given x_t is taken as r^2 I, r set by `data_std`.

Source: Song et al. (2023), https://openreview.net/forum?id=9_gsMA8MRKQ, eq. 7 and 8 and appendix A.3.
"""

from experiments.config.ranges import POSITIVE
from experiments.inverse.records import ANCESTRAL, Method


def _posterior(prior, measurement, y, noise, settings):
    from sde_lib import inverse

    return inverse.PiGDM(prior, measurement, y, noise, **settings)


METHOD = Method(
    "pseudo-inverse guidance; any task",
    ANCESTRAL,
    {"data_std": 0.5},
    {"data_std": POSITIVE},
    posterior=_posterior,
    masks=True,
    document=__doc__,
)
