"""Critically damped Langevin diffusion (CLD): noise is injected into a velocity variable that is coupled to the data.

    dx = beta v / M dt,      dv = -beta x dt - beta Gamma v / M dt + sqrt(2 Gamma beta) dw,      Gamma^2 = 4 M,

with v_0 ~ N(0, gamma M). The state is z = (x, v), with one velocity for each data value, stacked on a last axis of size
2. The stationary distribution is x ~ N(0, 1), v ~ N(0, M). In the units r = beta t / sqrt(M) and w = v / sqrt(M), gamma
is the only parameter:

    dx = w dr,  dw = -(x + 2 w) dr + 2 dB,      exp(F r) = e^-r [[1 + r, r], [-r, 1 - r]].

Hence z_t | x_0 ~ N(a x_0, S) for each data value, with a(t) of shape (2,) and S(t) of shape (2, 2) in closed form. The
kernel is marginalized over v_0, whose variance is part of S (hybrid score matching), so it stays smooth as t goes to 0.

Relation to the interfaces of the library: the score of z is S^-1 (a E[x_0 | z] - z), so the Denoiser E[x_0 | z_t = z]
determines score and velocity. A sufficient statistic of z for x_0 is, for each data value,

    y = a^T S^-1 z / (a^T S^-1 a) = x_0 + noise of variance 1 / SNR,      SNR = a^T S^-1 a.

Code that depends on (y, noise level) therefore works unchanged: EDM's preconditioning passes only y, of the shape of
the data, to its network; exact Denoisers, time grids, weightings and time distributions in log-SNR need no change
either. `noise` is defined by the lower Cholesky factor L of S, z = a x_0 + L noise: its first component belongs to the
data, its second to the velocity.

Samplers that need no scalar alpha and sigma support this process: `SSCS`, designed for it, `EulerMaruyama`, and solvers
of the probability flow.

Source: Dockhorn, Vahdat and Kreis (2022), https://arxiv.org/abs/2112.07068, section 3 and appendix B.
"""

from typing import ClassVar, cast

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from sde_lib.sde import Process, expand
from sde_lib.struct import Struct


def _apply(rows: tuple, z: Array, transpose: bool = False) -> Array:
    """Applies the 2 x 2 matrix ((m00, m01), (m10, m11)), entries of t's shape, to the last axis of z (B, *event, 2)."""
    x, v = z[..., 0], z[..., 1]
    (m00, m01), (m10, m11) = (tuple(expand(entry, x) for entry in row) for row in rows)
    if transpose:
        m01, m10 = m10, m01
    return jnp.stack([m00 * x + m01 * v, m10 * x + m11 * v], -1)


def _poisson_tail(mean: Array) -> Array:
    """1 - e^-m (1 + m + m^2 / 2), without cancellation: for m < 2 as e^-m sum_{k >= 3} m^k / k!."""
    m = jnp.minimum(mean, 2)
    series = jnp.zeros_like(m)
    for k in range(24, 2, -1):
        series = (series + 1) * m / k
    early = jnp.exp(-m) * 0.5 * m**2 * series
    return jnp.where(mean < 2, early, 1 - jnp.exp(-mean) * (1 + mean + 0.5 * mean**2))


