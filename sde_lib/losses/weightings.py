"""Weightings: w(sde, t), the factor of the squared error of x_0 in denoising score matching.

Papers state losses as errors of the noise, the score, v, the velocity or the output of a network. At fixed x all these
errors are multiples of the error of x_0, e = D - x_0, so that each loss is a weight of |e|^2. With SNR = alpha^2 /
sigma^2:

| the error of          | is                                        | so that |error|^2 / |e|^2 is           |
|-----------------------|-------------------------------------------|----------------------------------------|
| x_0                   | e                                         | 1                                      |
| noise                 | -(alpha / sigma) e                        | SNR                                    |
| score                 | (alpha / sigma^2) e                       | SNR / sigma^2                          |
| v                     | -(sqrt(alpha^2 + sigma^2) / sigma) e      | 1 + SNR                                |
| velocity dx/dt        | (alpha' - alpha sigma' / sigma) e         | (alpha' - alpha sigma' / sigma)^2      |
| EDM's network output  | e / c_out                                 | 1 / sigma_data^2 + SNR                 |

A published weight of one of these errors, multiplied by the last column, is a weight of the error of x_0:

| weighting             | w(t), of the error of x_0                 | as published                           |
|-----------------------|-------------------------------------------|----------------------------------------|
| `DataWeighting`       | 1                                         | 1, of x_0                              |
| `NoiseWeighting`      | SNR                                       | 1, of the noise (DDPM's simple loss) |
| `ScoreWeighting`      | SNR / sigma^2                             | 1, of the score                        |
| `LikelihoodWeighting` | g^2 SNR / sigma^2 = -SNR'                 | g^2, of the score (maximum likelihood) |
| `VWeighting`          | 1 + SNR                                   | 1, of v ("SNR + 1")                    |
| `VelocityWeighting`   | (alpha' - alpha sigma' / sigma)^2         | 1, of the velocity (flow matching)     |
| `EDMWeighting`        | 1 / sigma_data^2 + SNR                    | 1, of EDM's network output             |
| `MinSNRWeighting`     | min(SNR, gamma)                           | min(1, gamma / SNR), of the noise |
| `SoftMinSNRWeighting` | SNR gamma / (SNR + gamma)                 | gamma / (SNR + gamma), of the noise    |
| `SigmoidWeighting`    | SNR sigmoid(bias - log SNR)               | sigmoid(bias - log SNR), of the noise  |
| `PerLogSNR(w)`        | -(d log SNR / dt) w                       | w, per unit of log-SNR, at uniform times |

Any callable (sde, t) -> weight, of the shape of t, is a weighting too.

Sources: Song et al. (2021a), https://arxiv.org/abs/2011.13456, eq. 7; Song et al. (2021b),
https://arxiv.org/abs/2101.09258, theorem 1, for g^2; Salimans and Ho (2022), https://arxiv.org/abs/2202.00512, section
4; Karras et al. (2022), https://arxiv.org/abs/2206.00364, table 1; Hang et al. (2023),
https://arxiv.org/abs/2303.09556; Crowson et al. (2024), https://arxiv.org/abs/2401.11605; Kingma and Gao (2023),
https://arxiv.org/abs/2303.00848, for the relations between weightings; Hoogeboom et al. (2024),
https://arxiv.org/abs/2410.19324.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from sde_lib.checks import positive
from sde_lib.sde import Process, scalar, time_derivative
from sde_lib.struct import Struct

Weighting = Callable[[Process, Array], Array]


@struct.dataclass
class DataWeighting(Struct):
    """1: the squared error of x_0."""

    def __call__(self, sde: Process, t: Array) -> Array:
        """The weight at t, of its shape."""
        return jnp.ones_like(t)


@struct.dataclass
class NoiseWeighting(Struct):
    """alpha^2 / sigma^2: the squared error of the noise."""

    def __call__(self, sde: Process, t: Array) -> Array:
        """The weight at t, of its shape."""
        return jnp.exp(sde.log_snr(t))


@struct.dataclass
class ScoreWeighting(Struct):
    """alpha^2 / sigma^4: the squared error of the score."""

    def __call__(self, sde: Process, t: Array) -> Array:
        """The weight at t, of its shape."""
        return jnp.exp(sde.log_snr(t)) / scalar(sde).sigma(t) ** 2


@struct.dataclass
class LikelihoodWeighting(Struct):
    """g^2 alpha^2 / sigma^4: with uniform times, a bound on the negative log-likelihood (up to a constant and a factor).

    It equals `PerLogSNR(NoiseWeighting())`, since g^2 / sigma^2 = -d log_snr / dt.

    Source: Song et al. (2021b), https://arxiv.org/abs/2101.09258, theorem 1.
    """

    def __call__(self, sde: Process, t: Array) -> Array:
        """The weight at t, of its shape."""
        sde = scalar(sde)
        return jnp.exp(sde.log_snr(t)) * sde.squared_diffusion(t) / sde.sigma(t) ** 2


@struct.dataclass
class VWeighting(Struct):
    """1 + alpha^2 / sigma^2: the squared error of v as `VPrediction` defines it, for any process.

    Source: Salimans and Ho (2022), https://arxiv.org/abs/2202.00512, section 4 ("SNR + 1 weighting").
    """

    def __call__(self, sde: Process, t: Array) -> Array:
        """The weight at t, of its shape."""
        return 1 + jnp.exp(sde.log_snr(t))


@struct.dataclass
class VelocityWeighting(Struct):
    """(alpha' - alpha sigma' / sigma)^2: the squared error of dx/dt; 1 / t^2 for rectified flow (alpha = 1 - t, sigma = t).

    Sources: Liu et al. (2023), https://arxiv.org/abs/2209.03003, eq. 1; Esser et al. (2024),
    https://arxiv.org/abs/2403.03206.
    """

    def __call__(self, sde: Process, t: Array) -> Array:
        """The weight at t, of its shape."""
        sde = scalar(sde)
        d_alpha, d_sigma = time_derivative(sde.alpha, t), time_derivative(sde.sigma, t)
        return jnp.square(d_alpha - sde.alpha(t) / sde.sigma(t) * d_sigma)


@struct.dataclass
class EDMWeighting(Struct):
    """(s^2 + sigma_data^2) / (s sigma_data)^2, s = sigma / alpha: the squared error of EDM's network output.

    Attributes:
        sigma_data: the standard deviation of the data, more than 0 (ValueError).
    """

    sigma_data: float = 0.5

    def __post_init__(self):
        positive("EDMWeighting", sigma_data=self.sigma_data)

    def __call__(self, sde: Process, t: Array) -> Array:
        """The weight at t, of its shape: 1 / sigma_data^2 + 1 / s^2."""
        return self.sigma_data**-2 + jnp.exp(sde.log_snr(t))


@struct.dataclass
class MinSNRWeighting(Struct):
    """min(SNR, gamma): the squared error of the noise at SNR < gamma, gamma times the squared error of x_0 above.

    Source: Hang et al. (2023), https://arxiv.org/abs/2303.09556.

    Attributes:
        gamma: the largest weight, more than 0 (ValueError).
    """

    gamma: float = 5.0

    def __post_init__(self):
        positive("MinSNRWeighting", gamma=self.gamma)

    def __call__(self, sde: Process, t: Array) -> Array:
        """The weight at t, of its shape."""
        return jnp.minimum(jnp.exp(sde.log_snr(t)), self.gamma)


@struct.dataclass
class SoftMinSNRWeighting(Struct):
    """SNR gamma / (SNR + gamma): a smooth version of `MinSNRWeighting`.

    For gamma = 1 / sigma_data^2 it equals 1 / (s^2 + sigma_data^2), s = sigma / alpha. As a weight of the error of
    EDM's network output this is (s sigma_data)^2 / (s^2 + sigma_data^2)^2.

    Source: Crowson et al. (2024), https://arxiv.org/abs/2401.11605 (HDiT).

    Attributes:
        gamma: the largest weight, more than 0 (ValueError).
    """

    gamma: float = 4.0

    def __post_init__(self):
        positive("SoftMinSNRWeighting", gamma=self.gamma)

    def __call__(self, sde: Process, t: Array) -> Array:
        """The weight at t, of its shape; finite at any SNR."""
        return 1 / (jnp.exp(-sde.log_snr(t)) + 1 / self.gamma)


@struct.dataclass
class SigmoidWeighting(Struct):
    """SNR sigmoid(bias - log SNR) = e^bias sigmoid(log SNR - bias), natural logarithm.

    The papers define the weight per unit of log-SNR: use it with `UniformLogSNR` times, or as
    `PerLogSNR(SigmoidWeighting(bias))` with uniform times. With other time distributions the effective weight per unit
    of log-SNR also contains their density. The function equals `SoftMinSNRWeighting(gamma=e^bias)`.

    Sources: Kingma and Gao (2023), https://arxiv.org/abs/2303.00848 (VDM++); Hoogeboom et al. (2024),
    https://arxiv.org/abs/2410.19324 (simpler diffusion).

    Attributes:
        bias: the log-SNR at which the weight of the squared error of the noise is 1/2.
    """

    bias: float = 2.0

    def __call__(self, sde: Process, t: Array) -> Array:
        """The weight at t, of its shape; finite at any SNR."""
        return jnp.exp(self.bias) * jax.nn.sigmoid(sde.log_snr(t) - self.bias)


@struct.dataclass
class PerLogSNR(Struct):
    """-(d log_snr / dt) w: with uniform times, the loss weighted by w and integrated over log-SNR, for every process.

    Source: Kingma and Gao (2023), https://arxiv.org/abs/2303.00848.

    Attributes:
        weighting: w.
    """

    weighting: Weighting

    def __call__(self, sde: Process, t: Array) -> Array:
        """The weight at t, of its shape."""
        return -time_derivative(sde.log_snr, t) * self.weighting(sde, t)
