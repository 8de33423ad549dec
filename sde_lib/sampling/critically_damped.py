"""SSCS, the symmetric splitting sampler for critically damped Langevin diffusion.

The reverse-time SDE of (x, v), in time s = t_max - t, is split into two parts that can be solved separately:

    A:  dx = -beta v / M ds,   dv = beta x ds - beta Gamma v / M ds + sqrt(2 Gamma beta) dw   (linear: Gaussian kernel)
    S:  dv = 2 Gamma beta [score_v(x, v, t) + v / M] ds                                       (x constant)

A is the forward process with reversed velocity, with the stationary distribution N(0, 1) x N(0, M). S contains the
score. A step consists of half a step of A, a step of S and half a step of A.

Source: Dockhorn, Vahdat and Kreis (2022), https://arxiv.org/abs/2112.07068, section 3.3 and appendix D.
"""

from flax import struct
from jax import Array

from sde_lib.critically_damped import CriticallyDampedLangevin, with_velocity
from sde_lib.denoiser import Denoiser
from sde_lib.randomness import split, standard_normal
from sde_lib.sampling.sampler import Sampler


@struct.dataclass
class SSCS(Sampler):
    """Symmetric splitting sampler for `CriticallyDampedLangevin`: half a step of A, a step of S, half a step of A.

    S is evaluated at the midpoint time of the step. With order 1, S is solved by an Euler step, as published: one
    evaluation per step and a weak error of O(1 / n). With order 2, S is solved by the midpoint rule: two evaluations
    per step and a weak error of O(1 / n^2), which is more accurate for equal evaluations from about 20 steps. A
    preserves the stationary distribution, so the advantage over `EulerMaruyama` is largest for data of unit variance.

    Attributes:
        order: weak order of convergence, 1 or 2.
    """

    order: int = struct.field(pytree_node=False, default=1)

    @property
    def evaluations_per_step(self) -> int:
        """Evaluations per step: the order."""
        return self.order

    def init(self, x: Array, denoiser: Denoiser, times: Array) -> tuple:
        """Returns an empty carry.

        Raises:
            ValueError: `order` is neither 1 nor 2, or the process has no velocity.
        """
        if self.order not in (1, 2):
            raise ValueError(f"SSCS: order={self.order} is not implemented: choose 1 or 2")
        self._process(denoiser)
        return ()

    def _process(self, denoiser: Denoiser) -> CriticallyDampedLangevin:
        return with_velocity(denoiser.sde, "SSCS", "DDIM, Heun or EulerMaruyama")

    def _equilibrium(self, keys: Array, x: Array, t: Array, s: Array, denoiser: Denoiser) -> Array:
        """Part A from t to s < t."""
        sde = self._process(denoiser)
        return sde.reverse_velocity(sde.diffuse(sde.reverse_velocity(x), standard_normal(keys, x), s, t))

    def step(self, carry, keys, x, t, s, denoiser):
        """From t to s; `order` evaluations."""
        sde, middle, length = self._process(denoiser), 0.5 * (t + s), t - s

        def slope(x):
            return sde.apply_squared_diffusion(denoiser.score(x, middle) + x / sde.mass, middle)

        first, second = split(keys, 2)
        x = self._equilibrium(first, x, t, middle, denoiser)
        start = x if self.order == 1 else x + 0.5 * length * slope(x)
        x = x + length * slope(start)
        return carry, self._equilibrium(second, x, middle, s, denoiser)


# Names used in configs.
SAMPLERS = {"sscs": SSCS}
