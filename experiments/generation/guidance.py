"""The guided Denoiser of an experiment, with the weights of its model and of a guide."""

from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp

import sde_lib
from experiments.errors import UserError
from experiments.factory.experiment import Experiment


class Guide(Protocol):
    """A weaker model or a classifier: a run (`loading.runs.Run`) of the same process and shape."""

    experiment: Experiment
    variables: Any

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes by number, where they are stored with the run."""


def with_guide(variables: Any, guide: Guide | None) -> Any:
    """Returns the weights that programs get: those of the model, with a guide those of both."""
    return variables if guide is None else (variables, guide.variables)


def num_classes(experiment: Experiment, guide: Guide | None) -> int:
    """Returns the number of classes that samples are drawn of: those of the model, or of the classifier that guides it."""
    if experiment.num_classes or guide is None or guide.experiment.draws_samples:
        return experiment.num_classes
    return guide.experiment.num_classes


def sampled_classes(experiment: Experiment, guide: Guide | None, names: Sequence[str] | None) -> str:
    """Returns the classes that samples are drawn of, in words; an empty text where there are no classes.

    Args:
        experiment: of the model.
        guide: the weaker model or the classifier; None for no other model.
        names: of the model's classes, by number, where they are stored with the run.
    """
    if guide is not None and not experiment.num_classes and num_classes(experiment, guide):
        return experiment.sampled_classes(guide.class_names, guide.experiment)
    return experiment.sampled_classes(names)


def kind(experiment: Experiment, guide: Guide | None) -> str:
    """Returns the name of the guidance, for files that state how samples were drawn."""
    if guide is None:
        return "classifier-free guidance"
    return "autoguidance" if guide.experiment.draws_samples else "classifier guidance"


def chosen_class(
    experiment: Experiment, guide: Guide | None, label: int | str | None, names: Sequence[str] | None
) -> int:
    """Returns the class that `--label` names; the null, "no class", where it names none.

    Args:
        experiment: of the model.
        guide: the weaker model or the classifier; None for no other model.
        label: the class by name or number, or None.
        names: of the model's classes, by number, where they are stored with the run.

    Raises:
        UserError: neither the model nor the classifier has such a class, or guidance needs one.
    """
    by_class = experiment.is_guided and (guide is None or not guide.experiment.draws_samples)
    if by_class and label is None:
        raise UserError(
            f"--guidance={experiment.guidance_scale:g}: does nothing without a class to guide to: add --label"
        )
    if by_class and not experiment.num_classes:
        return guide.experiment.check_class("--label", label, guide.class_names)
    return experiment.check_class("--label", label, names)


def labels(experiment: Experiment, numbers: jax.Array, guide: Guide | None) -> jax.Array:
    """Returns the classes of samples with these numbers (B,): `sampling.label`, or each class in turn where it is -1."""
    label = experiment.sampling.label
    return numbers % max(num_classes(experiment, guide), 1) if label < 0 else jnp.full_like(numbers, label)


def guided(experiment: Experiment, variables: Any, labels: jax.Array, guide: Guide | None = None) -> sde_lib.Denoiser:
    """Returns what is sampled from.

    Args:
        experiment: of the model.
        variables: weights as of `with_guide`.
        labels: classes (B,), of both models.
        guide: the weaker model or the classifier; None for no other model.

    Raises:
        UserError: `sampling.guidance.guide` names a run, and no guide is given.
    """
    if guide is None and experiment.guide:
        raise UserError(
            f"sampling.guidance.guide={experiment.guide}: open it with experiments.loading.runs.load_guide and pass it "
            "as guide"
        )
    if guide is None:
        return experiment.guided(experiment.denoiser(variables), labels)
    own, others = variables
    if not guide.experiment.draws_samples:
        classifier = guide.experiment.classifier(others).replace(labels=labels)
        return experiment.guided(experiment.denoiser(own), labels, classifier=classifier)
    weak = guide.experiment.denoiser(others, experiment.sampling.t_min)
    weak = weak.replace(condition=guide.experiment.condition(labels))
    return experiment.guided(experiment.denoiser(own), labels, weak)
