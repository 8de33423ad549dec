"""Projection methods: the range component of x_0 or x_t is replaced by the measurement; no derivatives of the network.

| name          | operation                                                          | kind                      |
|---------------|--------------------------------------------------------------------|---------------------------|
| `DDNM`        | replaces A x_0 by y                                                | Denoiser                  |
| `DiffPIR`     | replaces A x_0 by the precision-weighted mean of y and A x_0       | Denoiser                  |
| `Renoise`     | the stochastic step of DiffPIR                                     | sampler                   |
| `Replacement` | replaces A x_t by y diffused to time t, as in score_sde            | sampler, after each step  |
| `Projection`  | moves A x_t towards y diffused to time t, Song et al. (2022)       | sampler, before each step |
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
    """Denoising diffusion null-space model: the range of A^T from y, the null space of A from the Denoiser.

    x_0 = D + A^+ (y - A D), so that A x_0 = y. For measurements without noise: `measurement_noise` is ignored, and
    `DDNMPlus` is for noisy measurements. Exact where the range and null space components of the data are independent,
    as for data N(mean, v I) with any A, and for independent pixels with an A that selects pixels.

    Cost: one evaluation and one `pseudo_inverse`.

    Source: Wang et al. (2023), https://arxiv.org/abs/2212.00490, eq. 13.

    Raises:
        ValueError: the measurement is not linear.
    """

    measurement: LinearMeasurement

    def __post_init__(self):
        require("DDNM", self.measurement, "pseudo_inverse", "linear")

    def correct(self, x: Array, t: ArrayLike) -> tuple[Array, Array, Array]:
        """Returns the prior's x_0 and noise, and the correction A^+ (y - A D)."""
        x0, noise = self.denoiser.x0_and_noise(x, t)
        return x0, noise, self.measurement.pseudo_inverse(self.y - self.measurement.forward(x0))


@struct.dataclass
class DiffPIR(Posterior):
    """Plug-and-play restoration (DiffPIR): a proximal step of the likelihood at the Denoiser's x_0.

    x_0 minimizes |y - A x_0|^2 / s^2 + strength |x_0 - D|^2 / n^2. This is E[x_0 | x_t, y] if x_0 given x_t is
    N(D, n^2 / strength I); with strength 1 it is exact for data of large isotropic variance. Without noise it equals
    `DDNM`. The published method samples with `Renoise`. A nonlinear measurement is linearized at D (one Gauss-Newton
    step).

    Cost: one evaluation and one `normal_solve`.

    Source: Zhu et al. (2023), https://arxiv.org/abs/2305.08995, eq. 12 and algorithm 1; their code
    (https://github.com/yuanzhi-zhu/DiffPIR) uses strength 1, with `Renoise(zeta=1)` and 20 steps for inpainting, and
    `Renoise(zeta=0.1)` and 100 steps for deblurring.

    Attributes:
        strength: lambda of the paper, 1 to 25: weight of the Denoiser's x_0.

    Raises:
        ValueError: strength is not positive.
    """

    strength: float = 1.0

    def __post_init__(self):
        positive("DiffPIR", strength=self.strength)

    def correct(self, x: Array, t: ArrayLike) -> tuple[Array, Array, Array]:
        """Returns the prior's x_0 and noise, and the correction A^T (A A^T + strength s^2 / n^2 I)^-1 (y - A D)."""
        x0, noise = self.denoiser.x0_and_noise(x, t)
        clean, tangent = self.measurement.forward(x0), self.measurement.derivative(x0)
        noise_variance = constant_variance("DiffPIR", self.measurement_noise, clean)
        ratio = self.strength * noise_variance / self.sde.noise_to_signal(t) ** 2
        return x0, noise, tangent.adjoint(tangent.normal_solve(self.y - clean, ratio))


@struct.dataclass
class Renoise(Sampler):
    """The step of DiffPIR: x_s = alpha_s x0 + sigma_s (sqrt(1 - zeta) noise + sqrt(zeta) z), for any Denoiser.

    Source: Zhu et al. (2023), https://arxiv.org/abs/2305.08995, algorithm 1, line 6.

    Attributes:
        zeta: fraction of fresh noise variance, 0 to 1; 0 is deterministic DDIM, 1 replaces all of the noise.
    """

    zeta: float = 0.3

    def step(self, carry, keys, x, t, s, denoiser):
        """Steps from t to s; one evaluation."""
        x0, noise = denoiser.x0_and_noise(x, t)
        mixed = jnp.sqrt(1 - self.zeta) * noise + jnp.sqrt(self.zeta) * standard_normal(keys, x)
        return carry, denoiser.sde.perturb(x0, mixed, s)


