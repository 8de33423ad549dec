"""The mathematics of score-based models on arrays: processes, Denoisers, losses, time grids and sampling methods.

    import jax
    from sde_lib import VPSDE, Heun, exact, karras_times, sample

    sde = VPSDE(t_min=1e-3)
    denoiser = exact.GaussianMixture(sde, means=jax.numpy.array([[-2.0], [2.0]]))
    x = sample(jax.random.split(jax.random.key(0), 1000), denoiser, Heun(), karras_times(sde, 18), (1,))

Read `sde.py` first, then `denoiser.py`, `losses.py`, `times.py` and `sampling/`; for likelihoods `flow.py`,
`likelihood.py`, `dequantization.py` and `variational_bound.py`.
"""

from sde_lib import exact
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
from sde_lib.losses import (
    DataWeighting,
    EDMWeighting,
    LikelihoodWeighting,
    LogNormalSigma,
    NoiseWeighting,
    ScoreWeighting,
    UniformTime,
    denoising_score_matching,
)
from sde_lib.parameterization import (
    DataPrediction,
    EDMPreconditioning,
    NoisePrediction,
    Parameterization,
    ScorePrediction,
)
from sde_lib.sampling import (
    DDIM,
    Ancestral,
    EulerMaruyama,
    Heun,
    Langevin,
    Method,
    PredictorCorrector,
    ReverseDiffusion,
    sample,
)
from sde_lib.sde import SDE, VESDE, VPSDE, SubVPSDE
from sde_lib.times import karras_times, log_snr_times, uniform_times
from sde_lib.variational_bound import Elbo, elbo

__all__ = [
    "DDIM",
    "SDE",
    "VESDE",
    "VPSDE",
    "Ancestral",
    "DataPrediction",
    "DataWeighting",
    "Denoiser",
    "Dequantizer",
    "EDMPreconditioning",
    "EDMWeighting",
    "Elbo",
    "EulerMaruyama",
    "ExactDivergence",
    "FlowSolution",
    "FunctionDenoiser",
    "Heun",
    "Hutchinson",
    "Langevin",
    "LikelihoodWeighting",
    "LogLikelihood",
    "LogNormalSigma",
    "LogitNormalDequantizer",
    "Method",
    "ModelDequantizer",
    "NetworkDenoiser",
    "NoisePrediction",
    "NoiseWeighting",
    "Parameterization",
    "PredictorCorrector",
    "Quantization",
    "ReverseDiffusion",
    "ScorePrediction",
    "ScoreWeighting",
    "Status",
    "SubVPSDE",
    "TruncatedNormalDequantizer",
    "UniformDequantizer",
    "UniformTime",
    "bits_per_dim",
    "decode",
    "denoising_score_matching",
    "dequantize",
    "elbo",
    "encode",
    "exact",
    "interpolate",
    "karras_times",
    "log_likelihood",
    "log_snr_times",
    "sample",
    "uniform_times",
]
