"""Samplers in the spectrum of A = U diag(s) V^T, where each singular direction has its own noise level of y.

In the spectrum, U^T y / s is V^T x_0 with noise of standard deviation sigma_y / s; directions with s = 0 are not
measured. Each step weights y in each direction according to its noise, and adds fresh noise so that x_s has the noise
of time s. The samplers run on the prior's Denoiser and require a `SpectralMeasurement` with Gaussian noise.
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
    """Base class of samplers in the spectrum of A.

    Attributes:
        measurement: linear, with known singular values.
        y: (B, *measured), or (1, *measured) for the whole batch.
        measurement_noise: the standard deviation of Gaussian noise, or a `Noise` of one variance.

    Raises:
        ValueError: the measurement has no `singular_values`; in use, the noise has more than one variance.
    """

    measurement: SpectralMeasurement
    y: Array
    measurement_noise: ArrayLike = 0.0

    def __post_init__(self):
        require(type(self).__name__, self.measurement, "singular_values", "spectral")

    def _measured_spectrum(self) -> tuple[Array, Array, Array]:
        """Returns whether s > 0 (*spectrum), U^T y / s (B, *spectrum) and its noise level sigma_y / s (*spectrum)."""
        y = jnp.asarray(self.y)
        values = self.measurement.singular_values().astype(y.dtype)
        std = jnp.sqrt(constant_variance(type(self).__name__, self.measurement_noise, y))
        is_measured = values > 0
        safe = jnp.where(is_measured, values, 1)
        return is_measured, self.measurement.measured_to_spectrum(y) / safe, std / safe


@struct.dataclass
class DDNMPlus(SpectralSampler):
    """DDNM+ for noisy measurements: an ancestral step in which the noise of y replaces part of the fresh noise.

    The step is x_s = a D' + b x_t + std z, with the a, b and std of p(x_s | x_t, x_0). The noise of y enters through D'
    with standard deviation a sigma_y / s. In directions where it is at most std, y replaces D and the variance of the
    fresh noise is reduced accordingly. In all other directions, y has the weight lambda = std s / (a sigma_y) and D the
    rest, and no noise is added. Without noise of y, this is the ancestral step of `DDNM`.

    In directions of the first kind, the distribution of x_s given x_t and x_0 is exact. The prior is used only in the
    other directions and in the null space, there as in `DDNM`. The final denoising step is that of the prior. Each step
    treats the noise of y as independent, although it is shared by all steps, so more of it remains in the samples with
    more steps.

    Cost: one evaluation, one transform to the spectrum and one inverse transform.

    Source: Wang et al. (2023), https://arxiv.org/abs/2212.00490, section 3.3 and appendix I; without time travel, which
    is `RePaint` around this sampler.
    """

    def step(self, carry, keys, x, t, s, denoiser):
        """Steps from t to s; one evaluation."""
        sde, spectral = scalar(denoiser.sde), self.measurement
        scale, variance = sde.transition_coefficients(s, t)
        x0_weight = sde.alpha(s) * variance / sde.sigma(t) ** 2
        x_weight = scale * (sde.sigma(s) / sde.sigma(t)) ** 2
        std = jnp.sqrt(posterior_variance(sde, s, t))
        is_measured, y, y_std = self._measured_spectrum()
        step_y_std = x0_weight * y_std
        y_weight = jnp.where(is_measured, std / jnp.maximum(std, step_y_std), 0)
        x0 = spectral.to_spectrum(denoiser(x, t))
        x0 = x0 + y_weight * (y - x0)
        fresh_noise = sqrt_or_zero(std**2 - (y_weight * step_y_std) ** 2) * standard_normal(keys, x0)
        return carry, x_weight * x + spectral.from_spectrum(x0_weight * x0 + fresh_noise)


@struct.dataclass
class DDRM(SpectralSampler):
    """Denoising diffusion restoration models: a variational posterior with y in place of x_t in measured directions.

    For x / alpha with noise level n, let y_i be the entry of U^T y / s in direction i, and w_i its noise level. x_s is
    drawn with mean and standard deviation

        D + sqrt(1 - eta^2) n_s (x_t - D) / n_t   and   eta n_s                         if direction i is not measured,
        D + sqrt(1 - eta^2) n_s (y_i - D) / w_i   and   eta n_s                         if n_s < w_i,
        (1 - eta_b) D + eta_b y_i                 and   sqrt(n_s^2 - eta_b^2 w_i^2)     if n_s >= w_i,

    so that the total noise level is n_s if D is x_0. The run starts from the prior of the process instead of around y.

    Cost: one evaluation, two transforms to the spectrum and one inverse transform.

    Source: Kawar et al. (2022), https://arxiv.org/abs/2201.11793, eq. 7 and 8; eta = 0.85 and eta_b = 1 there.

    Attributes:
        eta, eta_b: from 0 to 1, see the formulas above.
    """

    eta: float = 0.85
    eta_b: float = 1.0

    def step(self, carry, keys, x, t, s, denoiser):
        """Steps from t to s; one evaluation."""
        sde, spectral = scalar(denoiser.sde), self.measurement
        n_t, n_s = sde.noise_to_signal(t), sde.noise_to_signal(s)
        is_measured, y, y_std = self._measured_spectrum()
        x0 = spectral.to_spectrum(denoiser(x, t))
        x_spectrum = spectral.to_spectrum(sde.to_data_scale(x, t))
        source, source_std = jnp.where(is_measured, y, x_spectrum), jnp.where(is_measured, y_std, n_t)
        kept_std = jnp.sqrt(1 - self.eta**2) * n_s
        y_is_precise = is_measured & (n_s >= y_std)
        safe = jnp.where(y_is_precise, 1, source_std)
        mean = jnp.where(y_is_precise, x0 + self.eta_b * (y - x0), x0 + kept_std * (source - x0) / safe)
        std = jnp.where(y_is_precise, sqrt_or_zero(n_s**2 - (self.eta_b * y_std) ** 2), self.eta * n_s)
        return carry, sde.alpha(s) * spectral.from_spectrum(mean + std * standard_normal(keys, x0))
