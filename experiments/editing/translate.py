"""The commands `translate` and `interpolate`: images encoded by one model's probability flow and decoded by another's."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.data.inputs import images
from experiments.devices import distributed
from experiments.editing import series
from experiments.errors import UserError
from experiments.factory.classes import class_record
from experiments.files import Results
from experiments.generation.answers import draw_answers
from experiments.generation.guidance import chosen_class, guided, with_guide
from experiments.loading.models import Model, open_model
from experiments.loading.runs import load_guide
from experiments.metrics import quality
from sde_lib import editing

# Keys of experiment.sampling that the flow takes; its steps are Heun's, whatever the method is.
KEYS = ("sampling.steps", "sampling.rho", "sampling.t_min", "sampling.batch_size", "sampling.ema", *images.KEYS)
GUIDANCE = "sampling.guidance."  # keys of the model that images are decoded by
USES = ("model", "average", "flow")
ADVICE = "try more --steps or less --strength"


@dataclass(frozen=True)
class Translation:
    """What the command line asks for.

    Attributes:
        workdir, overrides: the source's run, and (key, text) pairs of experiment.sampling, for both runs.
        to: the target's run; None for the source's own.
        input: IMAGES.
        out: the folder to write.
        from_label, label: the classes in the source and in the target by name or number, or None.
        strength: of the noise that images are encoded up to.
        limit: only so many inputs; None for all.
    """

    workdir: Path
    overrides: list[tuple[str, str]]
    to: Path | None
    input: str
    out: Path
    from_label: int | str | None
    label: int | str | None
    strength: float
    limit: int | None


def translate(asked: Translation) -> Results:
    """Carries the images there and back and writes the files.

    Raises:
        UserError: what is asked for does not fit the models or the images.
        RunError: an image is not finite.
    """
    flow = [pair for pair in asked.overrides if not pair[0].startswith(GUIDANCE)]
    source = open_model("--workdir", asked.workdir, flow, "translate", KEYS, uses=USES)
    target = open_model(
        *(("--workdir", asked.workdir) if asked.to is None else ("--to", asked.to)),
        asked.overrides,
        "translate",
        (*KEYS, GUIDANCE),
        uses=(*USES, "label"),
    )
    if source.shape != target.shape:
        sizes = ["x".join(map(str, model.shape)) for model in (source, target)]
        raise UserError(f"--to={asked.to} has images of {sizes[1]}, --workdir={asked.workdir} of {sizes[0]}")
    for model in (source, target):
        model.require_plain_states("handing an encoding to another model")
    from_label = source.experiment.check_class("--from_label", asked.from_label, names=source.class_names)
    guide = load_guide(target.experiment)
    label = chosen_class(target.experiment, guide, asked.label, target.class_names)
    if asked.to is None and asked.label is not None and label == from_label and not target.experiment.is_guided:
        raise UserError(f"--label={asked.label}: is --from_label too: images would come back as they are")
    inputs = source.read("--input", asked.input, asked.limit)
    runs = source.load(), target.load(guide)
    sampling = source.experiment.sampling
    levels = editing.shared_levels(source.sde, target.sde, sampling.steps, asked.strength, sampling.rho)

    def draw(keys, numbers, x, levels, variables):
        here = source.experiment.of_class(runs[0].denoiser_of(variables[0]), len(keys), from_label)
        there = guided(target.experiment, variables[1], jnp.full(len(keys), label, jnp.int32), guide)
        translated = editing.bridge(here, there, x, levels)
        return jnp.stack([translated, editing.bridge(there, here, translated, levels)], 1)

    variables = runs[0].variables, with_guide(runs[1].variables, guide)
    drawn, seconds = draw_answers(
        source.experiment, draw, variables, inputs.values, inputs.names, 1, 0, same=levels, advice=ADVICE
    )
    if not distributed.is_first():
        return Results()
    translated, back = drawn[:, 0, 0], drawn[:, 0, 1]
    cycle = quality.psnr(back, inputs.values)
    told = {
        "strength": asked.strength,
        "noise_to_signal": [float(levels[0]), float(levels[-1])],
        "from_label": class_record(asked.from_label, from_label, None)["label"],
        **class_record(asked.label, label, target.class_names),
        "guidance": target.experiment.guidance_scale if target.experiment.is_guided else None,
        "sampling": _shown(source),
        "evaluations": 2 * (1 + target.experiment.guidance_cost) * sampling.steps,
        "seconds": seconds,
        "steps_trained": [run.step for run in runs],
        "average": {"cycle_psnr": round(float(cycle.mean()), 3)},
        "inputs": [
            {"name": name, "cycle_psnr": round(float(value), 3)}
            for name, value in zip(inputs.names, cycle, strict=True)
        ],
    }
    written = series.write(
        asked.out,
        inputs.names,
        {"input": inputs.values, "translated": translated, "back": back},
        source.medium,
        told,
        notes={"back": [f"{value:.1f} dB" for value in cycle]},
    )
    summary = f"{len(drawn)} translated, there and back {cycle.mean():.1f} dB from the input: {written.files[0]}"
    return replace(written, summary=summary)


@dataclass(frozen=True)
class Interpolation:
    """What the command line asks for.

    Attributes:
        workdir, overrides: the run, and (key, text) pairs of experiment.sampling.
        input, to: IMAGES, from which and to which.
        out: the folder to write.
        label: the class by name or number, or None.
        images: how many, both ends included.
        strength: of the noise that images are encoded up to.
        limit: only so many pairs; None for all.
    """

    workdir: Path
    overrides: list[tuple[str, str]]
    input: str
    to: str
    out: Path
    label: int | str | None
    images: int
    strength: float
    limit: int | None


def interpolate(asked: Interpolation) -> Results:
    """Makes the images between and writes the files.

    Raises:
        UserError: what is asked for does not fit the model or the images.
        RunError: an image is not finite.
    """
    model = open_model("--workdir", asked.workdir, asked.overrides, "interpolate", KEYS, uses=USES)
    model.require_plain_states("interpolation")
    names = model.class_names
    label = model.experiment.check_class("--label", asked.label, names=names)
    first, last = model.read("--input", asked.input, asked.limit), model.read("--to", asked.to, asked.limit)
    images.require_same_number(("--input", first), ("--to", last))
    run, sampling = model.load(), model.experiment.sampling
    levels = editing.shared_levels(model.sde, model.sde, sampling.steps, asked.strength, sampling.rho)
    weights = np.linspace(0, 1, asked.images, dtype=np.float32)

    def draw(keys, numbers, pairs, levels, variables):
        denoiser = model.experiment.of_class(run.denoiser_of(variables), len(keys), label)
        between = editing.interpolate_through(denoiser, *pairs, weights, levels)
        return jnp.moveaxis(between, 0, 1)

    pairs = (first.values, last.values)
    drawn, seconds = draw_answers(
        model.experiment, draw, run.variables, pairs, first.names, 1, 0, same=levels, advice=ADVICE
    )
    if not distributed.is_first():
        return Results()
    drawn = drawn[:, 0]
    ends = [quality.psnr(drawn[:, i], given.values) for i, given in ((0, first), (-1, last))]
    told = {
        "strength": asked.strength,
        "noise_to_signal": [float(levels[0]), float(levels[-1])],
        **class_record(asked.label, label, names),
        "sampling": _shown(model),
        "evaluations": 2 * sampling.steps * (2 + asked.images),
        "seconds": seconds,
        "step": run.step,
        "inputs": [
            {"name": name, "to": other, "psnr_of_ends": [round(float(a), 3), round(float(b), 3)]}
            for name, other, a, b in zip(first.names, last.names, *ends, strict=True)
        ],
    }
    kinds = {f"{weight:.3g}": drawn[:, i] for i, weight in enumerate(weights)}
    kinds = {"input": first.values, **kinds, "to": last.values}
    written = series.write(asked.out, first.names, kinds, model.medium, told)
    summary = f"{asked.images} images from each of {len(drawn)} to its other, the ends {np.mean(ends):.1f} dB off"
    return replace(written, summary=f"{summary}: {written.files[0]}")


def _shown(model: Model) -> dict[str, Any]:
    """Returns the keys of `sampling` that these commands read."""
    stored = model.experiment.record("sampling")["sampling"]
    return {key: value for key, value in stored.items() if f"sampling.{key}" in KEYS}