@struct.dataclass
class CriticallyDampedLangevin(Process):
    """Critically damped Langevin diffusion with constant beta: the state has a velocity for each data value.

    The last denoising step starts at t_min. At the default of 1e-3 the noise in x has a standard deviation of 2e-3,
    which float32 resolves.

    Source: Dockhorn, Vahdat and Kreis (2022), https://arxiv.org/abs/2112.07068, also for the defaults.

    Attributes:
        beta: rate of the diffusion, per unit of time.
        mass: M, the stationary variance of the velocity; the friction Gamma is 2 sqrt(M).
        gamma: initial variance of the velocity, divided by M: Var[v_0] = gamma M.
    """

    has_velocity: ClassVar[bool] = True

    t_min: float = struct.field(default=1e-3, kw_only=True)
    beta: float = 4.0
    mass: float = 0.25
    gamma: float = 0.04

    @property
    def friction(self) -> Array:
        """Gamma = 2 sqrt(M), the friction at critical damping."""
        return 2 * jnp.sqrt(self.mass)

    def _scaled_time(self, t: ArrayLike) -> Array:
        return self.beta * jnp.asarray(t, jnp.result_type(float, t)) / jnp.sqrt(self.mass)

    def _propagator(self, r: Array) -> tuple:
        """exp(F r) on (x, v), as rows; each entry has the shape of r."""
        root, decay = jnp.sqrt(self.mass), jnp.exp(-r)
        return ((1 + r) * decay, r * decay / root), (-root * r * decay, (1 - r) * decay)

    def _kernel_covariance(self, r: Array, gamma: ArrayLike) -> tuple[Array, Array, Array, Array]:
        """Returns Var[x], Cov[x, w], Var[w] and the determinant, for fixed x_0, Var[w_0] = gamma and w = v / sqrt(M).

        For gamma = 0 the covariance is I - exp(F r) exp(F r)^T. Its first entry, 1 - e^-2r (1 + 2 r + 2 r^2), is the
        probability that a Poisson variable of mean 2 r is at least 3, about (2 r)^3 / 6 for small r.
        """
        decay = jnp.exp(-2 * r)
        tail = _poisson_tail(2 * r)
        xx, xw, ww = tail, 2 * r**2 * decay, tail + 4 * r * decay
        # Adds gamma b b^T, b = e^-r (r, 1 - r). The determinant of the sum is expanded to avoid cancellation.
        square, product, rest = r**2 * decay, r * (1 - r) * decay, (1 - r) ** 2 * decay
        determinant = xx * ww - xw**2 + gamma * (square * ww - 2 * product * xw + rest * xx)
        return xx + gamma * square, xw + gamma * product, ww + gamma * rest, determinant

    def _cholesky(self, covariance: tuple[Array, Array, Array, Array]) -> tuple:
        """Returns the lower Cholesky factor on (x, v), as rows, from a covariance on (x, w)."""
        xx, xw, _, determinant = covariance
        root = jnp.sqrt(self.mass)
        return (jnp.sqrt(xx), jnp.zeros_like(xx)), (root * xw / jnp.sqrt(xx), root * jnp.sqrt(determinant / xx))

    def mean_coefficients(self, t: ArrayLike) -> tuple[Array, Array]:
        """Returns a(t): the coefficients of x_0 in the means of x and of v, each of t's shape."""
        (a_x, _), (a_v, _) = self._propagator(self._scaled_time(t))
        return a_x, a_v

    def covariance(self, t: ArrayLike) -> tuple[Array, Array, Array]:
        """Returns S(t): Var[x | x_0], Cov[x, v | x_0] and Var[v | x_0], each of t's shape."""
        xx, xw, ww, _ = self._kernel_covariance(self._scaled_time(t), self.gamma)
        return xx, jnp.sqrt(self.mass) * xw, self.mass * ww

    def cholesky(self, t: ArrayLike) -> tuple:
        """Returns L(t) with L L^T = S(t), as rows ((L_xx, 0), (L_vx, L_vv)), each entry of t's shape."""
        return self._cholesky(self._kernel_covariance(self._scaled_time(t), self.gamma))

    def whitened_mean_coefficients(self, t: ArrayLike) -> tuple[Array, Array]:
        """Returns L^-1 a, two entries of t's shape. Its squared norm is the SNR.

        An error e in x_0 is an error -L^-1 a e in the noise of x and of v.
        """
        (a_x, a_v), ((l_xx, _), (l_vx, l_vv)) = self.mean_coefficients(t), self.cholesky(t)
        return a_x / l_xx, (a_v - l_vx * a_x / l_xx) / l_vv

    def log_snr(self, t: ArrayLike) -> Array:
        """log(a^T S^-1 a), natural logarithm."""
        in_x, in_v = self.whitened_mean_coefficients(t)
        return jnp.log(in_x**2 + in_v**2)

    def noise_to_signal(self, t: ArrayLike) -> Array:
        """SNR^-1/2: the standard deviation of the noise of y = `to_data_scale(x, t)`."""
        return 1 / jnp.hypot(*self.whitened_mean_coefficients(t))

    def drift(self, x: Array, t: ArrayLike) -> Array:
        """F z, of the shape of z (B, *event, 2)."""
        position, velocity = x[..., 0], x[..., 1] / self.mass
        return self.beta * jnp.stack([velocity, -position - self.friction * velocity], -1)

    def apply_diffusion(self, noise: Array, t: ArrayLike) -> Array:
        """(0, sqrt(2 Gamma beta) noise_v): noise enters the velocity only."""
        return jnp.sqrt(2 * self.friction * self.beta) * noise * jnp.array([0, 1], noise.dtype)

    def apply_squared_diffusion(self, score: Array, t: ArrayLike) -> Array:
        """(0, 2 Gamma beta score_v)."""
        return 2 * self.friction * self.beta * score * jnp.array([0, 1], score.dtype)

    def marginal(self, x0: Array, t: ArrayLike) -> tuple[Array, tuple]:
        """Mean (B, *event, 2) and Cholesky factor (rows, each entry of t's shape) of p(z_t | x_0), x0 (B, *event)."""
        a_x, a_v = self.mean_coefficients(t)
        return jnp.stack([expand(a_x, x0) * x0, expand(a_v, x0) * x0], -1), self.cholesky(t)

    def perturb(self, x0: Array, noise: Array, t: ArrayLike) -> Array:
        """z_t = a x_0 + L noise, (B, *event, 2), with x0 (B, *event) and noise (B, *event, 2)."""
        mean, cholesky = self.marginal(x0, t)
        return mean + _apply(cholesky, noise)

    def transition(self, x_s: Array, s: ArrayLike, t: ArrayLike) -> tuple[Array, tuple]:
        """Mean (B, *event, 2) and Cholesky factor (rows) of the kernel p(z_t | z_s), for s < t."""
        r = self._scaled_time(t) - self._scaled_time(s)
        return _apply(self._propagator(r), x_s), self._cholesky(self._kernel_covariance(r, 0.0))

    def reverse_velocity(self, x: Array) -> Array:
        """(x, -v): the time reversal of the stationary process."""
        return x * jnp.array([1, -1], x.dtype)

    def diffuse(self, x_s: Array, noise: Array, s: ArrayLike, t: ArrayLike) -> Array:
        """Samples p(z_t | z_s), for s < t, from standard normal noise of the shape of z."""
        mean, cholesky = self.transition(x_s, s, t)
        return mean + _apply(cholesky, noise)

    def prior_sample(self, key: Array, shape: tuple[int, ...]) -> Array:
        """Samples L(t_max) noise, (*shape, 2), the prior of states whose data has the given shape."""
        return _apply(self.cholesky(self.t_max), jax.random.normal(key, self.state_shape(shape)))

    def prior_log_prob(self, x: Array) -> Array:
        """Log-density (B,), in nats, of states (B, *event, 2) under the prior."""
        return self._log_kernel(x, self.t_max)

    def _log_kernel(self, centred: Array, t: ArrayLike) -> Array:
        """log N(centred; 0, S(t)), (B,)."""
        t = jnp.broadcast_to(t, centred.shape[:1])
        (l_xx, _), (_, l_vv) = self.cholesky(t)
        log_density = jax.scipy.stats.norm.logpdf(self._whiten(centred, t)).sum(tuple(range(1, centred.ndim)))
        return log_density - centred[0, ..., 0].size * jnp.log(l_xx * l_vv)

    def state_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(*event_shape, 2): position and velocity on the last axis."""
        return (*event_shape, 2)

    def clean_state(self, x0: Array) -> Array:
        """(x0, 0): the data and the mean of the initial velocity."""
        return jnp.stack([x0, jnp.zeros_like(x0)], -1)

    def clean_data(self, x: Array) -> Array:
        """The position."""
        return x[..., 0]

    def _whiten(self, x: Array, t: ArrayLike) -> Array:
        """L^-1 z."""
        (l_xx, zero), (l_vx, l_vv) = self.cholesky(t)
        return _apply(((1 / l_xx, zero), (-l_vx / (l_xx * l_vv), 1 / l_vv)), x)

    def to_data_scale(self, x: Array, t: ArrayLike) -> Array:
        """y = a^T S^-1 z / SNR, (B, *event)."""
        whitened = self._whiten(x, t)
        in_x, in_v = (expand(part, whitened[..., 0]) for part in self.whitened_mean_coefficients(t))
        return (in_x * whitened[..., 0] + in_v * whitened[..., 1]) / (in_x**2 + in_v**2)

    def log_prob_beyond_data_scale(self, x: Array, t: ArrayLike) -> Array:
        """log p_t(z) - log p(y), (B,): log N(z; a y, S) - log N(y; y, 1 / SNR), as for any x_0."""
        y, t = self.to_data_scale(x, t), jnp.broadcast_to(t, x.shape[:1])
        log_density_of_y = y[0].size * 0.5 * (self.log_snr(t) - jnp.log(2 * jnp.pi))
        return self._log_kernel(x - self.marginal(y, t)[0], t) - log_density_of_y

    def noise_from_x0(self, x: Array, x0: Array, t: ArrayLike) -> Array:
        """L^-1 (z - a x_0), (B, *event, 2)."""
        return self._whiten(x - self.marginal(x0, t)[0], t)

    def noise_from_data_scale(self, x: Array, noise: Array, t: ArrayLike) -> Array:
        """L^-1 z with its component along L^-1 a, the direction of x_0, replaced by the noise of y (B, *event)."""
        whitened = self._whiten(x, t)
        in_x, in_v = (expand(part, noise) for part in self.whitened_mean_coefficients(t))
        length = jnp.hypot(in_x, in_v)
        along_x, along_v = in_x / length, in_v / length
        across = along_x * whitened[..., 1] - along_v * whitened[..., 0]
        return jnp.stack([along_x * noise - along_v * across, along_v * noise + along_x * across], -1)

    def score_from_noise(self, noise: Array, t: ArrayLike) -> Array:
        """-L^-T noise, (B, *event, 2)."""
        (l_xx, zero), (l_vx, l_vv) = self.cholesky(t)
        return -_apply(((1 / l_xx, zero), (-l_vx / (l_xx * l_vv), 1 / l_vv)), noise, transpose=True)


def with_velocity(process: Process, owner: str, instead: str) -> CriticallyDampedLangevin:
    """Returns the process if its state has a velocity, for computations that need one.

    Args:
        process: the process.
        owner: name of the computation, for the error message.
        instead: names of alternatives for processes without a velocity, for the error message.

    Raises:
        ValueError: the state of the process has no velocity.
    """
    if not process.has_velocity:
        raise ValueError(
            f"{owner} needs CriticallyDampedLangevin, whose state has a velocity, not {type(process).__name__}: choose "
            f"{instead}"
        )
    return cast(CriticallyDampedLangevin, process)


@struct.dataclass
class HybridNoiseWeighting(Struct):
    """(L^-1 a)_v^2: the squared error of the velocity noise, the reweighted objective of hybrid score matching.

    Since noise_hat - noise = -L^-1 a (D - x_0) and only the score of the velocity enters the reverse-time SDE, the
    published loss |noise_v - alpha_theta(z, t)|^2 equals this weight times the squared error of x_0.

    Source: Dockhorn, Vahdat and Kreis (2022), https://arxiv.org/abs/2112.07068, section 3.2, lambda(t) = 1 / l_t^2 with
    l_t = 1 / L_vv.
    """

    def __call__(self, sde: Process, t: Array) -> Array:
        """The weight at t, of its shape."""
        sde = with_velocity(sde, "HybridNoiseWeighting", "NoiseWeighting")
        return sde.whitened_mean_coefficients(t)[1] ** 2


@struct.dataclass
class HybridWeighting(Struct):
    """(S^-1 a)_v^2: the squared error of the velocity score, proportional to a bound on the negative log-likelihood.

    The factor of the bound, Gamma beta, is constant and left out.

    Source: Dockhorn, Vahdat and Kreis (2022), https://arxiv.org/abs/2112.07068, section 3.2, lambda(t) = Gamma beta for
    maximum likelihood.
    """

    def __call__(self, sde: Process, t: Array) -> Array:
        """The weight at t, of its shape."""
        sde = with_velocity(sde, "HybridWeighting", "LikelihoodWeighting")
        return (sde.whitened_mean_coefficients(t)[1] / sde.cholesky(t)[1][1]) ** 2


# Names used in configs.
PROCESSES = {"critically_damped": CriticallyDampedLangevin}
