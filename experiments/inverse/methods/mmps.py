"""Moment-matching posterior sampling: the covariance of x_0 given x_t is the network's Jacobian.

`max_steps` and `rtol` end the conjugate gradients of each evaluation.

Source: Rozet et al. (2024), https://arxiv.org/abs/2405.13712, section 4.2.
"""

from experiments.config.ranges import Range
from experiments.inverse.records import ANCESTRAL, Method


def _posterior(prior, measurement, y, noise, settings):
    from sde_lib import inverse

    return inverse.MMPS(prior, measurement, y, noise, **settings)


METHOD = Method(
    "moment matching, by the network's Jacobian; any task",
    ANCESTRAL,
    {"max_steps": 1, "rtol": 1e-3},
    {"max_steps": Range.of("[1, 10000]", whole=True), "rtol": Range.of("(0, 1)")},
    posterior=_posterior,
    asks="products",
    masks=True,
    document=__doc__,
)
