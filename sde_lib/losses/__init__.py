"""Losses: how a Denoiser, a score or a noise-conditional classifier is learned.

`denoising.py` is denoising score matching, the loss of nearly every published model: the squared error of x_0 under a
weighting (`weightings.py`, a table of them) at times of a distribution (`time_distributions.py`, another). So a published
loss is a pair, and a process:

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

progressive distillation's is its "SNR + 1" weighting; the learned u of EDM2 is `log_variance=LearnedLogVariance.init()`.
Discrete grids on a continuous process have the noise levels of DDPM's tables to O(1/N).

Here errors are means over the event's dimensions, so that a loss does not depend on the image's size. Papers that sum the
squares differ by the factor `dimensions`, those that take half of the sum (score_sde without `reduce_mean`, VDM, score_flow)
by half of it; the minimum is the same, and Adam does not see the factor.

`uncertainty.py` evens out the noise levels by a learned u(t); `implicit.py` learns scores where no kernel is known.
`classification.py` trains classifiers of noisy data, for guidance.
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
