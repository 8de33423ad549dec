"""Forward processes: dx = f(t) x dt + g(t) dw, with marginals p(x_t | x_0) = N(alpha(t) x_0, sigma(t)^2 I).

A process is told by `alpha` and `sigma` alone. Everything else follows from them:

    f(t)   = d log alpha / dt
    g(t)^2 = d sigma^2 / dt - 2 f sigma^2 = -sigma^2 d log_snr / dt,      log_snr = log(alpha^2 / sigma^2)

so a new process is a class with two methods, and it cannot disagree with its own drift:

    class Bridge(SDE):
        def alpha(self, t): return jnp.cos(0.5 * jnp.pi * t)
        def sigma(self, t): return jnp.sin(0.5 * jnp.pi * t)

`alpha` and `sigma` must act element by element, with alpha > 0, sigma > 0 and log_snr falling over [t_min, t_max].
t_min is the smallest time at which a score is asked for; time 0 stands for the data. The processes of the literature are
in `processes.py`.

The rest of the library asks a process for little: that its state x says of the data what y = `to_data_scale(x, t)` does,
which is x_0 with independent noise of standard deviation `noise_to_signal(t)`; and how scores, noise and velocities of
the state follow from x_0. Those methods (the section "views" below) are what a process overrides whose state is not the
data with scalar noise; `critically_damped.py`, with a velocity beside the data, is one.

Sources: Song et al. (2021), https://arxiv.org/abs/2011.13456, section 3 and appendix B; for g^2 in terms of the
log-SNR, Kingma et al. (2021), https://arxiv.org/abs/2107.00630, appendix D.
"""

from collections.abc import Callable

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
class SDE(Struct):
    """A linear diffusion process told by `alpha(t)` and `sigma(t)`; see the module's text for what follows from them.

    Times have shape () or (B,), states (B, *event), or (B, *state_shape(event)) where that differs from the data's;
    whatever takes only t returns t's shape.

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

    def prior_sample(self, key: Array, shape: tuple[int, ...]) -> Array:
        """A draw from N(0, sigma(t_max)^2 I), what is left of data of the given shape at t_max."""
        return self.sigma(self.t_max) * jax.random.normal(key, shape)

    def prior_log_prob(self, x: Array) -> Array:
        """Log-density (B,), in nats, of x (B, *event) under the prior."""
        axes = tuple(range(1, x.ndim))
        return jax.scipy.stats.norm.logpdf(x, scale=self.sigma(self.t_max)).sum(axes)

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
        """The shape of one state whose data has the given shape: the same."""
        return tuple(event_shape)

    def clean_state(self, x0: Array) -> Array:
        """The state (B, *state) that stands for the data x0 (B, *event) at time 0: x0 itself."""
        return x0

    def clean_data(self, x: Array) -> Array:
        """The data (B, *event) that the state x (B, *state) stands for at time 0: what `clean_state` makes, undone."""
        return x

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
        """The state's noise, from the noise (y - x0) / noise_to_signal of `to_data_scale(x, t)`: the same."""
        return noise

    def score_from_noise(self, noise: Array, t: ArrayLike) -> Array:
        """-noise / sigma, of the shape of x: the score of p(x_t | x_0), or of p(x_t) if the noise is its expectation."""
        return -noise / expand(self.sigma(t), noise)

    def velocity_from_x0_and_noise(self, x: Array, x0: Array, noise: Array, t: ArrayLike) -> Array:
        """alpha' x0 + sigma' noise: dx/dt of the probability flow at x, where x0 and noise are expected."""
        d_alpha, d_sigma = time_derivative(self.alpha, t), time_derivative(self.sigma, t)
        return expand(d_alpha, x) * x0 + expand(d_sigma, x) * noise