@struct.dataclass
class Replacement(Sampler):
    """Replacement of A x_s by y diffused to time s, after each step of a predictor.

    With y_s = alpha_s y + sigma_s A z and fresh standard normal z in each step,

        x_s <- x_s + relaxation A^+ (y_s - A x_s).

    For y without noise, such as known pixels or k-space lines. For known pixels and relaxation 1, this is the
    inpainting of score_sde, with y diffused to the time of the state that it replaces. The samples do not converge to
    the posterior with more steps, because the rest of x_s was drawn without y. With `DPS` as the Denoiser, this is the
    published manifold constraint of Chung et al.; see `ManifoldConstraint`.

    Cost per step: that of the predictor, and one `pseudo_inverse`.

    Sources: Song et al. (2021), https://arxiv.org/abs/2011.13456, section 5 and appendix I.2; Chung et al. (2022),
    https://arxiv.org/abs/2206.00941, algorithm 1.

    Attributes:
        measurement: linear.
        y: (B, *measured), or (1, *measured) for the whole batch.
        predictor: the sampler whose steps are followed by the replacement.
        relaxation: in (0, 1]; 1 is a full replacement.

    Raises:
        ValueError: the measurement is not linear, or relaxation is not positive.
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
        """Evaluations of the predictor."""
        return self.predictor.evaluations_per_step

    def init(self, x: Array, denoiser: Denoiser, times: Array) -> Any:
        """Returns the initial carry of the predictor."""
        return self.predictor.init(x, denoiser, times)

    def replace_measured(self, keys: Array, x: Array, t: ArrayLike, sde: SDE) -> Array:
        """Returns x (B, *event) at time t with A x replaced by y diffused to time t."""
        noise = expand(sde.sigma(t), x) * standard_normal(keys, x)
        y_t = expand(sde.alpha(t), self.y) * self.y + self.measurement.forward(noise)
        return x + self.relaxation * self.measurement.pseudo_inverse(y_t - self.measurement.forward(x))

    def step(self, carry, keys, x, t, s, denoiser):
        """Applies the predictor from t to s, then the replacement at s."""
        key_predictor, key_y = split(keys, 2)
        carry, x = self.predictor.step(carry, key_predictor, x, t, s, denoiser)
        return carry, self.replace_measured(key_y, x, s, scalar(denoiser.sde))

    def finish(self, carry, x, t, denoiser):
        """Applies the final step of the predictor."""
        return self.predictor.finish(carry, x, t, denoiser)


@struct.dataclass
class Projection(Sampler):
    """Projection of x_t towards y diffused to time t, before each step: Song et al.'s method for MRI and CT.

    With y_t = alpha_t y + sigma_t A z and fresh standard normal z in each projection,

        x_t <- x_t + relaxation A^+ (y_t - A x_t),

    which interpolates between x_t and its projection onto A x = y_t. In k-space, sampled lines become
    (1 - relaxation) x_t + relaxation y_t, and all other lines remain x_t. With a corrector, one projection precedes the
    corrector and another precedes the predictor. `Replacement` projects after each step instead, so the final denoising
    step is evaluated at a projected state; here it is evaluated at the state after the last predictor step. The
    published sampler ends with a projection of the denoised image onto y, that is, `DDNM` at the last time only:

        end = Interval(DDNM(prior, measurement, y), prior, high=prior.sde.noise_to_signal(times[-2]) * 1.001)
        x = sample(keys, end, Projection(measurement, y, corrector=Langevin(snr=0.5)), times, event_shape)

    For CT, A^+ is the filtered back-projection of a complete set of angles, with 0 at angles without data:
    `CompletedRadon`. For real images, the published code takes the real part of the inverse Fourier transform, which is
    A^T; the A^+ used here is twice as large at frequencies that are sampled without their negatives.

    Cost per step: that of the predictor and of the corrector, and one `pseudo_inverse` for each of the two.

    Source: Song et al. (2022), https://arxiv.org/abs/2111.08005, eq. 8 to 10 and algorithm 2;
    https://github.com/yang-song/score_inverse_problems, cs.py, solver `projection`.

    Attributes:
        measurement: linear.
        y: (B, *measured), or (1, *measured) for the whole batch.
        predictor: a one-step sampler.
        corrector: an object with `correct` and `evaluations_per_step`; None disables the corrector.
        relaxation: lambda of the paper, in (0, 1]: 1 for y without noise.

    Raises:
        ValueError: the measurement is not linear, or relaxation is not positive.
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
        """Evaluations of the predictor and the corrector."""
        return self.predictor.evaluations_per_step + (self.corrector.evaluations_per_step if self.corrector else 0)

    def init(self, x: Array, denoiser: Denoiser, times: Array) -> Any:
        """Returns the initial carry of the predictor."""
        return self.predictor.init(x, denoiser, times)

    def step(self, carry, keys, x, t, s, denoiser):
        """Projects and corrects at t, projects again, then applies the predictor from t to s."""
        key_corrector, key_predictor, key_first, key_second = split(keys, 4)
        sde = scalar(denoiser.sde)
        project = Replacement(self.measurement, self.y, relaxation=self.relaxation).replace_measured
        if self.corrector:
            x = self.corrector.correct(key_corrector, project(key_first, x, t, sde), t, denoiser)
        return self.predictor.step(carry, key_predictor, project(key_second, x, t, sde), t, s, denoiser)
