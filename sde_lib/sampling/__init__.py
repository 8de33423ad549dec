"""Sampling: `sample` and its methods. Every method works on every process and every Denoiser.

Start at `sample.py` (the loop), then `method.py` (what a method is).
"""

from sde_lib.sampling.correctors import Langevin, PredictorCorrector
from sde_lib.sampling.critically_damped import SSCS
from sde_lib.sampling.flows import DDIM, Heun
from sde_lib.sampling.method import Method
from sde_lib.sampling.predictors import Ancestral, EulerMaruyama, ReverseDiffusion
from sde_lib.sampling.sample import sample

__all__ = [
    "DDIM",
    "SSCS",
    "Ancestral",
    "EulerMaruyama",
    "Heun",
    "Langevin",
    "Method",
    "PredictorCorrector",
    "ReverseDiffusion",
    "sample",
]
