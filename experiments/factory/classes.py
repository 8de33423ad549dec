"""Classes that a user gives by name or number, and the Denoiser conditioned on a class."""

from collections.abc import Sequence

import jax.numpy as jnp
from ml_collections import ConfigDict

import sde_lib
from experiments.conditions import LabelCondition
from experiments.data.sources.names import class_title, listed
from experiments.errors import UserError, nearest
from experiments.factory.conditions import condition
from experiments.factory.model import num_classes


def class_number(config: ConfigDict, flag: str, label: int | str, names: Sequence[str] | None = None) -> int:
    """The number of a class.

    Args:
        config: of the run.
        flag: that the label was given to, for messages.
        label: the name of a class, which comes first where names are numbers too, or its number.
        names: of the classes, by number, where they are stored with the run.

    Raises:
        UserError: the model has no such class; the nearest name is given.
    """
    text, classes = str(label), num_classes(config)
    if not classes:
        raise UserError(f"{flag}={text}: this run has no classes (model.num_classes=0)")
    try:
        return int(LabelCondition(classes, tuple(names or ())).of_user(label))
    except ValueError:
        pass
    known = _classes(classes, names)
    if not names and not text.lstrip("-").isdecimal():
        known += "; their names are not stored with this run"
    raise UserError(f"{flag}={text}: the classes are {known}{nearest(text, names or ())}")


def check_class(
    config: ConfigDict,
    flag: str,
    label: int | str | None,
    names: Sequence[str] | None = None,
) -> int:
    """The label of a request: the class, or "no class" where none is named; 0 for a model without classes.

    Args:
        config: of the run.
        flag: that the label was given to, for messages.
        label: the class by name or number, or None.
        names: of the classes, by number, where they are stored with the run.

    Raises:
        UserError: the model has no such class, or was trained without "no class" where the request needs it.
    """
    classes, dropout = num_classes(config), config.condition.label.dropout
    number = None if label is None else class_number(config, flag, label, names)
    if number is None and classes and not dropout:
        raise UserError(
            f"{flag} is needed: this run's model was always told the class (condition.label.dropout=0); "
            f"the classes are {_classes(classes, names)}"
        )
    return classes if number is None else number


def sampled_classes(config: ConfigDict, names: Sequence[str] | None = None, guide: ConfigDict | None = None) -> str:
    """Returns the classes that samples are drawn of, in words; an empty text for a model without classes.

    Args:
        config: of the experiment.
        names: of the classes, by number.
        guide: the config of the classifier whose classes they are, where the model has none.
    """
    label, count = config.sampling.label, num_classes(guide or config)
    if not count:
        return ""
    if label >= 0:
        return f"class {class_title(label, names[label] if names else None)}"
    return f"each class in turn: {_classes(count, names)}"


def check_sampling_label(config: ConfigDict) -> None:
    """Raises `UserError` unless `sampling.label` is -1, or the number of a class of the model."""
    label, classes = config.sampling.label, num_classes(config)
    if label == -1 or 0 <= label < classes:
        return
    if not classes and label >= 0 and config.sampling.guidance.guide:
        return  # a class of the guide, which is checked when that is opened
    if not classes:
        raise UserError(
            f"sampling.label={label}: this model has no classes (model.num_classes=0); leave the label at -1"
        )
    raise UserError(f"sampling.label={label}: the classes are 0 to {classes - 1}; -1 takes each in turn")


def class_record(label: int | str | None, number: int, names: Sequence[str] | None) -> dict[str, int | str | None]:
    """The class of a request for results.json: `label`, its number or None, and `class_name` where names are stored."""
    if label is None:
        return {"label": None}
    return {"label": number} | ({"class_name": names[number]} if names else {})


def _classes(count: int, names: Sequence[str] | None) -> str:
    return listed([class_title(i, name) for i, name in enumerate(names)], 20) if names else f"0 to {count - 1}"


def of_class(config: ConfigDict, denoiser: sde_lib.Denoiser, batch: int, label: int) -> sde_lib.Denoiser:
    """The Denoiser for a batch of one class, as `check_class` gave it."""
    return denoiser.replace(condition=condition(config, jnp.full(batch, label, jnp.int32)))
