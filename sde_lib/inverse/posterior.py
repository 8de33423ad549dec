"""Posterior Denoisers E[x_0 | x_t = x, y], from the prior's Denoiser and a measurement y = A(x_0) + noise.

Let u = `to_data_scale(x, t)` = x_0 + n * standard normal noise, n = sigma / alpha (`sde.py`, "views"), a sufficient
statistic of x for x_0. By Tweedie's formula, for the scores of the prior and of the posterior,

    E[x_0 | x, y] = D(x, t) + n^2 grad_u log p(y | x),      Cov[x_0 | x] = n^2 dD/du,

so methods differ only in their approximation of p(y | x). `Posterior` implements the common part: D and the noise from
one evaluation, the product with n^2 dD/du, and the change of the noise that corresponds to a correction of x_0.

A shift of the data by d shifts the state x by `sde.marginal(d, t)[0]` and u by d. Derivatives with respect to u are
computed through this shift, for any process.

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
    """Raises ValueError, naming the class `owner` and the required kind `what`, if the measurement lacks `method`."""
    if not hasattr(measurement, method):
        raise ValueError(f"{owner} needs a {what} measurement: {type(measurement).__name__} has no `{method}`")


def variance(noise: Noise | ArrayLike, clean: Array) -> Array:
    """Returns the variance of a `Noise`, or of a standard deviation; broadcasts against `clean` (B, *measured)."""
    if hasattr(noise, "variance"):
        return cast(Noise, noise).variance(clean)
    return jnp.square(jnp.asarray(cast(ArrayLike, noise), clean.dtype))


def constant_variance(owner: str, noise: Noise | ArrayLike, clean: Array) -> Array:
    """Returns the variance () of all values of y.

    Raises:
        ValueError: the variance is not a scalar, that is, it can differ between values.
    """
    value = jnp.asarray(variance(noise, clean))
    if value.ndim:
        raise ValueError(f"{owner} needs noise of one variance for all values, not variances of shape {value.shape}")
    return value


def require_noise(owner: str, noise: Noise | ArrayLike) -> None:
    """Checks that the noise is not 0. Traced values are not checked.

    Raises:
        ValueError: a standard deviation is 0, or a `Noise` has variance 0 at A(x_0) = -1, 0 and 1.
    """
    with jax.ensure_compile_time_eval():
        are_positive = [(variance(noise, jnp.asarray(clean)) > 0).all() for clean in (-1.0, 0.0, 1.0)]
        if not any(isinstance(is_positive, jax.core.Tracer) or is_positive for is_positive in are_positive):
            raise ValueError(f"{owner} needs measurement noise of more than 0")


def log_likelihood(noise: Noise | ArrayLike, y: Array, clean: Array) -> Array:
    """Returns log p(y | A(x_0) = clean), (B,), in nats, for a `Noise` or the standard deviation of Gaussian noise."""
    if hasattr(noise, "log_prob"):
        return cast(Noise, noise).log_prob(jnp.broadcast_to(y, clean.shape), clean)
    return jax.scipy.stats.norm.logpdf(y, clean, cast(ArrayLike, noise)).sum(tuple(range(1, clean.ndim)))


@struct.dataclass
class Posterior(DerivedDenoiser):
    """A Denoiser conditioned on a measurement y. Subclasses define `correct`.

    Attributes:
        denoiser: the prior's Denoiser, whose process is also the process of this Denoiser.
        measurement: A.
        y: the measurement, (B, *measured), or (1, *measured) for the whole batch.
        measurement_noise: noise of y: a `Noise`, or the standard deviation of Gaussian noise.
    """

    measurement: Measurement
    y: Array
    measurement_noise: Noise | ArrayLike = 0.0

    def correct(self, x: Array, t: ArrayLike) -> tuple[Array, Array, Array]:
        """Returns the prior's x_0 (B, *event) and noise (shape of x), and the correction of x_0 by y (B, *event)."""
        raise NotImplementedError(f"{type(self).__name__} must define correct(x, t)")

    def x0_and_noise(self, x: Array, t: ArrayLike) -> tuple[Array, Array]:
        """Returns E[x_0 | x, y] (B, *event) and the corresponding noise (shape of x).

        The noise is the prior's noise shifted by the correction of x_0, not a difference of x and x_0, which would lose
        digits.
        """
        x0, noise, correction = self.correct(x, t)
        return shifted(self.sde, x, x0, noise, correction, t)

    def training(self, keys: Array) -> "Posterior":
        """Returns this Denoiser with the dropout of the prior's Denoiser enabled."""
        return self.replace(denoiser=self.denoiser.training(keys))

    def linearize(self, x: Array, t: ArrayLike) -> tuple[Array, Array, Callable[[Array], Array]]:
        """Returns the prior's x_0 and noise at x, and the map v -> n^2 (dD/du)^T v, (B, *event), by reverse mode.

        For the exact Denoiser the matrix is Cov[x_0 | x], which is symmetric; for a network it is approximately
        symmetric. A product costs about one evaluation of the network.
        """

        def prior(shift):
            return self.denoiser.x0_and_noise(with_data_shifted(self.sde, x, shift, t), t)

        x0, pull, noise = jax.vjp(prior, jnp.zeros_like(self.sde.clean_data(x)), has_aux=True)
        scale = expand(self.sde.noise_to_signal(t), x0) ** 2
        return x0, noise, lambda v: scale * pull(v)[0]
