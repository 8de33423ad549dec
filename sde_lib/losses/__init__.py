"""Losses for Denoisers, scores and noise-conditional classifiers.

`denoising.py` has denoising score matching, the loss of nearly all published models: the squared error of x_0,
multiplied by a weighting (`weightings.py`), at times sampled from a time distribution (`time_distributions.py`). A
published loss corresponds to a process, a weighting and a time distribution:

| published loss              | process        | weighting                        | times |
|-----------------------------|----------------|----------------------------------|-------|
| SMLD, NCSN                  | VE             | `NoiseWeighting`                 | `GeometricSigma(K)` |
| DDPM "simple"               | VP             | `NoiseWeighting`                 | `DiscreteTime(1000)` |
| iDDPM "simple"              | cosine VP      | `NoiseWeighting`                 | `DiscreteTime(4000)` |
| score_sde, continuous       | VE, VP, sub-VP | `NoiseWeighting`                 | `UniformTime` |
| score_sde, likelihood       | VP, sub-VP     | `LikelihoodWeighting`            | `UniformTime` |
| score_flow                  | VP, sub-VP     | `LikelihoodWeighting`            | `UniformLogSNR`, `importance=True` |
| VDM, continuous             | VP             | `LikelihoodWeighting`            | `LowDiscrepancyTimes` of `UniformTime` |
| progressive distillation    | cosine VP      | `VWeighting`                     | `UniformTime` |
| EDM                         | alpha = 1      | `EDMWeighting`                   | `LogNormalSigma(-1.2, 1.2)` |
| EDM2                        | alpha = 1      | `EDMWeighting` and a learned u   | `LogNormalSigma(-0.4, 1.0)` |
| min-SNR-gamma               | VP             | `MinSNRWeighting(5)`             | `DiscreteTime(1000)` |
| HDiT                        | alpha = 1      | `SoftMinSNRWeighting(4)`         | its own |
| VDM++, simpler diffusion    | cosine VP      | `PerLogSNR(SigmoidWeighting(b))` | `UniformTime` |
| rectified flow              | rectified flow | `VelocityWeighting`              | `UniformTime` |
| SD3                         | rectified flow | `VelocityWeighting`              | `LogitNormalTime(0, 1)` |

For progressive distillation the row is its "SNR + 1" weighting. The learned u of EDM2 is
`log_variance=LearnedLogVariance.init()`. Discrete grids on a continuous process have the noise levels of DDPM's tables
to O(1/N).

Squared errors are averaged over the dimensions of an event, so that the loss is independent of the image size. Losses
of papers that sum the squares are larger by the factor `dimensions`; losses with half the sum (score_sde without
`reduce_mean`, VDM, score_flow) by `dimensions / 2`. The factor changes neither the minimum nor, with Adam, the
training.

`uncertainty.py` balances the noise levels by a learned u(t). `implicit.py` has losses for scores of processes with
unknown kernel, `classification.py` the loss of noise-conditional classifiers, for guidance.
"""

from sde_lib.losses.classification import noisy_classification
from sde_lib.losses.denoising import denoising_score_matching
from sde_lib.losses.implicit import implicit_score_matching, rademacher, sliced_score_matching
from sde_lib.losses.time_distributions import (
    DiscreteTime,
    GeometricSigma,
    LogitNormalTime,
    LogNormalSigma,
    LowDiscrepancyTimes,
    TimeDistribution,
    UniformLogSNR,
    UniformTime,
)
from sde_lib.losses.uncertainty import LearnedLogVariance, LogVariance
from sde_lib.losses.weightings import (
    DataWeighting,
    EDMWeighting,
    LikelihoodWeighting,
    MinSNRWeighting,
    NoiseWeighting,
    PerLogSNR,
    ScoreWeighting,
    SigmoidWeighting,
    SoftMinSNRWeighting,
    VelocityWeighting,
    VWeighting,
    Weighting,
)

__all__ = [
    "DataWeighting",
    "DiscreteTime",
    "EDMWeighting",
    "GeometricSigma",
    "LearnedLogVariance",
    "LikelihoodWeighting",
    "LogNormalSigma",
    "LogVariance",
    "LogitNormalTime",
    "LowDiscrepancyTimes",
    "MinSNRWeighting",
    "NoiseWeighting",
    "PerLogSNR",
    "ScoreWeighting",
    "SigmoidWeighting",
    "SoftMinSNRWeighting",
    "TimeDistribution",
    "UniformLogSNR",
    "UniformTime",
    "VWeighting",
    "VelocityWeighting",
    "Weighting",
    "denoising_score_matching",
    "implicit_score_matching",
    "noisy_classification",
    "rademacher",
    "sliced_score_matching",
]
