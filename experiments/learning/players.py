"""Players: sets of weights that are trained together, each with its own optimizer, averages and projection.

One player is the usual training of one network: its weights are the training state's. Several players, such as a generator
and a discriminator, are a dict of weights by name, in the state, in the optimizer's state and in the averages; the functions
of this file make of them what `experiments.learning.state` takes.
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
        optimizer: of the weights.
        averages: the rules of its moving averages.
        project: where the weights must lie after every update.
    """

    optimizer: optax.GradientTransformation
    averages: Sequence[Rule]
    project: Callable[[Any], Any] = state.unchanged


Players = Mapping[str, Player]


def _only(players: Players) -> Player | None:
    return next(iter(players.values())) if len(players) == 1 else None


def optimizer(players: Players) -> optax.GradientTransformation:
    """Returns the optimizer of all: that of the only player, or each for its own weights."""
    if (one := _only(players)) is not None:
        return one.optimizer

    def init(params):
        return {name: player.optimizer.init(params[name]) for name, player in players.items()}

    def update(gradients, states, params=None):
        made = {
            name: player.optimizer.update(gradients[name], states[name], None if params is None else params[name])
            for name, player in players.items()
        }
        return {name: updates for name, (updates, _) in made.items()}, {name: new for name, (_, new) in made.items()}

    return optax.GradientTransformation(init, update)


def averages(players: Players) -> tuple[Callable[[Array], Any], ...]:
    """Returns the rules of all: average i has the i-th average of each player that has so many."""
    if (one := _only(players)) is not None:
        return tuple(one.averages)
    return tuple(
        lambda n, names=names, i=i: {name: players[name].averages[i](n) for name in names}
        for i, names in enumerate(averaged(players))
    )


def averaged(players: Players) -> int | list[list[str]]:
    """Returns the number of averages of the only player; of several, the names of those that have each."""
    if (one := _only(players)) is not None:
        return len(one.averages)
    most = max(len(player.averages) for player in players.values())
    return [[name for name, player in players.items() if i < len(player.averages)] for i in range(most)]


def project(players: Players) -> Callable[[Any], Any]:
    """Returns the projection of all weights."""
    if (one := _only(players)) is not None:
        return one.project
    return lambda params: {name: player.project(params[name]) for name, player in players.items()}
