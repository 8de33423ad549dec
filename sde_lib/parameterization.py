"""Parameterizations: inputs and prediction targets of a network.

A parameterization converts one evaluation of `network(x, noise_level)` to the pair (x0, noise) with
alpha x0 + sigma noise = x, and (x0, noise) to the output of a perfect network, its target:

| parameterization     | the output F is                  | noise_level        | published in |
|----------------------|----------------------------------|--------------------|--------------|
| `NoisePrediction`    | noise                            | 999 t              | DDPM, score_sde's VP and sub-VP |
| `ScorePrediction`    | sigma times the score: -noise    | log(sigma / alpha) | score_sde's VE (NCSN++), NCSNv2 |
| `DataPrediction`     | x0                               | 999 t              | |
| `VPrediction`        | v = (alpha noise - sigma x0) / r | 999 t              | progressive distillation |
| `VelocityPrediction` | dx/dt = alpha' x0 + sigma' noise | 1000 t             | rectified flow, SD3 |
| `EDMPreconditioning` | (x0 - c_skip x / alpha) / c_out  | log(sigma/alpha)/4 | EDM |

with r = sqrt(alpha^2 + sigma^2), which is 1 for a variance-preserving process. Every F is linear in (x0, noise), so the
output of one parameterization can be converted to the output of another at equal x and t (`convert`):

    target.output(sde, *source.x0_and_noise(network, sde, x, t), t)

Conversions amplify errors: x0 = (x - sigma noise) / alpha multiplies the error of predicted noise by sigma / alpha, and
noise = (x - alpha x0) / sigma multiplies the error of predicted data by alpha / sigma. v and EDM's output are
components of a rotation of (x0, noise), with x0 in units of sigma_data for EDM, so both x0 and noise are accurate to
rounding at every t. Each implementation below uses the formula with the least amplification.

The units of `noise_level` are those of the published networks, so that published weights can be loaded.

Sources: Ho et al. (2020), https://arxiv.org/abs/2006.11239; Song et al. (2021), https://arxiv.org/abs/2011.13456, appendix
H and its code (https://github.com/yang-song/score_sde, models/utils.py) for the units; Salimans and Ho (2022),
https://arxiv.org/abs/2202.00512, section 4 and appendix D; Liu et al. (2023), https://arxiv.org/abs/2209.03003, eq. 1;
Lipman et al. (2023), https://arxiv.org/abs/2210.02747, eq. 15; Karras et al. (2022),
https://arxiv.org/abs/2206.00364, table 1.
"""

from collections.abc import Callable

import jax.numpy as jnp
from flax import struct
from jax import Array

from sde_lib.sde import Process, expand, scalar, time_derivative
from sde_lib.struct import Struct

Network = Callable[[Array, Array], Array]


@struct.dataclass
class Parameterization(Struct):
    """Conversion between the output of a network and (x0, noise); x (B, *event), t (B,)."""

    def x0_and_noise(self, network: Network, sde: Process, x: Array, t: Array) -> tuple[Array, Array]:
        """Returns x0 and noise, of the shape of x, from one call of `network(x, noise_level)`."""
        raise NotImplementedError(f"{type(self).__name__} must define x0_and_noise")

    def inputs(self, sde: Process, x: Array, t: Array) -> tuple[Array, Array]:
        """Returns the inputs (x, noise_level) of a network of this parameterization at (x, t)."""
        inputs = []

        def network(x, noise_level):
            inputs.append((x, noise_level))
            return jnp.zeros_like(x)

        self.x0_and_noise(network, sde, x, t)
        return inputs[0]

    def output(self, sde: Process, x0: Array, noise: Array, t: Array) -> Array:
        """Returns the target F of the network at x = alpha x0 + sigma noise, of the shape of x0."""
        raise NotImplementedError(f"{type(self).__name__} must define output")


def convert(
    output: Array, source: Parameterization, target: Parameterization, sde: Process, x: Array, t: Array
) -> Array:
    """Converts the output of a network from the parameterization `source` to `target`.

    Args:
        output: the output of the source network at (x, t), of the shape of x.
        source, target: the parameterizations.
        sde: the forward process.
        x: the noisy data, (B, *event).
        t: the times of x, (B,).

    Returns:
        The equivalent output of a network of the parameterization `target`, of the shape of x.
    """
    x0, noise = source.x0_and_noise(lambda inputs, noise_level: output, sde, x, t)
    return target.output(sde, x0, noise, t)


