"""The mathematics of score-based models on arrays: processes, Denoisers, losses, time grids and sampling methods.

    import jax
    from sde_lib import VPSDE, Heun, exact, karras_times, sample

    sde = VPSDE(t_min=1e-3)
    denoiser = exact.GaussianMixture(sde, means=jax.numpy.array([[-2.0], [2.0]]))
    x = sample(jax.random.split(jax.random.key(0), 1000), denoiser, Heun(), karras_times(sde, 18), (1,))

Read `sde.py` first, then `processes.py`, `denoiser.py`, `losses.py`, `times.py` and `sampling/`.
"""

from sde_lib import exact
from sde_lib.critically_damped import CriticallyDampedLangevin, HybridNoiseWeighting, HybridWeighting
from sde_lib.denoiser import Denoiser, FunctionDenoiser, NetworkDenoiser
from sde_lib.linear import LinearSDE
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
from sde_lib.processes import EDMSDE, VESDE, VPSDE, CosineVPSDE, DiscreteVP, RectifiedFlow, SubVPSDE
from sde_lib.reverse import ReverseSDE, reverse
from sde_lib.sampling import (
    DDIM,
    SSCS,
    Ancestral,
    EulerMaruyama,
    Heun,
    Langevin,
    Method,
    PredictorCorrector,
    ReverseDiffusion,
    sample,
)
from sde_lib.sde import SDE
from sde_lib.times import karras_times, log_snr_times, uniform_times

__all__ = [
    "DDIM",
    "EDMSDE",
    "SDE",
    "SSCS",
    "VESDE",
    "VPSDE",
    "Ancestral",
    "CosineVPSDE",
    "CriticallyDampedLangevin",
    "DataPrediction",
    "DataWeighting",
    "Denoiser",
    "DiscreteVP",
    "EDMPreconditioning",
    "EDMWeighting",
    "EulerMaruyama",
    "FunctionDenoiser",
    "Heun",
    "HybridNoiseWeighting",
    "HybridWeighting",
    "Langevin",
    "LikelihoodWeighting",
    "LinearSDE",
    "LogNormalSigma",
    "Method",
    "NetworkDenoiser",
    "NoisePrediction",
    "NoiseWeighting",
    "Parameterization",
    "PredictorCorrector",
    "RectifiedFlow",
    "ReverseDiffusion",
    "ReverseSDE",
    "ScorePrediction",
    "ScoreWeighting",
    "SubVPSDE",
    "UniformTime",
    "denoising_score_matching",
    "exact",
    "karras_times",
    "log_snr_times",
    "reverse",
    "sample",
    "uniform_times",
]
