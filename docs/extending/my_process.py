"""A forward process: `--config.sde.name=my_process:Trigonometric`."""

import jax.numpy as jnp

from sde_lib import SDE


class Trigonometric(SDE):
    """alpha = cos(pi t / 2)^power, sigma = sin(pi t / 2); drift, diffusion, kernels and views are derived.

    Annotated attributes are options of the config: `--config.sde.power=2`.
    """

    t_max: float = 0.99  # sigma / alpha must stay finite
    power: float = 1.0

    def alpha(self, t):
        """The factor of the data in the mean of x_t."""
        return jnp.cos(0.5 * jnp.pi * t) ** self.power

    def sigma(self, t):
        """The standard deviation of x_t given the data."""
        return jnp.sin(0.5 * jnp.pi * t)
