"""The command `restore`: images behind measurements, drawn from a trained model; and the files that it writes."""

import time

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import sde_lib
from experiments import build, check, distributed, runs
from experiments import config as configs
from experiments.build.inverse import Problem, check_method, conditioned, noise, problem, with_sampling
from experiments.errors import UserError
from experiments.tasks import images, problems, results
from experiments.tasks.answers import Answers, measurement_keys, prior


def restore(request: problems.Request) -> str:
    """Draws the answers and writes the files; the line that says where they are.

    Raises:
        UserError: the request does not fit the model or the images.
        RunError: an answer is not finite.
    """
    stored = runs.read_config(request.workdir)
    config = configs.apply(
        with_sampling(stored, request.method), request.overrides, allowed=("sampling.",), command="restore"
    )
    check.check(config)
    transform = build.transform(config)
    if not transform.gives_images:
        raise UserError(f"--workdir={request.workdir}: a model of latents, which has no images to restore")
    shape = (config.data.image_size, config.data.image_size, config.data.num_channels)
    of = problem(request.task, shape, request.options, noise(request.noise, request.peak))
    check_method(config, request.method, request.settings, of, shape)
    names, y, truth = _inputs(request, of, shape, transform)
    run = runs.load_run(request.workdir, config)

    def draw(keys, numbers, y, same, variables):
        measurement, of_y = same
        denoiser, method = conditioned(
            config, request.method, request.settings, prior(config, variables, numbers), measurement, y, of_y, shape
        )
        return sde_lib.sample(keys, denoiser, method, build.times(config, denoiser.sde), shape)

    started = time.perf_counter()
    answers = Answers(draw, build.parallel(config), config.sampling.batch_size)(
        run.variables, y, names, request.answers, request.seed,
        same=(of.measurement, of.noise), advice=_advice(request, config), progress=True,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    if not distributed.is_first():
        return ""
    _, method = conditioned(config, request.method, request.settings, run.denoiser, of.measurement, y, of.noise, shape)
    told = {
        "task": request.task,
        "options": dict(request.options),
        "noise": request.noise if request.peak is None else {"peak": request.peak},
        "method": request.method,
        "settings": dict(request.settings),
        "sampling": config.sampling.to_dict(),
        "evaluations": method.nfe(config.sampling.steps),
        "seconds": round(seconds, 2),
        "seed": request.seed,
        "step": run.step,
        "average": run.average,
    }
    image = problems.TASKS[request.task].image
    measured = np.asarray(y)
    summary = results.write(
        request.out,
        results.Results(
            names=names,
            answers=answers,
            shown={"measured": transform.inverse(of.view(measured))},
            truth=truth,
            beside=of.baseline(y),
            misfit=np.stack([np.asarray(of.misfit(answers[:, k], y)) for k in range(request.answers)], 1),
            arrays={"measured": results.unit(measured) if image else measured},
        ),
        transform,
        told,
    )
    return f"{request.task} by {request.method}, {told['evaluations']} evaluations each: {summary}"


def _inputs(request: problems.Request, of: Problem, shape: tuple[int, int, int], transform):
    """Names, what was measured y (N, *measured), and the truth (N, H, W, C) or None."""
    truth = measured = None
    if request.truth is not None:
        truth = images.read("--truth", request.truth, shape, transform.forward, limit=request.limit)
    if request.input is not None:
        expected = jax.eval_shape(of.measurement.forward, jax.ShapeDtypeStruct((1, *shape), jnp.float32)).shape[1:]
        if problems.TASKS[request.task].image:
            measured = images.read(
                "--input", request.input, expected, transform.forward, measured=True, limit=request.limit
            )
        else:
            measured = images.read_values("--input", request.input, expected, limit=request.limit)
    if truth is not None and measured is not None:
        images.require_same_number(("--input", measured), ("--truth", truth))
    if measured is None:
        y = of.measure(measurement_keys(request.seed, len(truth.names)), jnp.asarray(truth.values))
        return truth.names, y, truth.values
    return measured.names, of.select(jnp.asarray(measured.values)), None if truth is None else truth.values


def _advice(request: problems.Request, config: ConfigDict) -> str:
    return (
        f"--method={request.method} with --steps={config.sampling.steps} is unstable here; try more steps, more --noise, "
        "or another method, such as diffpir or dps"
    )
