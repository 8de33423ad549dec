"""Hard consistency with y: at each step the data that the Denoiser expects are moved until they fit y, by optimisation."""

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
    """Hard data consistency, then resampling: what fits y is given back the noise of time s.

    From the Denoiser's x_0 conjugate gradients go down |y - A(x_0)|^2, until it is what the noise of y makes it (or
    `fit_steps` are done): to x_0', for a linear A without noise the nearest image with A x_0' = y, which is what `DDNM` has.
    x' being the prior's DDIM step, x_s is drawn from the product of N(alpha_s x_0', sigma_s^2 I) and N(x', v I),

        mean (v alpha_s x_0' + sigma_s^2 x') / (v + sigma_s^2),   variance v sigma_s^2 / (v + sigma_s^2),

    v being gamma times the variance of the ancestral step. So small steps lean on the path that x is on, and large ones on
    y; gamma without bound is `Renoise(zeta=1)` on the fitted x_0. Published for latents, of which this is the form for
    pixels, with each step made consistent, not some of them. Run on the prior's Denoiser; its last step, x = D(x, t),
    leaves a misfit of some sigma at that t.

    Cost: one evaluation, and `fit_steps` products with A's derivative and its transpose at most.

    Source: Song et al. (2024), https://arxiv.org/abs/2307.08123, algorithm 1; gamma is 40 in their code.

    Attributes:
        measurement: A, linear or not; differentiable.
        y: (B, *measured), or (1, *measured) for all of a batch.
        measurement_noise: a `Noise`, or the standard deviation of Gaussian noise, that says when to stop; 0 for never.
        gamma: how much x_s leans on the fitted data, with noise of its own.
        fit_steps: of the optimisation, at most.
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
        """x0 (B, *event) moved until it fits y to its noise."""

        def look(x):
            """Minus half the gradient of the squared misfit, the squared misfit (B,), and whether it is more than noise."""
            clean, pull = jax.vjp(self.measurement.forward, x)
            misfit = self.y - clean
            # What is 0 in both is not measured (a masked pixel, a lost ray), and has no noise that may be left.
            of_noise = jnp.where((clean != 0) | (self.y != 0), variance(self.measurement_noise, clean), 0)
            square = dot(misfit, misfit)
            return pull(misfit)[0], square, square > of_noise.sum(tuple(range(1, clean.ndim)))

        def unfinished(state):
            step, *_, going = state
            return (step < self.fit_steps) & going.any()

        def descend(state):
            step, x, direction, part, gradient, misfit, going = state
            _, image = jax.jvp(self.measurement.forward, (x,), (direction,))
            curvature = dot(image, image)
            moves = going & (curvature > 0)
            # The length that is best for the linearized A.
            length = part * jnp.where(moves, dot(direction, gradient) / jnp.where(moves, curvature, 1), 0)
            there = x + expand(length, x) * direction
            new, square, still = look(there)
            # It may be too long for A itself: then half of it is tried, straight downhill. Rounding alone never is.
            better = square <= misfit * (1 + 8 * jnp.finfo(x.dtype).eps)
            old = dot(gradient, gradient)
            turned = new + expand(dot(new, new) / jnp.where(old > 0, old, 1), x) * direction
            kept = expand(better, x)
            return (
                step + 1,
                jnp.where(kept, there, x),
                jnp.where(kept, turned, gradient),
                jnp.where(better, 1, part / 2),
                jnp.where(kept, new, gradient),
                jnp.where(better, square, misfit),
                moves & (still | ~better),
            )

        gradient, square, going = look(x0)
        start = 0, x0, gradient, jnp.ones_like(square), gradient, square, going
        return jax.lax.while_loop(unfinished, descend, start)[1]

    def step(self, carry, keys, x, t, s, denoiser: Denoiser):
        """From t to s; one evaluation."""
        sde = scalar(denoiser.sde)
        x0, noise = denoiser.x0_and_noise(x, t)
        of_step, of_state = self.gamma * posterior_variance(sde, s, t), sde.sigma(s) ** 2
        share = of_step / (of_step + of_state)
        mean = share * sde.alpha(s) * self.fit(x0) + (1 - share) * sde.perturb(x0, noise, s)
        return carry, mean + jnp.sqrt(share * of_state) * standard_normal(keys, x)
