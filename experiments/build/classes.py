"""What a Denoiser is conditioned on when a class is asked for by its number, and how strongly."""

import jax.numpy as jnp
from ml_collections import ConfigDict

import sde_lib
from experiments.build.model import condition
from experiments.errors import UserError


def check_class(config: ConfigDict, flag: str, label: int | None, guidance: float | None = None) -> int:
    """The label that stands for what is asked for: the class, or "no class" where none is; 0 for a model without classes.

    Args:
        config: of the run.
        flag: that the label was given to, for messages.
        label: the class, or None.
        guidance: the scale of classifier-free guidance, or None.

    Raises:
        UserError: the model has no such class, or does not know what "no class" is and is asked for it.
    """
    classes, dropout = config.model.num_classes, config.training.class_dropout
    if label is not None and not 0 <= label < classes:
        has = f"the classes are 0 to {classes - 1}" if classes else "this run has no classes (model.num_classes=0)"
        raise UserError(f"{flag}={label}: {has}")
    if guidance is not None and not dropout:
        raise UserError(
            f"--guidance={guidance:g}: this run was trained with training.class_dropout=0, so that its model knows no "
            '"no class" to guide away from; leave --guidance out'
        )
    if label is None and classes and not dropout:
        raise UserError(
            f"{flag} is needed: this run's model was always told the class (training.class_dropout=0); "
            f"the classes are 0 to {classes - 1}"
        )
    return classes if label is None else label


def of_class(
    config: ConfigDict, denoiser: sde_lib.Denoiser, batch: int, label: int, guidance: float | None = None
) -> sde_lib.Denoiser:
    """The Denoiser for a batch of one class, as `check_class` gave it, guided away from "no class" if a scale is given."""
    labels = jnp.full(batch, label, jnp.int32)
    if guidance is None:
        return denoiser.replace(condition=condition(config, labels))
    return sde_lib.ClassifierFree(denoiser, labels, config.model.num_classes, guidance)
