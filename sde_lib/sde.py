"""Forward processes, which turn data x_0 into noise x_t: any process, and those with scalar coefficients.

An `SDE` is dx = f(t) x dt + g(t) dw, with marginals p(x_t | x_0) = N(alpha(t) x_0, sigma(t)^2 I). It is fully specified by
`alpha` and `sigma`; drift, diffusion and kernels are derived:

    f(t)   = d log alpha / dt
    g(t)^2 = d sigma^2 / dt - 2 f sigma^2 = -sigma^2 d log_snr / dt,      log_snr = log(alpha^2 / sigma^2)

so a new process is a class with two methods, and it cannot disagree with its own drift:

    class Bridge(SDE):
        def alpha(self, t): return jnp.cos(0.5 * jnp.pi * t)
        def sigma(self, t): return jnp.sin(0.5 * jnp.pi * t)

`alpha` and `sigma` must act element by element, with alpha > 0, sigma > 0 and log_snr falling over [t_min, t_max].
t_min is the smallest time at which a score is evaluated; time 0 stands for the data. The processes of the literature are
in `processes.py`.

A `Process` is what the rest of the library needs of either kind: y = `to_data_scale(x, t)` is a sufficient statistic of the
state x for x_0, equal to x_0 plus independent noise of standard deviation `noise_to_signal(t)`; scores, noise and
velocities of the state follow from x_0 (the section "views" below). A process whose state is not the data with scalar noise
derives from `Process` and defines these methods; `critically_damped.py` is one, with a velocity for each number of the data.
A function that needs alpha and sigma takes an `SDE`, or `scalar(process)`.

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
class Process(Struct):
    """A forward process of any state: the methods on which Denoisers, losses, time grids and samplers rely.

    Times have shape () or (B,), data (B, *event), states (B, *state) with state = state_shape(event). A method that takes t
    alone returns t's shape.

    A new one defines `log_snr`, `drift`, `apply_diffusion`, `apply_squared_diffusion`, `marginal`, `perturb`, `diffuse`,
    `prior_sample`, `prior_log_prob` and the views, of which those with a default are for states of the data's shape.

    Attributes:
        t_min: the smallest time of training, sampling and likelihood (there the noise is not 0).
        t_max: the time of the prior.
        has_scalar_noise: whether x_t = alpha(t) x_0 + sigma(t) noise with scalar coefficients: the process is an `SDE`.
        has_velocity: whether the state holds a velocity for each number of the data, as `CriticallyDampedLangevin`.
    """

    t_min: float = 1e-5
    t_max: float = 1.0

    has_scalar_noise: ClassVar[bool] = False
    has_velocity: ClassVar[bool] = False

    def log_snr(self, t: ArrayLike) -> Array:
        """-2 log noise_to_signal(t), natural logarithm; falls with t."""
        raise self._undefined("log_snr(t)")

    def noise_to_signal(self, t: ArrayLike) -> Array:
        """The standard deviation of the noise of y = `to_data_scale(x, t)`."""
        return jnp.exp(-0.5 * self.log_snr(t))

    def scales(self, t: ArrayLike) -> dict[str, Array]:
        """The scalar coefficients by name, of t's shape, that must be finite on [t_min, t_max]; empty without scalars."""
        return {}

    def drift(self, x: Array, t: ArrayLike) -> Array:
        """The drift at x, of the shape of x."""
        raise self._undefined("drift(x, t)")

    def apply_diffusion(self, noise: Array, t: ArrayLike) -> Array:
        """G(t) noise, of the shape of the noise (that of the state): what dw = noise adds to the state."""
        raise self._undefined("apply_diffusion(noise, t)")

    def apply_squared_diffusion(self, score: Array, t: ArrayLike) -> Array:
        """G(t) G(t)^T score, of the shape of the score: the reverse-time SDE's pull towards the data."""
        raise self._undefined("apply_squared_diffusion(score, t)")

    def marginal(self, x0: Array, t: ArrayLike) -> tuple[Array, Any]:
        """Mean (B, *state) of p(x_t | x_0), linear in x0, and its spread: a standard deviation or a factor."""
        raise self._undefined("marginal(x0, t)")

    def perturb(self, x0: Array, noise: Array, t: ArrayLike) -> Array:
        """x_t (B, *state) made of data and of standard normal noise of the state's shape."""
        raise self._undefined("perturb(x0, noise, t)")

    def diffuse(self, x_s: Array, noise: Array, s: ArrayLike, t: ArrayLike) -> Array:
        """A draw from p(x_t | x_s), for s < t, made of standard normal noise of the shape of x_s."""
        raise self._undefined("diffuse(x_s, noise, s, t)")

    def prior_sample(self, key: Array, shape: tuple[int, ...]) -> Array:
        """A state drawn from the prior, the law at t_max, for data of the given shape."""
        raise self._undefined("prior_sample(key, shape)")

    def prior_log_prob(self, x: Array) -> Array:
        """Log-density (B,), in nats, of states x (B, *state) under the prior."""
        raise self._undefined("prior_log_prob(x)")

    def time_at_log_snr(self, log_snr: ArrayLike) -> Array:
        """The time at which the log-SNR has the given value, clipped to [t_min, t_max]; of the shape of `log_snr`.

        Found by bisection to the last bit, for any process; its derivatives, by the log-SNR asked for and by the process's
        own numbers, are those of the implicit function. Processes with a closed form override it (and need not clip).
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
        found = jax.lax.custom_root(lambda t: self.log_snr(t) - log_snr, jnp.zeros_like(log_snr), bisect, divide)
        found = jnp.where(log_snr >= self.log_snr(first), first, found)
        return jnp.where(log_snr <= self.log_snr(last), last, found)

    # Views: what the state says of the data. x (B, *state), x0 (B, *event), t () or (B,).

    def state_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one state whose data has the given shape: the data's by default."""
        return tuple(event_shape)

    def clean_state(self, x0: Array) -> Array:
        """The state (B, *state) that stands for the data x0 (B, *event) at time 0: x0 itself by default."""
        return x0

    def clean_data(self, x: Array) -> Array:
        """The data (B, *event) that the state x (B, *state) stands for at time 0: the inverse of `clean_state`."""
        return x

    def to_data_scale(self, x: Array, t: ArrayLike) -> Array:
        """y (B, *event): x_0 plus noise of standard deviation `noise_to_signal(t)`, a sufficient statistic for x_0."""
        raise self._undefined("to_data_scale(x, t)")

    def log_prob_beyond_data_scale(self, x: Array, t: ArrayLike) -> Array:
        """log p_t(x) - log p(y) in nats, (B,), with y = `to_data_scale(x, t)`; independent of the law of the data."""
        raise self._undefined("log_prob_beyond_data_scale(x, t)")

    def noise_from_x0(self, x: Array, x0: Array, t: ArrayLike) -> Array:
        """The noise of the state's shape with which `perturb(x0, noise, t)` gives x."""
        raise self._undefined("noise_from_x0(x, x0, t)")

    def noise_from_data_scale(self, x: Array, noise: Array, t: ArrayLike) -> Array:
        """The state's noise, from the noise (y - x0) / noise_to_signal of `to_data_scale(x, t)`."""
        raise self._undefined("noise_from_data_scale(x, noise, t)")

    def score_from_noise(self, noise: Array, t: ArrayLike) -> Array:
        """The score of p(x_t | x_0), of the shape of x, or of p(x_t) if the noise is its expectation."""
        raise self._undefined("score_from_noise(noise, t)")

    def velocity_from_x0_and_noise(self, x: Array, x0: Array, noise: Array, t: ArrayLike) -> Array:
        """dx/dt of the probability flow at x, drift - G G^T score / 2, where x0 and noise are expected."""
        return self.drift(x, t) - 0.5 * self.apply_squared_diffusion(self.score_from_noise(noise, t), t)

    def _undefined(self, method: str) -> NotImplementedError:
        """The error of a class without a method that every process must define."""
        return NotImplementedError(f"{type(self).__name__} must define {method}")


