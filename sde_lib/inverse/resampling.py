"""Samplers with resampling: RePaint repeats each step, DAPS samples x_0 given x_t and y in each step."""

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
    """RePaint: each step is repeated `resamplings` times, and between repetitions x_s is diffused back to time t.

    The repetitions harmonize the known values that a sampler such as `Replacement` inserts with the values that the
    Denoiser generates. A step of the time grid is a jump of `substeps` steps of the inner sampler, evenly spaced in t.
    The published schedule for 250 steps, jump length 10 and 10 resamplings is a grid of 25 steps with substeps = 10.
    With `DDNM` or `DDNMPlus`, this is the time travel of their paper. `Replacement` remains inexact: the known pixels
    of x_s are drawn independently of the generated pixels.

    Cost per step: resamplings * substeps steps of the inner sampler.

    Source: Lugmayr et al. (2022), https://arxiv.org/abs/2201.09865, algorithm 1 and appendix B.

    Attributes:
        sampler: a one-step sampler; `Replacement(measurement, y)` in the paper.
        resamplings: number of times that each jump is made; 1 is the inner sampler without repetition; static.
        substeps: number of steps of each jump; static.

    Raises:
        ValueError: resamplings or substeps is below 1.
    """

    sampler: Sampler
    resamplings: int = struct.field(pytree_node=False, default=10)
    substeps: int = struct.field(pytree_node=False, default=1)

    def __post_init__(self):
        at_least("RePaint", 1, resamplings=self.resamplings, substeps=self.substeps)

    @property
    def evaluations_per_step(self) -> int:
        """Evaluations of all resamplings and substeps."""
        return self.resamplings * self.substeps * self.sampler.evaluations_per_step

    def init(self, x: Array, denoiser: Denoiser, times: Array) -> Any:
        """Returns the initial carry of the inner sampler."""
        return self.sampler.init(x, denoiser, times)

    def step(self, carry, keys, x, t, s, denoiser):
        """Steps from t to s, then `resamplings - 1` times back to t and again to s."""
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
    """Decoupled annealing posterior sampling: samples x_0 given x_t and y, then adds fresh noise of time s.

    p(x_0 | x_t) is approximated by N(x0, r^2 I), where x0 is the endpoint of the probability flow from x_t after
    `ode_steps` steps of DDIM (on EDM's grid, rho = 7; with one step, x0 is the Denoiser's mean). x_0 given x_t and y is
    sampled by Langevin dynamics started at x0:

        x_0 <- x_0 + h grad [log N(x_0; x0, r^2 I) + log p(y | x_0)] + sqrt(2 h) z,   h = step_size / (1 / r^2 + 1 /
        s^2).

    x_s depends on x_t only through x_0, so errors of early steps can be corrected later. A can be any differentiable
    map. For
    |A| <= 1, the Langevin dynamics are stable for step_size < 2, and the variance is too large by at most a fraction of
    about step_size / 4. In the null space of A they start at the mean, and reach the full variance after about
    (1 + r^2 / s^2) / step_size steps. r = n as published; with data_std, r^2 = n^2 v / (n^2 + v), v = data_std^2, which
    is exact for data N(mean, v I) with one step of the flow and many small Langevin steps. The sampler runs on the
    prior's Denoiser.

    Cost per step: `ode_steps` evaluations, and `langevin_steps` gradients of A (without the network).

    Source: Zhang et al. (2024), https://arxiv.org/abs/2407.01521, algorithm 1. Their code
    (https://github.com/zhangbingliang2019/DAPS) uses 200 steps from n = 100 to 0.1, each with 5 flow steps and 100
    Langevin steps, s = 0.01 for noise of 0.05, and h decreasing from 1e-4 (2e-5 for HDR) by a factor of 100.

    Attributes:
        measurement: A, linear or not; differentiable.
        y: (B, *measured), or (1, *measured) for the whole batch.
        measurement_noise: s, the standard deviation of Gaussian noise, more than 0; or a `Noise` of one variance.
        ode_steps: number of steps of the probability flow per sampler step; static.
        langevin_steps: number of steps of Langevin dynamics per sampler step; static.
        step_size: relative step size of Langevin dynamics, see h.
        data_std: the standard deviation of a pixel; infinite for r = n.

    Raises:
        ValueError: ode_steps or langevin_steps is below 1, or step_size or data_std is not positive; in use, the noise
            is 0 or has more than one variance.
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
        """Evaluations of the probability flow."""
        return self.ode_steps

    def estimate(self, x: Array, t: Array, denoiser: Denoiser) -> Array:
        """Returns the endpoint (B, *event) of the probability flow from x at time t ()."""
        sde = denoiser.sde
        first, last = (sde.noise_to_signal(time) ** (1 / 7) for time in (t, sde.t_min))
        levels = jnp.linspace(first, last, self.ode_steps)[1:] ** 7
        times = jnp.concatenate([jnp.asarray(t)[None], sde.time_at_log_snr(-2 * jnp.log(levels))])
        for i in range(self.ode_steps - 1):
            x0, noise = denoiser.x0_and_noise(x, times[i])
            x = sde.perturb(x0, noise, times[i + 1])
        return denoiser(x, times[-1])

    def draw_data(self, keys: Array, x0: Array, t: Array, denoiser: Denoiser) -> Array:
        """Samples x_0 (B, *event) given y and the estimate x0 (B, *event) at time t ()."""
        require_noise("DAPS", self.measurement_noise)
        clean = jax.eval_shape(self.measurement.forward, x0)
        noise_variance = constant_variance("DAPS", self.measurement_noise, jnp.zeros(clean.shape, clean.dtype))
        x0_variance = isotropic_variance(denoiser.sde.noise_to_signal(t), self.data_std)
        h = self.step_size / (1 / x0_variance + 1 / noise_variance)

        def log_prob(x):
            log_prior = -0.5 * jnp.square(x - x0).sum() / x0_variance
            return log_prior + log_likelihood(self.measurement_noise, self.y, self.measurement.forward(x)).sum()

        def langevin(x, i):
            return x + h * jax.grad(log_prob)(x) + jnp.sqrt(2 * h) * standard_normal(fold_in(keys, i), x), None

        return jax.lax.scan(langevin, x0, jnp.arange(self.langevin_steps))[0]

    def step(self, carry, keys, x, t, s, denoiser):
        """Steps from t to s; `ode_steps` evaluations."""
        key_data, key_noise = split(keys, 2)
        x0 = self.draw_data(key_data, self.estimate(x, t, denoiser), t, denoiser)
        return carry, denoiser.sde.perturb(x0, standard_normal(key_noise, x), s)
