"""Posterior Denoisers with the Gaussian approximation p(x_0 | x_t) = N(D, C).

With a linear measurement y = A x_0 + noise of variance s^2, p(y | x_t) = N(A D, A C A^T + s^2 I), and by the formulas
of `posterior.py`

    E[x_0 | x_t, y] = D + n^2 (dD/du)^T A^T (A C A^T + s^2 I)^-1 (y - A D),

where the gradient neglects the dependence of C on x_t, and n^2 dD/du is Cov[x_0 | x_t]. The Denoisers differ in the C
of the inverse:

| Denoiser | C                                     | exact for                                                    |
|----------|---------------------------------------|--------------------------------------------------------------|
| `MMPS`   | n^2 dD/du, in a Krylov space          | Gaussian data, any A                                         |
| `TMPD`   | A C A^T replaced by diag(row sums)    | Gaussian data with independent pixels, A that selects pixels |
| `PiGDM`  | n^2 / (n^2 + 1) I, for data_std = 1   | data N(mean, data_std^2 I), any A                            |

A nonlinear measurement is linearized at D, A(x_0) = A(D) + A'(D) (x_0 - D): in the formula above A is then A'(D), and
the misfit is y - A(D). This is the update of the extended Kalman filter; the papers treat linear measurements.
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
    """Moment-matching posterior sampling: C is the covariance n^2 dD/du of the Denoiser.

    Exact for Gaussian data with any covariance, linear A and Gaussian noise with one variance or a variance per value.
    For other data the first two moments of p(x_0 | x_t) are matched. A noise variance that depends on A x_0 is
    evaluated at A D.

    The Jacobian of a network is not exactly symmetric or positive semi-definite, above all at noise levels outside the
    training range. With more than one step, `krylov.py` adds the asymmetry as variance: the solve remains well-posed.
    Nothing is added if the Jacobian is a covariance, so the exact Denoiser gives the exact result.

    Cost: one evaluation, and one product with its Jacobian per solver step.

    Source: Rozet et al. (2024), https://arxiv.org/abs/2405.13712, section 4.2; the paper uses 1 to 5 steps.

    Attributes:
        rtol: tolerance of the linear solve, relative to the norm of y - A D; static.
        max_steps: maximal number of steps of the linear solve; static.

    Raises:
        ValueError: rtol is not positive, or max_steps is below 1.
    """

    rtol: float = struct.field(pytree_node=False, default=1e-3)
    max_steps: int = struct.field(pytree_node=False, default=8)

    def __post_init__(self):
        positive("MMPS", rtol=self.rtol)
        at_least("MMPS", 1, max_steps=self.max_steps)

    def correct(self, x: Array, t: ArrayLike) -> tuple[Array, Array, Array]:
        """Returns the prior's x_0 and noise, and the correction Cov A^T (A Cov A^T + variance)^-1 (y - A D)."""
        x0, noise, covariance = self.linearize(x, t)
        clean, tangent = self.measurement.forward(x0), self.measurement.derivative(x0)
        noise_variance, misfit = variance(self.measurement_noise, clean), self.y - clean
        correction = gaussian_update(
            covariance, tangent.forward, tangent.adjoint, noise_variance, misfit, self.rtol, self.max_steps
        )
        return x0, noise, correction


