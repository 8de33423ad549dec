"""Denoising diffusion null-space model: the range of A^T from y, the null space from the Denoiser.

Source: Wang et al. (2023), https://arxiv.org/abs/2212.00490, eq. 13.
"""

from experiments.inverse.records import Method


def _posterior(prior, measurement, y, noise, settings):
    from sde_lib import inverse

    return inverse.DDNM(prior, measurement, y)


METHOD = Method(
    "what is measured put in place; linear, no noise",
    {"sampler": "ddim", "eta": 0.85, "steps": 100},
    posterior=_posterior,
    noise="none",
    asks="pseudo_inverse",
    masks=True,
    document=__doc__,
)
