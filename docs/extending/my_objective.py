"""An objective of training: `--config.objective.name=my_objective:Huber`."""

import jax
import jax.numpy as jnp

from experiments.objectives.objective import Objective


class Huber(Objective):
    """The pseudo-Huber distance of the expected noise from the noise, which forgives large errors.

    sqrt(|error|^2 + width^2) - width. Source: Song and Dhariwal (2023), https://arxiv.org/abs/2310.14189, eq. 8.
    """

    width: float = 0.03  # an option of the config: `--config.objective.width=0.1`

    def loss(self, draws, params, example, frozen):
        """The losses (B,), and no other figures."""
        experiment, x0 = self.experiment, example["data"]
        keys = jax.vmap(lambda key: jax.random.split(key, 3))(draws.keys)
        condition = experiment.condition_of_batch(draws.keys, example)
        denoiser = experiment.denoiser(params, experiment.training.t_min).replace(condition=condition)
        t = experiment.training_times(draws)(keys[:, 0], denoiser.sde)
        noise = jax.vmap(lambda key: jax.random.normal(key, x0.shape[1:]))(keys[:, 1])
        error = denoiser.training(keys[:, 2]).noise(denoiser.sde.perturb(x0, noise, t), t) - noise
        square = jnp.square(error).sum(tuple(range(1, x0.ndim)))
        return jnp.sqrt(square + self.width**2) - self.width, {}
