"""Published forward processes, specified by alpha(t) and sigma(t), with accurate numerics and inverses.

| process         | alpha(t)           | sigma(t)          | t              | published in                  |
|-----------------|--------------------|-------------------|----------------|-------------------------------|
| `VPSDE`         | exp(-1/2 int beta) | sqrt(1 - alpha^2) | [t_min, 1]     | score_sde; DDPM's limit       |
| `SubVPSDE`      | exp(-1/2 int beta) | 1 - alpha^2       | [t_min, 1]     | score_sde                     |
| `VESDE`         | 1                  | geometric in t    | [t_min, 1]     | score_sde; NCSN's limit       |
| `CosineVPSDE`   | cosine of t        | sqrt(1 - alpha^2) | [t_min, 0.995] | iDDPM's limit                 |
| `EDMSDE`        | 1                  | t                 | [0.002, 80]    | EDM                           |
| `RectifiedFlow` | 1 - t              | t                 | [t_min, 0.995] | rectified flow, flow matching |
| `DiscreteVP`    | a table of N betas | sqrt(1 - alpha^2) | [1 / N, 1]     | DDPM, iDDPM                   |

`LinearSDE` in `linear.py` supports drifts and diffusions whose moments have no closed form.

Numerics: sigma near the data and alpha near the prior are small differences of numbers of size 1. Each is computed
without cancellation (expm1, log1p, products of sines, sigmoids of the log-SNR), to full float32 precision.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import scipy.interpolate
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from sde_lib.sde import SDE


@struct.dataclass
class VPSDE(SDE):
    """Variance-preserving SDE: dx = -beta(t)/2 x dt + sqrt(beta(t)) dw, with beta linear in t.

    Source: Song et al. (2021), https://arxiv.org/abs/2011.13456, eq. 11 and appendices B and C.

    Attributes:
        beta_min, beta_max: beta at t = 0 and t = 1, per unit of time.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def log_alpha(self, t):
        """-1/2 times the integral of beta from 0 to t."""
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
        # The root of slope/4 t^2 + beta_min/2 t + log_alpha = 0 without cancellation; valid for beta_max = beta_min
        # too.
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

    Source: Song et al. (2021), https://arxiv.org/abs/2011.13456, eq. 9 and appendices B and C.

    Attributes:
        sigma_min, sigma_max: sigma at t = 0 and t = 1, in units of the data. A good sigma_max is the largest
            distance between two points of the data (Song and Ermon, 2020, https://arxiv.org/abs/2006.09011).
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def log_alpha(self, t):
        """0: the data are not scaled."""
        return jnp.zeros_like(t, jnp.result_type(float, t))

    def alpha(self, t):
        """1: the data are not scaled."""
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


@struct.dataclass
class CosineVPSDE(SDE):
    """The cosine schedule in continuous time: alpha = cos(theta) / cos(theta_0), theta = pi/2 (t + s) / (1 + s).

    alpha is 0 at t = 1, where the drift and the log-SNR are infinite. At the default t_max alpha is 0.0078, close to
    the alpha of VPSDE at t = 1 (0.0066).

    Source: Nichol and Dhariwal (2021), https://arxiv.org/abs/2102.09672, eq. 17.

    Attributes:
        offset: s, which makes beta(0) > 0.
    """

    t_max: float = struct.field(default=0.995, kw_only=True)
    offset: float = 0.008

    def _angles(self, t):
        """Returns theta - theta_0 and pi/2 - theta, each without cancellation, and theta_0."""
        scale = 0.5 * jnp.pi / (1 + self.offset)
        return scale * t, scale * (1 - t), scale * self.offset

    def alpha(self, t):
        """cos(theta) / cos(theta_0)."""
        _, complement, first = self._angles(t)
        return jnp.sin(complement) / jnp.cos(first)

    def sigma(self, t):
        """sqrt(1 - alpha^2) = sqrt(sin(theta - theta_0) sin(theta + theta_0)) / cos(theta_0)."""
        advance, _, first = self._angles(t)
        return jnp.sqrt(jnp.sin(advance) * jnp.sin(advance + 2 * first)) / jnp.cos(first)

    def time_at_log_snr(self, log_snr):
        """In closed form: from alpha at log-SNR <= 0, from sigma at log-SNR > 0."""
        log_snr, first = jnp.asarray(log_snr), self._angles(0.0)[2]
        per_angle = (1 + self.offset) / (0.5 * jnp.pi)
        alpha = jnp.exp(0.5 * jax.nn.log_sigmoid(jnp.minimum(log_snr, 0)))
        late = 1 - per_angle * jnp.arcsin(alpha * jnp.cos(first))
        # u = tan(theta - theta_0) solves u^2 (cos(2 theta_0) - q) + u sin(2 theta_0) = q, q = sigma^2 cos^2(theta_0).
        q = jax.nn.sigmoid(-jnp.maximum(log_snr, 0)) * jnp.cos(first) ** 2
        sine = jnp.sin(2 * first)
        tangent = 2 * q / (sine + jnp.sqrt(sine**2 + 4 * q * (jnp.cos(2 * first) - q)))
        return jnp.where(log_snr > 0, per_angle * jnp.arctan(tangent), late)


@struct.dataclass
class EDMSDE(SDE):
    """EDM's process: alpha = 1 and sigma = t, so that time is the noise level, in units of the data.

    Source: Karras et al. (2022), https://arxiv.org/abs/2206.00364, table 1 and eq. 5 (sigma_min 0.002, sigma_max 80).
    """

    t_min: float = struct.field(default=0.002, kw_only=True)
    t_max: float = struct.field(default=80.0, kw_only=True)

    def log_alpha(self, t):
        """0: the data are not scaled."""
        return jnp.zeros_like(t, jnp.result_type(float, t))

    def alpha(self, t):
        """1: the data are not scaled."""
        return jnp.ones_like(t, jnp.result_type(float, t))

    def sigma(self, t):
        """t."""
        return jnp.asarray(t, jnp.result_type(float, t))

    def time_at_log_snr(self, log_snr):
        """exp(-log_snr / 2)."""
        return jnp.exp(-0.5 * jnp.asarray(log_snr))


@struct.dataclass
class RectifiedFlow(SDE):
    """The straight path from data to noise: x_t = (1 - t) x_0 + t noise, with the velocity noise - x_0.

    At t = 1 the velocity is finite, but the drift -x / (1 - t), the squared diffusion 2 t / (1 - t) and the log-SNR are
    not, and x carries no information on x_0. At the default t_max alpha is 0.005 (0.0066 for VPSDE), the drift rate
    -200, the squared diffusion 398 and the log-SNR -10.6, so that every sampler can start there. The prior is
    N(0, t_max^2 I).

    Sources: Liu et al. (2023), https://arxiv.org/abs/2209.03003; Lipman et al. (2023), https://arxiv.org/abs/2210.02747,
    whose time runs the other way.
    """

    t_max: float = struct.field(default=0.995, kw_only=True)

    def log_alpha(self, t):
        """log(1 - t)."""
        return jnp.log1p(-jnp.asarray(t, jnp.result_type(float, t)))

    def alpha(self, t):
        """1 - t."""
        return 1 - jnp.asarray(t, jnp.result_type(float, t))

    def sigma(self, t):
        """t."""
        return jnp.asarray(t, jnp.result_type(float, t))

    def time_at_log_snr(self, log_snr):
        """In closed form: t / (1 - t) = exp(-log_snr / 2)."""
        return jax.nn.sigmoid(-0.5 * jnp.asarray(log_snr))


# (beta_first, beta_last) of the published tables of 1,000 steps.
PUBLISHED_BETAS = {"linear": (1e-4, 0.02), "scaled_linear": (0.0015, 0.0195)}


def published_betas(
    table: str, num_steps: int, beta_first: float | None = None, beta_last: float | None = None
) -> tuple[float, float]:
    """Returns the first and the last beta of a table of `PUBLISHED_BETAS`.

    Args:
        table: the name of the table.
        num_steps: number of steps, at least 2.
        beta_first, beta_last: None selects the published beta, times 1000 / num_steps.

    Raises:
        ValueError: num_steps is less than 2, or so small that the scaled published last beta is not less than 1.
    """
    if num_steps < 2:
        raise ValueError(f"DiscreteVP: num_steps={num_steps} must be at least 2")
    first, last = (1000 / num_steps * beta for beta in PUBLISHED_BETAS[table])
    if beta_last is None and last >= 1:
        least = math.floor(1000 * PUBLISHED_BETAS[table][1]) + 1
        raise ValueError(
            f"DiscreteVP: num_steps={num_steps} must be at least {least}, or the published last beta, times "
            f"1000 / num_steps, is {last:g} and not less than 1"
        )
    return (first if beta_first is None else beta_first), (last if beta_last is None else beta_last)


@struct.dataclass
class DiscreteVP(SDE):
    """Continuous interpolation of a discrete VP chain x_k = sqrt(1 - beta_k) x_{k-1} + sqrt(beta_k) noise.

    Step k = 1 ... N of the chain is at t = k / N, and time 0 is the data: the index i = k - 1 of the published codes is
    the time (i + 1) / N. At these knots the marginal is that of the chain, alpha^2 = alpha_bar_k = prod_{j <= k} (1 -
    beta_j). Between the knots the log-SNR is the monotone piecewise cubic of Fritsch and Butland (1984), whose
    derivative is continuous, so drift and diffusion are continuous and g^2 > 0. Before the first knot the log-SNR is
    linear in log t. Samplers may therefore use any times; at the knots the noise levels are those on which the network
    was trained.

    The published tables have 1,000 steps. For another number of steps N, `linear` and `scaled_linear` scale the
    published betas by 1000 / N, which preserves the integral of beta over the chain, hence the prior, as does the code
    of improved DDPM for the linear table (https://github.com/openai/improved-diffusion,
    improved_diffusion/gaussian_diffusion.py, `get_named_beta_schedule`). Explicit betas are not scaled, like beta_start
    and beta_end in diffusers. The cosine table is defined for every N.

    Constructors: `DiscreteVP.linear()` (DDPM), `DiscreteVP.cosine()` (iDDPM), `DiscreteVP.scaled_linear()` (latent
    diffusion) and `DiscreteVP.from_betas(betas)`.

    Sources: Ho et al. (2020), https://arxiv.org/abs/2006.11239, eq. 4 and section 4; Nichol and Dhariwal (2021),
    https://arxiv.org/abs/2102.09672, eq. 17; Rombach et al. (2022), https://arxiv.org/abs/2112.10752, in
    https://github.com/CompVis/latent-diffusion, ldm/modules/diffusionmodules/util.py; Fritsch and Butland (1984),
    https://doi.org/10.1137/0905021.

    Attributes:
        log_snr_knots: log(alpha_bar_k / (1 - alpha_bar_k)), (N,), decreasing.
        slopes: derivatives of the log-SNR with respect to t at the knots, (N,).
    """

    log_snr_knots: Array | np.ndarray
    slopes: Array | np.ndarray

    @classmethod
    def from_betas(cls, betas: ArrayLike, *, t_min: float | None = None, t_max: float = 1.0) -> "DiscreteVP":
        """Returns the process of a table of betas, (N,), each in (0, 1). t_min defaults to the first knot, 1 / N.

        Raises:
            ValueError: there are fewer than two betas, or a beta is outside (0, 1).
        """
        betas = np.asarray(betas, np.float64)
        if betas.ndim != 1 or len(betas) < 2:
            raise ValueError(f"DiscreteVP needs a vector of at least 2 betas, not an array of shape {betas.shape}")
        if not ((betas > 0) & (betas < 1)).all():
            raise ValueError(f"DiscreteVP: betas must lie in (0, 1), not in [{betas.min():g}, {betas.max():g}]")
        log_alpha_bar = np.log1p(-betas).cumsum()
        log_snr = log_alpha_bar - np.log(-np.expm1(log_alpha_bar))
        knots = np.arange(1, len(betas) + 1) / len(betas)
        slopes = scipy.interpolate.PchipInterpolator(knots, log_snr).derivative()(knots)
        t_min = 1 / len(betas) if t_min is None else t_min
        return cls(log_snr_knots=log_snr, slopes=slopes, t_min=t_min, t_max=t_max)

    @classmethod
    def linear(
        cls,
        num_steps: int = 1000,
        beta_first: float | None = None,
        beta_last: float | None = None,
        *,
        t_min: float | None = None,
        t_max: float = 1.0,
    ) -> "DiscreteVP":
        """DDPM's table: betas evenly spaced from beta_first to beta_last (Ho et al., section 4).

        None selects the published 1e-4 or 0.02, times 1000 / num_steps.

        Raises:
            ValueError: a beta is outside (0, 1), as for the published table with fewer than 21 steps.
        """
        first, last = published_betas("linear", num_steps, beta_first, beta_last)
        return cls.from_betas(np.linspace(first, last, num_steps), t_min=t_min, t_max=t_max)

    @classmethod
    def scaled_linear(
        cls,
        num_steps: int = 1000,
        beta_first: float | None = None,
        beta_last: float | None = None,
        *,
        t_min: float | None = None,
        t_max: float = 1.0,
    ) -> "DiscreteVP":
        """Latent diffusion's table: betas with evenly spaced square roots (Rombach et al.; "linear" in their code).

        None selects the published 0.0015 or 0.0195, times 1000 / num_steps.

        Raises:
            ValueError: a beta is outside (0, 1), as for the published table with fewer than 20 steps.
        """
        first, last = published_betas("scaled_linear", num_steps, beta_first, beta_last)
        roots = np.linspace(math.sqrt(first), math.sqrt(last), num_steps)
        return cls.from_betas(roots**2, t_min=t_min, t_max=t_max)

    @classmethod
    def cosine(
        cls,
        num_steps: int = 1000,
        offset: float = 0.008,
        beta_limit: float = 0.999,
        *,
        t_min: float | None = None,
        t_max: float = 1.0,
    ) -> "DiscreteVP":
        """iDDPM's table: the betas of alpha_bar = squared cosine, clipped at beta_limit (Nichol and Dhariwal, eq. 17).

        `offset` is s in their equation.
        """
        alpha_bar = np.cos(0.5 * math.pi * (np.arange(num_steps + 1) / num_steps + offset) / (1 + offset)) ** 2
        betas = np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], beta_limit)
        return cls.from_betas(betas, t_min=t_min, t_max=t_max)

    def log_snr(self, t):
        """Cubic Hermite interpolation between the two knots around t."""
        t = jnp.asarray(t, jnp.result_type(float, t))
        knots, slopes = (jnp.asarray(table, t.dtype) for table in (self.log_snr_knots, self.slopes))
        n = knots.shape[0]
        left = jnp.clip(jnp.floor(t * n).astype(int) - 1, 0, n - 2)
        u = t * n - (left + 1).astype(t.dtype)
        start, rise = knots[left], knots[left + 1] - knots[left]
        first, last = slopes[left] / n, slopes[left + 1] / n
        cubic = start + u * (first + u * ((3 * rise - 2 * first - last) + u * (first + last - 2 * rise)))
        # Before the first knot: linear in log t, with value and slope at the knot. The inner `where` avoids NaN
        # gradients.
        early = t * n < 1
        line = knots[0] + slopes[0] / n * jnp.log(jnp.where(early, t * n, 1))
        return jnp.where(early, line, cubic)

    def log_alpha(self, t):
        """From the log-SNR: alpha^2 = sigmoid(log_snr)."""
        return 0.5 * jax.nn.log_sigmoid(self.log_snr(t))

    def alpha(self, t):
        """exp(log_alpha)."""
        return jnp.exp(self.log_alpha(t))

    def sigma(self, t):
        """sqrt(1 - alpha^2), from sigma^2 = sigmoid(-log_snr)."""
        return jnp.exp(0.5 * jax.nn.log_sigmoid(-self.log_snr(t)))


# Names used in configs.
PROCESSES = {
    "vp": VPSDE,
    "subvp": SubVPSDE,
    "ve": VESDE,
    "cosine": CosineVPSDE,
    "edm": EDMSDE,
    "rectified_flow": RectifiedFlow,
    "ddpm": DiscreteVP.linear,
    "iddpm": DiscreteVP.cosine,
    "scaled_linear": DiscreteVP.scaled_linear,
}
