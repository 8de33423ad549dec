"""Guidance: functions from Denoisers to a Denoiser, for every sampler.

    guided = Guided(conditional, unconditional, scale=2.0)
    x = sample(keys, guided, Heun(), karras_times(sde, 18), event_shape)

A guided Denoiser changes E[x_0 | x_t], and with it score, noise and velocity. With the density p of the state at time t
and a log-likelihood ell:

| Denoiser             | score                                                             | file               |
|----------------------|-------------------------------------------------------------------|--------------------|
| `Guided`             | grad [log p_weak + scale (log p - log p_weak)]                    | classifier_free.py |
| `ClassifierFree`     | as `Guided`, for one network with and without its condition       | classifier_free.py |
| `Interval`           | of one Denoiser in an interval of noise levels, else of another   | classifier_free.py |
| `ClassifierGuidance` | grad [log p + scale ell(x_t)]                                     | likelihood.py      |
| `EnergyGuidance`     | grad [log p + scale ell(D(x_t))]                                  | likelihood.py      |
| `Composition`        | grad [log p + sum_k w_k (log p_k - log p)]                        | composition.py     |
| `product`            | grad [sum_k w_k log p_k]                                          | composition.py     |
| `Mixture`            | grad log [sum_k w_k p_k]                                          | composition.py     |
| `Temperature`        | grad [log p / T] at low noise; exact for Gaussian data            | composition.py     |
| `Thresholding`       | of no density: clips the expected data                            | thresholding.py    |

Except for `Mixture`, and `ClassifierGuidance` at scale 1, the guided score is not the score of any diffused
distribution, so the result depends on the sampler. Langevin steps (`PredictorCorrector`) sample from the guided density
at each t (Du et al., 2023, https://arxiv.org/abs/2302.11552). Scale 0 gives exactly the unguided (or weak) Denoiser; in
`Guided`, scale 1 gives exactly the strong Denoiser.

Guidance can be nested: `Interval(Guided(Thresholding(a), b, 3.0), a, 0.2, 2.0)`. Numbers, weights and labels are
leaves, so one compilation serves all scales. Scales are () or (B,), one per example.
"""

from sde_lib.guidance.classifier_free import ClassifierFree, Guided, Interval
from sde_lib.guidance.composition import Composition, Flat, Mixture, Temperature, product
from sde_lib.guidance.likelihood import ClassifierGuidance, EnergyGuidance, NetworkClassifier
from sde_lib.guidance.thresholding import Thresholding

__all__ = [
    "ClassifierFree",
    "ClassifierGuidance",
    "Composition",
    "EnergyGuidance",
    "Flat",
    "Guided",
    "Interval",
    "Mixture",
    "NetworkClassifier",
    "Temperature",
    "Thresholding",
    "product",
]