def _x0_from_noise(sde: Process, x: Array, noise: Array, t: Array) -> Array:
    sde = scalar(sde)
    return (x - expand(sde.sigma(t), x) * noise) / expand(sde.alpha(t), x)


def _noise_from_x0(sde: Process, x: Array, x0: Array, t: Array) -> Array:
    sde = scalar(sde)
    return (x - expand(sde.alpha(t), x) * x0) / expand(sde.sigma(t), x)


@struct.dataclass
class _TimeConditioned(Parameterization):
    """Base class for networks with the input noise_level = time_scale * t + time_offset.

    Attributes:
        time_scale: 999 for networks trained on continuous t in [0, 1], as in score_sde.
        time_offset: -1, with a scale of 1000, for the networks of DDPM, trained on the indices i = 0 to 999: the step i
            of `DiscreteVP` is at time (i + 1) / 1000.
    """

    time_scale: float = 999.0
    time_offset: float = 0.0

    def _noise_level(self, t):
        return self.time_scale * t + self.time_offset


@struct.dataclass
class NoisePrediction(_TimeConditioned):
    """Noise prediction (epsilon prediction), with the input noise_level = time_scale * t + time_offset."""

    def x0_and_noise(self, network, sde, x, t):
        """noise = F(x, time_scale t + time_offset)."""
        noise = network(x, self._noise_level(t))
        return _x0_from_noise(sde, x, noise, t), noise

    def output(self, sde, x0, noise, t):
        """The noise."""
        return noise


@struct.dataclass
class ScorePrediction(Parameterization):
    """Score prediction, scaled by sigma: score = F(c_in x, log(sigma_scale sigma / alpha)) / sigma.

    Without the factor the output would have to span the scales of 1 / sigma, four orders of magnitude for VE.

    Attributes:
        sigma_data: the standard deviation of the data: c_in = 1 / sqrt(alpha^2 sigma_data^2 + sigma^2) gives the
            network an input of unit variance at every t. `None` passes x unscaled (c_in = 1), as the networks of
            score_sde expect.
        sigma_scale: conversion factor of sigma from the units of the data to those of the network: 0.5 for a network
            that was trained on data in [0, 1], such as the VE networks of score_sde, and runs on data in [-1, 1].
        levels: number of noise levels, evenly spaced in t, for a network whose input is the index of the level,
            (levels - 1) (1 - t / t_max), 0 at the highest noise, as in score_sde's DDPM network for VE. 0 selects the
            logarithm of the noise level as input.
    """

    sigma_data: float | None = None
    sigma_scale: float = 1.0
    levels: int = struct.field(pytree_node=False, default=0)

    def x0_and_noise(self, network, sde, x, t):
        """noise = -F."""
        sde, inputs = scalar(sde), x
        if self.sigma_data is not None:
            inputs = x / expand(jnp.sqrt((sde.alpha(t) * self.sigma_data) ** 2 + sde.sigma(t) ** 2), x)
        if self.levels:
            noise_level = (self.levels - 1) * (1 - t / sde.t_max)
        else:
            noise_level = jnp.log(self.sigma_scale) - 0.5 * sde.log_snr(t)
        noise = -network(inputs, noise_level)
        return _x0_from_noise(sde, x, noise, t), noise

    def output(self, sde, x0, noise, t):
        """sigma times the score of p(x_t | x0)."""
        return -noise


@struct.dataclass
class DataPrediction(_TimeConditioned):
    """Data prediction (x0 prediction), with the input noise_level = time_scale * t + time_offset."""

    def x0_and_noise(self, network, sde, x, t):
        """x0 = F(x, time_scale t + time_offset)."""
        x0 = network(x, self._noise_level(t))
        return x0, _noise_from_x0(sde, x, x0, t)

    def output(self, sde, x0, noise, t):
        """The data."""
        return x0


