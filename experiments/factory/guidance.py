"""Guidance of what is sampled: the Denoiser guided away from a weaker one, as `sampling.guidance` says."""

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
    """Returns True if samples are guided, at a scale other than 1."""
    return config.sampling.guidance.scale != 1


def guided(
    config: ConfigDict, denoiser: sde_lib.Denoiser, labels: jax.Array, weak: sde_lib.Denoiser | None = None
) -> sde_lib.Denoiser:
    """Returns the Denoiser that is sampled from.

    Args:
        config: of the experiment.
        denoiser: of the model, unconditioned.
        labels: classes (B,); not used by a model without classes.
        weak: the weaker Denoiser, conditioned; None takes the model itself without its class.
    """
    settings = config.sampling.guidance
    leaves = condition(config, labels)
    conditional = found = denoiser.replace(condition=leaves)
    if is_guided(config):
        rescale = settings.rescale or None
        if weak is not None:
            found = sde_lib.Guided(conditional, weak, settings.scale, rescale)
        else:
            found = sde_lib.ClassifierFree(denoiser, leaves, null(config, leaves), settings.scale, rescale)
        if settings.low > 0 or math.isfinite(settings.high):
            found = sde_lib.Interval(found, conditional, settings.low, settings.high)
    if settings.threshold:
        found = sde_lib.Thresholding(found, quantile=None if settings.threshold == 1 else settings.threshold)
    return found


def cost(config: ConfigDict) -> int:
    """Evaluations of networks for one of the guided Denoiser; within an interval of noise levels, where it is guided."""
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
            f"{scale}: this model has no classes (model.num_classes=0) to guide to; name a weaker run with --guide=RUN"
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
