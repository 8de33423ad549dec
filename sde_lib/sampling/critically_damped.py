"""SSCS: the symmetric splitting sampler of critically damped Langevin diffusion.

The reverse-time SDE of (x, v), in time s = t_max - t, is the sum of two parts that each can be solved:

    A:  dx = -beta v / M ds,   dv = beta x ds - beta Gamma v / M ds + sqrt(2 Gamma beta) dw     (linear: a Gaussian kernel)
    S:  dv = 2 Gamma beta [score_v(x, v, t) + v / M] ds                                         (x stands still)

A is the forward process with the velocity reversed, and keeps the stationary law N(0, 1) x N(0, M); S is what the data adds.
A step is half of A, all of S, half of A.

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
    """Half of A, all of S with the time held at the middle of the step, half of A. For `CriticallyDampedLangevin` only.

    S is solved by an Euler step, as published: one evaluation, and the weak error falls as 1 / n; or by the midpoint rule:
    two evaluations, and it falls as 1 / n^2, which from some 20 steps on is the better use of evaluations. A keeps the
    stationary law, so the splitting gains most over `EulerMaruyama` on data of unit variance.

    Attributes:
        order: 1 or 2, of the weak error.
    """

    order: int = struct.field(pytree_node=False, default=1)

    @property
    def evaluations_per_step(self) -> int:
        """As many as the order."""
        return self.order

    def init(self, x: Array, denoiser: Denoiser, times: Array) -> tuple:
        """Nothing to carry.

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
        """A from t to s < t."""
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


# By the name that a config gives.
SAMPLERS = {"sscs": SSCS}
