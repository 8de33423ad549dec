"""The command `reconstruct`: slices behind k-space or projections, drawn from a trained model; and the files it writes."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.data.inputs import volumes
from experiments.devices import distributed
from experiments.errors import UserError
from experiments.files import Results, replace_text
from experiments.generation.answers import measurement_keys
from experiments.inverse import problems, results
from experiments.inverse import scanners as reconstruction
from experiments.inverse.build import Problem, check_method
from experiments.inverse.modalities import Reconstruction
from experiments.inverse.solving import open_for, solve
from experiments.loading.models import Model
from experiments.media import Medium
from sde_lib.inverse import LinearMeasurement

GREY_LEVELS = 255
TABLE = {"psnr": "PSNR, dB", "ssim": "SSIM", "perceptual": "perceptual distance"}


@dataclass(frozen=True)
class Slices:
    """What is known of slices.

    Attributes:
        names: N.
        y: (N, *measured) in the model's range.
        truth: (N, H, W, 1), or None.
        low, high: the intensities that are black and white.
        window: where these are from, in words.
        affine: of a volume, for its files; or None.
    """

    names: tuple[str, ...]
    y: Any
    truth: np.ndarray | None
    low: float
    high: float
    window: str
    affine: np.ndarray | None


def reconstruct(request: Reconstruction) -> Results:
    """Draws the answers and writes the files.

    Raises:
        UserError: the request does not fit the model or the files.
        RunError: an answer is not finite.
    """
    model = open_for(request, "reconstruct")
    medium, shape = model.medium, model.shape
    if shape[2] != 1:
        raise UserError(
            f"--workdir={request.workdir}: a model of images of {shape[2]} channels; slices are images of 1 channel"
        )
    measurement, y = _measurement(request, model)
    of = reconstruction.scan_problem(request.modality, measurement, request.noise)
    check_method(model.experiment, request.method, request.settings, reconstruction.for_checks(of), shape)
    slices = _slices(request, of, y, model)
    solved, unit = reconstruction.for_methods(of, problems.method_of(request.method).asks)
    answers, how = solve(model, request, solved, slices.names, np.asarray(slices.y) / unit)
    if not distributed.is_first():
        return Results()
    told = {
        "modality": request.modality,
        "options": dict(request.options),
        "noise": request.noise,
        "intensities": {"black": slices.low, "white": slices.high, "by": slices.window},
        **how,
    }
    written = _write(request, of, slices, answers, medium, told)
    return dataclasses.replace(written, summary=f"{request.modality} by {request.method}: {written.summary}")


def _measurement(request: Reconstruction, model: Model) -> tuple[LinearMeasurement, np.ndarray | None]:
    """How slices are measured, and what was measured of them (N, *measured), in intensities; None if it is yet to be."""
    if request.input is None:
        return reconstruction.simulated(request.modality, model.shape, request.options, model.rendering), None
    return reconstruction.read_scan(request.modality, "--input", request.input, model.shape, request.limit)


def _slices(request: Reconstruction, of: Problem, y: np.ndarray | None, model: Model) -> Slices:
    """The slices; without measurements they are made of the truth."""
    truth = None if request.truth is None else _truth(request, model)
    if y is None:
        y = of.measure(measurement_keys(request.seed, len(truth.names)), jnp.asarray(truth.truth))
        return dataclasses.replace(truth, y=y)
    if truth is None:
        white, by = request.white, "--white"
        if white is None:
            white = reconstruction.white_of(request.modality, of.measurement, y)
            by = f"percentile {reconstruction.PERCENTILE} of the plain reconstructions"
        if not white > 0:
            raise UserError(f"--input: {request.input}: its plain reconstructions are black: give --white=INTENSITY")
        names = tuple(f"slice_{i:04d}" for i in range(len(y)))
        truth = Slices(names, None, None, 0.0, white, by, None)
    elif len(truth.names) != len(y):
        raise UserError(f"--input has {len(y)} slices and --truth {len(truth.names)}: they are paired in their order")
    y = of.select(reconstruction.on_the_models_scale(of.measurement, y, truth.low, truth.high))
    return dataclasses.replace(truth, y=y)


def _truth(request: Reconstruction, model: Model) -> Slices:
    if not volumes.is_volume(request.truth):
        found = model.read("--truth", request.truth, request.limit)
        return Slices(found.names, None, found.values, 0.0, 1.0, "the images' own", None)
    volume = volumes.read("--truth", request.truth, request.axis, request.window, request.chosen, request.limit)
    volume = volume.fitted(model.shape[:2])
    values = np.asarray(model.medium.forward(volume.slices[..., None] * GREY_LEVELS), np.float32)
    return Slices(volume.names, None, values, volume.low, volume.high, volume.window, volume.affine)


def _write(
    request: Reconstruction,
    of: Problem,
    slices: Slices,
    answers: np.ndarray,
    medium: Medium,
    told: Mapping[str, Any],
) -> Results:
    measured = np.asarray(slices.y)
    written = results.write(
        request.out,
        results.Drawn(
            names=slices.names,
            answers=answers,
            shown={"measured": medium.inverse(of.view(measured))},
            truth=slices.truth,
            beside=of.baseline(slices.y),
            misfit=np.stack([np.asarray(of.misfit(answers[:, k], slices.y)) for k in range(request.answers)], 1),
            arrays={"measured": measured},
        ),
        medium,
        told,
    )
    more = []
    if slices.affine is not None:
        contrast = slices.high - slices.low
        mean = slices.low + contrast * results.unit(answers.mean(1)[..., 0])
        more.append(request.out / "mean.nii.gz")
        volumes.write(more[-1], mean, slices.affine)
        if request.answers > 1:
            deviation = contrast * answers.std(1)[..., 0] / 2
            more.append(request.out / "deviation.nii.gz")
            volumes.write(more[-1], deviation, slices.affine)
    if slices.truth is not None:
        more.append(request.out / "report.md")
        replace_text(more[-1], _table(written.metrics))
    return dataclasses.replace(written, files=(*written.files, *more))


def _table(told: Mapping[str, Any]) -> str:
    """The figures as a table, averages over all slices; a row for each way."""
    figures = told["figures"]
    rows = [f"| {told['modality']} by | {' | '.join(TABLE.values())} |", "|---|" + "---|" * len(TABLE)]
    for way in figures["psnr"]:
        shown = f"{told['method']}, {'one answer' if way == 'answers' else 'mean of the answers'}"
        caption = shown if way in ("answers", "mean") else way
        rows.append(f"| {caption} | " + " | ".join(f"{figures[metric][way]:.4g}" for metric in TABLE) + " |")
    return "\n".join(rows) + "\n"
