"""Tweedie moment projected diffusion: the covariance of y given x_t is the diagonal of its row sums.

Source: Boys et al. (2023), https://arxiv.org/abs/2310.06721, section 4.
"""

from experiments.inverse.records import ANCESTRAL, Method


def _posterior(prior, measurement, y, noise, settings):
    from sde_lib import inverse

    return inverse.TMPD(prior, measurement, y, noise)


METHOD = Method(
    "moment projection, by the network's Jacobian; any task",
    ANCESTRAL,
    posterior=_posterior,
    asks="products",
    document=__doc__,
)
