"""Forward processes from data x_0 to noise x_t: the general `Process`, and the `SDE` with scalar coefficients.

An `SDE` is dx = f(t) x dt + g(t) dw, with marginals p(x_t | x_0) = N(alpha(t) x_0, sigma(t)^2 I). It is fully specified by
`alpha` and `sigma`; drift, diffusion and kernels are derived:

    f(t)   = d log alpha / dt
    g(t)^2 = d sigma^2 / dt - 2 f sigma^2 = -sigma^2 d log_snr / dt,      log_snr = log(alpha^2 / sigma^2)

so a new process is a class with two methods, and its drift and diffusion are consistent with its marginals:

    class Bridge(SDE):
        def alpha(self, t): return jnp.cos(0.5 * jnp.pi * t)
        def sigma(self, t): return jnp.sin(0.5 * jnp.pi * t)

`alpha` and `sigma` must act element by element, with alpha > 0, sigma > 0 and log_snr decreasing on [t_min, t_max].
t_min is the smallest time at which a score is evaluated; time 0 is the time of the data. Published processes are in
`processes.py`.

`Process` is the interface that the rest of the library uses. y = `to_data_scale(x, t)` is a sufficient statistic of the
state x for x_0, equal to x_0 plus independent noise of standard deviation `noise_to_signal(t)`. Scores, noise and
velocities of the state are computed from x_0 (the section "views" below). A process whose state is not the data with
scalar noise derives from `Process` and defines these methods. An example is `critically_damped.py`, whose state has a
velocity for each data value. Functions that need alpha and sigma require an `SDE`, and call `scalar(process)`.

Sources: Song et al. (2021), https://arxiv.org/abs/2011.13456, section 3 and appendix B; for g^2 in terms of the
log-SNR, Kingma et al. (2021), https://arxiv.org/abs/2107.00630, appendix D.
"""

from collections.abc import Callable
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from sde_lib.struct import Struct


def expand(t: ArrayLike, x: Array) -> Array:
    """Appends axes of size 1 to `t`, of shape () or (B,), so that it broadcasts against `x` (B, *event)."""
    t = jnp.asarray(t)
    return t.reshape(t.shape + (1,) * (x.ndim - t.ndim)) if t.ndim else t


def time_derivative(function: Callable[[ArrayLike], Array], t: ArrayLike) -> Array:
    """Returns the derivative of an element-wise function of time at t, of the shape of t."""
    t = jnp.asarray(t)
    if not jnp.issubdtype(t.dtype, jnp.inexact):
        t = t.astype(float)
    return jax.jvp(function, (t,), (jnp.ones_like(t),))[1]


