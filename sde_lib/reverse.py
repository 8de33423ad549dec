"""Reverse-time SDE and probability flow of a process and a Denoiser, for external solvers.

For every lambda >= 0, the process dx = f x dt + g dw has the same marginals as

    dx = [f x - (1 + lambda^2) / 2 g^2 score(x, t)] dt + lambda g dw,      run from t_max down to t_min.

lambda = 1 is the reverse-time SDE, lambda = 0 the probability-flow ODE. The samplers of `sample` are designed for these
equations; `reverse` is for general solvers that require a drift and a diffusion:

    backward = reverse(sde, denoiser)
    term = diffrax.ODETerm(lambda t, x, args: backward.flow(x, t))
    diffrax.diffeqsolve(term, diffrax.Tsit5(), sde.t_max, sde.t_min, -0.01, x)

Sources: Anderson (1982), https://doi.org/10.1016/0304-4149(82)90051-5; Song et al. (2021),
https://arxiv.org/abs/2011.13456, eq. 6 and 13; for lambda, Huang, Lim and Courville (2021),
https://arxiv.org/abs/2106.02808, and Karras et al. (2022), https://arxiv.org/abs/2206.00364, eq. 6.
"""

import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from sde_lib.denoiser import Denoiser
from sde_lib.sde import Process, scalar
from sde_lib.struct import Struct


@struct.dataclass
class ReverseSDE(Struct):
    """Drift and diffusion in forward time t: a solver integrates with negative steps in t.

    Attributes:
        sde: the forward process.
        denoiser: E[x_0 | x_t] of that process.
        stochasticity: lambda; 0 is the probability flow, 1 the reverse-time SDE.
    """

    sde: Process
    denoiser: Denoiser
    stochasticity: ArrayLike = 1.0

    def drift(self, x: Array, t: ArrayLike) -> Array:
        """f x - (1 + lambda^2) / 2 g^2 score, of the shape of x (B, *state), per unit of t; t is () or (B,)."""
        score_term = self.sde.apply_squared_diffusion(self.denoiser.score(x, t), t)
        return self.sde.drift(x, t) - 0.5 * (1 + self.stochasticity**2) * score_term

    def diffusion(self, t: ArrayLike) -> Array:
        """lambda g(t), of t's shape, for an `SDE`; `apply_diffusion` supports every process."""
        return jnp.multiply(self.stochasticity, scalar(self.sde).diffusion(t))

    def apply_diffusion(self, noise: Array, t: ArrayLike) -> Array:
        """lambda g(t) noise, of the shape of the noise (B, *state): the diffusion term for dw = noise."""
        return jnp.multiply(self.stochasticity, self.sde.apply_diffusion(noise, t))

    def flow(self, x: Array, t: ArrayLike) -> Array:
        """dx/dt of the probability flow, independent of the stochasticity, of the shape of x."""
        return self.denoiser.velocity(x, t)


def reverse(sde: Process, denoiser: Denoiser, stochasticity: ArrayLike = 1.0) -> ReverseSDE:
    """Returns the reverse-time SDE of `sde` with the score of `denoiser`; see `ReverseSDE` for the arguments."""
    return ReverseSDE(sde, denoiser, stochasticity)
