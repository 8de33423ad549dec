"""Stochastic predictors: discretizations of the reverse-time SDE.

    dx = [f(t) x - g(t)^2 score(x, t)] dt + g(t) dw,   from t_max down to t_min

With the forward kernel p(x_t | x_s) = N(a x_s, v I), a step from t to s is

| sampler            | x_s                                                            |
|--------------------|----------------------------------------------------------------|
| `EulerMaruyama`    | x - (t - s) [f x - g^2 score] + g sqrt(t - s) z                |
| `ReverseDiffusion` | (2 - a) x + v score + sqrt(v) z                                |
| `Ancestral`        | a sample from p(x_s | x_t, x_0 = D(x_t, t))                    |

`ReverseDiffusion` reverses the forward step x_t = a x_s + sqrt(v) z as in Song et al., with a and v of the exact
kernel. For the discrete chains (a, v) is (sqrt(1 - beta), beta) for DDPM and (1, sigma_t^2 - sigma_s^2) for SMLD.

Sources: Song et al. (2021), https://arxiv.org/abs/2011.13456, appendices D to F; Ho et al. (2020),
https://arxiv.org/abs/2006.11239, eq. 7.
"""

import jax.numpy as jnp
from flax import struct
from jax import Array

from sde_lib.randomness import standard_normal
from sde_lib.sampling.sampler import Sampler
from sde_lib.sde import SDE, scalar


@struct.dataclass
class EulerMaruyama(Sampler):
    """The Euler-Maruyama step of the reverse-time SDE, for any process."""

    def step(self, carry, keys, x, t, s, denoiser):
        """From t to s; one evaluation."""
        sde, dt = denoiser.sde, t - s
        drift = sde.drift(x, t) - sde.apply_squared_diffusion(denoiser.score(x, t), t)
        return carry, x - dt * drift + jnp.sqrt(dt) * sde.apply_diffusion(standard_normal(keys, x), t)


@struct.dataclass
class ReverseDiffusion(Sampler):
    """The reversed discretization of the forward process (Song et al., 2021, appendix E)."""

    def step(self, carry, keys, x, t, s, denoiser):
        """From t to s; one evaluation."""
        scale, variance = scalar(denoiser.sde).transition_coefficients(s, t)
        mean = (2 - scale) * x + variance * denoiser.score(x, t)
        return carry, mean + jnp.sqrt(variance) * standard_normal(keys, x)


def posterior_variance(sde: SDE, s: Array, t: Array) -> Array:
    """Returns the variance of p(x_s | x_t, x_0), v sigma_s^2 / sigma_t^2, for s < t; independent of x_t and x_0."""
    return -(sde.sigma(s) ** 2) * jnp.expm1(sde.log_snr(t) - sde.log_snr(s))


@struct.dataclass
class Ancestral(Sampler):
    """Ancestral sampling as in DDPM: a sample from p(x_s | x_t, x_0 = D(x_t, t)). Equals `DDIM` with eta = 1."""

    def step(self, carry, keys, x, t, s, denoiser):
        """From t to s; one evaluation."""
        sde = scalar(denoiser.sde)
        scale, variance = sde.transition_coefficients(s, t)
        ratio = (sde.sigma(s) / sde.sigma(t)) ** 2
        x0 = denoiser(x, t)
        mean = scale * ratio * x + sde.alpha(s) * variance / sde.sigma(t) ** 2 * x0
        return carry, mean + jnp.sqrt(posterior_variance(sde, s, t)) * standard_normal(keys, x)


# Names used in configs.
SAMPLERS = {"euler_maruyama": EulerMaruyama, "reverse_diffusion": ReverseDiffusion, "ancestral": Ancestral}
