"""Correctors: Langevin dynamics at fixed time t, with stationary distribution p_t.

    x <- x + step score(x, t) + sqrt(2 step) z

They are used as samplers (annealed Langevin dynamics) or before each step of a predictor (predictor-corrector
sampling).

Sources: Song and Ermon (2019), https://arxiv.org/abs/1907.05600, algorithm 1; Song et al. (2021),
https://arxiv.org/abs/2011.13456, algorithms 2 to 5.
"""

from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from sde_lib.checks import at_least, one_of, positive
from sde_lib.denoiser import Denoiser
from sde_lib.randomness import fold_in, split, standard_normal
from sde_lib.sampling.predictors import ReverseDiffusion
from sde_lib.sampling.sampler import Sampler
from sde_lib.sde import expand, scalar

NORMS = ("process", "sample", "batch")


def _norms(x: Array) -> Array:
    return jnp.sqrt(jnp.square(x).sum(tuple(range(1, x.ndim))))


@struct.dataclass
class Langevin(Sampler):
    """Langevin dynamics with a step size set by a signal-to-noise ratio: step = 2 (snr |z| / |score|)^2.

    The option `norm` sets the ratio of norms |z| / |score|:

    - "process": sigma_t, the ratio under the perturbation kernel. The step size is independent of the state, so p_t is
      the stationary distribution as the step size goes to 0, in any dimension.
    - "sample": the norms of each sample, as in the text of Song et al. The step size diverges near a mode, where the
      score vanishes; suitable for images only.
    - "batch": the mean norms over the batch, as in the code of score_sde. Couples the samples of a batch (on each
      device); intended only to reproduce published results.

    Used as a sampler (annealed Langevin dynamics), it keeps x when the time decreases and corrects x at the new time.
    Each correction multiplies the excess noise by about 1 - 2 snr^2, so hundreds of corrections are needed.

    Attributes:
        snr: the signal-to-noise ratio, sqrt(step / 2) in units of |z| / |score|, > 0 (ValueError).
        steps: corrections at each time, at least 1 (ValueError).
        norm: "process", "sample" or "batch"; see above.
    """

    is_predictor: ClassVar[bool] = False

    snr: float = 0.16
    steps: int = struct.field(pytree_node=False, default=1)
    norm: Literal["process", "sample", "batch"] = struct.field(pytree_node=False, default="process")

    def __post_init__(self):
        name = type(self).__name__
        positive(name, snr=self.snr)
        at_least(name, 1, steps=self.steps)
        one_of(name, NORMS, norm=self.norm)

    @property
    def evaluations_per_step(self) -> int:
        """One evaluation per correction."""
        return self.steps

    def _norm_ratio(self, noise: Array, score: Array, sigma: Array) -> Array:
        if self.norm == "process":
            return sigma
        if self.norm == "sample":
            return expand(_norms(noise) / _norms(score), score)
        return _norms(noise).mean() / _norms(score).mean()

    def correct(self, keys: Array, x: Array, t: Array, denoiser: Denoiser) -> Array:
        """Applies `steps` corrections to x (B, *event) at time t (), with keys (B,)."""
        sigma = scalar(denoiser.sde).sigma(t)

        def body(x, index):
            noise, score = standard_normal(fold_in(keys, index), x), denoiser.score(x, t)
            step = 2 * (self.snr * self._norm_ratio(noise, score, sigma)) ** 2
            return x + step * score + jnp.sqrt(2 * step) * noise, None

        return jax.lax.scan(body, x, jnp.arange(self.steps))[0]

    def step(self, carry, keys, x, t, s, denoiser):
        """Corrections at time s, from unchanged x; `steps` evaluations."""
        return carry, self.correct(keys, x, s, denoiser)


@struct.dataclass
class AnnealedLangevin(Langevin):
    """Annealed Langevin dynamics as published for NCSN and NCSNv2: several corrections at each noise level.

    The step size of Song and Ermon, epsilon sigma_i^2 / sigma_L^2, equals 2 (snr sigma_i)^2 with snr^2 = epsilon / (2
    sigma_L^2). Published settings: snr 0.316 with 100 steps at 10 noise levels (NCSN), 0.176 with 5 steps at 232 noise
    levels (NCSNv2). Use with `log_snr_times`, whose noise levels are geometric.

    Sources: Song and Ermon (2019), https://arxiv.org/abs/1907.05600, algorithm 1; Song and Ermon (2020),
    https://arxiv.org/abs/2006.09011.
    """

    snr: float = 0.176
    steps: int = struct.field(pytree_node=False, default=5)


@struct.dataclass
class PredictorCorrector(Sampler):
    """Predictor-corrector sampling: at each time the corrector, then the predictor's step to the next time.

    Source: Song et al. (2021), https://arxiv.org/abs/2011.13456, appendix G.

    Attributes:
        predictor: a one-step sampler. Multistep samplers are unsuitable, as the corrector changes x between their
            steps.
        corrector: an object with `correct` and `evaluations_per_step`.
    """

    is_predictor: ClassVar[bool] = False

    predictor: Sampler = ReverseDiffusion()
    corrector: Langevin = Langevin()

    @property
    def evaluations_per_step(self) -> int:
        """Evaluations of predictor and corrector together."""
        return self.predictor.evaluations_per_step + self.corrector.evaluations_per_step

    def init(self, x: Array, denoiser: Denoiser, times: Array) -> Any:
        """The predictor's carry."""
        return self.predictor.init(x, denoiser, times)

    def step(self, carry, keys, x, t, s, denoiser):
        """Corrects x at t, then applies the predictor from t to s."""
        key_corrector, key_predictor = split(keys, 2)
        x = self.corrector.correct(key_corrector, x, t, denoiser)
        return self.predictor.step(carry, key_predictor, x, t, s, denoiser)


# Names used in configs.
SAMPLERS = {"langevin": Langevin, "predictor_corrector": PredictorCorrector}
