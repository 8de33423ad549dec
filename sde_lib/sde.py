"""Forward processes: dx = f(t) x dt + g(t) dw, with marginals p(x_t | x_0) = N(alpha(t) x_0, sigma(t)^2 I).

A process is told by `alpha` and `sigma` alone. Everything else follows from them:

    f(t)   = d log alpha / dt
    g(t)^2 = d sigma^2 / dt - 2 f sigma^2 = -sigma^2 d log_snr / dt,      log_snr = log(alpha^2 / sigma^2)

so a new process is a dataclass with two methods, and it cannot disagree with its own drift:

    @struct.dataclass
    class Bridge(SDE):
        def alpha(self, t): return jnp.cos(0.5 * jnp.pi * t)
        def sigma(self, t): return jnp.sin(0.5 * jnp.pi * t)

`alpha` and `sigma` must act element by element, with alpha > 0, sigma > 0 and log_snr falling over [t_min, t_max].
t_min is the smallest time at which a score is asked for; time 0 stands for the data.

Sources: Song et al. (2021), https://arxiv.org/abs/2011.13456, section 3 and appendix B; for g^2 in terms of the
log-SNR, Kingma et al. (2021), https://arxiv.org/abs/2107.00630, appendix A.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike


def expand(t: ArrayLike, x: Array) -> Array:
    """Gives `t`, of shape () or (B,), trailing axes of size 1, so that it broadcasts against `x` (B, *event)."""
    t = jnp.asarray(t)
    return t.reshape(t.shape + (1,) * (x.ndim - t.ndim)) if t.ndim else t


def time_derivative(function: Callable[[ArrayLike], Array], t: ArrayLike) -> Array:
    """The derivative of an element-wise function of time, of the shape of t."""
    t = jnp.asarray(t)
    if not jnp.issubdtype(t.dtype, jnp.inexact):
        t = t.astype(float)
    return jax.jvp(function, (t,), (jnp.ones_like(t),))[1]


@struct.dataclass(kw_only=True)
class SDE:
    """A linear diffusion process told by `alpha(t)` and `sigma(t)`; see the module's text for what follows from them.

    Times have shape () or (B,), states (B, *event); whatever takes only t returns t's shape.

    Attributes:
        t_min: the smallest time of training, sampling and likelihood (there sigma > 0).
        t_max: the time of the prior.
    """

    t_min: float = 1e-5
    t_max: float = 1.0

    def alpha(self, t: ArrayLike) -> Array:
        """The factor of x_0 in the mean of x_t."""
        raise NotImplementedError(f"{type(self).__name__} must define alpha(t)")

    def sigma(self, t: ArrayLike) -> Array:
        """The standard deviation of x_t given x_0."""
        raise NotImplementedError(f"{type(self).__name__} must define sigma(t)")

    def log_alpha(self, t: ArrayLike) -> Array:
        """log alpha(t); override it where alpha is the exponential of something."""
        return jnp.log(self.alpha(t))

    def log_snr(self, t: ArrayLike) -> Array:
        """log(alpha^2 / sigma^2), natural logarithm."""
        return 2 * (self.log_alpha(t) - jnp.log(self.sigma(t)))

    def noise_to_signal(self, t: ArrayLike) -> Array:
        """sigma / alpha: the noise level of x_t / alpha, which is EDM's sigma."""
        return self.sigma(t) / self.alpha(t)

    def drift_rate(self, t: ArrayLike) -> Array:
        """f(t) = d log alpha / dt, per unit of time."""
        return time_derivative(self.log_alpha, t)

    def drift(self, x: Array, t: ArrayLike) -> Array:
        """f(t) x, of the shape of x."""
        return expand(self.drift_rate(t), x) * x

    def squared_diffusion(self, t: ArrayLike) -> Array:
        """g(t)^2 = -sigma^2 d log_snr / dt."""
        return -(self.sigma(t) ** 2) * time_derivative(self.log_snr, t)

    def diffusion(self, t: ArrayLike) -> Array:
        """g(t)."""
        return jnp.sqrt(self.squared_diffusion(t))

    def marginal(self, x0: Array, t: ArrayLike) -> tuple[Array, Array]:
        """Mean (of the shape of x0) and standard deviation (of t's) of p(x_t | x_0)."""
        return expand(self.alpha(t), x0) * x0, self.sigma(t)

    def perturb(self, x0: Array, noise: Array, t: ArrayLike) -> Array:
        """x_t = alpha(t) x_0 + sigma(t) noise."""
        mean, std = self.marginal(x0, t)
        return mean + expand(std, x0) * noise

    def transition_coefficients(self, s: ArrayLike, t: ArrayLike) -> tuple[Array, Array]:
        """(a, v) of p(x_t | x_s) = N(a x_s, v I) for s < t.

        v = sigma_t^2 - a^2 sigma_s^2 is taken as -sigma_t^2 expm1(log_snr_t - log_snr_s): its error is that of the
        difference in log-SNR, relative to its size, where the plain form loses more the smaller sigma is.
        """
        scale = jnp.exp(self.log_alpha(t) - self.log_alpha(s))
        variance = -(self.sigma(t) ** 2) * jnp.expm1(self.log_snr(t) - self.log_snr(s))
        return scale, variance

    def transition(self, x_s: Array, s: ArrayLike, t: ArrayLike) -> tuple[Array, Array]:
        """Mean (of the shape of x_s) and standard deviation (of t's) of the kernel p(x_t | x_s), for s < t."""
        scale, variance = self.transition_coefficients(s, t)
        return expand(scale, x_s) * x_s, jnp.sqrt(variance)

    def prior_sample(self, key: Array, shape: tuple[int, ...]) -> Array:
        """A draw of the given shape from N(0, sigma(t_max)^2 I), what is left of the data at t_max."""
        return self.sigma(self.t_max) * jax.random.normal(key, shape)

    def prior_log_prob(self, x: Array) -> Array:
        """Log-density (B,), in nats, of x (B, *event) under the prior."""
        axes = tuple(range(1, x.ndim))
        return jax.scipy.stats.norm.logpdf(x, scale=self.sigma(self.t_max)).sum(axes)

    def time_at_log_snr(self, log_snr: ArrayLike) -> Array:
        """The time at which the log-SNR has the given value, clipped to [t_min, t_max]; of the shape of `log_snr`.

        Found by bisection to the last bit, for any process. Processes with a closed form override it (and need not clip).
        """
        log_snr = jnp.asarray(log_snr)
        low = jnp.full_like(log_snr, self.t_min)
        high = jnp.full_like(log_snr, self.t_max)

        def halve(_, bounds):
            low, high = bounds
            middle = 0.5 * (low + high)
            too_early = self.log_snr(middle) > log_snr
            return jnp.where(too_early, middle, low), jnp.where(too_early, high, middle)

        steps = jnp.finfo(log_snr.dtype).nmant + 8
        low, high = jax.lax.fori_loop(0, steps, halve, (low, high))
        return 0.5 * (low + high)


