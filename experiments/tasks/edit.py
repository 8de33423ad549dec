"""The command `edit`: SDEdit of the user's images, inside of a mask, from strokes, of a class, in the style of another."""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import sde_lib
from experiments import build, distributed
from experiments.metrics import quality
from experiments.tasks import results, strokes
from experiments.tasks.answers import Answers
from experiments.tasks.models import Model, open_model
from sde_lib import editing

PATCH = 3  # pixels: the side of the patches whose statistics are the style
PIXEL_STD = 0.5  # of images in the model's range, about


@dataclass(frozen=True)
class Edit:
    """What the command line asks for.

    Attributes:
        workdir, overrides: the run, and (key, text) pairs of config.sampling.
        input: IMAGES.
        out: the folder to write.
        strength: of the noise, in (0, 1].
        mask, strokes, style: files, or None.
        style_std: how far a pixel's figures may be from the style's.
        label: the class, or None.
        guidance: towards it, or None.
        answers: how many for each input.
        seed: of the answers.
        limit: only so many inputs; None for all.
    """

    workdir: Path
    overrides: list[tuple[str, str]]
    input: str
    out: Path
    strength: float
    mask: str | None
    strokes: str | None
    style: str | None
    style_std: float
    label: int | None
    guidance: float | None
    answers: int
    seed: int
    limit: int | None


def edit(asked: Edit) -> str:
    """Draws the answers and writes the files; the line that says where they are.

    Raises:
        UserError: what is asked for does not fit the model or the images.
        RunError: an answer is not finite.
    """
    model = open_model("--workdir", asked.workdir, asked.overrides, "edit")
    config = model.config
    label = build.check_class(config, "--label", asked.label, asked.guidance)
    if asked.mask is not None:
        model.require_plain_states("--mask")
    inputs = model.read("--input", asked.input, asked.limit)
    guide, shown, same = _drawn_over(asked, model, inputs.values)
    run = model.load()

    def draw(keys, numbers, guides, same, variables):
        denoiser = build.of_class(config, run.denoiser_of(variables), len(keys), label, asked.guidance)
        if "style" in same:
            style = _style(same["style"], asked.style_std)
            denoiser = sde_lib.EnergyGuidance(denoiser, style, data_std=PIXEL_STD, through_denoiser=False)
        times = build.times(config, editing.until(denoiser.sde, same["strength"]))
        return editing.sdedit(keys, denoiser, build.method(config), times, guides, same.get("mask"))

    started = time.perf_counter()
    drawn = Answers(draw, build.parallel(config), config.sampling.batch_size)(
        run.variables, guide, inputs.names, asked.answers, asked.seed,
        same=same, advice=_advice(asked), progress=True,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    if not distributed.is_first():
        return ""
    evaluations = build.method(config).nfe(config.sampling.steps)
    kept = _psnr(drawn, inputs.values)
    told: dict[str, Any] = {
        "strength": asked.strength,
        "noise_to_signal": float(editing.level_of_strength(asked.strength)),
        "label": asked.label,
        "guidance": asked.guidance,
        "mask": asked.mask,
        "strokes": asked.strokes,
        "style": asked.style,
        "style_std": asked.style_std if asked.style else None,
        "sampling": config.sampling.to_dict(),
        "evaluations": evaluations,
        "seconds": round(seconds, 2),
        "seed": asked.seed,
        "step": run.step,
        "average": run.average,
        "psnr_to_input": np.round(kept, 3).tolist(),
    }
    if asked.style is not None:
        told |= _distances_to_style(same["style"], inputs.values, drawn)
    summary = results.write(
        asked.out,
        results.Results(inputs.names, drawn, shown, arrays={"guide": results.unit(guide)}),
        model.transform,
        told,
    )
    return (
        f"strength {asked.strength:g}, {evaluations or 'its own number of'} evaluations each, PSNR to the input "
        f"{kept.mean():.1f} dB: {summary}"
    )


def _drawn_over(asked: Edit, model: Model, values: np.ndarray) -> tuple[np.ndarray, dict, dict]:
    """The guides (N, H, W, C), what the sheet shows of the input, and what all answers share."""
    guide, shown = values, {"input": model.transform.inverse(values)}
    same = {"strength": np.float32(asked.strength)}
    if asked.strokes is not None:
        levels, opacity = strokes.read_strokes("--strokes", asked.strokes, model.shape)
        guide = strokes.painted(values, np.asarray(model.transform.forward(levels)), opacity)
        shown["with strokes"] = model.transform.inverse(guide)
    if asked.mask is not None:
        same["mask"] = strokes.read_mask("--mask", asked.mask, model.shape)
        shown["may change"] = np.broadcast_to(np.uint8(255) * same["mask"], (len(values), *same["mask"].shape))
    if asked.style is not None:
        same["style"] = model.read("--style", asked.style, 1).values[0]
        shown["style"] = np.broadcast_to(model.transform.inverse(same["style"]), values.shape)
    return guide, shown, same


def _style(image, std: float) -> editing.Style:
    """Of the patches of an image. The figures of one patch may be off by std each: those of all positions, by less."""
    features = partial(editing.patches, size=PATCH)
    positions = np.prod([side - PATCH + 1 for side in image.shape[:2]])
    figures = image.shape[-1] * PATCH**2
    return editing.Style.of(features, jnp.asarray(image), std * figures / np.sqrt(positions))


def _distances_to_style(image: np.ndarray, inputs: np.ndarray, answers: np.ndarray) -> dict[str, Any]:
    """The distance of mean and covariance from the style's, of the inputs (N) and of the answers (N, K)."""
    style = _style(image, 1.0)

    def distance(images):
        return np.round(np.sqrt(-2 * np.asarray(style(jnp.asarray(images)))) * float(style.std), 4)

    flat = answers.reshape(-1, *answers.shape[2:])
    return {
        "distance_to_style": distance(flat).reshape(answers.shape[:2]).tolist(),
        "distance_of_input_to_style": distance(inputs).tolist(),
    }


def _psnr(answers: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """PSNR to the input in dB, (N, K), of what is shown: without what is beyond black and white."""
    repeated = np.repeat(inputs, answers.shape[1], 0)
    return quality.psnr(answers.reshape(repeated.shape).clip(-1, 1), repeated).reshape(answers.shape[:2])


def _advice(asked: Edit) -> str:
    pulled = " or a larger --style_std" if asked.style is not None else ""
    return f"try more --steps, another --method{pulled}"
