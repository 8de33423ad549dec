"""The mathematics of score-based models on arrays: processes, Denoisers, losses, time grids and sampling methods.

    import jax
    from sde_lib import VPSDE, Heun, exact, karras_times, sample

    sde = VPSDE(t_min=1e-3)
    denoiser = exact.GaussianMixture(sde, means=jax.numpy.array([[-2.0], [2.0]]))
    x = sample(jax.random.split(jax.random.key(0), 1000), denoiser, Heun(), karras_times(sde, 18), (1,))

Read `sde.py` first, then `processes.py`, `denoiser.py`, `losses/`, `times.py` and `sampling/`; for likelihoods `flow.py`,
`likelihood.py`, `dequantization.py` and `variational_bound.py`.
"""

from sde_lib import exact
from sde_lib.critically_damped import CriticallyDampedLangevin, HybridNoiseWeighting, HybridWeighting
from sde_lib.denoiser import Denoiser, FunctionDenoiser, NetworkDenoiser
from sde_lib.dequantization import (
    Dequantizer,
    LogitNormalDequantizer,
    ModelDequantizer,
    Quantization,
    TruncatedNormalDequantizer,
    UniformDequantizer,
    bits_per_dim,
    dequantize,
)
from sde_lib.divergence import ExactDivergence, Hutchinson
from sde_lib.flow import FlowSolution, Status, decode, encode, interpolate
from sde_lib.likelihood import LogLikelihood, log_likelihood
from sde_lib.linear import LinearSDE
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
from sde_lib.processes import EDMSDE, VESDE, VPSDE, CosineVPSDE, DiscreteVP, RectifiedFlow, SubVPSDE
from sde_lib.reverse import ReverseSDE, reverse
from sde_lib.sampling import (
    DDIM,
    DEIS,
    SSCS,
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
from sde_lib.sde import SDE
from sde_lib.times import karras_times, log_snr_times, quadratic_times, uniform_times
from sde_lib.variational_bound import Elbo, elbo

__all__ = [
    "DDIM",
    "DEIS",
    "EDMSDE",
    "SDE",
    "SSCS",
    "VESDE",
    "VPSDE",
    "Ancestral",
    "AnnealedLangevin",
    "CosineVPSDE",
    "CriticallyDampedLangevin",
    "DPMSolver",
    "DataPrediction",
    "DataWeighting",
    "Denoiser",
    "Dequantizer",
    "DiscreteTime",
    "DiscreteVP",
    "EDMPreconditioning",
    "EDMWeighting",
    "Elbo",
    "EulerMaruyama",
    "ExactDivergence",
    "FlowSolution",
    "FunctionDenoiser",
    "GeometricSigma",
    "Heun",
    "Hutchinson",
    "HybridNoiseWeighting",
    "HybridWeighting",
    "Langevin",
    "LearnedLogVariance",
    "LikelihoodWeighting",
    "LinearSDE",
    "LogLikelihood",
    "LogNormalSigma",
    "LogitNormalDequantizer",
    "LogitNormalTime",
    "LowDiscrepancyTimes",
    "Method",
    "MinSNRWeighting",
    "ModelDequantizer",
    "NetworkDenoiser",
    "NoisePrediction",
    "NoiseWeighting",
    "Parameterization",
    "PerLogSNR",
    "PredictorCorrector",
    "ProbabilityFlow",
    "Quantization",
    "RectifiedFlow",
    "ReverseDiffusion",
    "ReverseSDE",
    "ScorePrediction",
    "ScoreWeighting",
    "SigmoidWeighting",
    "SinglestepDPMSolver",
    "SoftMinSNRWeighting",
    "Status",
    "SubVPSDE",
    "TimeDistribution",
    "TruncatedNormalDequantizer",
    "UniPC",
    "UniformDequantizer",
    "UniformLogSNR",
    "UniformTime",
    "VPrediction",
    "VWeighting",
    "VelocityPrediction",
    "VelocityWeighting",
    "bits_per_dim",
    "decode",
    "denoising_score_matching",
    "dequantize",
    "elbo",
    "encode",
    "exact",
    "implicit_score_matching",
    "interpolate",
    "karras_times",
    "log_likelihood",
    "log_snr_times",
    "optimal_times",
    "quadratic_times",
    "reverse",
    "sample",
    "sliced_score_matching",
    "uniform_times",
]
