"""The processes of the literature: each an alpha and a sigma, with whatever keeps their digits or inverts them.

| process         | alpha(t)           | sigma(t)          | t              | published in                  |
|-----------------|--------------------|-------------------|----------------|-------------------------------|
| `VPSDE`         | exp(-1/2 int beta) | sqrt(1 - alpha^2) | [t_min, 1]     | score_sde; DDPM's limit       |
| `SubVPSDE`      | exp(-1/2 int beta) | 1 - alpha^2       | [t_min, 1]     | score_sde                     |
| `VESDE`         | 1                  | geometric in t    | [t_min, 1]     | score_sde; NCSN's limit       |
| `CosineVPSDE`   | cosine of t        | sqrt(1 - alpha^2) | [t_min, 0.995] | iDDPM's limit                 |
| `EDMSDE`        | 1                  | t                 | [0.002, 80]    | EDM                           |
| `RectifiedFlow` | 1 - t              | t                 | [t_min, 0.995] | rectified flow, flow matching |
| `DiscreteVP`    | a table of N betas | sqrt(1 - alpha^2) | [1 / N, 1]     | DDPM, iDDPM                   |

`LinearSDE`, for a drift and a diffusion whose moments nobody has integrated, is in `linear.py`.

Numerics: sigma near the data and alpha near the prior are small differences of numbers of size 1; each is written so that
it has float32's digits there (expm1, log1p, products of sines, sigmoids of the log-SNR).
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

    Source: Song et al. (2021), https://arxiv.org/abs/2011.13456, eq. 9 and appendices B and C.

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


@struct.dataclass
class CosineVPSDE(SDE):
    """The cosine schedule in continuous time: alpha = cos(theta) / cos(theta_0), theta = pi/2 (t + s) / (1 + s).

    alpha is 0 at t = 1, where the drift and the log-SNR are infinite. The default t_max stops at alpha = 0.0078, about
    what VPSDE leaves of the data (0.0066).

    Source: Nichol and Dhariwal (2021), https://arxiv.org/abs/2102.09672, eq. 17.

    Attributes:
        offset: s, which keeps beta from vanishing at t = 0.
    """

    t_max: float = struct.field(default=0.995, kw_only=True)
    offset: float = 0.008

    def _angles(self, t):
        """theta - theta_0 and pi/2 - theta, each without cancellation, and theta_0."""
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
        """In closed form: from alpha where noise prevails, from sigma where the data do."""
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
    """EDM's process: alpha = 1 and sigma = t, so that time is the noise level. In units of the data.

    Source: Karras et al. (2022), https://arxiv.org/abs/2206.00364, table 1 and eq. 5 (sigma_min 0.002, sigma_max 80).
    """

    t_min: float = struct.field(default=0.002, kw_only=True)
    t_max: float = struct.field(default=80.0, kw_only=True)

    def log_alpha(self, t):
        """0: the data keep their scale."""
        return jnp.zeros_like(t, jnp.result_type(float, t))

    def alpha(self, t):
        """1: the data keep their scale."""
        return jnp.ones_like(t, jnp.result_type(float, t))

    def sigma(self, t):
        """The noise level is t itself."""
        return jnp.asarray(t, jnp.result_type(float, t))

    def time_at_log_snr(self, log_snr):
        """exp(-log_snr / 2)."""
        return jnp.exp(-0.5 * jnp.asarray(log_snr))


@struct.dataclass
class RectifiedFlow(SDE):
    """The straight path from data to noise: x_t = (1 - t) x_0 + t noise. Its velocity is noise - x_0.

    At t = 1 the velocity is finite, but the drift -x / (1 - t), the diffusion 2 t / (1 - t) and the log-SNR are not, and
    no x_0 can be had from x. The default t_max stops at alpha = 0.005 (VPSDE stops at 0.0066), where they are 200, 400
    and -10.6, so that every method runs from there; the prior is N(0, t_max^2 I).

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
        """As large as t."""
        return jnp.asarray(t, jnp.result_type(float, t))

    def time_at_log_snr(self, log_snr):
        """In closed form: t / (1 - t) = exp(-log_snr / 2)."""
        return jax.nn.sigmoid(-0.5 * jnp.asarray(log_snr))


# (beta_first, beta_last) of the published tables, of 1,000 steps.
PUBLISHED_BETAS = {"linear": (1e-4, 0.02), "scaled_linear": (0.0015, 0.0195)}


