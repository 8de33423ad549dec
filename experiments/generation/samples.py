"""Samples of a trained run in a file, with a picture of the first hundred."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.devices import distributed
from experiments.errors import UserError
from experiments.files import Results
from experiments.generation.guidance import sampled_classes
from experiments.generation.sampler import Sampler


def draw(trained: Any, num_samples: int, seed: int, out: Path, *, guide: Any = None, progress: bool = False) -> Results:
    """Draws samples and writes them.

    Args:
        trained: an opened run (`experiments.loading.runs.Run`).
        num_samples: how many.
        seed: sample i depends on it and i alone.
        out: .npz file for `samples`; its folder is made if need be, and gets the picture `grid.png`.
        guide: of guidance by another run (`experiments.loading.runs.load_guide`).
        progress: show a bar.

    Raises:
        UserError: `sampling.guidance.guide` names a run, and no guide is given; or the number or the file is wrong.
        RunError: a sample is not finite.
    """
    out = Path(out)
    if num_samples < 1 or out.suffix != ".npz":
        raise UserError(
            f"num_samples={num_samples}, out={out}: at least 1 sample and a file that ends in .npz are needed"
        )
    if distributed.is_first():
        out.parent.mkdir(parents=True, exist_ok=True)
    experiment, medium = trained.experiment, trained.medium
    sampler = Sampler(experiment, experiment.strategy, num_samples, guide=guide)
    samples = sampler(trained.variables, num_samples, seed, progress=progress)
    if not distributed.is_first():
        return Results()
    np.savez_compressed(out, samples=samples)
    files, shown = (out,), medium.without_picture
    picture = medium.picture(samples[:100])
    if picture is not None:
        shown = out.with_name("grid.png")
        medium.save_picture(shown, picture)
        files = (out, shown)
    method, steps = experiment.sampler_and_steps
    classes = sampled_classes(experiment, guide, trained.class_names)
    summary = (
        f"{len(samples)} samples{f' ({classes})' if classes else ''} by {method}, {steps} steps, "
        f"{sampler.nfe or 'its own number of'} evaluations each, from step {trained.step}, average {trained.average}: "
        f"{out}, {shown}"
    )
    metrics = {
        "step": trained.step,
        "average": trained.average,
        "sampler": method,
        "steps": steps,
        "evaluations": sampler.nfe,
    }
    return Results(summary, files, metrics, {"samples": samples})
