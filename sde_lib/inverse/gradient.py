"""Posterior Denoisers from the gradient of the misfit through the Denoiser, for any differentiable measurement.

    E[x_0 | x_t, y] is approximated by D + n^2 grad_u log p(y | x_0 = D(x_t, t)),

which neglects the covariance Cov of x_0 given x_t. The correction is therefore too large by a factor of
(A Cov A^T + s^2) / s^2, and the published methods use a normalized step with a step size set by hand. The methods of
`gaussian.py` include the covariance.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from sde_lib.checks import positive
from sde_lib.inverse.measurement import LinearMeasurement
from sde_lib.inverse.posterior import Posterior, log_likelihood, require, require_noise
from sde_lib.numerics import sqrt_or_zero
from sde_lib.sde import scalar


@struct.dataclass
class DPS(Posterior):
    """Diffusion posterior sampling (DPS).

    The published algorithm follows each of N ancestral steps by x <- x - zeta / |r| grad_x |r|^2, r = y - A(D(x, t)).
    In the reverse-time SDE this update is a drift, the gradient of the log-likelihood -2 zeta (N / g^2) |r|. The
    corresponding correction of x_0 is

        -2 zeta N (n^2 / g^2) grad_u |r|,      g^2 the process's squared diffusion and N the steps per unit of t.

    The effect of zeta is thus independent of the number of steps and of the sampler. zeta = None uses the gradient of
    the likelihood, n^2 grad_u log p(y | D), without normalization: accurate where the noise of y exceeds the
    uncertainty of A x_0 given x_t, unstable where it is much smaller. `measurement_noise` is used only with zeta =
    None. A number as zeta requires a process with scalar noise. The approximation is exact only for data that are a
    single point.

    Cost: one evaluation and one product with its Jacobian.

    Source: Chung et al. (2023), https://arxiv.org/abs/2209.14687, algorithm 1 and eq. 16. Their code
    (https://github.com/DPS2022/diffusion-posterior-sampling) subtracts scale * grad_x |r|, without the square. Its
    scale (0.3 for super-resolution) is 2 zeta, so the results of the paper correspond to half the zeta that the paper
    states.

    Attributes:
        zeta: the step size of algorithm 1, half the scale of the code, for data in [-1, 1]; None for the gradient of
            the likelihood.
        steps: N, the number of steps for which zeta was chosen.

    Raises:
        ValueError: zeta or steps is not positive; in use, zeta is None and the noise is 0, which has no likelihood.
    """

    zeta: ArrayLike | None = 0.5
    steps: float = 1000.0

    def __post_init__(self):
        positive("DPS", zeta=self.zeta, steps=self.steps)

    def _log_likelihood(self, x0: Array, t: ArrayLike) -> Array:
        """Returns the log-likelihood of y (B,), or the normalized misfit that replaces it."""
        clean = self.measurement.forward(x0)
        if self.zeta is None:
            require_noise("DPS with zeta=None", self.measurement_noise)
            return log_likelihood(self.measurement_noise, self.y, clean)
        norm = sqrt_or_zero(jnp.square(self.y - clean).sum(tuple(range(1, clean.ndim))))
        return jnp.multiply(-2 * self.zeta * self.steps / scalar(self.sde).squared_diffusion(t), norm)

    def correct(self, x: Array, t: ArrayLike) -> tuple[Array, Array, Array]:
        """Returns the prior's x_0 and noise, and the correction n^2 grad_u of the log-likelihood."""
        x0, noise, covariance = self.linearize(x, t)
        gradient = jax.grad(lambda x0: self._log_likelihood(x0, t).sum())(x0)
        return x0, noise, covariance(gradient)


@struct.dataclass
class ManifoldConstraint(DPS):
    """Manifold constrained gradient (MCG): the gradient of `DPS`, followed by the projection of `DDNM` onto A x_0 = y.

    x_0 is A^+ y + (I - A^+ A)(D + the correction of DPS): only the component of the gradient in the null space of A
    remains. For measurements without noise. Exact for independent pixels and an A that selects pixels, for any zeta.
    The published method projects x_s onto y diffused to time s, instead of x_0 onto y; that is the sampler
    `Replacement` with a `DPS`.

    Cost: that of `DPS`, and one `pseudo_inverse`.

    Source: Chung et al. (2022), https://arxiv.org/abs/2206.00941, algorithm 1, with the step normalized as in `DPS`.

    Raises:
        ValueError: the measurement is not linear, or zeta or steps is not positive.
    """

    measurement: LinearMeasurement
    zeta: ArrayLike = 0.5

    def __post_init__(self):
        require("ManifoldConstraint", self.measurement, "pseudo_inverse", "linear")
        positive("ManifoldConstraint", zeta=self.zeta, steps=self.steps)

    def correct(self, x: Array, t: ArrayLike) -> tuple[Array, Array, Array]:
        """Returns the prior's x_0 and noise, and the correction of `DPS` plus A^+ of the remaining misfit."""
        x0, noise, correction = DPS.correct(self, x, t)
        misfit = self.y - self.measurement.forward(x0 + correction)
        return x0, noise, correction + self.measurement.pseudo_inverse(misfit)
