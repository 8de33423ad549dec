"""Parameterizations: what a network sees, and what its output means.

Each turns one evaluation of `network(x, noise_level)` into the pair (x0, noise) with alpha x0 + sigma noise = x:

| parameterization     | the output F is                        | noise_level        | published in |
|----------------------|----------------------------------------|--------------------|--------------|
| `NoisePrediction`    | noise                                  | 999 t              | DDPM, score_sde's VP and sub-VP |
| `ScorePrediction`    | sigma times the score                  | log(sigma / alpha) | score_sde's VE (NCSN++), NCSNv2 |
| `DataPrediction`     | x0                                     | 999 t              | |
| `EDMPreconditioning` | (x0 - c_skip x / alpha) / c_out        | log(sigma/alpha)/4 | EDM |

The unit of `noise_level` is what the published networks were trained on, so that their weights keep their meaning.

Sources: Ho et al. (2020), https://arxiv.org/abs/2006.11239; Song et al. (2021), https://arxiv.org/abs/2011.13456,
appendix C; Karras et al. (2022), https://arxiv.org/abs/2206.00364, table 1.
"""

from collections.abc import Callable

import jax.numpy as jnp
from flax import struct
from jax import Array

from sde_lib.sde import SDE, expand

Network = Callable[[Array, Array], Array]


@struct.dataclass
class Parameterization:
    """Turns a network's output into (x0, noise); x (B, *event), t (B,)."""

    def x0_and_noise(self, network: Network, sde: SDE, x: Array, t: Array) -> tuple[Array, Array]:
        """Both views, of the shape of x, from one call of `network(x, noise_level)`."""
        raise NotImplementedError(f"{type(self).__name__} must define x0_and_noise")


def _x0_from_noise(sde: SDE, x: Array, noise: Array, t: Array) -> Array:
    return (x - expand(sde.sigma(t), x) * noise) / expand(sde.alpha(t), x)


def _noise_from_x0(sde: SDE, x: Array, x0: Array, t: Array) -> Array:
    return (x - expand(sde.alpha(t), x) * x0) / expand(sde.sigma(t), x)


@struct.dataclass
class NoisePrediction(Parameterization):
    """The network predicts the noise.

    Attributes:
        time_scale: noise_level = time_scale * t; 999 for networks of DDPM's kind.
    """

    time_scale: float = 999.0

    def x0_and_noise(self, network, sde, x, t):
        """noise = F(x, time_scale t)."""
        noise = network(x, self.time_scale * t)
        return _x0_from_noise(sde, x, noise, t), noise


@struct.dataclass
class ScorePrediction(Parameterization):
    """The network, divided by sigma, is the score: score = F(c_in x, log(sigma / alpha)) / sigma.

    Without the division the output would have to span the scales of 1 / sigma, four decades for VE.

    Attributes:
        sigma_data: the standard deviation of the data: c_in = 1 / sqrt(alpha^2 sigma_data^2 + sigma^2) gives the network
            an input of unit variance at every t. `None` leaves the input as it is, as score_sde's networks expect.
    """

    sigma_data: float | None = None

    def x0_and_noise(self, network, sde, x, t):
        """noise = -F."""
        inputs = x
        if self.sigma_data is not None:
            inputs = x / expand(jnp.sqrt((sde.alpha(t) * self.sigma_data) ** 2 + sde.sigma(t) ** 2), x)
        noise = -network(inputs, -0.5 * sde.log_snr(t))
        return _x0_from_noise(sde, x, noise, t), noise


@struct.dataclass
class DataPrediction(Parameterization):
    """The network predicts the data.

    Attributes:
        time_scale: noise_level = time_scale * t.
    """

    time_scale: float = 999.0

    def x0_and_noise(self, network, sde, x, t):
        """x0 = F(x, time_scale t)."""
        x0 = network(x, self.time_scale * t)
        return x0, _noise_from_x0(sde, x, x0, t)


@struct.dataclass
class EDMPreconditioning(Parameterization):
    """EDM's preconditioning, for any process: input, output and target have unit variance at every noise level.

    On y = x / alpha, whose noise level is s = sigma / alpha:

        x0 = c_skip(s) y + c_out(s) F(c_in(s) y, log(s) / 4)
        c_skip = sigma_data^2 / (s^2 + sigma_data^2),  c_out = s sigma_data / sqrt(s^2 + sigma_data^2),
        c_in = 1 / sqrt(s^2 + sigma_data^2)

    Source: Karras et al. (2022), https://arxiv.org/abs/2206.00364, table 1 and appendix B.6.

    Attributes:
        sigma_data: the standard deviation of the data, in the units of x0.
    """

    sigma_data: float = 0.5

    def x0_and_noise(self, network, sde, x, t):
        """x0 as above; noise from the same output by its own formula, for y - x0 loses its digits at small s."""
        y = sde.to_data_scale(x, t)
        s = expand(sde.noise_to_signal(t), y)
        total = jnp.sqrt(s**2 + self.sigma_data**2)
        output = network(y / total, -0.125 * sde.log_snr(t))
        x0 = (self.sigma_data / total) ** 2 * y + (s * self.sigma_data / total) * output
        noise = (s / total) * (y / total) - (self.sigma_data / total) * output
        return x0, noise
