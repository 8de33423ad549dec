"""Players: sets of weights that are trained together, each with its own optimizer, averages and projection.

Usual training of one network has one player: the weights of the training state are the player's weights. With several
players, such as a generator and a discriminator, the weights are a dict by name, and so are the optimizer state and the
averages. The functions of this module combine the players into the arguments of `experiments.learning.state`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optax
from jax import Array

from experiments.learning import state
from experiments.learning.averaging import Rule


@dataclasses.dataclass(frozen=True)
class Player:
    """One set of weights in training.

    Attributes:
        optimizer: optimizer of the weights.
        averages: rules of the moving averages of the weights.
        project: projection of the weights, applied after every update.
    """

    optimizer: optax.GradientTransformation
    averages: Sequence[Rule]
    project: Callable[[Any], Any] = state.unchanged


Players = Mapping[str, Player]


def _only(players: Players) -> Player | None:
    return next(iter(players.values())) if len(players) == 1 else None


def optimizer(players: Players) -> optax.GradientTransformation:
    """Returns the joint optimizer: each player's optimizer updates the weights of this player."""
    if (one := _only(players)) is not None:
        return one.optimizer

    def init(params):
        return {name: player.optimizer.init(params[name]) for name, player in players.items()}

    def update(gradients, states, params=None):
        results = {
            name: player.optimizer.update(gradients[name], states[name], None if params is None else params[name])
            for name, player in players.items()
        }
        updates = {name: result[0] for name, result in results.items()}
        return updates, {name: result[1] for name, result in results.items()}

    return optax.GradientTransformation(init, update)


def averages(players: Players) -> tuple[Callable[[Array], Any], ...]:
    """Returns the joint rules: average i contains the i-th average of each player with more than i averages."""
    if (one := _only(players)) is not None:
        return tuple(one.averages)
    return tuple(
        lambda n, names=names, i=i: {name: players[name].averages[i](n) for name in names}
        for i, names in enumerate(averaged(players))
    )


def averaged(players: Players) -> int | list[list[str]]:
    """Returns the number of averages of a single player; of several players, their names in each average."""
    if (one := _only(players)) is not None:
        return len(one.averages)
    most = max(len(player.averages) for player in players.values())
    return [[name for name, player in players.items() if i < len(player.averages)] for i in range(most)]


def project(players: Players) -> Callable[[Any], Any]:
    """Returns the joint projection of all weights."""
    if (one := _only(players)) is not None:
        return one.project
    return lambda params: {name: player.project(params[name]) for name, player in players.items()}
