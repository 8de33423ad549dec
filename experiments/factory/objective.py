"""The objective: what is trained, by which loss, and the options of the section `objective`."""

from typing import Any

from ml_collections import ConfigDict

from experiments.config import components
from experiments.config.components import component, is_path
from experiments.errors import UserError
from experiments.objectives import OBJECTIVES, Objective


def kind(config: ConfigDict) -> type[Objective]:
    """Returns the class of the objective.

    Raises:
        UserError: there is no such objective, or the class at an import path has no loss.
    """
    name = config.objective.name
    found = component("objective.name", name, OBJECTIVES)
    if is_path(name) and not callable(getattr(found, "loss", None)):
        raise UserError(
            f"objective.name={name}: {getattr(found, '__name__', found)} has no loss; an objective derives from "
            "experiments.objectives.Objective and defines loss(draws, params, example, frozen)"
        )
    return found


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