@struct.dataclass(kw_only=True)
class SDE(Process):
    """A linear diffusion process specified by `alpha(t)` and `sigma(t)`; see the module's text for the derived quantities.

    States have the data's shape.
    """

    has_scalar_noise: ClassVar[bool] = True

    def alpha(self, t: ArrayLike) -> Array:
        """The factor of x_0 in the mean of x_t."""
        raise self._undefined("alpha(t)")

    def sigma(self, t: ArrayLike) -> Array:
        """The standard deviation of x_t given x_0."""
        raise self._undefined("sigma(t)")

    def log_alpha(self, t: ArrayLike) -> Array:
        """log alpha(t); override it where alpha is the exponential of something."""
        return jnp.log(self.alpha(t))

    def log_snr(self, t: ArrayLike) -> Array:
        """log(alpha^2 / sigma^2), natural logarithm."""
        return 2 * (self.log_alpha(t) - jnp.log(self.sigma(t)))

    def noise_to_signal(self, t: ArrayLike) -> Array:
        """sigma / alpha: the noise level of x_t / alpha, which is EDM's sigma."""
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
        """g(t) noise, of the shape of the noise (that of the state): what dw = noise adds to the state."""
        return expand(self.diffusion(t), noise) * noise

    def apply_squared_diffusion(self, score: Array, t: ArrayLike) -> Array:
        """g(t)^2 score, of the shape of the score: the reverse-time SDE's pull towards the data."""
        return expand(self.squared_diffusion(t), score) * score

    def marginal(self, x0: Array, t: ArrayLike) -> tuple[Array, Array]:
        """Mean (of the shape of x0) and standard deviation (of t's) of p(x_t | x_0)."""
        return expand(self.alpha(t), x0) * x0, self.sigma(t)

    def perturb(self, x0: Array, noise: Array, t: ArrayLike) -> Array:
        """x_t = alpha(t) x_0 + sigma(t) noise."""
        mean, std = self.marginal(x0, t)
        return mean + expand(std, x0) * noise

    def transition_coefficients(self, s: ArrayLike, t: ArrayLike) -> tuple[Array, Array]:
        """(a, v) of p(x_t | x_s) = N(a x_s, v I) for s < t.

        v = sigma_t^2 - a^2 sigma_s^2 is computed as -sigma_t^2 expm1(log_snr_t - log_snr_s), which needs the difference in
        log-SNR alone and is never negative.
        """
        scale = jnp.exp(self.log_alpha(t) - self.log_alpha(s))
        variance = -(self.sigma(t) ** 2) * jnp.expm1(self.log_snr(t) - self.log_snr(s))
        return scale, variance

    def transition(self, x_s: Array, s: ArrayLike, t: ArrayLike) -> tuple[Array, Array]:
        """Mean (of the shape of x_s) and standard deviation (of t's) of the kernel p(x_t | x_s), for s < t."""
        scale, variance = self.transition_coefficients(s, t)
        return expand(scale, x_s) * x_s, jnp.sqrt(variance)

    def diffuse(self, x_s: Array, noise: Array, s: ArrayLike, t: ArrayLike) -> Array:
        """A draw from p(x_t | x_s), for s < t, made of standard normal noise of the shape of x_s."""
        mean, std = self.transition(x_s, s, t)
        return mean + expand(std, x_s) * noise

    def prior_sample(self, key: Array, shape: tuple[int, ...]) -> Array:
        """A draw from N(0, sigma(t_max)^2 I), what is left of data of the given shape at t_max."""
        return self.sigma(self.t_max) * jax.random.normal(key, shape)

    def prior_log_prob(self, x: Array) -> Array:
        """Log-density (B,), in nats, of x (B, *event) under the prior."""
        axes = tuple(range(1, x.ndim))
        return jax.scipy.stats.norm.logpdf(x, scale=self.sigma(self.t_max)).sum(axes)

    # Views: x (B, *event), x0 (B, *event), t () or (B,).

    def to_data_scale(self, x: Array, t: ArrayLike) -> Array:
        """y = x / alpha, (B, *event): x_0 plus noise of standard deviation `noise_to_signal(t)`; x tells no more of x_0."""
        return x / expand(self.alpha(t), x)

    def log_prob_beyond_data_scale(self, x: Array, t: ArrayLike) -> Array:
        """log p_t(x) - log p(y) in nats, (B,), with y as above; the same for any data. Here the Jacobian of x = alpha y."""
        return -x[0].size * self.log_alpha(jnp.broadcast_to(t, x.shape[:1]))

    def noise_from_x0(self, x: Array, x0: Array, t: ArrayLike) -> Array:
        """The noise of the state's shape with which `perturb(x0, noise, t)` gives x."""
        return (x - expand(self.alpha(t), x) * x0) / expand(self.sigma(t), x)

    def noise_from_data_scale(self, x: Array, noise: Array, t: ArrayLike) -> Array:
        """The noise itself: that of y is that of x."""
        return noise

    def score_from_noise(self, noise: Array, t: ArrayLike) -> Array:
        """-noise / sigma, of the shape of x: the score of p(x_t | x_0), or of p(x_t) if the noise is its expectation."""
        return -noise / expand(self.sigma(t), noise)

    def velocity_from_x0_and_noise(self, x: Array, x0: Array, noise: Array, t: ArrayLike) -> Array:
        """alpha' x0 + sigma' noise: dx/dt of the probability flow at x, where x0 and noise are expected."""
        d_alpha, d_sigma = time_derivative(self.alpha, t), time_derivative(self.sigma, t)
        return expand(d_alpha, x) * x0 + expand(d_sigma, x) * noise


def scalar(process: Process) -> SDE:
    """The process as an `SDE`, for a computation that needs its alpha and sigma.

    Raises:
        ValueError: the process has no scalar coefficients; the message names samplers and weightings for any process.
    """
    if process.has_scalar_noise:
        return cast(SDE, process)
    lacks = f"{type(process).__name__} has no scalar alpha(t) and sigma(t)"
    samplers = "EulerMaruyama, ProbabilityFlow or an adaptive ODE solver"
    if process.has_velocity:
        raise ValueError(
            f"{lacks}, for its state has a velocity too: sample it with SSCS, {samplers}, and train it with "
            "HybridNoiseWeighting"
        )
    raise ValueError(f"{lacks}: sample it with {samplers}")
