"""Sampling: the loop `sample` and the samplers, which support every Denoiser.

Read `sample.py`, the sampling loop, and then `sampler.py`, the base class of samplers.
"""

from sde_lib.sampling.adams import Adams
from sde_lib.sampling.adaptive import Adaptive
from sde_lib.sampling.correctors import AnnealedLangevin, Langevin, PredictorCorrector
from sde_lib.sampling.critically_damped import SSCS
from sde_lib.sampling.flows import DDIM, Heun, ProbabilityFlow
from sde_lib.sampling.multistep import DEIS, DPMSolver, UniPC
from sde_lib.sampling.optimal_times import optimal_times
from sde_lib.sampling.predictors import Ancestral, EulerMaruyama, ReverseDiffusion
from sde_lib.sampling.recommended import recommended_sampler, recommended_times
from sde_lib.sampling.sample import sample
from sde_lib.sampling.sampler import Sampler
from sde_lib.sampling.singlestep import SinglestepDPMSolver

__all__ = [
    "DDIM",
    "DEIS",
    "SSCS",
    "Adams",
    "Adaptive",
    "Ancestral",
    "AnnealedLangevin",
    "DPMSolver",
    "EulerMaruyama",
    "Heun",
    "Langevin",
    "PredictorCorrector",
    "ProbabilityFlow",
    "ReverseDiffusion",
    "Sampler",
    "SinglestepDPMSolver",
    "UniPC",
    "optimal_times",
    "recommended_sampler",
    "recommended_times",
    "sample",
]
