"""The command `edit`: SDEdit of the user's images, inside of a mask, from strokes, of a class, in the style of another."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import sde_lib
from experiments.data.inputs import strokes
from experiments.devices import distributed
from experiments.editing.build import posterior, style
from experiments.editing.edits import Edit
from experiments.factory.classes import class_record
from experiments.files import Results
from experiments.generation.answers import draw_answers
from experiments.generation.guidance import chosen_class, guided, with_guide
from experiments.inverse import results
from experiments.loading.models import Model, open_model
from experiments.loading.runs import load_guide
from experiments.metrics import quality
from sde_lib import editing

PIXEL_STD = 0.5  # of images in the model's range, about


def edit(asked: Edit) -> Results:
    """Draws the answers and writes the files.

    Raises:
        UserError: what is asked for does not fit the model or the images.
        RunError: an answer is not finite.
    """
    model = open_model("--workdir", asked.workdir, asked.overrides, "edit", uses=("model", "average", "sampling"))
    experiment = model.experiment
    names = model.class_names
    weaker = load_guide(experiment)
    label = chosen_class(experiment, weaker, asked.label, names)
    if asked.mask is not None and asked.masked_by == "replacement":
        model.require_plain_states("--mask with --masked_by=replacement")
    inputs = model.read("--input", asked.input, asked.limit)
    guide, shown, same = _drawn_over(asked, model, inputs.values)
    run = model.load(weaker)
    knows = posterior(experiment, asked.masked_by, asked.settings, model.shape)

    def draw(keys, numbers, guides, same, variables):
        denoiser = guided(experiment, variables, jnp.full(len(keys), label, jnp.int32), weaker)
        if "style" in same:
            denoiser = sde_lib.EnergyGuidance(denoiser, same["style"], data_std=PIXEL_STD, through_denoiser=False)
        times = experiment.times(editing.until(denoiser.sde, same["strength"]))
        return editing.sdedit(keys, denoiser, experiment.sampler, times, guides, same.get("mask"), knows)

    drawn, seconds = draw_answers(
        experiment,
        draw,
        with_guide(run.variables, weaker),
        guide,
        inputs.names,
        asked.answers,
        asked.seed,
        same=same,
        advice=_advice(asked),
    )
    if not distributed.is_first():
        return Results()
    evaluations = experiment.network_evaluations
    kept = _psnr(drawn, inputs.values)
    told: dict[str, Any] = {
        "strength": asked.strength,
        "noise_to_signal": float(editing.level_of_strength(asked.strength)),
        **class_record(asked.label, label, names),
        "guidance": experiment.guidance_scale if experiment.is_guided else None,
        "mask": asked.mask,
        "masked_by": {"name": asked.masked_by, **asked.settings} if asked.mask else None,
        "strokes": asked.strokes,
        "style": asked.style,
        "style_features": asked.style_features if asked.style else None,
        "style_std": asked.style_std if asked.style else None,
        **experiment.record("sampling"),
        "evaluations": evaluations,
        "seconds": seconds,
        "seed": asked.seed,
        "step": run.step,
        "average": run.average,
        "psnr_to_input": np.round(kept, 3).tolist(),
    }
    if asked.style is not None:
        told |= _distances_to_style(same["style"], inputs.values, drawn)
    written = results.write(
        asked.out,
        results.Drawn(inputs.names, drawn, shown, arrays={"guide": results.unit(guide)}),
        model.medium,
        told,
    )
    summary = (
        f"strength {asked.strength:g}, {evaluations or 'its own number of'} evaluations each, PSNR to the input "
        f"{kept.mean():.1f} dB: {written.summary}"
    )
    return replace(written, summary=summary)


def _drawn_over(asked: Edit, model: Model, values: np.ndarray) -> tuple[np.ndarray, dict, dict]:
    """The guides (N, H, W, C), what the sheet shows of the input, and what all answers share."""
    guide, shown = values, {"input": model.medium.inverse(values)}
    same = {"strength": np.float32(asked.strength)}
    if asked.strokes is not None:
        levels, opacity = strokes.read_strokes("--strokes", asked.strokes, model.shape, model.rendering)
        guide = strokes.painted(values, np.asarray(model.medium.forward(levels)), opacity)
        shown["with strokes"] = model.medium.inverse(guide)
    if asked.mask is not None:
        same["mask"] = strokes.read_mask("--mask", asked.mask, model.shape, model.rendering)
        shown["may change"] = np.broadcast_to(np.uint8(255) * same["mask"], (len(values), *same["mask"].shape))
    if asked.style is not None:
        image = model.read("--style", asked.style, 1).values[0]
        same["style"] = style(asked.style_features, image, asked.style_std)
        shown["style"] = np.broadcast_to(model.medium.inverse(image), values.shape)
    return guide, shown, same


def _distances_to_style(of: editing.Style, inputs: np.ndarray, answers: np.ndarray) -> dict[str, Any]:
    """The distance of mean and covariance from the style's, of the inputs (N) and of the answers (N, K)."""
    images = jnp.asarray(np.concatenate([inputs[:, None], answers], 1))
    square = jax.jit(lambda of, images: of.square_distance(images))(of, images.reshape(-1, *inputs.shape[1:]))
    distances = np.round(np.sqrt(square), 4).reshape(images.shape[:2])
    return {"distance_to_style": distances[:, 1:].tolist(), "distance_of_input_to_style": distances[:, 0].tolist()}


def _psnr(answers: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """PSNR to the input in dB, (N, K), of what is shown: without what is beyond black and white."""
    repeated = np.repeat(inputs, answers.shape[1], 0)
    return quality.psnr(answers.reshape(repeated.shape).clip(-1, 1), repeated).reshape(answers.shape[:2])


def _advice(asked: Edit) -> str:
    pulled = " or a larger --style_std" if asked.style is not None else ""
    return f"try more --steps, another --sampler{pulled}"
