"""Guidance of what is sampled: away from a weaker Denoiser or by a classifier, as `sampling.guidance` says."""

import math
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

import sde_lib
from experiments.config import components
from experiments.config.named import GUIDANCES
from experiments.errors import UserError
from experiments.factory.conditions import condition, null
from experiments.factory.model import num_classes, sde


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
        if classifier is not None:
            share = settings.scale - (1 if num_classes(config) else 0)
            found = sde_lib.ClassifierGuidance(conditional, classifier, share)
        elif weak is None and settings.name == "linear":  # the same, by one evaluation of twice the batch
            found = sde_lib.ClassifierFree(
                denoiser, leaves, null(config, leaves), settings.scale, settings.rescale or None
            )
        else:
            found = _away_from(settings, conditional, weak or _without_condition(config, conditional))
        if settings.low > 0 or math.isfinite(settings.high):
            found = sde_lib.Interval(found, conditional, settings.low, settings.high)
    if settings.threshold:
        found = sde_lib.Thresholding(found, quantile=None if settings.threshold == 1 else settings.threshold)
    return found


def _without_condition(config: ConfigDict, denoiser: sde_lib.Denoiser) -> sde_lib.Denoiser:
    """The Denoiser whose condition is the null of each leaf."""
    leaves, nulls = denoiser.condition, null(config, denoiser.condition)
    return denoiser.replace(
        condition=jax.tree.map(
            lambda leaf, none: jnp.broadcast_to(jnp.asarray(none, leaf.dtype), leaf.shape), leaves, nulls
        )
    )


def _away_from(settings: ConfigDict, denoiser: sde_lib.Denoiser, weak: sde_lib.Denoiser) -> sde_lib.Denoiser:
    """The Denoiser that the guidance of a name or an import path makes of the model and of the weaker Denoiser.

    Raises:
        UserError: it does not take them, or makes no Denoiser.
    """
    made = components.component("sampling.guidance.name", settings.name, GUIDANCES)
    options = {name: settings[name] for name in components.options(made) if name in settings}
    if "rescale" in options:
        options["rescale"] = settings.rescale or None
    try:
        found = made(denoiser=denoiser, weak=weak, **options | {"scale": settings.scale})
    except Exception as error:
        raise UserError(
            f"sampling.guidance.name={settings.name}: {type(error).__name__}: {error}; a guidance is called with denoiser, "
            "weak, scale and its options, by name"
        ) from error
    if not isinstance(found, sde_lib.Denoiser):
        raise UserError(
            f"sampling.guidance.name={settings.name}: makes a {type(found).__name__}; a guidance derives from "
            "sde_lib.DerivedDenoiser and defines __call__(x, t) or x0_and_noise(x, t)"
        )
    return found


def check_shapes(config: ConfigDict, denoiser: sde_lib.Denoiser, event_shape: tuple[int, ...]) -> None:
    """Makes sure that the guidance of an import path maps images to images; computes shapes alone.

    Args:
        config: of the experiment.
        denoiser: of the model, unconditioned.
        event_shape: of the data.

    Raises:
        UserError: it raises, or the expected data have another shape.
    """
    name = config.sampling.guidance.name
    if not (is_guided(config) and components.is_path(name)):
        return
    state, labels = jax.ShapeDtypeStruct((2, *event_shape), jnp.float32), jnp.zeros(2, jnp.int32)
    guided_by = denoiser.replace(condition=condition(config, labels))
    made = _away_from(config.sampling.guidance, guided_by, guided_by)
    # Each of the two methods follows from the other by default, so the method that is defined comes first.
    defines_call = type(made).__call__ is not sde_lib.Denoiser.__call__
    for method in ("__call__", "x0_and_noise") if defines_call else ("x0_and_noise", "__call__"):
        _check_method(name, made, method, state)


def _check_method(name: str, made: sde_lib.Denoiser, method: str, state: jax.ShapeDtypeStruct) -> None:
    """Makes sure that a method of a user's guidance returns arrays of the shape of the state.

    Raises:
        UserError: the method raises, or returns something else.
    """
    path = f"sampling.guidance.name={name}"
    try:
        found = jax.eval_shape(lambda x: getattr(made, method)(x, made.sde.t_max), state)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path}: {method}(x, t): {type(error).__name__}: {reason}") from error
    if method == "x0_and_noise" and not (isinstance(found, tuple) and len(found) == 2):
        raise UserError(
            f"{path}: x0_and_noise(x, t) returns {_described(found)}; the pair (expected data, expected noise) is needed"
        )
    for part in found if method == "x0_and_noise" else (found,):
        if (getattr(part, "shape", None), getattr(part, "dtype", None)) != (state.shape, state.dtype):
            raise UserError(
                f"{path}: {method}(x, t) gives {_described(part)} for x {_described(state)}; expected data and noise have "
                "the shape of x"
            )


def _described(value: Any) -> str:
    """Returns the dtype and the shape of an array, or the type of anything else."""
    return f"{value.dtype} {value.shape}" if hasattr(value, "shape") else type(value).__name__


def cost(config: ConfigDict) -> int:
    """Evaluations of networks for one of the guided Denoiser; within an interval of noise levels, where it is guided.

    A classifier with its gradient counts as one.
    """
    return 2 if is_guided(config) else 1


def require_effect(config: ConfigDict, given: Collection[str] | None = None) -> None:
    """Makes sure that settings of guidance have an effect.

    Args:
        config: of the experiment.
        given: keys that a user has set for a trained run, whose other settings may wait for another scale; None for all.

    Raises:
        UserError: one has none.
    """
    if is_guided(config):
        return
    settings = config.sampling.guidance
    for name, default in (("name", "linear"), ("guide", ""), ("low", 0.0), ("high", math.inf), ("rescale", 0.0)):
        if settings[name] != default and (given is None or f"sampling.guidance.{name}" in given):
            raise UserError(
                f"sampling.guidance.{name}={settings[name]} has no effect at sampling.guidance.scale=1, which disables "
                "guidance; set --guidance=SCALE"
            )


def check_guidance(config: ConfigDict) -> None:
    """Makes sure that the settings of guidance go together, and that the model can be guided.

    Raises:
        UserError: the model was trained without "no class" to guide away from, a setting does not fit another, or the
            interval has no noise level of sampling.
    """
    settings = config.sampling.guidance
    made = components.component("sampling.guidance.name", settings.name, GUIDANCES)
    if not is_guided(config):
        return
    scale = f"sampling.guidance.scale={settings.scale:g}"
    if settings.low >= settings.high:
        raise UserError(
            f"sampling.guidance.low={settings.low:g}: must be less than sampling.guidance.high={settings.high:g}"
        )
    process = sde(config, config.sampling.t_min)
    least, largest = (float(process.noise_to_signal(t)) for t in (process.t_min, process.t_max))
    if settings.low >= largest or settings.high < least:
        raise UserError(
            f"sampling.guidance.low={settings.low:g} and high={settings.high:g}: no noise level is guided: sigma / alpha of "
            f"sampling is {least:.3g} to {largest:.3g}"
        )
    if settings.rescale and "rescale" not in components.options(made):
        raise UserError(f"sampling.guidance.rescale={settings.rescale:g}: {settings.name} has no option rescale")
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


def record(config: ConfigDict) -> dict[str, Any]:
    """The settings for files that state how samples were drawn; empty without guidance."""
    return {"guidance": config.sampling.guidance.to_dict()} if is_guided(config) else {}
