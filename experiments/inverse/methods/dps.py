"""Diffusion posterior sampling: a gradient step of length `zeta` on the misfit |y - A D(x_t)|.

zeta is that of images of 256 x 256 pixels. A pixel moves as far in images of every size, so that zeta is taken in proportion
to the side (of a rectangle, of the square of as many pixels).

Source: Chung et al. (2023), https://arxiv.org/abs/2209.14687, algorithm 1 and eq. 16.
"""

from experiments.config.ranges import POSITIVE
from experiments.inverse.records import PUBLISHED, Method


def _posterior(prior, measurement, y, noise, settings):
    from sde_lib import inverse

    return inverse.DPS(prior, measurement, y, noise, **settings)


METHOD = Method(
    "the gradient of the misfit; any task",
    PUBLISHED,
    {"zeta": 1.0},
    {"zeta": POSITIVE},
    posterior=_posterior,
    noise="not asked",
    asks="products",
    proportional=("zeta",),
    masks=True,
    document=__doc__,
)
