"""Denoising score matching: one network whose Denoiser approximates the posterior mean E[x_0 | x_t]."""

from collections.abc import Mapping
from typing import Any

from jax import Array

from experiments.learning.state import Draws
from experiments.objectives.objective import Objective


class Denoising(Objective):
    """Denoising score matching, with the weighting and the times of the section `loss`."""

    def loss(
        self, draws: Draws, params: Any, example: Mapping[str, Any], frozen: Any
    ) -> tuple[Array, dict[str, Array]]:
        """Returns the losses (B,), and the losses by bin of the noise level."""
        condition = self.experiment.condition_of_batch(draws.keys, example)
        return self.experiment.loss(draws, params, example["data"], condition)


# Values of objective.name.
OBJECTIVES = {"denoising": Denoising}
