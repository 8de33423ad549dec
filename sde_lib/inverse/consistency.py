"""Hard data consistency: at each step, the Denoiser's x_0 is optimized until its misfit to y is at the noise level."""

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from sde_lib.checks import at_least, positive
from sde_lib.denoiser import Denoiser
from sde_lib.inverse.conjugate_gradients import dot
from sde_lib.inverse.measurement import Measurement, Noise
from sde_lib.inverse.posterior import variance
from sde_lib.randomness import standard_normal
from sde_lib.sampling.predictors import posterior_variance
from sde_lib.sampling.sampler import Sampler
from sde_lib.sde import expand, scalar


@struct.dataclass
class ReSample(Sampler):
    """Hard data consistency by optimization, followed by stochastic resampling at time s.

    Starting from the Denoiser's x_0, nonlinear conjugate gradients minimize |y - A(x_0)|^2 until the misfit is at most
    its expected value under the noise of y, or `fit_steps` are done. The result is x_0'. For a linear A without noise,
    x_0' is the nearest image with A x_0' = y, as in `DDNM`. With x' the DDIM step of the prior, x_s is drawn from the
    normalized product of N(alpha_s x_0', sigma_s^2 I) and N(x', v I), which has

        mean (v alpha_s x_0' + sigma_s^2 x') / (v + sigma_s^2),   variance v sigma_s^2 / (v + sigma_s^2),

    where v is gamma times the variance of the ancestral step. With small steps the mean is close to the DDIM step x',
    with large steps close to alpha_s x_0'; the limit of infinite gamma is `Renoise(zeta=1)` on the fitted x_0. The
    published method works on latents and fits only some of the steps; this is the form for pixels, which fits every
    step. The sampler runs on the prior's Denoiser. The final step, x = D(x, t), leaves a misfit of the order of
    sigma(t).

    Cost per step: one evaluation, and at most `fit_steps` products with the derivative of A and its transpose.

    Source: Song et al. (2024), https://arxiv.org/abs/2307.08123, algorithm 1; gamma is 40 in their code.

    Attributes:
        measurement: A, linear or not; differentiable.
        y: (B, *measured), or (1, *measured) for the whole batch.
        measurement_noise: a `Noise`, or the standard deviation of Gaussian noise; sets the misfit at which the
            optimization stops. 0 disables this criterion.
        gamma: ratio of v to the variance of the ancestral step; larger values give x_0' more weight.
        fit_steps: maximal number of optimization steps.

    Raises:
        ValueError: gamma is not positive, or fit_steps is below 1.
    """

    measurement: Measurement
    y: Array
    measurement_noise: Noise | ArrayLike = 0.0
    gamma: float = 40.0
    fit_steps: int = struct.field(pytree_node=False, default=50)

    def __post_init__(self):
        positive("ReSample", gamma=self.gamma)
        at_least("ReSample", 1, fit_steps=self.fit_steps)

    def fit(self, x0: Array) -> Array:
        """Minimizes |y - A(x)|^2 from x0 (B, *event) until the misfit of each example is at its noise level."""

        def evaluate(x):
            """Returns -1/2 grad |y - A(x)|^2, |y - A(x)|^2 (B,), and whether |y - A(x)|^2 exceeds the noise (B,)."""
            clean, pull = jax.vjp(self.measurement.forward, x)
            misfit = self.y - clean
            # Values that are 0 in y and in A(x) are not measured (a masked pixel, a lost ray), so their noise is not
            # counted.
            noise_variance = jnp.where((clean != 0) | (self.y != 0), variance(self.measurement_noise, clean), 0)
            square = dot(misfit, misfit)
            return pull(misfit)[0], square, square > noise_variance.sum(tuple(range(1, clean.ndim)))

        def unfinished(state):
            step, *_, active = state
            return (step < self.fit_steps) & active.any()

        def descend(state):
            step, x, direction, fraction, gradient, square, active = state
            _, image = jax.jvp(self.measurement.forward, (x,), (direction,))
            curvature = dot(image, image)
            moves = active & (curvature > 0)
            # The exact line search for the linearized A.
            length = fraction * jnp.where(moves, dot(direction, gradient) / jnp.where(moves, curvature, 1), 0)
            new_x = x + expand(length, x) * direction
            new_gradient, new_square, above_noise = evaluate(new_x)
            # For a nonlinear A the step may increase the misfit: it is then rejected, and retried at half the length
            # along the gradient. An increase within rounding error is accepted.
            accepted = new_square <= square * (1 + 8 * jnp.finfo(x.dtype).eps)
            old_norm = dot(gradient, gradient)
            beta = dot(new_gradient, new_gradient) / jnp.where(old_norm > 0, old_norm, 1)
            new_direction = new_gradient + expand(beta, x) * direction
            accepted_x = expand(accepted, x)
            return (
                step + 1,
                jnp.where(accepted_x, new_x, x),
                jnp.where(accepted_x, new_direction, gradient),
                jnp.where(accepted, 1, fraction / 2),
                jnp.where(accepted_x, new_gradient, gradient),
                jnp.where(accepted, new_square, square),
                moves & (above_noise | ~accepted),
            )

        gradient, square, active = evaluate(x0)
        start = 0, x0, gradient, jnp.ones_like(square), gradient, square, active
        return jax.lax.while_loop(unfinished, descend, start)[1]

    def step(self, carry, keys, x, t, s, denoiser: Denoiser):
        """Steps from t to s; one evaluation."""
        sde = scalar(denoiser.sde)
        x0, noise = denoiser.x0_and_noise(x, t)
        step_variance, state_variance = self.gamma * posterior_variance(sde, s, t), sde.sigma(s) ** 2
        weight = step_variance / (step_variance + state_variance)
        mean = weight * sde.alpha(s) * self.fit(x0) + (1 - weight) * sde.perturb(x0, noise, s)
        return carry, mean + jnp.sqrt(weight * state_variance) * standard_normal(keys, x)
