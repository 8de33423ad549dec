"""Correctors: Langevin dynamics, which move a sample at one time towards p_t without changing the time.

    x <- x + step score(x, t) + sqrt(2 step) z

and their use: alone (annealed Langevin dynamics) or before each step of a predictor (predictor-corrector sampling).

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
    """Langevin dynamics with a step set by a signal-to-noise ratio: step = 2 (snr |z| / |score|)^2.

    The ratio of norms can be taken in three ways:

    - "process": its value under the perturbation kernel, |z| / |score| = sigma_t. The step is the same for every sample
      and every state, so the dynamics keep p_t as the step goes to 0, in any dimension.
    - "sample": each sample's own norms, as Song's text has it. Near a mode, where the score vanishes, the step grows
      without bound: for images only.
    - "batch": the means over the batch, as score_sde's code has it. Couples the samples of a batch (and of a device):
      to reproduce published figures only.

    As a sampler of its own it takes x as it is to the smaller time and corrects it there: annealed Langevin dynamics. Each
    correction shrinks surplus noise by a factor 1 - 2 snr^2 only, so it needs hundreds of them.

    Attributes:
        snr: the signal-to-noise ratio, sqrt(step / 2) in units of |score| / |z|.
        steps: corrections at each time.
        norm: see above.
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
        """`steps` corrections of x (B, *event) at time t (); keys (B,)."""
        sigma = scalar(denoiser.sde).sigma(t)

        def body(x, index):
            noise, score = standard_normal(fold_in(keys, index), x), denoiser.score(x, t)
            step = 2 * (self.snr * self._norm_ratio(noise, score, sigma)) ** 2
            return x + step * score + jnp.sqrt(2 * step) * noise, None

        return jax.lax.scan(body, x, jnp.arange(self.steps))[0]

    def step(self, carry, keys, x, t, s, denoiser):
        """To time s without moving x, then corrections there."""
        return carry, self.correct(keys, x, s, denoiser)


@struct.dataclass
class AnnealedLangevin(Langevin):
    """Annealed Langevin dynamics as published for NCSN: many corrections at each of a few noise levels.

    A step of Song and Ermon's, epsilon sigma_i^2 / sigma_L^2, is 2 (snr sigma_i)^2 with snr^2 = epsilon / (2 sigma_L^2):
    0.316 with 100 steps at 10 levels (NCSN), 0.176 with 5 steps at 232 levels (NCSNv2). Use it with `log_snr_times`, whose
    levels are geometric.

    Sources: Song and Ermon (2019), https://arxiv.org/abs/1907.05600, algorithm 1; Song and Ermon (2020),
    https://arxiv.org/abs/2006.09011.
    """

    snr: float = 0.176
    steps: int = struct.field(pytree_node=False, default=5)


@struct.dataclass
class PredictorCorrector(Sampler):
    """At each time first the corrector, then the predictor's step to the next (Song et al., 2021, appendix G).

    Attributes:
        predictor: any one-step sampler (a multistep sampler does not know what a corrector moved).
        corrector: anything with `correct` and `evaluations_per_step`.
    """

    is_predictor: ClassVar[bool] = False

    predictor: Sampler = ReverseDiffusion()
    corrector: Langevin = Langevin()

    @property
    def evaluations_per_step(self) -> int:
        """Those of both."""
        return self.predictor.evaluations_per_step + self.corrector.evaluations_per_step

    def init(self, x: Array, denoiser: Denoiser, times: Array) -> Any:
        """The predictor's carry."""
        return self.predictor.init(x, denoiser, times)

    def step(self, carry, keys, x, t, s, denoiser):
        """Corrects at t, then goes from t to s."""
        key_corrector, key_predictor = split(keys, 2)
        x = self.corrector.correct(key_corrector, x, t, denoiser)
        return self.predictor.step(carry, key_predictor, x, t, s, denoiser)


# By the name that a config gives.
SAMPLERS = {"langevin": Langevin, "predictor_corrector": PredictorCorrector}
