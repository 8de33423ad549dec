"""The objective: what is trained, by which loss, and the options of the section `objective`."""

import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments.config import components
from experiments.config.components import component, is_path
from experiments.config.named import table
from experiments.errors import UserError
from experiments.learning.state import draws
from experiments.objectives import Objective
from experiments.objectives.objective import abstract

CONTRACT = (
    "an objective defines loss(draws, params, example, frozen), which returns losses (B,) and a dict of figures (B, ...); "
    "example has data, label and augmentation"
)


def kind(config: ConfigDict) -> type[Objective]:
    """Returns the class of the objective.

    Raises:
        UserError: there is no such objective, or the class at an import path has no loss.
    """
    name = config.objective.name
    found = component("objective.name", name, table("objective.name"))
    if not (inspect.isclass(found) and issubclass(found, Objective)):
        raise UserError(
            f"objective.name={name}: {getattr(found, '__name__', found)} does not derive from "
            f"experiments.objectives.Objective; {CONTRACT}"
        )
    return found


def check_loss(config: ConfigDict, made: Objective, event_shape: tuple[int, ...]) -> None:
    """Makes sure that the loss of an objective of a user is one of each example; compiles nothing.

    Raises:
        UserError: it raises, or returns something else.
    """
    name = config.objective.name
    if not is_path(name):
        return
    example = {
        "data": jnp.zeros((2, *event_shape)),
        "label": jnp.zeros(2, jnp.int32),
        "augmentation": jnp.zeros((2, config.model.get("augment_features", 0))),
    }

    def losses(seed, params):
        drawn = draws(seed, jnp.int32(0), jnp.arange(2), 2, config.training.num_steps)
        return made.loss(drawn, params, example, made.frozen())

    try:
        returned = jax.eval_shape(losses, jax.random.key(0), abstract(made))
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"objective.name={name}: {type(error).__name__}: {reason}; {CONTRACT}") from error
    if not (isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], Mapping)):
        raise UserError(f"objective.name={name}: loss returns {type(returned).__name__}; {CONTRACT}")
    found, more = returned
    players = found if isinstance(found, Mapping) else {"loss": found}
    if isinstance(found, Mapping) and found.keys() != made.players.keys():
        raise UserError(
            f"objective.name={name}: the losses are of {', '.join(found)}, the players are {', '.join(made.players)}"
        )
    for key, value in players.items():
        if value.shape != (2,) or not jnp.issubdtype(value.dtype, jnp.floating):
            raise UserError(f"objective.name={name}: {key} is {value.dtype} {value.shape} for 2 examples; {CONTRACT}")
    for key, value in more.items():
        if value.shape[:1] != (2,):
            raise UserError(f"objective.name={name}: the figure {key} is {value.shape} for 2 examples; {CONTRACT}")


def objective(config: ConfigDict, experiment: Any) -> Objective:
    """Returns the objective of an experiment.

    Raises:
        UserError: as `kind`, or the options do not fit.
    """
    made = kind(config)
    options = {name: config.objective[name] for name in components.options(made) if name in config.objective}
    try:
        return made(experiment, **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"objective.name={config.objective.name}: {error}") from error


def draws_samples(config: ConfigDict) -> bool:
    """Returns True if samples are drawn from what is trained."""
    return kind(config).samples


def require_samples(config: ConfigDict) -> None:
    """Makes sure that samples can be drawn from what the run trained.

    Raises:
        UserError: they cannot.
    """
    if not draws_samples(config):
        raise UserError(
            f"objective.name={config.objective.name!r}: no samples can be drawn from this run; a classifier guides those of "
            "another run with --guide=RUN"
        )
