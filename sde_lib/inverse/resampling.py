"""Samplers that resample: RePaint repeats each step, DAPS draws the data anew at each step."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from sde_lib.checks import at_least, positive
from sde_lib.denoiser import Denoiser
from sde_lib.exact import isotropic_variance
from sde_lib.inverse.measurement import Measurement, Noise
from sde_lib.inverse.posterior import constant_variance, log_likelihood, require_noise
from sde_lib.randomness import fold_in, split, standard_normal
from sde_lib.sampling.sampler import Sampler


@struct.dataclass
class RePaint(Sampler):
    """Each step is made `resamplings` times, with noise added back to time t in between: x_s ~> x_t by the forward kernel.

    So that what a sampler such as `Replacement` puts in and what the Denoiser draws around it come to agree. A step of the
    grid is a jump: it is made of `substeps` steps of the inner sampler, even in t. The published schedule for 250 steps,
    jump length 10 and 10 resamplings is a grid of 25 steps with substeps = 10. Around `DDNM` or `DDNMPlus` it is their
    time travel. It does not make `Replacement` exact: known pixels of x_s do not know of the others.

    Cost: resamplings * substeps steps of the inner sampler.

    Source: Lugmayr et al. (2022), https://arxiv.org/abs/2201.09865, algorithm 1 and appendix B.

    Attributes:
        sampler: a one-step sampler, `Replacement(measurement, y)` as published.
        resamplings: how often each jump is made; 1 is the inner sampler.
        substeps: of each jump.
    """

    sampler: Sampler
    resamplings: int = struct.field(pytree_node=False, default=10)
    substeps: int = struct.field(pytree_node=False, default=1)

    def __post_init__(self):
        at_least("RePaint", 1, resamplings=self.resamplings, substeps=self.substeps)

    @property
    def evaluations_per_step(self) -> int:
        """All resamplings of all substeps."""
        return self.resamplings * self.substeps * self.sampler.evaluations_per_step

    def init(self, x: Array, denoiser: Denoiser, times: Array) -> Any:
        """The inner sampler's carry."""
        return self.sampler.init(x, denoiser, times)

    def step(self, carry, keys, x, t, s, denoiser):
        """From t to s, and back and again."""
        key_down, key_up = split(keys, 2)
        times = jnp.linspace(t, s, self.substeps + 1)

        def jump(state, round_number):
            def substep(state, i):
                carry, x = state
                key = fold_in(key_down, round_number * self.substeps + i)
                return self.sampler.step(carry, key, x, times[i], times[i + 1], denoiser), None

            return jax.lax.scan(substep, state, jnp.arange(self.substeps))[0]

        def resample(state, round_number):
            carry, x = state
            x = denoiser.sde.diffuse(x, standard_normal(fold_in(key_up, round_number), x), s, t)
            return jump((carry, x), round_number), None

        return jax.lax.scan(resample, jump((carry, x), 0), jnp.arange(1, self.resamplings))[0]


@struct.dataclass
class DAPS(Sampler):
    """Decoupled annealing posterior sampling: x_0 is drawn given x_t and y, and noise of time s is added to it.

    p(x_0 | x_t) is taken to be N(x0, r^2 I), with x0 where the probability flow from x_t ends after `ode_steps` steps of
    DDIM (on EDM's grid, rho = 7; one step is the Denoiser's mean), and x_0 given y too is drawn by Langevin dynamics from
    there:

        x_0 <- x_0 + h grad [log N(x_0; x0, r^2 I) + log p(y | x_0)] + sqrt(2 h) z,   h = step_size / (1 / r^2 + 1 / s^2).

    No step leans on the one before, so errors of early steps can be undone; A may be any differentiable map. Langevin
    dynamics are stable for step_size < 2 where |A| <= 1, and too wide by some step_size / 4 of the variance at most. They
    start at the mean of what y does not see, and spread there in some (1 + r^2 / s^2) / step_size steps.
    r is n, as published, or with data_std, r^2 = n^2 v / (n^2 + v), v = data_std^2: then, with one step of the flow and
    many small ones of Langevin, exact for data N(mean, v I). Run on the prior's Denoiser.

    Cost: `ode_steps` evaluations, and `langevin_steps` gradients of A alone.

    Source: Zhang et al. (2024), https://arxiv.org/abs/2407.01521, algorithm 1. Their code
    (https://github.com/zhangbingliang2019/DAPS) takes 200 steps from n = 100 to 0.1, each with 5 of the flow and 100 of
    Langevin, s = 0.01 for noise of 0.05, and h from 1e-4 (2e-5 for HDR) down to a hundredth of it.

    Attributes:
        measurement: A, linear or not.
        y: (B, *measured), or (1, *measured) for all of a batch.
        measurement_noise: s, more than 0, or a `Noise` of one variance with its own log_prob.
        ode_steps, langevin_steps: how many of each.
        step_size: of Langevin dynamics, as above.
        data_std: the spread of a pixel; infinite for r = n.
    """

    measurement: Measurement
    y: Array
    measurement_noise: Noise | ArrayLike
    ode_steps: int = struct.field(pytree_node=False, default=5)
    langevin_steps: int = struct.field(pytree_node=False, default=100)
    step_size: float = 0.1
    data_std: float = jnp.inf

    def __post_init__(self):
        at_least("DAPS", 1, ode_steps=self.ode_steps, langevin_steps=self.langevin_steps)
        positive("DAPS", step_size=self.step_size, data_std=self.data_std)

    @property
    def evaluations_per_step(self) -> int:
        """Those of the probability flow."""
        return self.ode_steps

    def estimate(self, x: Array, t: Array, denoiser: Denoiser) -> Array:
        """Where the probability flow from x at time t () ends, (B, *event)."""
        sde = denoiser.sde
        first, last = (sde.noise_to_signal(time) ** (1 / 7) for time in (t, sde.t_min))
        levels = jnp.linspace(first, last, self.ode_steps)[1:] ** 7
        times = jnp.concatenate([jnp.asarray(t)[None], sde.time_at_log_snr(-2 * jnp.log(levels))])
        for i in range(self.ode_steps - 1):
            x0, noise = denoiser.x0_and_noise(x, times[i])
            x = sde.perturb(x0, noise, times[i + 1])
        return denoiser(x, times[-1])

    def draw_data(self, keys: Array, x0: Array, t: Array, denoiser: Denoiser) -> Array:
        """Draws of x_0 given y and the estimate x0 (B, *event) of time t ()."""
        require_noise("DAPS", self.measurement_noise)
        clean = jax.eval_shape(self.measurement.forward, x0)
        of_y = constant_variance("DAPS", self.measurement_noise, jnp.zeros(clean.shape, clean.dtype))
        of_x0 = isotropic_variance(denoiser.sde.noise_to_signal(t), self.data_std)
        h = self.step_size / (1 / of_x0 + 1 / of_y)

        def log_prob(x):
            near = -0.5 * jnp.square(x - x0).sum() / of_x0
            return near + log_likelihood(self.measurement_noise, self.y, self.measurement.forward(x)).sum()

        def langevin(x, i):
            return x + h * jax.grad(log_prob)(x) + jnp.sqrt(2 * h) * standard_normal(fold_in(keys, i), x), None

        return jax.lax.scan(langevin, x0, jnp.arange(self.langevin_steps))[0]

    def step(self, carry, keys, x, t, s, denoiser):
        """From t to s; `ode_steps` evaluations."""
        key_data, key_noise = split(keys, 2)
        x0 = self.draw_data(key_data, self.estimate(x, t, denoiser), t, denoiser)
        return carry, denoiser.sde.perturb(x0, standard_normal(key_noise, x), s)
