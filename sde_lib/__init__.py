"""The mathematics of score-based models on arrays: processes, Denoisers, losses, time grids and sampling methods.

    import jax
    from sde_lib import VPSDE, Heun, exact, karras_times, sample

    sde = VPSDE(t_min=1e-3)
    denoiser = exact.GaussianMixture(sde, means=jax.numpy.array([[-2.0], [2.0]]))
    x = sample(jax.random.split(jax.random.key(0), 1000), denoiser, Heun(), karras_times(sde, 18), (1,))

Read `sde.py` first, then `denoiser.py`, `losses/`, `times.py` and `sampling/`.
"""

from sde_lib import exact
from sde_lib.denoiser import Denoiser, FunctionDenoiser, NetworkDenoiser
from sde_lib.losses import (
    DataWeighting,
    DiscreteTime,
    EDMWeighting,
    GeometricSigma,
    LearnedLogVariance,
    LikelihoodWeighting,
    LogitNormalTime,
    LogNormalSigma,
    LowDiscrepancyTimes,
    MinSNRWeighting,
    NoiseWeighting,
    PerLogSNR,
    ScoreWeighting,
    SigmoidWeighting,
    SoftMinSNRWeighting,
    TimeDistribution,
    UniformLogSNR,
    UniformTime,
    VelocityWeighting,
    VWeighting,
    denoising_score_matching,
    implicit_score_matching,
    sliced_score_matching,
)
from sde_lib.parameterization import (
    DataPrediction,
    EDMPreconditioning,
    NoisePrediction,
    Parameterization,
    ScorePrediction,
    VelocityPrediction,
    VPrediction,
)
from sde_lib.sampling import (
    DDIM,
    DEIS,
    Ancestral,
    AnnealedLangevin,
    DPMSolver,
    EulerMaruyama,
    Heun,
    Langevin,
    Method,
    PredictorCorrector,
    ProbabilityFlow,
    ReverseDiffusion,
    SinglestepDPMSolver,
    UniPC,
    optimal_times,
    sample,
)
from sde_lib.sde import SDE, VESDE, VPSDE, SubVPSDE
from sde_lib.times import karras_times, log_snr_times, quadratic_times, uniform_times

__all__ = [
    "DDIM",
    "DEIS",
    "SDE",
    "VESDE",
    "VPSDE",
    "Ancestral",
    "AnnealedLangevin",
    "DPMSolver",
    "DataPrediction",
    "DataWeighting",
    "Denoiser",
    "DiscreteTime",
    "EDMPreconditioning",
    "EDMWeighting",
    "EulerMaruyama",
    "FunctionDenoiser",
    "GeometricSigma",
    "Heun",
    "Langevin",
    "LearnedLogVariance",
    "LikelihoodWeighting",
    "LogNormalSigma",
    "LogitNormalTime",
    "LowDiscrepancyTimes",
    "Method",
    "MinSNRWeighting",
    "NetworkDenoiser",
    "NoisePrediction",
    "NoiseWeighting",
    "Parameterization",
    "PerLogSNR",
    "PredictorCorrector",
    "ProbabilityFlow",
    "ReverseDiffusion",
    "ScorePrediction",
    "ScoreWeighting",
    "SigmoidWeighting",
    "SinglestepDPMSolver",
    "SoftMinSNRWeighting",
    "SubVPSDE",
    "TimeDistribution",
    "UniPC",
    "UniformLogSNR",
    "UniformTime",
    "VPrediction",
    "VWeighting",
    "VelocityPrediction",
    "VelocityWeighting",
    "denoising_score_matching",
    "exact",
    "implicit_score_matching",
    "karras_times",
    "log_snr_times",
    "optimal_times",
    "quadratic_times",
    "sample",
    "sliced_score_matching",
    "uniform_times",
]
