"""After each step the measured part of x_s is replaced by y with the noise of time s.

Source: Song et al. (2021), https://arxiv.org/abs/2011.13456, section 5 and appendix I.2.
"""

from experiments.config.ranges import Range
from experiments.inverse.records import Method


def _steps(measurement, y, noise, settings):
    from sde_lib import inverse

    return inverse.Replacement(measurement, y, **settings)


METHOD = Method(
    "noisy measurements put in place (score_sde); linear, no noise",
    {"steps": 250},
    {"relaxation": 1.0},
    {"relaxation": Range.of("(0, 1]")},
    steps=_steps,
    noise="none",
    asks="pseudo_inverse",
    document=__doc__,
)
