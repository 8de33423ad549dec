"""The methods of `benchmark --suite=inverse`: each with the sampling method and the settings that go with it.

A row says what it is made of and where its settings are from: of the paper named, or set for the priors of this suite,
whose pixels spread by 0.5. What counts as cost is the Denoiser's: its evaluations, and the products with its Jacobian.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sde_lib
from sde_lib import Denoiser, Sampler, inverse

Made = tuple[Denoiser, Sampler]


@dataclass(frozen=True)
class Setting:
    """A way to draw from a posterior.

    Attributes:
        make: (the prior's Denoiser, measurement, y, standard deviation of its noise, number of evaluations) -> the Denoiser
            and the method to run.
        grid: of times, a name of `benchmarks.methods.GRIDS`.
        products: with the Jacobian of the Denoiser, for each evaluation; at most, where they stop by themselves.
        what: how it is made.
        source: where the settings are from.
        exact_for: the cases, by the start of their names, where it claims to draw from the posterior, but for its steps.
    """

    make: Callable[..., Made]
    grid: str
    products: int
    what: str
    source: str
    exact_for: tuple[str, ...] = ()


def _guided(posterior: type, method: Sampler, **settings: Any) -> Callable[..., Made]:
    """A posterior Denoiser, run by a method that knows nothing of y."""

    def make(prior, measurement, y, noise, evaluations):
        return posterior(prior, measurement, y, noise, **settings), method

    return make


def _stepwise(method: Callable[..., Sampler], **settings: Any) -> Callable[..., Made]:
    """A method that knows y and its noise, run on the prior's Denoiser."""

    def make(prior, measurement, y, noise, evaluations):
        return prior, method(measurement, y, noise, **settings)

    return make


def _dps(prior, measurement, y, noise, evaluations):
    # The published length of a step, however many there are: t runs over 1.
    return inverse.DPS(prior, measurement, y, zeta=0.5, steps=float(evaluations)), sde_lib.Ancestral()


def _dps_shorter(prior, measurement, y, noise, evaluations):
    return inverse.DPS(prior, measurement, y, zeta=0.35, steps=50.0), sde_lib.Ancestral()


def _mcg(prior, measurement, y, noise, evaluations):
    posterior = inverse.ManifoldConstraint(prior, measurement, y, zeta=0.5, steps=float(evaluations))
    return posterior, sde_lib.Ancestral()


def _replacement(prior, measurement, y, noise, evaluations):
    return prior, inverse.Replacement(measurement, y, sde_lib.PredictorCorrector())


def _repaint(prior, measurement, y, noise, evaluations):
    return prior, inverse.RePaint(inverse.Replacement(measurement, y), resamplings=10)


FAST = sde_lib.DEIS(3, "angle", corrected=True)

SETTINGS: dict[str, Setting] = {
    "mmps": Setting(
        _guided(inverse.MMPS, FAST),
        "quadratic",
        8,
        "`MMPS`, `DEIS(3, 'angle', corrected=True)`",
        "set here",
    ),
    "mmps solved": Setting(
        _guided(inverse.MMPS, FAST, rtol=1e-6, max_steps=32),
        "quadratic",
        32,
        "`MMPS(rtol=1e-6, max_steps=32)`, `DEIS` as in mmps",
        "set here: the conjugate gradients run to their end",
        exact_for=("independent", "correlated"),
    ),
    "mmps ancestral": Setting(
        _guided(inverse.MMPS, sde_lib.Ancestral()),
        "quadratic",
        8,
        "`MMPS`, `Ancestral`",
        "set here",
    ),
    "mmps 1 step": Setting(
        _guided(inverse.MMPS, sde_lib.Ancestral(), max_steps=1),
        "quadratic",
        1,
        "`MMPS(max_steps=1)`, `Ancestral`",
        "Rozet et al. (2024): 1 to 5 steps",
    ),
    "tmpd": Setting(
        _guided(inverse.TMPD, sde_lib.Ancestral()),
        "uniform",
        3,
        "`TMPD`, `Ancestral`",
        "Boys et al. (2023), 1,000 steps",
    ),
    "tmpd fast": Setting(
        _guided(inverse.TMPD, FAST),
        "quadratic",
        3,
        "`TMPD`, `DEIS` as in mmps",
        "set here",
        exact_for=("independent, half",),
    ),
    "pigdm": Setting(
        _guided(inverse.PiGDM, sde_lib.DDIM(1.0)),
        "uniform",
        1,
        "`PiGDM`, `DDIM(eta=1)`",
        "Song et al. (2023), 20 to 100 steps",
    ),
    "pigdm 0.5": Setting(
        _guided(inverse.PiGDM, sde_lib.Ancestral(), data_std=0.5),
        "quadratic",
        1,
        "`PiGDM(data_std=0.5)`, `Ancestral`",
        "set here: the pixels' spread",
    ),
    "dps": Setting(
        _dps,
        "uniform",
        1,
        "`DPS(zeta=0.5, steps=evaluations)`, `Ancestral`",
        "Chung et al. (2023), 1,000 steps: the length of a step is theirs",
    ),
    "dps 0.35": Setting(
        _dps_shorter,
        "quadratic",
        1,
        "`DPS(zeta=0.35, steps=50)`, `Ancestral`",
        "set here: one strength for any number of steps",
    ),
    "mcg": Setting(
        _mcg,
        "uniform",
        1,
        "`ManifoldConstraint(zeta=0.5, steps=evaluations)`, `Ancestral`",
        "Chung et al. (2022), 1,000 steps: the length of a step is theirs; for no noise",
    ),
    "resample": Setting(
        _stepwise(inverse.ReSample), "uniform", 0, "`ReSample(gamma=40)`", "Song et al. (2024), 500 steps"
    ),
    "ddnm": Setting(
        _guided(inverse.DDNM, sde_lib.DDIM(0.85)),
        "uniform",
        0,
        "`DDNM`, `DDIM(eta=0.85)`",
        "Wang et al. (2023), 100 steps, for no noise",
    ),
    "ddnm_plus": Setting(_stepwise(inverse.DDNMPlus), "uniform", 0, "`DDNMPlus`", "Wang et al. (2023), 100 steps"),
    "ddrm": Setting(
        _stepwise(inverse.DDRM), "uniform", 0, "`DDRM(eta=0.85, eta_b=1)`", "Kawar et al. (2022), 20 steps"
    ),
    "diffpir": Setting(
        _guided(inverse.DiffPIR, inverse.Renoise(1.0)),
        "uniform",
        0,
        "`DiffPIR(strength=1)`, `Renoise(zeta=1)`",
        "Zhu et al. (2023), their code's for inpainting, 20 to 100 steps",
    ),
    "diffpir 3": Setting(
        _guided(inverse.DiffPIR, sde_lib.Ancestral(), strength=3.0),
        "quadratic",
        0,
        "`DiffPIR(strength=3)`, `Ancestral`",
        "set here",
    ),
    "replacement": Setting(
        _replacement,
        "uniform",
        0,
        "`Replacement(PredictorCorrector())`",
        "Song et al. (2021), 1,000 steps of predictor and corrector, for no noise",
    ),
    "repaint": Setting(
        _repaint,
        "uniform",
        0,
        "`RePaint(Replacement(), resamplings=10)`",
        "Lugmayr et al. (2022), 250 steps, for no noise",
    ),
    "daps": Setting(
        _stepwise(inverse.DAPS),
        "karras",
        0,
        "`DAPS(ode_steps=5, langevin_steps=100)`",
        "Zhang et al. (2024), 50 and 200 steps of 5",
    ),
    "daps 1 step": Setting(
        _stepwise(inverse.DAPS, ode_steps=1, langevin_steps=30, step_size=0.3, data_std=0.5),
        "karras",
        0,
        "`DAPS(ode_steps=1, langevin_steps=30, step_size=0.3, data_std=0.5)`",
        "set here: the pixels' spread",
    ),
}