def published_betas(
    table: str, num_steps: int, beta_first: float | None = None, beta_last: float | None = None
) -> tuple[float, float]:
    """The first and the last beta of a table of `PUBLISHED_BETAS`; None is the published one, times 1000 / num_steps."""
    if num_steps < 2:
        raise ValueError(f"DiscreteVP: num_steps={num_steps} must be at least 2")
    first, last = (1000 / num_steps * beta for beta in PUBLISHED_BETAS[table])
    if beta_last is None and last >= 1:
        least = math.floor(1000 * PUBLISHED_BETAS[table][1]) + 1
        raise ValueError(
            f"DiscreteVP: num_steps={num_steps} must be at least {least}, or the published last beta, times "
            f"1000 / num_steps, is {last:g} and no longer less than 1"
        )
    return (first if beta_first is None else beta_first), (last if beta_last is None else beta_last)


@struct.dataclass
class DiscreteVP(SDE):
    """A discrete variance-preserving chain x_k = sqrt(1 - beta_k) x_{k-1} + sqrt(beta_k) noise, made continuous.

    Step k = 1 ... N of the chain is at t = k / N, and time 0 is the data: an index i = k - 1 of the published codes is the
    time (i + 1) / N. At these knots the marginal is the table's, alpha^2 = alpha_bar_k = prod_{j <= k} (1 - beta_j).
    Between them the log-SNR is the monotone piecewise cubic of Fritsch and Butland (1984), continuous with its derivative,
    so drift and diffusion are continuous and g^2 > 0; before the first knot it is linear in log t. Hence methods may stop
    at any time, and at knots they meet what the network was trained on.

    The published tables have 1,000 steps. `linear` and `scaled_linear` with another number of steps N scale the published
    betas by 1000 / N, which leaves the integral of beta over the chain, hence the prior, as it is; so does the code of
    improved DDPM (https://github.com/openai/improved-diffusion, improved_diffusion/gaussian_diffusion.py,
    `get_named_beta_schedule`) for the linear table. Betas that are given are taken as they are, as diffusers takes
    beta_start and beta_end. The cosine table is defined for every N.

    Make one with `DiscreteVP.linear()` (DDPM), `DiscreteVP.cosine()` (iDDPM), `DiscreteVP.scaled_linear()` (latent
    diffusion) or `DiscreteVP.from_betas(betas)`.

    Sources: Ho et al. (2020), https://arxiv.org/abs/2006.11239, eq. 4 and section 4; Nichol and Dhariwal (2021),
    https://arxiv.org/abs/2102.09672, eq. 17; Rombach et al. (2022), https://arxiv.org/abs/2112.10752, in
    https://github.com/CompVis/latent-diffusion, ldm/modules/diffusionmodules/util.py; Fritsch and Butland (1984),
    https://doi.org/10.1137/0905021.

    Attributes:
        log_snr_knots: log(alpha_bar_k / (1 - alpha_bar_k)), (N,), falling.
        slopes: its derivatives with respect to t at the knots, (N,).
    """

    log_snr_knots: Array | np.ndarray
    slopes: Array | np.ndarray

    @classmethod
    def from_betas(cls, betas: ArrayLike, *, t_min: float | None = None, t_max: float = 1.0) -> "DiscreteVP":
        """The process of a table of betas, (N,), each in (0, 1). t_min is by default the first knot, 1 / N.

        Raises:
            ValueError: fewer than two betas, or one outside (0, 1).
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

        None is the published 1e-4 or 0.02, times 1000 / num_steps.

        Raises:
            ValueError: a beta is outside (0, 1); so is the published table's with fewer than 21 steps.
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
        """Latent diffusion's table: betas whose square roots are evenly spaced (Rombach et al.; their code's "linear").

        None is the published 0.0015 or 0.0195, times 1000 / num_steps.

        Raises:
            ValueError: a beta is outside (0, 1); so is the published table's with fewer than 20 steps.
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
        """iDDPM's table: betas that give the squared cosine, clipped at beta_limit (Nichol and Dhariwal, eq. 17)."""
        alpha_bar = np.cos(0.5 * math.pi * (np.arange(num_steps + 1) / num_steps + offset) / (1 + offset)) ** 2
        betas = np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], beta_limit)
        return cls.from_betas(betas, t_min=t_min, t_max=t_max)

    def log_snr(self, t):
        """The cubic Hermite polynomial between the two knots around t."""
        t = jnp.asarray(t, jnp.result_type(float, t))
        knots, slopes = (jnp.asarray(table, t.dtype) for table in (self.log_snr_knots, self.slopes))
        n = knots.shape[0]
        left = jnp.clip(jnp.floor(t * n).astype(int) - 1, 0, n - 2)
        u = t * n - (left + 1).astype(t.dtype)
        start, rise = knots[left], knots[left + 1] - knots[left]
        first, last = slopes[left] / n, slopes[left + 1] / n
        cubic = start + u * (first + u * ((3 * rise - 2 * first - last) + u * (first + last - 2 * rise)))
        # Before the first knot: the line in log t of the same value and slope. The inner `where` keeps gradients finite.
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


# By the name that a config gives.
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
