"""The methods of `benchmark --suite=inverse`: each with the sampling method and the settings that go with it.

A row says what it is made of and where its settings are from: of the paper named, or set for the priors of this suite,
whose pixels spread by 0.5. What counts as cost is the Denoiser's: its evaluations, and the products with its Jacobian.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import sde_lib
from sde_lib import Denoiser, Method, inverse
from sde_lib.inverse import SpectralMeasurement

Made = tuple[Denoiser, Method]


@dataclass(frozen=True)
class Setting:
    """A way to draw from a posterior.

    Attributes:
        make: (the prior's Denoiser, measurement, y, standard deviation of its noise) -> the Denoiser and the method to run.
        grid: of times, a name of `benchmarks.methods.GRIDS`.
        products: with the Jacobian of the Denoiser, for each evaluation; at most, where they stop by themselves.
        what: how it is made.
        source: where the settings are from.
    """

    make: Callable[..., Made]
    grid: str
    products: int
    what: str
    source: str


def _guided(posterior: type, method: Method, **settings: Any) -> Callable[..., Made]:
    """A posterior Denoiser, run by a method that knows nothing of y."""

    def make(prior, measurement, y, noise):
        return posterior(prior, measurement, y, noise, **settings), method

    return make


def _stepwise(method: Callable[..., Method]) -> Callable[..., Made]:
    """A method that knows y, run on the prior's Denoiser."""

    def make(prior, measurement, y, noise):
        return prior, method(measurement, y, noise)

    return make


def _replacement(measurement: SpectralMeasurement, y: Any, noise: Any, **settings: Any) -> Method:
    return inverse.Replacement(measurement, y, **settings)


def _repaint(measurement: SpectralMeasurement, y: Any, noise: Any, resamplings: int) -> Method:
    return inverse.RePaint(inverse.Replacement(measurement, y), resamplings)


FAST = sde_lib.DEIS(3, "angle", corrected=True)

SETTINGS: dict[str, Setting] = {
    "mmps": Setting(
        _guided(inverse.MMPS, FAST), "quadratic", 9, "`MMPS`, `DEIS(3, 'angle', corrected=True)`", "set here"
    ),
    "mmps 1 step": Setting(
        _guided(inverse.MMPS, sde_lib.DDIM(1.0), max_steps=1),
        "quadratic",
        2,
        "`MMPS(max_steps=1)`, `DDIM(1)`",
        "Rozet et al. (2024): 1 to 5 steps",
    ),
    "mmps ancestral": Setting(
        _guided(inverse.MMPS, sde_lib.Ancestral()), "quadratic", 9, "`MMPS`, `Ancestral`", "set here"
    ),
    "tmpd": Setting(
        _guided(inverse.TMPD, sde_lib.Ancestral()),
        "uniform",
        2,
        "`TMPD`, `Ancestral`",
        "Boys et al. (2023), 1,000 steps",
    ),
    "tmpd fast": Setting(_guided(inverse.TMPD, FAST), "quadratic", 2, "`TMPD`, `DEIS` as mmps", "set here"),
    "pigdm": Setting(
        _guided(inverse.PiGDM, sde_lib.DDIM(1.0)),
        "uniform",
        1,
        "`PiGDM`, `DDIM(1)`",
        "Song et al. (2023), 20 to 100 steps",
    ),
    "pigdm fast": Setting(
        _guided(inverse.PiGDM, FAST, data_std=0.5), "quadratic", 1, "`PiGDM(data_std=0.5)`, `DEIS` as mmps", "set here"
    ),
    "dps": Setting(
        _guided(inverse.DPS, sde_lib.Ancestral()),
        "uniform",
        1,
        "`DPS(zeta=0.5)`, `Ancestral`",
        "Chung et al. (2023), 1,000 steps",
    ),
    "ddnm": Setting(
        _guided(inverse.DDNM, sde_lib.DDIM(0.85)), "uniform", 0, "`DDNM`, `DDIM(0.85)`", "Wang et al. (2023), 100 steps"
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
        "Zhu et al. (2023), their code for inpainting, 20 steps",
    ),
    "replacement": Setting(
        _stepwise(partial(_replacement, predictor=sde_lib.PredictorCorrector())),
        "uniform",
        0,
        "`Replacement(PredictorCorrector())`",
        "Song et al. (2021), 1,000 steps of predictor and corrector",
    ),
    "repaint": Setting(
        _stepwise(partial(_repaint, resamplings=10)),
        "uniform",
        0,
        "`RePaint(Replacement(), resamplings=10)`",
        "Lugmayr et al. (2022), 250 steps",
    ),
    "daps": Setting(
        _stepwise(inverse.DAPS),
        "karras",
        0,
        "`DAPS(ode_steps=5, langevin_steps=100)`",
        "Zhang et al. (2024), 50 and 200 steps of 5",
    ),
    "daps 1 step": Setting(
        _stepwise(partial(inverse.DAPS, ode_steps=1, data_std=0.5)),
        "karras",
        0,
        "`DAPS(ode_steps=1, langevin_steps=100, data_std=0.5)`",
        "set here",
    ),
}
