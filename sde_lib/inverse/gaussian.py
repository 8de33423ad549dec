"""Posterior Denoisers that take p(x_0 | x_t) to be Gaussian, N(D, C); of a linear measurement p(y | x_t) is so too.

With y = A x_0 + noise of variance s^2, p(y | x_t) = N(A D, A C A^T + s^2 I), and by the formulas of `posterior.py`

    E[x_0 | x_t, y] = D + n^2 (dD/du)^T A^T (A C A^T + s^2 I)^-1 (y - A D),

the gradient taken as if C did not change with x_t. n^2 dD/du is Cov[x_0 | x_t] itself. They differ in the C inverted:

| Denoiser | C                                     | exact for                                                |
|----------|---------------------------------------|----------------------------------------------------------|
| `MMPS`   | n^2 dD/du, in a Krylov space          | Gaussian data, any A                                     |
| `TMPD`   | diagonal A C A^T: its row sums        | Gaussian data of independent pixels, A that picks pixels |
| `PiGDM`  | n^2 / (n^2 + 1) for data of spread 1  | data N(mean, data_std^2 I), any A                        |

A measurement that is not linear is taken as its tangent at D, A(x_0) = A(D) + A'(D) (x_0 - D): above, A is then A'(D), and
misfit y - A(D). That is the update of the extended Kalman filter; the papers have linear measurements.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from sde_lib.checks import at_least, positive
from sde_lib.exact import isotropic_variance
from sde_lib.inverse.conjugate_gradients import dot
from sde_lib.inverse.krylov import gaussian_update
from sde_lib.inverse.measurement import LinearMeasurement
from sde_lib.inverse.posterior import Posterior, constant_variance, variance
from sde_lib.numerics import sqrt_or_zero
from sde_lib.sde import expand


@struct.dataclass
class MMPS(Posterior):
    """Moment-matching posterior sampling: C is the Denoiser's own covariance, n^2 dD/du.

    Exact for Gaussian data with any covariance, linear A and Gaussian noise of any variances (one for each value too); for
    other data the first two moments of p(x_0 | x_t) are right. Noise whose variance depends on A x_0 is taken at A D.

    A network's Jacobian is not quite symmetric, nor positive, most of all at noise beyond what it was trained on; with more
    than one step `krylov.py` counts that as variance, so that the Denoiser stays sound, and exact where the Jacobian is.

    Cost: one evaluation, and one product with its Jacobian for each step.

    Source: Rozet et al. (2024), https://arxiv.org/abs/2405.13712, section 4.2; they take 1 to 5 steps.

    Attributes:
        rtol, max_steps: of the solve, relative to y - A D.
    """

    rtol: float = struct.field(pytree_node=False, default=1e-3)
    max_steps: int = struct.field(pytree_node=False, default=8)

    def __post_init__(self):
        positive("MMPS", rtol=self.rtol)
        at_least("MMPS", 1, max_steps=self.max_steps)

    def correct(self, x: Array, t: ArrayLike) -> tuple[Array, Array, Array]:
        """Covariance A^T (A Cov A^T + variance)^-1 (y - A D)."""
        x0, noise, covariance = self.linearize(x, t)
        clean, tangent = self.measurement.forward(x0), self.measurement.derivative(x0)
        of_y, misfit = variance(self.measurement_noise, clean), self.y - clean
        correction = gaussian_update(
            covariance, tangent.forward, tangent.adjoint, of_y, misfit, self.rtol, self.max_steps
        )
        return x0, noise, correction


@struct.dataclass
class TMPD(Posterior):
    """Tweedie moment projected diffusion: A C A^T is replaced by the diagonal matrix of its row sums.

    Exact for Gaussian data of independent pixels where A picks pixels; it asks that values measured hardly covary given
    x_t. The row sums of a covariance are its column sums; a network's Jacobian does not promise that, nor that they are not
    negative, as they are for some mixtures too. Here the size of the mean of both is taken, and how much they differ (root
    mean square) is added as variance.

    The published row sums are those of A C A^T times a vector of ones. They bound A C A^T from above where neither A nor C
    has negative entries; signed entries cancel, as those of frequencies k and -k do in the k-space of a real image, and
    leave a variance near 0 and a correction without bound. Two changes cover signed operators:

    - The vector z has the signs of A u for a positive image u, and row sums are z (A C A^T z). For A >= 0, z is 1 and the
      row sums are the published ones. In k-space the pair of k and -k adds up, and stationary Gaussian data are exact.
    - The weights v are shortened to the length v^T r / (v^T (A C A^T + S) v) that is best along them, r = y - A D and S the
      noise's variance. The length is 1 or more where the row sums are a bound, and only a length below 1 is applied.

    Values whose row sum and noise are 0, or rounding beside the largest, carry no information and get no weight: a
    measurement whose derivative is 0 leaves D unchanged.

    Cost: one evaluation and three products with its Jacobian.

    Source: Boys et al. (2023), https://arxiv.org/abs/2310.06721, section 4, with the row sums for the diagonal.
    """

    def correct(self, x: Array, t: ArrayLike) -> tuple[Array, Array, Array]:
        """Covariance A^T diag(row sums + variance)^-1 (y - A D)."""
        x0, noise, covariance = self.linearize(x, t)
        clean, tangent = self.measurement.forward(x0), self.measurement.derivative(x0)
        of_y, misfit = variance(self.measurement_noise, clean), self.y - clean
        positive_image = jax.random.uniform(jax.random.key(0), x0.shape[1:], x0.dtype)
        signs = jnp.sign(tangent.forward(jnp.broadcast_to(positive_image, x0.shape)))
        total = tangent.adjoint(signs)
        transposed = jax.linear_transpose(covariance, total)
        rows, columns = tangent.forward(covariance(total)), tangent.forward(transposed(total)[0])  # times the signs
        axes = tuple(range(1, clean.ndim))
        error = sqrt_or_zero(jnp.square(rows - columns).mean(axes, keepdims=True))
        whole = 0.5 * jnp.abs(rows + columns) + error + of_y
        counts = whole > 16 * jnp.finfo(whole.dtype).eps * whole.max(axes, keepdims=True)
        weights = jnp.where(counts, misfit / jnp.where(counts, whole, 1), 0)
        correction = covariance(tangent.adjoint(weights))
        gain, curvature = dot(weights, misfit), dot(weights, tangent.forward(correction) + of_y * weights)
        too_long = curvature > gain
        length = jnp.where(too_long, gain / jnp.where(too_long, curvature, 1), 1)
        return x0, noise, expand(length, correction) * correction


def isotropic_weights(tangent: LinearMeasurement, misfit: Array, of_y: ArrayLike, of_x0: ArrayLike) -> Array:
    """(of_x0 A A^T + of_y I)^-1 (y - A D), (B, *measured): the slope in A D of log p(y | x_t), for C = of_x0 I.

    Args:
        tangent: A.
        misfit: y - A D, (B, *measured).
        of_y, of_x0: variances, () or (B,).
    """
    return tangent.normal_solve(misfit, of_y / of_x0) / expand(of_x0, misfit)


@struct.dataclass
class PiGDM(Posterior):
    """Pseudoinverse-guided diffusion: C = r^2 I with r^2 = n^2 v / (n^2 + v), v = data_std^2.

    That is the variance of x_0 given x_t where data are N(mean, v I), for which the Denoiser is exact; r^2 is sigma^2 on a
    VP process and sigma^2 / (1 + sigma^2) on a VE one, for v = 1, as published. The published DDIM step adds
    alpha_t r^2 grad_x log p(y | x_t) to x_s; here the Denoiser holds the gradient with its own weight, n^2, so that every
    sampler draws from one posterior.

    Cost: one evaluation, one product with its Jacobian, and one `normal_solve` of the measurement.

    Source: Song et al. (2023), https://openreview.net/forum?id=9_gsMA8MRKQ, eq. 7 and 8 and appendix A.3 for r.

    Attributes:
        data_std: the spread of a pixel; several times that where pixels covary strongly, as in colour photographs, since the
            correction grows with the covariance that is there and not with the one that is inverted.
    """

    data_std: float = 1.0

    def __post_init__(self):
        positive("PiGDM", data_std=self.data_std)

    def correct(self, x: Array, t: ArrayLike) -> tuple[Array, Array, Array]:
        """n^2 (dD/du)^T A^T (r^2 A A^T + s^2 I)^-1 (y - A D)."""
        x0, noise, covariance = self.linearize(x, t)
        clean, tangent = self.measurement.forward(x0), self.measurement.derivative(x0)
        of_y = constant_variance("PiGDM", self.measurement_noise, clean)
        of_x0 = isotropic_variance(self.sde.noise_to_signal(t), self.data_std)
        weights = isotropic_weights(tangent, self.y - clean, of_y, of_x0)
        return x0, noise, covariance(tangent.adjoint(weights))
