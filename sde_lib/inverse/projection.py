"""Projections: what is measured is put in place of what the Denoiser or the sampler says of it; no derivatives.

| name          | what is replaced, and by what                                       | where              |
|---------------|---------------------------------------------------------------------|--------------------|
| `DDNM`        | A x_0 by y                                                          | a Denoiser         |
| `DiffPIR`     | A x_0, by a compromise with y of the precision of each              | a Denoiser         |
| `Renoise`     |                                                                     | DiffPIR's step     |
| `Replacement` | A x_t by y with noise of time t: score_sde's                        | after each step    |
| `Projection`  | the same in part: Song et al. 2022, for MRI and CT                  | before each step   |
"""

from typing import Any

import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from sde_lib.checks import positive
from sde_lib.denoiser import Denoiser
from sde_lib.inverse.measurement import LinearMeasurement
from sde_lib.inverse.posterior import Posterior, constant_variance, require
from sde_lib.randomness import split, standard_normal
from sde_lib.sampling.correctors import Langevin
from sde_lib.sampling.predictors import Ancestral, ReverseDiffusion
from sde_lib.sampling.sampler import Sampler
from sde_lib.sde import SDE, expand, scalar


@struct.dataclass
class DDNM(Posterior):
    """Denoising diffusion null-space model: the range of A^T from y, the null space from the Denoiser.

    D + A^+ (y - A D), so that A x_0 = y: for measurements without noise (`measurement_noise` is not asked for; `DDNMPlus`
    is for those with). Exact where null space and range are independent, as for data N(mean, v I) with any A, and for
    independent pixels where A picks pixels.

    Cost: one evaluation and one `pseudo_inverse`.

    Source: Wang et al. (2023), https://arxiv.org/abs/2212.00490, eq. 13.
    """

    measurement: LinearMeasurement

    def __post_init__(self):
        require("DDNM", self.measurement, "pseudo_inverse", "linear")

    def correct(self, x: Array, t: ArrayLike) -> tuple[Array, Array, Array]:
        """A^+ (y - A D)."""
        x0, noise = self.denoiser.x0_and_noise(x, t)
        return x0, noise, self.measurement.pseudo_inverse(self.y - self.measurement.forward(x0))


@struct.dataclass
class DiffPIR(Posterior):
    """The x_0 that minimizes |y - A x_0|^2 / s^2 + strength |x_0 - D|^2 / n^2: a proximal step on the likelihood.

    That is E[x_0 | y] where x_0 given x_t is N(D, n^2 / strength I): with strength 1, exact for data that are spread wide
    and evenly. Without noise it is `DDNM`. As published it is sampled from by `Renoise`. A measurement
    that is not linear is taken as its tangent at D: one step of Gauss and Newton.

    Cost: one evaluation and one `normal_solve`.

    Source: Zhu et al. (2023), https://arxiv.org/abs/2305.08995, eq. 12 and algorithm 1; their code
    (https://github.com/yuanzhi-zhu/DiffPIR) takes strength 1, with zeta = 1 of `Renoise` and 20 steps for inpainting,
    0.1 and 100 for blur.

    Attributes:
        strength: lambda there, 1 to 25: how much the Denoiser counts.
    """

    strength: float = 1.0

    def __post_init__(self):
        positive("DiffPIR", strength=self.strength)

    def correct(self, x: Array, t: ArrayLike) -> tuple[Array, Array, Array]:
        """A^T (A A^T + strength s^2 / n^2 I)^-1 (y - A D)."""
        x0, noise = self.denoiser.x0_and_noise(x, t)
        clean, tangent = self.measurement.forward(x0), self.measurement.derivative(x0)
        of_y = constant_variance("DiffPIR", self.measurement_noise, clean)
        ratio = self.strength * of_y / self.sde.noise_to_signal(t) ** 2
        return x0, noise, tangent.adjoint(tangent.normal_solve(self.y - clean, ratio))


@struct.dataclass
class Renoise(Sampler):
    """x_s = alpha_s x0 + sigma_s (sqrt(1 - zeta) noise + sqrt(zeta) z): DiffPIR's step, on any Denoiser.

    Source: Zhu et al. (2023), https://arxiv.org/abs/2305.08995, algorithm 1, line 6.

    Attributes:
        zeta: 0 is DDIM without noise of its own; 1 forgets the noise that x had.
    """

    zeta: float = 0.3

    def step(self, carry, keys, x, t, s, denoiser):
        """From t to s; one evaluation."""
        x0, noise = denoiser.x0_and_noise(x, t)
        mixed = jnp.sqrt(1 - self.zeta) * noise + jnp.sqrt(self.zeta) * standard_normal(keys, x)
        return carry, denoiser.sde.perturb(x0, mixed, s)


