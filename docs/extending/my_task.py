"""A measurement with its restore task: `restore --task=my_task:levels --levels=3`."""

import jax.numpy as jnp

from experiments.inverse.records import Task


def soft_levels(shape, options):
    """Pixels drawn towards a few grey levels; the derivative exists, so that posterior methods can use it."""
    from sde_lib import inverse  # here, so that --help need not wait for JAX

    class SoftLevels(inverse.Measurement):
        levels: float = 4.0

        def forward(self, x):
            place = (x + 1) / 2 * (self.levels - 1)
            return 2 * (place - jnp.sin(2 * jnp.pi * place) / (2 * jnp.pi)) / (self.levels - 1) - 1

    return SoftLevels(levels=float(options["levels"]))


levels = Task(
    "few grey levels",
    {"levels": 4},
    noise=0.02,
    make=soft_levels,
    baselines={"as measured": lambda measurement, y, std: y},
    help={"levels": "number of grey levels"},
)