@struct.dataclass
class VPrediction(_TimeConditioned):
    """v-prediction: (x / r, v) is a rotation of (x0, noise) by the angle arctan(sigma / alpha).

    With r = sqrt(alpha^2 + sigma^2), cos = alpha / r and sin = sigma / r,

        x / r = cos x0 + sin noise            x0    = cos x / r - sin v
        v     = cos noise - sin x0            noise = sin x / r + cos v

    For a variance-preserving process r = 1 and v = alpha noise - sigma x0, as defined by Salimans and Ho. For other
    processes (VE, sub-VP, rectified flow) the division by r keeps input and output at the scale of x0 and noise at
    every t, whereas alpha noise - sigma x0 would grow with sigma. v is minus the output of
    `EDMPreconditioning(sigma_data=1)`.

    The input noise level is time_scale * t + time_offset.

    Source: Salimans and Ho (2022), https://arxiv.org/abs/2202.00512, appendix D.
    """

    @staticmethod
    def _rotation(sde, x, t):
        sde = scalar(sde)
        alpha, sigma = expand(sde.alpha(t), x), expand(sde.sigma(t), x)
        r = jnp.hypot(alpha, sigma)
        return alpha / r, sigma / r, r

    def x0_and_noise(self, network, sde, x, t):
        """The inverse rotation of (x / r, F(x / r, time_scale t + time_offset))."""
        cos, sin, r = self._rotation(sde, x, t)
        inputs = x / r
        v = network(inputs, self._noise_level(t))
        return cos * inputs - sin * v, sin * inputs + cos * v

    def output(self, sde, x0, noise, t):
        """v."""
        cos, sin, _ = self._rotation(sde, x0, t)
        return cos * noise - sin * x0


@struct.dataclass
class VelocityPrediction(Parameterization):
    """Velocity prediction, as in flow matching: u = dx/dt = alpha' x0 + sigma' noise of the probability flow.

    For rectified flow (alpha = 1 - t, sigma = t) u = noise - x0. From x and u,

        x0 = (sigma' x - sigma u) / w,    noise = (alpha u - alpha' x) / w,    w = alpha sigma' - alpha' sigma > 0.

    The output has the scale of alpha' and sigma', which grows as 1 / sqrt(t) near t = 0 for VP and as sigma for VE. The
    parameterization is intended for rectified flow, where this scale is constant.

    Sources: Liu et al. (2023), https://arxiv.org/abs/2209.03003, eq. 1; Lipman et al. (2023),
    https://arxiv.org/abs/2210.02747, eq. 15; Esser et al. (2024), https://arxiv.org/abs/2403.03206, for SD3.

    Attributes:
        time_scale: noise_level = time_scale * t; 1000 for SD3's networks.
        data_last: True for networks whose time runs from noise at 0 to data at 1, as those of Liu et al. and Lipman et
            al.: the input is time_scale * (1 - t) and the output -dx/dt, which is x0 - noise for rectified flow.
    """

    time_scale: float = 1000.0
    data_last: bool = struct.field(pytree_node=False, default=False)

    @staticmethod
    def _rates(sde, x, t):
        sde = scalar(sde)
        return expand(time_derivative(sde.alpha, t), x), expand(time_derivative(sde.sigma, t), x)

    def x0_and_noise(self, network, sde, x, t):
        """The two equations for x and u, solved for x0 and noise."""
        u = -network(x, self.time_scale * (1 - t)) if self.data_last else network(x, self.time_scale * t)
        sde = scalar(sde)
        alpha, sigma = expand(sde.alpha(t), x), expand(sde.sigma(t), x)
        d_alpha, d_sigma = self._rates(sde, x, t)
        w = alpha * d_sigma - d_alpha * sigma
        return (d_sigma * x - sigma * u) / w, (alpha * u - d_alpha * x) / w

    def output(self, sde, x0, noise, t):
        """The velocity; minus the velocity with `data_last`."""
        d_alpha, d_sigma = self._rates(sde, x0, t)
        u = d_alpha * x0 + d_sigma * noise
        return -u if self.data_last else u


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

    def _coefficients(self, sde, y, t):
        """sigma_data / r, s / r and r = sqrt(s^2 + sigma_data^2), the standard deviation of y; s = sigma / alpha."""
        s = expand(sde.noise_to_signal(t), y)
        r = jnp.hypot(s, self.sigma_data)
        return self.sigma_data / r, s / r, r

    def x0_and_noise(self, network, sde, x, t):
        """x0 as above; noise = (s y - sigma_data F r) / r^2, r^2 = s^2 + sigma_data^2, as y - x0 cancels at small s."""
        y = sde.to_data_scale(x, t)
        cos, sin, r = self._coefficients(sde, y, t)
        inputs = y / r
        output = network(inputs, -0.125 * sde.log_snr(t))
        return self.sigma_data * (cos * inputs + sin * output), sin * inputs - cos * output

    def output(self, sde, x0, noise, t):
        """(x0 - c_skip y) / c_out, with y = x0 + s noise inserted to avoid cancellation."""
        cos, sin, _ = self._coefficients(sde, x0, t)
        return sin * x0 / self.sigma_data - cos * noise