@struct.dataclass
class Replacement(Sampler):
    """After each step of a predictor, what is measured of x_s is replaced by y as it would be at time s.

    With y_s = alpha_s y + sigma_s A z, z drawn anew for each step,

        x_s <- x_s + relaxation A^+ (y_s - A x_s).

    y itself is known pixels or k-space lines without noise. For known pixels and relaxation 1 it is score_sde's inpainting
    with y at the noise of the state it enters. The samples are not the posterior's for any number of steps: the rest of x_s
    was drawn without y. `DPS` as the Denoiser gives the manifold constraint of Chung et al. as published; see
    `ManifoldConstraint`.

    Cost: the predictor's, and one `pseudo_inverse`.

    Sources: Song et al. (2021), https://arxiv.org/abs/2011.13456, section 5 and appendix I.2; Chung et al. (2022),
    https://arxiv.org/abs/2206.00941, algorithm 1.

    Attributes:
        measurement: linear.
        y: (B, *measured), or (1, *measured) for all of a batch.
        predictor: the step to follow.
        relaxation: in (0, 1].
    """

    measurement: LinearMeasurement
    y: Array
    predictor: Sampler = Ancestral()
    relaxation: float = 1.0

    def __post_init__(self):
        require("Replacement", self.measurement, "pseudo_inverse", "linear")
        positive("Replacement", relaxation=self.relaxation)

    @property
    def evaluations_per_step(self) -> int:
        """The predictor's."""
        return self.predictor.evaluations_per_step

    def init(self, x: Array, denoiser: Denoiser, times: Array) -> Any:
        """The predictor's carry."""
        return self.predictor.init(x, denoiser, times)

    def replace_measured(self, keys: Array, x: Array, t: ArrayLike, sde: SDE) -> Array:
        """x (B, *event) at time t with what is measured replaced."""
        noise = expand(sde.sigma(t), x) * standard_normal(keys, x)
        y_t = expand(sde.alpha(t), self.y) * self.y + self.measurement.forward(noise)
        return x + self.relaxation * self.measurement.pseudo_inverse(y_t - self.measurement.forward(x))

    def step(self, carry, keys, x, t, s, denoiser):
        """The predictor's step from t to s, then the replacement at s."""
        key_predictor, key_y = split(keys, 2)
        carry, x = self.predictor.step(carry, key_predictor, x, t, s, denoiser)
        return carry, self.replace_measured(key_y, x, s, scalar(denoiser.sde))

    def finish(self, carry, x, t, denoiser):
        """The predictor's last step."""
        return self.predictor.finish(carry, x, t, denoiser)


@struct.dataclass
class Projection(Sampler):
    """Before each step, x_t is moved towards y as it would be at time t: Song et al.'s method for MRI and CT.

    With y_t = alpha_t y + sigma_t A z, z drawn anew each time,

        x_t <- x_t + relaxation A^+ (y_t - A x_t),

    which is the x between x_t and those that fit y_t, relaxation of the way: in k-space, (1 - relaxation) of x_t and
    relaxation of y_t where there are lines, and x_t elsewhere. With a corrector there is one such projection before it and
    another before the predictor. `Replacement` projects what a step has led to instead, so that the denoising step that
    ends a run sees y_s; here it sees what the predictor made of it. The published sampler ends with a projection of the
    denoised image onto y itself, which is `DDNM` at the last time alone:

        end = Interval(DDNM(prior, measurement, y), prior, high=prior.sde.noise_to_signal(times[-2]) * 1.001)
        x = sample(keys, end, Projection(measurement, y, corrector=Langevin(snr=0.5)), times, event_shape)

    For CT, A^+ is the filtered back-projection of a complete set of angles, the ones without data being 0:
    `CompletedRadon`. The published code takes, for real images, the real part of what k-space became: A^T where this is
    A^+, half of it at frequencies that are sampled without their negatives.

    Cost: the predictor's and the corrector's, and a `pseudo_inverse` for each of the two.

    Source: Song et al. (2022), https://arxiv.org/abs/2111.08005, eq. 8 to 10 and algorithm 2;
    https://github.com/yang-song/score_inverse_problems, cs.py, whose solver `projection` this is.

    Attributes:
        measurement: linear.
        y: (B, *measured), or (1, *measured) for all of a batch.
        predictor: a one-step sampler.
        corrector: anything with `correct` and `evaluations_per_step`; None for none.
        relaxation: lambda there, in (0, 1]: 1 for y without noise.
    """

    measurement: LinearMeasurement
    y: Array
    predictor: Sampler = ReverseDiffusion()
    corrector: Langevin | None = None
    relaxation: float = 1.0

    def __post_init__(self):
        require("Projection", self.measurement, "pseudo_inverse", "linear")
        positive("Projection", relaxation=self.relaxation)

    @property
    def evaluations_per_step(self) -> int:
        """Those of both."""
        return self.predictor.evaluations_per_step + (self.corrector.evaluations_per_step if self.corrector else 0)

    def init(self, x: Array, denoiser: Denoiser, times: Array) -> Any:
        """The predictor's carry."""
        return self.predictor.init(x, denoiser, times)

    def step(self, carry, keys, x, t, s, denoiser):
        """Projects and corrects at t, projects again, then goes from t to s."""
        key_corrector, key_predictor, key_first, key_second = split(keys, 4)
        sde = scalar(denoiser.sde)
        put = Replacement(self.measurement, self.y, relaxation=self.relaxation).replace_measured
        if self.corrector:
            x = self.corrector.correct(key_corrector, put(key_first, x, t, sde), t, denoiser)
        return self.predictor.step(carry, key_predictor, put(key_second, x, t, sde), t, s, denoiser)
