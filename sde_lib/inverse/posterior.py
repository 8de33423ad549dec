"""Posterior Denoisers: E[x_0 | x_t = x, y], made of the prior's Denoiser and of a measurement y = A(x_0) + noise.

What x tells of x_0 is u = x_0 + n * standard normal noise, n = sigma / alpha (`sde.py`, "views"). By Tweedie's formula,
for the prior's score and for the posterior's,

    E[x_0 | x, y] = D(x, t) + n^2 grad_u log p(y | x),      Cov[x_0 | x] = n^2 dD/du,

so all that methods differ in is what they take p(y | x) to be. `Posterior` holds what they share: D and noise of one
evaluation, the product with n^2 dD/du, and how a correction of x_0 shows in the noise.

u moves by d where x moves by `sde.marginal(d, t)[0]`, the shift of the state that goes with a shift d of the data; so the
derivative by u is taken through it, for any process.

Sources: Efron (2011), https://doi.org/10.1198/jasa.2011.tm11181, for the formulas of mean and covariance; Daras et al.
(2024), https://arxiv.org/abs/2410.00083, for a survey of the methods.
"""

from collections.abc import Callable
from typing import cast

import jax
import jax.core
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from sde_lib.denoiser import DerivedDenoiser, shifted, with_data_shifted
from sde_lib.inverse.measurement import Measurement, Noise
from sde_lib.sde import expand


def require(owner: str, measurement: Measurement, method: str, what: str) -> None:
    """ValueError unless the measurement has the method named, as a measurement of the kind named has."""
    if not hasattr(measurement, method):
        raise ValueError(f"{owner} needs a {what} measurement: {type(measurement).__name__} has no `{method}`")


def variance(noise: Noise | ArrayLike, clean: Array) -> Array:
    """The variance of the noise, that broadcasts against `clean` (B, *measured): of a standard deviation, or the Noise's."""
    if hasattr(noise, "variance"):
        return cast(Noise, noise).variance(clean)
    return jnp.square(jnp.asarray(cast(ArrayLike, noise), clean.dtype))


def constant_variance(owner: str, noise: Noise | ArrayLike, clean: Array) -> Array:
    """The one variance () of all values; ValueError where they have more than one."""
    value = jnp.asarray(variance(noise, clean))
    if value.ndim:
        raise ValueError(f"{owner} needs noise of one variance for all values, not variances of shape {value.shape}")
    return value


def require_noise(owner: str, noise: Noise | ArrayLike) -> None:
    """ValueError if a standard deviation is 0, or a Noise has variance 0 at A(x_0) of -1, 0 and 1; traced values pass."""
    with jax.ensure_compile_time_eval():
        found = [(variance(noise, jnp.asarray(clean)) > 0).all() for clean in (-1.0, 0.0, 1.0)]
        if not any(isinstance(each, jax.core.Tracer) or each for each in found):
            raise ValueError(f"{owner} needs measurement noise of more than 0")


def log_likelihood(noise: Noise | ArrayLike, y: Array, clean: Array) -> Array:
    """log p(y | A(x_0) = clean), (B,), in nats; a standard deviation stands for Gaussian noise."""
    if hasattr(noise, "log_prob"):
        return cast(Noise, noise).log_prob(jnp.broadcast_to(y, clean.shape), clean)
    return jax.scipy.stats.norm.logpdf(y, clean, cast(ArrayLike, noise)).sum(tuple(range(1, clean.ndim)))


@struct.dataclass
class Posterior(DerivedDenoiser):
    """A Denoiser that knows y. A new one defines `correct`.

    Attributes:
        denoiser: the prior's; its process is this Denoiser's too.
        measurement: A.
        y: what was measured, (B, *measured), or (1, *measured) for all of a batch.
        measurement_noise: of y: a `Noise`, or the standard deviation of Gaussian noise.
    """

    measurement: Measurement
    y: Array
    measurement_noise: Noise | ArrayLike = 0.0

    def correct(self, x: Array, t: ArrayLike) -> tuple[Array, Array, Array]:
        """The prior's x_0 (B, *event) and noise (as x) at x, of one evaluation, and what y adds to x_0 (B, *event)."""
        raise NotImplementedError(f"{type(self).__name__} must define correct(x, t)")

    def x0_and_noise(self, x: Array, t: ArrayLike) -> tuple[Array, Array]:
        """Both from one evaluation: the noise moves with x_0, so the prior's digits are kept."""
        x0, noise, correction = self.correct(x, t)
        return shifted(self.sde, x, x0, noise, correction, t)

    def training(self, keys: Array) -> "Posterior":
        """The same with the prior's dropout on."""
        return self.replace(denoiser=self.denoiser.training(keys))

    def linearize(self, x: Array, t: ArrayLike) -> tuple[Array, Array, Callable[[Array], Array]]:
        """The prior's x_0 and noise at x, and the product v -> n^2 (dD/du)^T v, of v (B, *event), by reverse mode.

        For the exact Denoiser the matrix is Cov[x_0 | x], symmetric; a network's is nearly so. A product costs about
        one evaluation of the network.
        """

        def prior(shift):
            return self.denoiser.x0_and_noise(with_data_shifted(self.sde, x, shift, t), t)

        x0, pull, noise = jax.vjp(prior, jnp.zeros_like(self.sde.clean_data(x)), has_aux=True)
        scale = expand(self.sde.noise_to_signal(t), x0) ** 2
        return x0, noise, lambda v: scale * pull(v)[0]
