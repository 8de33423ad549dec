"""Guidance: maps from Denoisers to a Denoiser, for every sampler.

    guided = Guided(conditional, unconditional, scale=2.0)
    x = sample(keys, guided, Heun(), karras_times(sde, 18), event_shape)

Each changes E[x_0 | x_t], and with it score, noise and velocity. For the densities p_t of the states, which say what is
meant at one t, and with ell for a log-likelihood:

| Denoiser             | score                                                       | in the file        |
|----------------------|-------------------------------------------------------------|--------------------|
| `Guided`             | grad [log p_weak + scale (log p - log p_weak)]              | classifier_free.py |
| `ClassifierFree`     | the same, of one network with and without its condition     | classifier_free.py |
| `Interval`           | one Denoiser's within an interval of noise, another's beyond | classifier_free.py |
| `ClassifierGuidance` | grad [log p + scale ell(x_t)]                               | likelihood.py      |
| `EnergyGuidance`     | grad [log p + scale ell(D(x_t))]                            | likelihood.py      |
| `Composition`        | grad [log p + sum_k w_k (log p_k - log p)]                  | composition.py     |
| `product`            | grad [sum_k w_k log p_k]                                    | composition.py     |
| `Mixture`            | grad log [sum_k w_k p_k]                                    | composition.py     |
| `Temperature`        | grad [log p / T], and for Gaussian data the tempered data's | composition.py     |
| `Thresholding`       | of no density: clips the expected data                      | thresholding.py    |

But for `Mixture`, and `ClassifierGuidance` at scale 1, these scores are those of no one distribution under the process,
so that where samples end depends on the sampler too; Langevin steps (`PredictorCorrector`) draw from the density at each t
(Du et al., 2023, https://arxiv.org/abs/2302.11552). A scale of 0 is the unconditional Denoiser to the last bit, and one of 1
in `Guided` the conditional one.

They nest: `Interval(Guided(Thresholding(a), b, 3.0), a, 0.2, 2.0)`. Numbers, weights and labels are leaves: one
compiled program serves every scale. Scales are () or (B,), one an example.
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
