"""A projection of x_t towards y with the noise of time t, before each step; `snr` is that of Langevin corrections.

Source: Song et al. (2022), https://arxiv.org/abs/2111.08005, eq. 8 to 10 and algorithm 2.
"""

from experiments.config.ranges import Range
from experiments.inverse.records import Method


def _posterior(prior, measurement, y, noise, settings):
    """Ends with y itself: the denoising step is at the smallest time."""
    from sde_lib import guidance, inverse

    high = 1.001 * prior.sde.noise_to_signal(prior.sde.t_min)
    return guidance.Interval(inverse.DDNM(prior, measurement, y), prior, high=high)


def _steps(measurement, y, noise, settings):
    import sde_lib
    from sde_lib import inverse

    corrector = sde_lib.Langevin(settings["snr"]) if settings["snr"] else None
    return inverse.Projection(measurement, y, sde_lib.Ancestral(), corrector, settings["relaxation"])


METHOD = Method(
    "a projection before each step (Song et al. 2022, for MRI and CT); linear, no noise",
    {"steps": 125},
    {"relaxation": 1.0, "snr": 0.16},
    {"relaxation": Range.of("(0, 1]"), "snr": Range.of("[0, inf)", note="0 disables the corrector")},
    posterior=_posterior,
    steps=_steps,
    noise="none",
    asks="pseudo_inverse",
    document=__doc__,
)
