"""Interface of objectives: the trained weights, their loss, a picture and an evaluation.

A user's objective, selected by import path, derives from `Objective` and defines `loss`. The other methods have
defaults for one network from which samples are drawn. An objective without samples sets `samples = False` and defines
`picture` and `evaluate`.
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
    """A training objective. Fields with defaults are options: keys of the section `objective` of the config.

    Attributes:
        experiment: the objects of the experiment (`experiments.factory.experiment.Experiment`).
        samples: whether samples are drawn from the network. Training then shows grids of samples, and the evaluation
            compares samples with real data.
    """

    experiment: Any
    samples: ClassVar[bool] = True

    def __init_subclass__(cls, **options: Any) -> None:
        """Makes the subclass a dataclass: its annotated attributes are its options."""
        super().__init_subclass__(**options)
        dataclasses.dataclass(frozen=True, eq=False)(cls)
        # A dataclass decorator on the subclass would refuse these methods; `Objective` provides them.
        del cls.__setattr__, cls.__delattr__

    @property
    def players(self) -> Mapping[str, Player]:
        """The trained sets of weights by name; by default the network with the config's optimizer and averages."""
        experiment = self.experiment
        rules = tuple(experiment.emas.values())
        return {"network": Player(experiment.optimizer, rules, experiment.projection)}

    @property
    def has_own_players(self) -> bool:
        """Whether the class overrides `players`."""
        return type(self).players is not Objective.players

    def init(self, key: Array) -> Any:
        """Returns the initial weights: the weights of a single player, or a dict of weights by player."""
        return self.experiment.init_network(key)

    def frozen(self) -> Any:
        """Returns weights that the loss reads and training does not change, such as a teacher's, or None."""
        return None

    def loss(
        self, draws: Draws, params: Any, example: Mapping[str, Any], frozen: Any
    ) -> tuple[Losses, dict[str, Array]]:
        """Returns the loss of each example and further arrays to log.

        Args:
            draws: PRNG keys of the examples (B,), their positions in the global batch, and the progress of the
                training.
            params: weights with the structure of `init`.
            example: `data` (B, *event) in the model's range, and further fields of the examples by name.
            frozen: result of the method `frozen`.

        Returns:
            The losses (B,), or a dict of losses by player, where each player minimizes its own loss; and a dict of
            arrays (B, ...), whose means are logged.
        """
        raise NotImplementedError(f"{type(self).__name__} must define loss(draws, params, example, frozen)")

    def network_variables(self, params: Any) -> Any:
        """Extracts the weights of the network for sampling from all weights, or from an average of all weights."""
        return params

    def picture(self, variables: Any, images: np.ndarray, labels: np.ndarray | None) -> np.ndarray | None:
        """Returns a picture uint8 (h, w, 3) of the network's outputs for examples, or None.

        Args:
            variables: result of `network_variables`.
            images: raw data of the medium, (N, *event).
            labels: classes of the images, (N,), or None.
        """
        return None

    def evaluate(self, variables: Any, images: np.ndarray, labels: np.ndarray | None) -> dict[str, Any]:
        """Returns metrics on held-out examples: `figures`, a dict of numbers, and further entries to store.

        Called only for objectives without samples. The arguments are those of `picture`.
        """
        return {"figures": {}}

    def check(self) -> None:
        """Checks that the objective can be trained; compiles nothing.

        Raises:
            ValueError: a setting is invalid; the message names its key.
        """


def abstract(objective: Objective) -> Any:
    """Returns the shapes and dtypes of the weights; compiles nothing."""
    return jax.eval_shape(objective.init, jax.random.key(0))