@struct.dataclass
class VPSDE(SDE):
    """Variance-preserving SDE: dx = -beta(t)/2 x dt + sqrt(beta(t)) dw, with beta linear in t.

    Source: Song et al. (2021), https://arxiv.org/abs/2011.13456, eq. 11 and appendix B.

    Attributes:
        beta_min, beta_max: beta at t = 0 and t = 1, per unit of time.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def log_alpha(self, t):
        """-1/2 the integral of beta from 0 to t."""
        return -0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min

    def alpha(self, t):
        """exp(log_alpha)."""
        return jnp.exp(self.log_alpha(t))

    def sigma(self, t):
        """sqrt(1 - alpha^2)."""
        return jnp.sqrt(-jnp.expm1(2 * self.log_alpha(t)))

    def time_at_log_snr(self, log_snr):
        """In closed form: log alpha = -softplus(-log_snr) / 2 is quadratic in t."""
        return self._time_at_log_alpha(-0.5 * jax.nn.softplus(-jnp.asarray(log_snr)))

    def _time_at_log_alpha(self, log_alpha):
        slope = self.beta_max - self.beta_min
        # The root of slope/4 t^2 + beta_min/2 t + log_alpha = 0, written without cancellation (beta_max = beta_min too).
        return -4 * log_alpha / (self.beta_min + jnp.sqrt(self.beta_min**2 - 4 * slope * log_alpha))


@struct.dataclass
class SubVPSDE(VPSDE):
    """Sub-VP SDE: the drift of VPSDE with less noise, sigma = 1 - alpha^2.

    Source: Song et al. (2021), https://arxiv.org/abs/2011.13456, eq. 12 and appendix C.
    """

    def sigma(self, t):
        """1 - alpha^2: the square of VPSDE's sigma."""
        return -jnp.expm1(2 * self.log_alpha(t))

    def time_at_log_snr(self, log_snr):
        """In closed form: with u = sigma / alpha = exp(-log_snr / 2), alpha solves 1 - alpha^2 = u alpha."""
        log_snr = jnp.asarray(log_snr)
        # alpha = 2 / (u + sqrt(u^2 + 4)) = exp(-asinh(u / 2)).
        return self._time_at_log_alpha(-jnp.arcsinh(0.5 * jnp.exp(-0.5 * log_snr)))


@struct.dataclass
class VESDE(SDE):
    """Variance-exploding SDE: dx = sqrt(d sigma^2 / dt) dw, with sigma geometric in t; sigma(0) = sigma_min.

    Source: Song et al. (2021), https://arxiv.org/abs/2011.13456, eq. 9 and appendix B.

    Attributes:
        sigma_min, sigma_max: sigma at t = 0 and t = 1, in units of the data. A good sigma_max is the largest
            distance between two points of the data (Song and Ermon, 2020, https://arxiv.org/abs/2006.09011).
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def log_alpha(self, t):
        """0: the data keep their scale."""
        return jnp.zeros_like(t, jnp.result_type(float, t))

    def alpha(self, t):
        """1: the data keep their scale."""
        return jnp.ones_like(t, jnp.result_type(float, t))

    def log_sigma(self, t):
        """log sigma, linear in t."""
        return (1 - t) * jnp.log(self.sigma_min) + t * jnp.log(self.sigma_max)

    def sigma(self, t):
        """sigma_min (sigma_max / sigma_min)^t."""
        return jnp.exp(self.log_sigma(t))

    def log_snr(self, t):
        """-2 log sigma."""
        return -2 * self.log_sigma(t)

    def time_at_log_snr(self, log_snr):
        """In closed form: log sigma is linear in t."""
        log_min = jnp.log(self.sigma_min)
        return (-0.5 * jnp.asarray(log_snr) - log_min) / (jnp.log(self.sigma_max) - log_min)
