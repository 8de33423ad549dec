"""The contract of an objective: the weights that are trained, their loss, a picture of them and their figures.

An objective of a user, given by import path, derives from `Objective` and defines `loss`; the rest has defaults for one
network from which samples are drawn. A class without samples sets `samples = False` and defines `picture` and `evaluate`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np
from jax import Array

from experiments.learning.players import Player
from experiments.learning.state import Draws

Losses = Array | Mapping[str, Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
    """What is trained. Options, as fields with defaults, become keys of the section `objective` of the config.

    Attributes:
        experiment: the objects of the experiment (`experiments.factory.experiment.Experiment`).
        samples: whether the weights are a network that samples are drawn from. Such a run is shown by grids of samples and
            judged by their distance to real data.
    """

    experiment: Any
    samples: ClassVar[bool] = True

    def __init_subclass__(cls, **options: Any) -> None:
        """Makes the subclass a dataclass, whose annotated attributes are its options."""
        super().__init_subclass__(**options)
        dataclasses.dataclass(frozen=True, eq=False)(cls)
        del (
            cls.__setattr__,
            cls.__delattr__,
        )  # those of `Objective` serve; a decorator of the subclass would refuse these

    @property
    def players(self) -> Mapping[str, Player]:
        """The sets of weights that are trained, by name; by default the network, as `optim` and `training` say."""
        experiment = self.experiment
        rules = tuple(experiment.emas.values())
        return {"network": Player(experiment.optimizer, rules, experiment.projection)}

    @property
    def has_own_players(self) -> bool:
        """Whether the players are others than the one network."""
        return type(self).players is not Objective.players

    def init(self, key: Array) -> Any:
        """Returns the weights before training: of one player its own, of several a dict by name."""
        return self.experiment.init_network(key)

    def frozen(self) -> Any:
        """Returns weights that the loss reads and training leaves alone, such as a teacher's; None without any."""
        return None

    def loss(
        self, draws: Draws, params: Any, example: Mapping[str, Any], frozen: Any
    ) -> tuple[Losses, dict[str, Array]]:
        """Returns the loss of each example and what else is to be logged of it.

        Args:
            draws: the keys of the examples (B,), the places in the global batch, and the progress of the training.
            params: the weights, as of `init`.
            example: `data` (B, *event), in the model's range, and what else is known of the examples by name.
            frozen: as of the method of this name.

        Returns:
            the losses (B,), or a dict of them by player, each of which then descends its own; and a dict of further arrays
            (B, ...), whose means are logged.
        """
        raise NotImplementedError(f"{type(self).__name__} must define loss(draws, params, example, frozen)")

    def network_variables(self, params: Any) -> Any:
        """Returns the weights of the network that samples are drawn from, out of all weights or an average of them."""
        return params

    def picture(self, variables: Any, images: np.ndarray, labels: np.ndarray | None) -> np.ndarray | None:
        """Returns a picture (h, w, 3) uint8 of what the weights do with examples; None for no picture.

        Args:
            variables: as of `network_variables`.
            images: raw data of the medium, (N, *event).
            labels: their classes, (N,), or None.
        """
        return None

    def evaluate(self, variables: Any, images: np.ndarray, labels: np.ndarray | None) -> dict[str, Any]:
        """Returns figures of the weights on held-out examples: `figures`, a dict of numbers, and what else is to be kept.

        Called for objectives without samples; the arguments are those of `picture`.
        """
        return {"figures": {}}

    def check(self) -> None:
        """Makes sure that the objective can be trained; compiles nothing.

        Raises:
            ValueError: a setting does not fit; the message names its key.
        """


def abstract(objective: Objective) -> Any:
    """Returns the shapes and dtypes of the weights; compiles nothing."""
    return jax.eval_shape(objective.init, jax.random.key(0))
