"""Samplers that treat each singular direction of A = U diag(s) V^T on its own, by the noise that y has there.

In the spectrum, y says of V^T x_0 that it is U^T y / s with noise of standard deviation sigma_y / s; where s = 0 it says
nothing. Each step gives a direction as much of y as its noise allows, and adds the rest of the noise that x_s must have.
They run on the prior's Denoiser and need a `SpectralMeasurement` with Gaussian noise.
"""

import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from sde_lib.inverse.measurement import SpectralMeasurement
from sde_lib.inverse.posterior import constant_variance, require
from sde_lib.numerics import sqrt_or_zero
from sde_lib.randomness import standard_normal
from sde_lib.sampling.predictors import posterior_variance
from sde_lib.sampling.sampler import Sampler
from sde_lib.sde import scalar


@struct.dataclass
class SpectralSampler(Sampler):
    """A sampler in the spectrum of A.

    Attributes:
        measurement: of known singular values.
        y: (B, *measured), or (1, *measured) for all of a batch.
        measurement_noise: the standard deviation of Gaussian noise, or a `Noise` of one variance.
    """

    measurement: SpectralMeasurement
    y: Array
    measurement_noise: ArrayLike = 0.0

    def __post_init__(self):
        require(type(self).__name__, self.measurement, "singular_values", "spectral")

    def _seen(self) -> tuple[Array, Array, Array]:
        """Where y sees (*spectrum), what it sees there of V^T x_0 (B, *spectrum), and with what noise (*spectrum)."""
        y = jnp.asarray(self.y)
        values = self.measurement.singular_values().astype(y.dtype)
        std = jnp.sqrt(constant_variance(type(self).__name__, self.measurement_noise, y))
        sees = values > 0
        safe = jnp.where(sees, values, 1)
        return sees, self.measurement.measured_to_spectrum(y) / safe, std / safe


@struct.dataclass
class DDNMPlus(SpectralSampler):
    """DDNM for measurements with noise: an ancestral step whose noise is in part that of y.

    The step is x_s = a D' + b x_t + std z, with the a, b and std of p(x_s | x_t, x_0). y's noise enters through D' with
    standard deviation a sigma_y / s: where that is less than std, y replaces D and the fresh noise is less by it; where
    not, y counts lambda = std s / (a sigma_y) and no noise is added. Without noise it is the ancestral step of `DDNM`.

    Exact, in the law of x_s given x_t and x_0, for directions of the first kind; the prior is counted in the others and in
    the null space only, and there as in `DDNM`. The denoising step that ends a run is the prior's. Each step counts the
    noise of y as if it were drawn anew, but it is the same in all: so the more steps, the more of it is left in the samples.

    Cost: one evaluation, and one transform to the spectrum and one back.

    Source: Wang et al. (2023), https://arxiv.org/abs/2212.00490, section 3.3 and appendix I; without time travel, which is
    `RePaint` around this sampler.
    """

    def step(self, carry, keys, x, t, s, denoiser):
        """From t to s; one evaluation."""
        sde, spectral = scalar(denoiser.sde), self.measurement
        scale, variance = sde.transition_coefficients(s, t)
        of_x0 = sde.alpha(s) * variance / sde.sigma(t) ** 2
        of_x = scale * (sde.sigma(s) / sde.sigma(t)) ** 2
        std = jnp.sqrt(posterior_variance(sde, s, t))
        sees, y, y_std = self._seen()
        through = of_x0 * y_std
        weight = jnp.where(sees, std / jnp.maximum(std, through), 0)
        x0 = spectral.to_spectrum(denoiser(x, t))
        x0 = x0 + weight * (y - x0)
        fresh = sqrt_or_zero(std**2 - (weight * through) ** 2) * standard_normal(keys, x0)
        return carry, of_x * x + spectral.from_spectrum(of_x0 * x0 + fresh)


@struct.dataclass
class DDRM(SpectralSampler):
    """Denoising diffusion restoration models: a variational posterior whose directions forget x_t where y sees them.

    On x / alpha, of noise n, with y_i what y sees along direction i and w_i its noise there, x_s is drawn around

        D + sqrt(1 - eta^2) n_s (x_t - D) / n_t           where y sees nothing,     with eta n_s of noise,
        D + sqrt(1 - eta^2) n_s (y_i - D) / w_i           where n_s < w_i,          with eta n_s of noise,
        (1 - eta_b) D + eta_b y_i                         where n_s >= w_i,         with sqrt(n_s^2 - eta_b^2 w_i^2),

    each of which has noise n_s in all, if D is x_0. The run starts from the process's prior rather than around y.

    Cost: one evaluation, and two transforms to the spectrum and one back.

    Source: Kawar et al. (2022), https://arxiv.org/abs/2201.11793, eq. 7 and 8; eta = 0.85 and eta_b = 1 there.

    Attributes:
        eta, eta_b: from 0 to 1, as above.
    """

    eta: float = 0.85
    eta_b: float = 1.0

    def step(self, carry, keys, x, t, s, denoiser):
        """From t to s; one evaluation."""
        sde, spectral = scalar(denoiser.sde), self.measurement
        n_t, n_s = sde.noise_to_signal(t), sde.noise_to_signal(s)
        sees, y, y_std = self._seen()
        x0 = spectral.to_spectrum(denoiser(x, t))
        unseen = spectral.to_spectrum(sde.to_data_scale(x, t))
        told, told_std = jnp.where(sees, y, unseen), jnp.where(sees, y_std, n_t)
        left = jnp.sqrt(1 - self.eta**2) * n_s
        rough = sees & (n_s >= y_std)
        safe = jnp.where(rough, 1, told_std)
        mean = jnp.where(rough, x0 + self.eta_b * (y - x0), x0 + left * (told - x0) / safe)
        std = jnp.where(rough, sqrt_or_zero(n_s**2 - (self.eta_b * y_std) ** 2), self.eta * n_s)
        return carry, sde.alpha(s) * spectral.from_spectrum(mean + std * standard_normal(keys, x0))
