"""Denoising score matching: a weighting, a distribution of times, and the squared error of the Denoiser.

    loss(x_0) = w(t) |D(alpha x_0 + sigma noise, t) - x_0|^2 / dimensions,     t ~ p(t), noise ~ N(0, I)

Its minimum over D is the posterior mean, whatever w > 0. Since noise_hat - noise = -(alpha / sigma) (D - x_0) and
score_hat - score = (alpha / sigma^2) (D - x_0), a loss on any of them is a weighting of the error in x_0:

| weighting              | w(t)                                        | equals the plain squared error in |
|------------------------|---------------------------------------------|-----------------------------------|
| `NoiseWeighting`       | alpha^2 / sigma^2                           | noise: DDPM's simple loss; score_sde's default |
| `ScoreWeighting`       | alpha^2 / sigma^4                           | the score                          |
| `LikelihoodWeighting`  | g^2 alpha^2 / sigma^4                       | the score times g: maximum likelihood |
| `DataWeighting`        | 1                                           | x_0                                |
| `EDMWeighting`         | (s^2 + sigma_data^2) / (s sigma_data)^2     | EDM's network output, s = sigma / alpha |

Sources: Vincent (2011) for denoising score matching; Song et al. (2021a), https://arxiv.org/abs/2011.13456, eq. 7;
Song et al. (2021b), https://arxiv.org/abs/2101.09258, for g^2; Karras et al. (2022),
https://arxiv.org/abs/2206.00364, table 1.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from sde_lib.denoiser import Denoiser
from sde_lib.randomness import split, standard_normal
from sde_lib.sde import SDE

Weighting = Callable[[SDE, Array], Array]
TimeDistribution = Callable[[Array, SDE], Array]


@struct.dataclass
class NoiseWeighting:
    """alpha^2 / sigma^2: the squared error of the noise."""

    def __call__(self, sde: SDE, t: Array) -> Array:
        """The weight at t, of its shape."""
        return jnp.exp(sde.log_snr(t))


@struct.dataclass
class ScoreWeighting:
    """alpha^2 / sigma^4: the squared error of the score."""

    def __call__(self, sde: SDE, t: Array) -> Array:
        """The weight at t, of its shape."""
        return jnp.exp(sde.log_snr(t)) / sde.sigma(t) ** 2


@struct.dataclass
class LikelihoodWeighting:
    """g^2 alpha^2 / sigma^4: with uniform times, a bound on the negative log-likelihood (up to a constant and a factor)."""

    def __call__(self, sde: SDE, t: Array) -> Array:
        """The weight at t, of its shape."""
        return jnp.exp(sde.log_snr(t)) * sde.squared_diffusion(t) / sde.sigma(t) ** 2


@struct.dataclass
class DataWeighting:
    """1: the squared error of x_0."""

    def __call__(self, sde: SDE, t: Array) -> Array:
        """The weight at t, of its shape."""
        return jnp.ones_like(t)


@struct.dataclass
class EDMWeighting:
    """(s^2 + sigma_data^2) / (s sigma_data)^2, s = sigma / alpha: the squared error of EDM's network output.

    Attributes:
        sigma_data: the standard deviation of the data.
    """

    sigma_data: float = 0.5

    def __call__(self, sde: SDE, t: Array) -> Array:
        """The weight at t, of its shape: 1 / sigma_data^2 + 1 / s^2."""
        return self.sigma_data**-2 + jnp.exp(sde.log_snr(t))


@struct.dataclass
class UniformTime:
    """t uniform on [t_min, t_max]."""

    def __call__(self, keys: Array, sde: SDE) -> Array:
        """One time per key, (B,)."""
        uniform = jax.vmap(jax.random.uniform)(keys)
        return sde.t_min + (sde.t_max - sde.t_min) * uniform


@struct.dataclass
class LogNormalSigma:
    """log(sigma / alpha) ~ N(mean, std^2), the noise level of EDM's training, clipped to the process's times.

    Source: Karras et al. (2022), https://arxiv.org/abs/2206.00364, table 1 (P_mean, P_std).

    Attributes:
        mean, std: of log(sigma / alpha).
    """

    mean: float = -1.2
    std: float = 1.2

    def __call__(self, keys: Array, sde: SDE) -> Array:
        """One time per key, (B,)."""
        log_noise_to_signal = self.mean + self.std * jax.vmap(jax.random.normal)(keys)
        return jnp.clip(sde.time_at_log_snr(-2 * log_noise_to_signal), sde.t_min, sde.t_max)


def denoising_score_matching(
    keys: Array,
    denoiser: Denoiser,
    x0: Array,
    *,
    weighting: Weighting | None = None,
    times: TimeDistribution | None = None,
    train: bool = False,
) -> Array:
    """The loss of each example, (B,): weighted squared error of the Denoiser at one random time and noise.

    Args:
        keys: (B,), one per example; example i depends on `keys[i]` alone.
        denoiser: the Denoiser to judge.
        x0: clean data, (B, *event).
        weighting: w(sde, t); None is `NoiseWeighting()`.
        times: the distribution of t; None is `UniformTime()`.
        train: run the Denoiser as in training (dropout on).
    """
    weighting = NoiseWeighting() if weighting is None else weighting
    times = UniformTime() if times is None else times
    key_time, key_noise, key_network = split(keys, 3)
    t = times(key_time, denoiser.sde)
    noise = standard_normal(key_noise, denoiser.sde.clean_state(x0))
    x_t = denoiser.sde.perturb(x0, noise, t)
    model = denoiser.training(key_network) if train else denoiser
    error = model(x_t, t) - x0
    return weighting(denoiser.sde, t) * jnp.square(error).mean(tuple(range(1, x0.ndim)))
