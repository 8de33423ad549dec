"""A posterior method: `restore --method=my_method:gradient`, or `--method=my_method:gradient:strength=0.5`."""

import jax
import jax.numpy as jnp

from experiments.inverse.records import Method
from sde_lib import DerivedDenoiser
from sde_lib.inverse import Measurement


class Guided(DerivedDenoiser):
    """D - strength sigma / alpha grad_x |y - A D(x)|^2 / 2: the expected data moved towards the measurement."""

    measurement: Measurement
    y: jax.Array
    strength: float = 1.0

    def __call__(self, x, t):
        """The expected data of the posterior, (B, *event)."""

        def misfit(x):
            found = self.denoiser(x, t)
            return jnp.sum((self.y - self.measurement.forward(found)) ** 2) / 2, found

        gradient, found = jax.grad(misfit, has_aux=True)(x)
        return found - self.strength * self.denoiser.sde.noise_to_signal(t) * gradient


gradient = Method(
    "the gradient of the squared misfit; any task",
    {"sampler": "ddim", "eta": 1.0, "steps": 100},  # keys of config.sampling
    {"strength": 1.0},
    posterior=lambda prior, measurement, y, noise, settings: Guided(prior, measurement, y, settings["strength"]),
    noise="not asked",
    asks="products",
)
