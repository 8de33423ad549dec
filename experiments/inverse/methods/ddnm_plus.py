"""DDNM for measurements with noise: an ancestral step whose noise is in part that of y.

Source: Wang et al. (2023), https://arxiv.org/abs/2212.00490, section 3.3 and appendix I.
"""

from experiments.inverse.records import Method


def _steps(measurement, y, noise, settings):
    from sde_lib import inverse

    return inverse.DDNMPlus(measurement, y, noise)


METHOD = Method(
    "as ddnm, with noise; linear, spectral",
    {"steps": 100},
    steps=_steps,
    asks="singular_values",
    document=__doc__,
    name="ddnm+",
)
