"""Answers to an inverse problem, drawn from a run: what `restore` and `reconstruct` share."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import sde_lib
from experiments.generation.answers import draw_answers, prior
from experiments.generation.guidance import with_guide
from experiments.inverse.build import Problem, conditioned, with_sampling
from experiments.inverse.problems import method_of
from experiments.inverse.request import Request
from experiments.loading.models import Model, open_model
from experiments.loading.runs import load_guide


class Solved(NamedTuple):
    """The answers (N, K, H, W, C) in every process, and what `results.json` says of how they were made."""

    answers: np.ndarray
    told: dict[str, Any]


def open_for(request: Request, command: str) -> Model:
    """The run, with the method's own keys of `sampling` below the overrides.

    Raises:
        UserError: as of `open_model`.
    """
    change = partial(with_sampling, name=request.method)
    uses = ("model", "average", *(("times", "label") if method_of(request.method).own_steps else ("sampling",)))
    return open_model("--workdir", request.workdir, request.overrides, command, change=change, uses=uses)


def solve(model: Model, request: Request, of: Problem, names: Sequence[str], y: Any) -> Solved:
    """Draws the answers.

    Args:
        model: the run.
        request: what is asked.
        of: the problem.
        names: of the N inputs.
        y: (N, *measured).

    Raises:
        UserError: the weights cannot be read, or those of the guide are the same.
        RunError: an answer is not finite.
    """
    experiment, shape = model.experiment, model.shape
    guide = load_guide(model.experiment)
    run = model.load(guide)

    def conditioned_on(denoiser, measurement, y, noise):
        return conditioned(experiment, request.method, request.settings, denoiser, measurement, y, noise, shape)

    def draw(keys, numbers, y, same, variables):
        measurement, noise = same
        denoiser, method = conditioned_on(prior(experiment, variables, numbers, guide), measurement, y, noise)
        return sde_lib.sample(keys, denoiser, method, experiment.times(denoiser.sde), shape)

    advice = (
        f"--method={request.method} with {experiment.sampler_and_steps[1]} steps is unstable here; try more steps, "
        "more --noise, or another method, such as diffpir or dps"
    )
    answers, seconds = draw_answers(
        experiment, draw, with_guide(run.variables, guide), y, names, request.answers, request.seed,
        same=(of.measurement, of.noise), advice=advice,
    )  # fmt: skip
    _, method = conditioned_on(run.denoiser, of.measurement, y, of.noise)
    evaluations = method.nfe(experiment.sampler_and_steps[1])
    told = {
        "method": request.method,
        "settings": dict(request.settings),
        **experiment.record("sampling"),
        "evaluations": None if evaluations is None else evaluations * experiment.guidance_cost,
        "seconds": seconds,
        "seed": request.seed,
        "step": run.step,
        "average": run.average,
    }
    return Solved(answers, told)
