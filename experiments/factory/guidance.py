"""Guidance of what is sampled: away from a weaker Denoiser or by a classifier, as `sampling.guidance` says."""

import math
from collections.abc import Iterable
from typing import Any

import jax
from ml_collections import ConfigDict

import sde_lib
from experiments.errors import UserError
from experiments.factory.conditions import condition, null
from experiments.factory.model import num_classes


def is_guided(config: ConfigDict) -> bool:
    """Returns True if samples are guided: at a scale other than 1, or by a guide to which class of a model without any."""
    settings = config.sampling.guidance
    return settings.scale != 1 or bool(settings.guide and not num_classes(config))


def guided(
    config: ConfigDict,
    denoiser: sde_lib.Denoiser,
    labels: jax.Array,
    weak: sde_lib.Denoiser | None = None,
    classifier: sde_lib.NetworkClassifier | None = None,
) -> sde_lib.Denoiser:
    """Returns the Denoiser that is sampled from.

    The scale means the same for each kind of guidance: 1 draws from the distribution of the class, as far as the models are
    right, and a larger scale sharpens it. A classifier of a class-conditional model thus adds scale - 1 times its gradient.

    Args:
        config: of the experiment.
        denoiser: of the model, unconditioned.
        labels: classes (B,); not used by a model without classes.
        weak: the weaker Denoiser, conditioned; None takes the model itself without its class.
        classifier: log p(class | x_t) of the labels, which guides instead of a weaker Denoiser.
    """
    settings = config.sampling.guidance
    leaves = condition(config, labels)
    conditional = found = denoiser.replace(condition=leaves)
    if is_guided(config):
        rescale = settings.rescale or None
        if classifier is not None:
            share = settings.scale - (1 if num_classes(config) else 0)
            found = sde_lib.ClassifierGuidance(conditional, classifier, share)
        elif weak is not None:
            found = sde_lib.Guided(conditional, weak, settings.scale, rescale)
        else:
            found = sde_lib.ClassifierFree(denoiser, leaves, null(config, leaves), settings.scale, rescale)
        if settings.low > 0 or math.isfinite(settings.high):
            found = sde_lib.Interval(found, conditional, settings.low, settings.high)
    if settings.threshold:
        found = sde_lib.Thresholding(found, quantile=None if settings.threshold == 1 else settings.threshold)
    return found


def cost(config: ConfigDict) -> int:
    """Evaluations of networks for one of the guided Denoiser; within an interval of noise levels, where it is guided.

    A classifier with its gradient counts as one.
    """
    return 2 if is_guided(config) else 1


def check_guidance(config: ConfigDict) -> None:
    """Makes sure that the settings of guidance go together, and that the model can be guided.

    Raises:
        UserError: a setting has no effect, or the model was trained without "no class" to guide away from.
    """
    settings = config.sampling.guidance
    if not is_guided(config):
        for key, default in (("guide", ""), ("low", 0.0), ("high", math.inf), ("rescale", 0.0)):
            if settings[key] != default:
                raise UserError(
                    f"sampling.guidance.{key}={settings[key]} has no effect at sampling.guidance.scale=1, which disables "
                    "guidance; set --guidance=SCALE"
                )
        return
    scale = f"sampling.guidance.scale={settings.scale:g}"
    if settings.low >= settings.high:
        raise UserError(
            f"sampling.guidance.low={settings.low:g}: must be less than sampling.guidance.high={settings.high:g}"
        )
    if settings.guide:
        return
    if not num_classes(config):
        raise UserError(
            f"{scale}: this model has no classes (model.num_classes=0) to guide to; name a classifier or a weaker run with "
            "--guide=RUN"
        )
    if not config.condition.label.dropout:
        raise UserError(
            f"{scale}: this model was trained without class dropout (condition.label.dropout=0), so that classifier-free "
            "guidance is unavailable; name a weaker run with --guide=RUN, or leave guidance out"
        )


def require_no_keys(overrides: Iterable[tuple[str, str]], command: str) -> None:
    """Makes sure that no (key, text) override sets guidance, for commands with a scale of their own.

    Raises:
        UserError: one does.
    """
    for key, text in overrides:
        if key.startswith("sampling.guidance."):
            raise UserError(f"--config.{key}={text} has no effect: {command} takes the scale of guidance by --guidance")


def record(config: ConfigDict) -> dict[str, Any]:
    """The settings for files that state how samples were drawn; empty without guidance."""
    return {"guidance": config.sampling.guidance.to_dict()} if is_guided(config) else {}