@struct.dataclass
class TMPD(Posterior):
    """Tweedie moment projected diffusion: A C A^T is replaced by the diagonal matrix of its row sums.

    Exact for Gaussian data with independent pixels and an A that selects pixels; accurate where the measured values are
    nearly uncorrelated given x_t. For a covariance, row sums and column sums are equal. For the Jacobian of a network
    they can differ, and they can be negative (for some mixtures as well). The absolute value of their mean is used
    here, and the root mean square of their difference is added as variance.

    The published row sums are the product of A C A^T and a vector of ones. They bound A C A^T from above if A and C
    have no negative entries. Signed entries cancel, as at the frequencies k and -k in the k-space of a real image,
    which leaves a variance near 0 and an unbounded correction. Two modifications cover signed operators:

    - The vector of ones is replaced by z, the signs of A u for a positive image u, and the row sums are z (A C A^T z).
    For
      A >= 0, z = 1 and the row sums are the published ones. In k-space the contributions of k and -k add up, and the
      result is exact for stationary Gaussian data.
    - The weights v are scaled by v^T r / (v^T (A C A^T + S) v), the optimal step length along v, where r = y - A D and
    S is
      the noise variance. The length is at least 1 where the row sums are an upper bound; only lengths below 1 are
      applied.

    Values whose row sum plus noise variance is 0, or within rounding error of 0 relative to the largest, carry no
    information and have weight 0: a measurement whose derivative is 0 leaves D unchanged.

    Cost: one evaluation and three products with its Jacobian.

    Source: Boys et al. (2023), https://arxiv.org/abs/2310.06721, section 4, with row sums in place of the diagonal.
    """

    def correct(self, x: Array, t: ArrayLike) -> tuple[Array, Array, Array]:
        """Returns the prior's x_0 and noise, and the correction Cov A^T diag(row sums + variance)^-1 (y - A D)."""
        x0, noise, covariance = self.linearize(x, t)
        clean, tangent = self.measurement.forward(x0), self.measurement.derivative(x0)
        noise_variance, misfit = variance(self.measurement_noise, clean), self.y - clean
        positive_image = jax.random.uniform(jax.random.key(0), x0.shape[1:], x0.dtype)
        signs = jnp.sign(tangent.forward(jnp.broadcast_to(positive_image, x0.shape)))
        total = tangent.adjoint(signs)
        transposed = jax.linear_transpose(covariance, total)
        # Row and column sums, multiplied by the signs.
        rows, columns = tangent.forward(covariance(total)), tangent.forward(transposed(total)[0])
        axes = tuple(range(1, clean.ndim))
        error = sqrt_or_zero(jnp.square(rows - columns).mean(axes, keepdims=True))
        diagonal = 0.5 * jnp.abs(rows + columns) + error + noise_variance
        is_informative = diagonal > 16 * jnp.finfo(diagonal.dtype).eps * diagonal.max(axes, keepdims=True)
        weights = jnp.where(is_informative, misfit / jnp.where(is_informative, diagonal, 1), 0)
        correction = covariance(tangent.adjoint(weights))
        gain, curvature = dot(weights, misfit), dot(weights, tangent.forward(correction) + noise_variance * weights)
        too_long = curvature > gain
        length = jnp.where(too_long, gain / jnp.where(too_long, curvature, 1), 1)
        return x0, noise, expand(length, correction) * correction


def isotropic_weights(tangent: LinearMeasurement, misfit: Array, of_y: ArrayLike, of_x0: ArrayLike) -> Array:
    """Returns the gradient of log p(y | x_t) with respect to A D, for C = of_x0 I, (B, *measured).

    The gradient is (of_x0 A A^T + of_y I)^-1 (y - A D).

    Args:
        tangent: A.
        misfit: y - A D, (B, *measured).
        of_y: variance of the noise of y, () or (B,).
        of_x0: variance of x_0 given x_t, () or (B,).
    """
    return tangent.normal_solve(misfit, of_y / of_x0) / expand(of_x0, misfit)


@struct.dataclass
class PiGDM(Posterior):
    """Pseudoinverse-guided diffusion: C = r^2 I with r^2 = n^2 v / (n^2 + v), v = data_std^2.

    r^2 is the variance of x_0 given x_t for data N(mean, v I), for which the Denoiser is exact. For v = 1, r^2 is
    sigma^2 with a VP process and sigma^2 / (1 + sigma^2) with a VE process, as published. The published DDIM step adds
    alpha_t r^2 grad_x log p(y | x_t) to x_s; this Denoiser instead adds the gradient to x_0 with the weight n^2 of
    Tweedie's formula, so that all samplers draw from the same posterior.

    Cost: one evaluation, one product with its Jacobian, and one `normal_solve` of the measurement.

    Source: Song et al. (2023), https://openreview.net/forum?id=9_gsMA8MRKQ, eq. 7 and 8 and appendix A.3 for r.

    Attributes:
        data_std: the standard deviation of a pixel. Where pixels are strongly correlated, as in colour photographs, use
            several times that value: the correction is proportional to the true covariance, which then exceeds the r^2
            I of the inverse.

    Raises:
        ValueError: data_std is not positive.
    """

    data_std: float = 1.0

    def __post_init__(self):
        positive("PiGDM", data_std=self.data_std)

    def correct(self, x: Array, t: ArrayLike) -> tuple[Array, Array, Array]:
        """Returns the prior's x_0 and noise, and the correction n^2 (dD/du)^T A^T (r^2 A A^T + s^2 I)^-1 (y - A D)."""
        x0, noise, covariance = self.linearize(x, t)
        clean, tangent = self.measurement.forward(x0), self.measurement.derivative(x0)
        noise_variance = constant_variance("PiGDM", self.measurement_noise, clean)
        x0_variance = isotropic_variance(self.sde.noise_to_signal(t), self.data_std)
        weights = isotropic_weights(tangent, self.y - clean, noise_variance, x0_variance)
        return x0, noise, covariance(tangent.adjoint(weights))
