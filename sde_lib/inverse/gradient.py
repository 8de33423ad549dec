"""Posterior Denoisers that follow the gradient of a misfit through the Denoiser: any differentiable measurement.

    E[x_0 | x_t, y] is taken to be D + n^2 grad_u log p(y | x_0 = D(x_t, t)),

as if x_t told x_0 without doubt. Where it leaves doubt, this pulls too hard, by (A Cov A^T + s^2) / s^2; hence the
normalized step of the published methods, of a length that is set by hand. `gaussian.py` counts the doubt.
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
    """Diffusion posterior sampling.

    The published algorithm follows each of N ancestral steps by x <- x - zeta / |r| grad_x |r|^2, r = y - A(D(x, t)). To
    the reverse-time SDE that is a drift, the gradient of a log-likelihood 2 zeta (N / g^2) |r| (whose sign is turned), so as
    a correction of x_0 it is

        -2 zeta N (n^2 / g^2) grad_u |r|,      g^2 the process's squared diffusion and N the steps per unit of t.

    So one zeta means the same for any number of steps and any sampler. zeta = None takes the likelihood's own gradient,
    n^2 grad_u log p(y | D), without normalization: right where the noise of y is more than the doubt about A x_0, unstable
    where it is much less. Only then is `measurement_noise` asked for. Exact for no data but a point; for processes with
    scalar noise where zeta is a number.

    Cost: one evaluation and one product with its Jacobian.

    Source: Chung et al. (2023), https://arxiv.org/abs/2209.14687, algorithm 1 and eq. 16. Their code
    (https://github.com/DPS2022/diffusion-posterior-sampling) follows scale * grad_x |r|, without the square: its scale (0.3
    for super-resolution) is 2 zeta, so that the figures of the paper are those of half the zeta that it names.

    Raises:
        ValueError: in use, if zeta is None and the noise is 0, which has no likelihood.

    Attributes:
        zeta: the step size of algorithm 1, half the scale of the code, for data in [-1, 1]; or None.
        steps: N, at which zeta was set.
    """

    zeta: ArrayLike | None = 0.5
    steps: float = 1000.0

    def __post_init__(self):
        positive("DPS", zeta=self.zeta, steps=self.steps)

    def _log_likelihood(self, x0: Array, t: ArrayLike) -> Array:
        """(B,): of y, or the normalized misfit that stands for it."""
        clean = self.measurement.forward(x0)
        if self.zeta is None:
            require_noise("DPS with zeta=None", self.measurement_noise)
            return log_likelihood(self.measurement_noise, self.y, clean)
        norm = sqrt_or_zero(jnp.square(self.y - clean).sum(tuple(range(1, clean.ndim))))
        return jnp.multiply(-2 * self.zeta * self.steps / scalar(self.sde).squared_diffusion(t), norm)

    def correct(self, x: Array, t: ArrayLike) -> tuple[Array, Array, Array]:
        """n^2 grad_u of the log-likelihood."""
        x0, noise, covariance = self.linearize(x, t)
        gradient = jax.grad(lambda x0: self._log_likelihood(x0, t).sum())(x0)
        return x0, noise, covariance(gradient)


@struct.dataclass
class ManifoldConstraint(DPS):
    """MCG: the gradient of `DPS`, and then the projection of `DDNM`, so that A x_0 = y at every step.

    A^+ y + (I - A^+ A)(D + the correction of DPS): of the gradient only that is left which tells of what y does not see. For
    measurements without noise. Exact for independent pixels where A picks pixels, for any zeta. The published projection is
    of x_s, onto y at the noise of time s, and not of x_0; that is the sampler `Replacement` on a `DPS`.

    Cost: that of `DPS`, and one `pseudo_inverse`.

    Source: Chung et al. (2022), https://arxiv.org/abs/2206.00941, algorithm 1, with the step normalized as in `DPS`.
    """

    measurement: LinearMeasurement
    zeta: ArrayLike = 0.5

    def __post_init__(self):
        require("ManifoldConstraint", self.measurement, "pseudo_inverse", "linear")
        positive("ManifoldConstraint", zeta=self.zeta, steps=self.steps)

    def correct(self, x: Array, t: ArrayLike) -> tuple[Array, Array, Array]:
        """The gradient's correction, and what is missing to fit y."""
        x0, noise, correction = DPS.correct(self, x, t)
        misfit = self.y - self.measurement.forward(x0 + correction)
        return x0, noise, correction + self.measurement.pseudo_inverse(misfit)
