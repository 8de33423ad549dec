"""The guided Denoiser of an experiment, with the weights of its model and of a guide."""

from typing import Any, Protocol

import jax

import sde_lib
from experiments.factory.experiment import Experiment


class Guide(Protocol):
    """A weaker model: a run (`loading.runs.Run`) of the same process and shape."""

    experiment: Experiment
    variables: Any


def with_guide(variables: Any, guide: Guide | None) -> Any:
    """Returns the weights that programs get: those of the model, with a guide those of both."""
    return variables if guide is None else (variables, guide.variables)


def guided(experiment: Experiment, variables: Any, labels: jax.Array, guide: Guide | None = None) -> sde_lib.Denoiser:
    """Returns what is sampled from.

    Args:
        experiment: of the model.
        variables: weights as of `with_guide`.
        labels: classes (B,), of both models.
        guide: the weaker model; None for no other model.
    """
    if guide is None:
        return experiment.guided(experiment.denoiser(variables), labels)
    own, others = variables
    weak = guide.experiment.denoiser(others, experiment.sampling.t_min)
    weak = weak.replace(condition=guide.experiment.condition(labels))
    return experiment.guided(experiment.denoiser(own), labels, weak)