@struct.dataclass(kw_only=True)
class Process(Struct):
    """A forward process with arbitrary state: the interface used by Denoisers, losses, time grids and samplers.

    Times have shape () or (B,), data (B, *event), states (B, *state) with state = state_shape(event). Methods with t as
    the only argument return arrays of the shape of t.

    A subclass defines `log_snr`, `drift`, `apply_diffusion`, `apply_squared_diffusion`, `marginal`, `perturb`,
    `diffuse`, `prior_sample`, `prior_log_prob` and the views. Defaults of views assume that states have the shape of
    the data.

    Attributes:
        t_min: the smallest time of training, sampling and likelihoods, at which the noise is not 0.
        t_max: the time of the prior.
        has_scalar_noise: True if x_t = alpha(t) x_0 + sigma(t) noise with scalar coefficients: the process is an `SDE`.
        has_velocity: True if the state has a velocity for each data value, as in `CriticallyDampedLangevin`.
    """

    t_min: float = 1e-5
    t_max: float = 1.0

    has_scalar_noise: ClassVar[bool] = False
    has_velocity: ClassVar[bool] = False

    def log_snr(self, t: ArrayLike) -> Array:
        """-2 log noise_to_signal(t), natural logarithm; decreases with t."""
        raise self._undefined("log_snr(t)")

    def noise_to_signal(self, t: ArrayLike) -> Array:
        """The standard deviation of the noise of y = `to_data_scale(x, t)`."""
        return jnp.exp(-0.5 * self.log_snr(t))

    def scales(self, t: ArrayLike) -> dict[str, Array]:
        """Returns the scalar coefficients by name, of t's shape, which must be finite on [t_min, t_max], if any."""
        return {}

    def drift(self, x: Array, t: ArrayLike) -> Array:
        """Returns the drift at x, of the shape of x."""
        raise self._undefined("drift(x, t)")

    def apply_diffusion(self, noise: Array, t: ArrayLike) -> Array:
        """G(t) noise, of the shape of the noise (B, *state): the diffusion term of the forward SDE for dw = noise."""
        raise self._undefined("apply_diffusion(noise, t)")

    def apply_squared_diffusion(self, score: Array, t: ArrayLike) -> Array:
        """G(t) G(t)^T score, of the shape of the score: the score term in the drift of the reverse-time SDE."""
        raise self._undefined("apply_squared_diffusion(score, t)")

    def marginal(self, x0: Array, t: ArrayLike) -> tuple[Array, Any]:
        """Returns the mean (B, *state) of p(x_t | x_0), linear in x0, and its standard deviation or Cholesky factor."""
        raise self._undefined("marginal(x0, t)")

    def perturb(self, x0: Array, noise: Array, t: ArrayLike) -> Array:
        """Returns x_t (B, *state) from data x0 (B, *event) and standard normal noise (B, *state)."""
        raise self._undefined("perturb(x0, noise, t)")

    def diffuse(self, x_s: Array, noise: Array, s: ArrayLike, t: ArrayLike) -> Array:
        """Samples p(x_t | x_s), for s < t, from standard normal noise of the shape of x_s."""
        raise self._undefined("diffuse(x_s, noise, s, t)")

    def prior_sample(self, key: Array, shape: tuple[int, ...]) -> Array:
        """Samples one state from the prior, the distribution at t_max, for data of the given shape."""
        raise self._undefined("prior_sample(key, shape)")

    def prior_log_prob(self, x: Array) -> Array:
        """Returns the log-density (B,), in nats, of states x (B, *state) under the prior."""
        raise self._undefined("prior_log_prob(x)")

    def time_at_log_snr(self, log_snr: ArrayLike) -> Array:
        """Returns the time at the given log-SNR, clipped to [t_min, t_max]; of the shape of `log_snr`.

        The default is bisection to machine precision. Derivatives with respect to `log_snr` and the parameters of the
        process follow from the implicit function theorem. Processes with a closed form override this method and need
        not clip.
        """
        log_snr = jnp.asarray(log_snr)

        def bisect(excess, _):
            def halve(_, bounds):
                low, high = bounds
                middle = 0.5 * (low + high)
                too_early = excess(middle) > 0
                return jnp.where(too_early, middle, low), jnp.where(too_early, high, middle)

            low, high = jnp.full_like(log_snr, self.t_min), jnp.full_like(log_snr, self.t_max)
            low, high = jax.lax.fori_loop(0, jnp.finfo(log_snr.dtype).nmant + 8, halve, (low, high))
            return 0.5 * (low + high)

        def divide(linear, y):
            return y / linear(jnp.ones_like(y))

        first, last = (jnp.asarray(t, log_snr.dtype) for t in (self.t_min, self.t_max))
        root = jax.lax.custom_root(lambda t: self.log_snr(t) - log_snr, jnp.zeros_like(log_snr), bisect, divide)
        root = jnp.where(log_snr >= self.log_snr(first), first, root)
        return jnp.where(log_snr <= self.log_snr(last), last, root)

    # Views: relations between state, data and noise. x (B, *state), x0 (B, *event), t () or (B,).

    def state_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of one state whose data has the given shape; by default the shape of the data."""
        return tuple(event_shape)

    def clean_state(self, x0: Array) -> Array:
        """Returns the state (B, *state) at time 0 for data x0 (B, *event); by default x0."""
        return x0

    def clean_data(self, x: Array) -> Array:
        """Returns the data (B, *event) of a state x (B, *state) at time 0: the inverse of `clean_state`."""
        return x

    def to_data_scale(self, x: Array, t: ArrayLike) -> Array:
        """Returns y (B, *event), x_0 plus noise of std `noise_to_signal(t)`: a sufficient statistic of x for x_0."""
        raise self._undefined("to_data_scale(x, t)")

    def log_prob_beyond_data_scale(self, x: Array, t: ArrayLike) -> Array:
        """log p_t(x) - log p(y) in nats, (B,), with y = `to_data_scale(x, t)`; independent of the data distribution."""
        raise self._undefined("log_prob_beyond_data_scale(x, t)")

    def noise_from_x0(self, x: Array, x0: Array, t: ArrayLike) -> Array:
        """Returns the noise (B, *state) for which `perturb(x0, noise, t)` = x."""
        raise self._undefined("noise_from_x0(x, x0, t)")

    def noise_from_data_scale(self, x: Array, noise: Array, t: ArrayLike) -> Array:
        """Returns the noise of the state (B, *state) from that of y, (y - x0) / noise_to_signal(t), (B, *event)."""
        raise self._undefined("noise_from_data_scale(x, noise, t)")

    def score_from_noise(self, noise: Array, t: ArrayLike) -> Array:
        """Returns the score of p(x_t | x_0), of the shape of x, or of p(x_t) if `noise` is E[noise | x_t = x]."""
        raise self._undefined("score_from_noise(noise, t)")

    def velocity_from_x0_and_noise(self, x: Array, x0: Array, noise: Array, t: ArrayLike) -> Array:
        """dx/dt of the probability flow at x, drift - G G^T score / 2, from the expected x0 and noise."""
        return self.drift(x, t) - 0.5 * self.apply_squared_diffusion(self.score_from_noise(noise, t), t)

    def _undefined(self, method: str) -> NotImplementedError:
        """The error for a subclass that does not define a required method."""
        return NotImplementedError(f"{type(self).__name__} must define {method}")


@struct.dataclass(kw_only=True)
class SDE(Process):
    """A linear diffusion process specified by `alpha(t)` and `sigma(t)`.

    Drift, diffusion and kernels are derived; see the module docstring. States have the shape of the data.
    """

    has_scalar_noise: ClassVar[bool] = True

    def alpha(self, t: ArrayLike) -> Array:
        """The coefficient of x_0 in the mean of x_t, positive."""
        raise self._undefined("alpha(t)")

    def sigma(self, t: ArrayLike) -> Array:
        """The standard deviation of x_t given x_0, positive, in units of the data."""
        raise self._undefined("sigma(t)")

    def log_alpha(self, t: ArrayLike) -> Array:
        """log alpha(t); override if log alpha has a closed form."""
        return jnp.log(self.alpha(t))

    def log_snr(self, t: ArrayLike) -> Array:
        """log(alpha^2 / sigma^2), natural logarithm."""
        return 2 * (self.log_alpha(t) - jnp.log(self.sigma(t)))

    def noise_to_signal(self, t: ArrayLike) -> Array:
        """sigma / alpha: the noise level of x_t / alpha (sigma in EDM)."""
        return self.sigma(t) / self.alpha(t)

    def scales(self, t: ArrayLike) -> dict[str, Array]:
        """alpha and sigma."""
        return {"alpha": self.alpha(t), "sigma": self.sigma(t)}

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

    def apply_diffusion(self, noise: Array, t: ArrayLike) -> Array:
        """g(t) noise, of the shape of the noise: the diffusion term of the forward SDE for dw = noise."""
        return expand(self.diffusion(t), noise) * noise

    def apply_squared_diffusion(self, score: Array, t: ArrayLike) -> Array:
        """g(t)^2 score, of the shape of the score: the score term in the drift of the reverse-time SDE."""
        return expand(self.squared_diffusion(t), score) * score

    def marginal(self, x0: Array, t: ArrayLike) -> tuple[Array, Array]:
        """Returns mean (of the shape of x0) and standard deviation (of t's shape) of p(x_t | x_0)."""
        return expand(self.alpha(t), x0) * x0, self.sigma(t)

    def perturb(self, x0: Array, noise: Array, t: ArrayLike) -> Array:
        """x_t = alpha(t) x_0 + sigma(t) noise."""
        mean, std = self.marginal(x0, t)
        return mean + expand(std, x0) * noise

    def transition_coefficients(self, s: ArrayLike, t: ArrayLike) -> tuple[Array, Array]:
        """Returns (a, v) of p(x_t | x_s) = N(a x_s, v I) for s < t.

        v = sigma_t^2 - a^2 sigma_s^2 is computed as -sigma_t^2 expm1(log_snr_t - log_snr_s), without cancellation and
        never negative.
        """
        scale = jnp.exp(self.log_alpha(t) - self.log_alpha(s))
        variance = -(self.sigma(t) ** 2) * jnp.expm1(self.log_snr(t) - self.log_snr(s))
        return scale, variance

    def transition(self, x_s: Array, s: ArrayLike, t: ArrayLike) -> tuple[Array, Array]:
        """Returns mean (of the shape of x_s) and standard deviation (of t's shape) of p(x_t | x_s), for s < t."""
        scale, variance = self.transition_coefficients(s, t)
        return expand(scale, x_s) * x_s, jnp.sqrt(variance)

    def diffuse(self, x_s: Array, noise: Array, s: ArrayLike, t: ArrayLike) -> Array:
        """Samples p(x_t | x_s), for s < t, from standard normal noise of the shape of x_s."""
        mean, std = self.transition(x_s, s, t)
        return mean + expand(std, x_s) * noise

    def prior_sample(self, key: Array, shape: tuple[int, ...]) -> Array:
        """Samples one state of the given shape from the prior N(0, sigma(t_max)^2 I)."""
        return self.sigma(self.t_max) * jax.random.normal(key, shape)

    def prior_log_prob(self, x: Array) -> Array:
        """Returns the log-density (B,), in nats, of x (B, *event) under the prior."""
        axes = tuple(range(1, x.ndim))
        return jax.scipy.stats.norm.logpdf(x, scale=self.sigma(self.t_max)).sum(axes)

    # Views: x (B, *event), x0 (B, *event), t () or (B,).

    def to_data_scale(self, x: Array, t: ArrayLike) -> Array:
        """y = x / alpha, (B, *event): x_0 plus noise of standard deviation `noise_to_signal(t)`."""
        return x / expand(self.alpha(t), x)

    def log_prob_beyond_data_scale(self, x: Array, t: ArrayLike) -> Array:
        """log p_t(x) - log p(y) in nats, (B,): minus the log-determinant of x = alpha y."""
        return -x[0].size * self.log_alpha(jnp.broadcast_to(t, x.shape[:1]))

    def noise_from_x0(self, x: Array, x0: Array, t: ArrayLike) -> Array:
        """Returns the noise (x - alpha x0) / sigma, of the shape of x, for which `perturb(x0, noise, t)` = x."""
        return (x - expand(self.alpha(t), x) * x0) / expand(self.sigma(t), x)

    def noise_from_data_scale(self, x: Array, noise: Array, t: ArrayLike) -> Array:
        """Returns `noise`: y and x have equal noise."""
        return noise

    def score_from_noise(self, noise: Array, t: ArrayLike) -> Array:
        """-noise / sigma, of the shape of x: the score of p(x_t | x_0), or of p(x_t) if `noise` is its expectation."""
        return -noise / expand(self.sigma(t), noise)

    def velocity_from_x0_and_noise(self, x: Array, x0: Array, noise: Array, t: ArrayLike) -> Array:
        """alpha' x0 + sigma' noise: dx/dt of the probability flow at x, from the expected x0 and noise."""
        d_alpha, d_sigma = time_derivative(self.alpha, t), time_derivative(self.sigma, t)
        return expand(d_alpha, x) * x0 + expand(d_sigma, x) * noise


def scalar(process: Process) -> SDE:
    """Returns the process as an `SDE`, for computations that need alpha and sigma.

    Raises:
        ValueError: the process has no scalar coefficients; the message names samplers and weightings that it supports.
    """
    if process.has_scalar_noise:
        return cast(SDE, process)
    lacks = f"{type(process).__name__} has no scalar alpha(t) and sigma(t)"
    samplers = "EulerMaruyama, ProbabilityFlow or an adaptive ODE solver"
    if process.has_velocity:
        raise ValueError(
            f"{lacks}, because its state has a velocity: sample it with SSCS, {samplers}, and train it with "
            "HybridNoiseWeighting"
        )
    raise ValueError(f"{lacks}: sample it with {samplers}")
