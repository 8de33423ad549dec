"""The command `restore`: images behind measurements, drawn from a trained model; and the files that it writes."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.inputs import images
from experiments.devices import distributed
from experiments.errors import UserError
from experiments.files import Results
from experiments.generation.answers import measurement_keys
from experiments.inverse import problems, results
from experiments.inverse.build import Problem, check_method, noise, problem
from experiments.inverse.solving import open_for, solve
from experiments.loading.models import Model


def restore(request: problems.Restoration) -> Results:
    """Draws the answers and writes the files.

    Raises:
        UserError: the request does not fit the model or the images, or what is measured is not finite.
        RunError: an answer is not finite.
    """
    model = open_for(request, "restore")
    medium, shape = model.medium, model.shape
    of = problem(request.task, shape, request.options, noise(request.noise, request.peak), model.rendering)
    check_method(model.experiment, request.method, request.settings, of, shape)
    names, y, truth = _inputs(request, of, model)
    measured = np.asarray(y)
    # Before what is slow, as a task of the user may fail here.
    plain = of.baseline(y)
    shown = {} if of.view is None else {"measured": medium.inverse(of.view(measured))}
    answers, how = solve(model, request, of, names, y)
    if not distributed.is_first():
        return Results()
    told = {
        "task": request.task,
        "options": dict(request.options),
        "noise": request.noise if request.peak is None else {"peak": request.peak},
        **how,
    }
    image = problems.task_of(request.task).image
    written = results.write(
        request.out,
        results.Drawn(
            names=names,
            answers=answers,
            shown=shown,
            truth=truth,
            beside=plain,
            misfit=np.stack([np.asarray(of.misfit(answers[:, k], y)) for k in range(request.answers)], 1),
            arrays={"measured": results.unit(measured) if image else measured},
        ),
        medium,
        told,
    )
    summary = f"{request.task} by {request.method}, {told['evaluations']} evaluations each: {written.summary}"
    return replace(written, summary=summary)


def _inputs(request: problems.Restoration, of: Problem, model: Model):
    """Names, what was measured y (N, *measured), and the truth (N, H, W, C) or None."""
    truth = measured = None
    if request.truth is not None:
        truth = model.read("--truth", request.truth, request.limit)
    if request.input is not None:
        expected = jax.eval_shape(of.measurement.forward, jax.ShapeDtypeStruct((1, *model.shape), jnp.float32)).shape[
            1:
        ]
        if problems.task_of(request.task).image:
            measured = images.read(
                "--input", request.input, expected, model.medium.forward,
                measured=True, limit=request.limit, rendering=model.rendering,
            )  # fmt: skip
        else:
            measured = images.read_values("--input", request.input, expected, limit=request.limit)
    if truth is not None and measured is not None:
        images.require_same_number(("--input", measured), ("--truth", truth))
    if measured is None:
        y = of.measure(measurement_keys(request.seed, len(truth.names)), jnp.asarray(truth.values))
        bad = ~np.isfinite(np.asarray(y)).reshape(len(y), -1).all(1)
        if bad.any():
            raise UserError(
                f"--task={request.task}: what is measured of {truth.names[bad.argmax()]} has values that are not finite"
            )
        return truth.names, y, truth.values
    return measured.names, of.select(jnp.asarray(measured.values)), None if truth is None else truth.values
