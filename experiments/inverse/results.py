"""The files that a task writes: the contact sheet, a PNG of each answer, the arrays, and the figures.

| file                          | has                                                                                 |
|-------------------------------|-------------------------------------------------------------------------------------|
| `sheet.png`                   | a row for each input: what was given, answers, mean, deviation, others' answers, truth |
| `NAME_K.png`, `NAME_mean.png` | answer K of an input, and the mean of its answers                                   |
| `NAME_deviation.png`          | the standard deviation of its answers; white is `deviation_white` of `results.json` |
| `answers.npz`                 | the same as floats; images are on the scale of [0, 1]                               |
| `results.json`                | the settings; the misfit; against the truth PSNR, SSIM and the perceptual distance  |
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from experiments.errors import counted
from experiments.files import Results, replace_file, strict_json
from experiments.media import Medium
from experiments.metrics import quality
from experiments.plotting import sheet
from experiments.plotting.pictures import visible
from experiments.plotting.sheet import Column

SHOWN = 4  # answers on the sheet
METRICS = {
    "psnr": quality.psnr,
    "ssim": quality.ssim,
    "perceptual": lambda images, truth: quality.perceptual(visible(images), visible(truth)),
}


@dataclass(frozen=True)
class Drawn:
    """What a task has drawn, in the model's range.

    Attributes:
        names: of the N inputs.
        answers: (N, K, H, W, C).
        shown: what was given, by caption: images uint8 (N, h, w, C).
        truth: (N, H, W, C), or None.
        beside: answers of other methods (N, H, W, C), by name.
        misfit: (N, K), or None where nothing was measured.
        arrays: further arrays for `answers.npz`, as they are to be written.
    """

    names: tuple[str, ...]
    answers: np.ndarray
    shown: Mapping[str, np.ndarray]
    truth: np.ndarray | None = None
    beside: Mapping[str, Any] = field(default_factory=dict)
    misfit: np.ndarray | None = None
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


def unit(x: np.ndarray) -> np.ndarray:
    """From [-1, 1] to [0, 1], as IMAGES of .npz files are."""
    return (x + 1) / 2


def write(out: Path, drawn: Drawn, medium: Medium, settings: Mapping[str, Any]) -> Results:
    """Writes the files into a folder.

    Args:
        out: the folder, made if need be.
        drawn: what was drawn.
        medium: of the run.
        settings: what `results.json` says besides.

    Returns:
        the results, whose summary is a line of the figures and of where the files are.
    """
    mean, deviation = drawn.answers.mean(1), drawn.answers.std(1)
    several = drawn.answers.shape[1] > 1
    singles = {"mean": mean, **{name: np.asarray(images) for name, images in drawn.beside.items()}}
    figures = [{"name": name} for name in drawn.names]
    averages = {}
    if drawn.misfit is not None:
        for figure, row in zip(figures, drawn.misfit, strict=True):
            figure["misfit"] = _rounded(row)
        averages["misfit"] = _rounded(np.sqrt(np.square(drawn.misfit).mean()))
    if drawn.truth is not None:
        judged = _judge(drawn.answers, singles, drawn.truth)
        for i, figure in enumerate(figures):
            figure |= {metric: {of: _rounded(values[i]) for of, values in by.items()} for metric, by in judged.items()}
        averages |= {m: {of: _rounded(values.mean()) for of, values in by.items()} for m, by in judged.items()}
        if several:
            averages["deviation_error_correlation"] = _rounded(_correlation(deviation, np.abs(mean - drawn.truth)))
    white = max(float(np.sqrt(np.square(deviation).mean(-1)).max()), 1e-3)
    pictures = {name: medium.inverse(images) for name, images in singles.items()}
    answers, spread = medium.inverse(drawn.answers), sheet.spread(deviation, white)

    columns = [Column(caption, medium.shown(images)) for caption, images in drawn.shown.items()]
    for k in range(min(answers.shape[1], SHOWN)):
        columns.append(Column(f"answer {k}", medium.shown(answers[:, k]), _notes(figures, "answers", k)))
    if several:
        columns.append(Column("mean", medium.shown(pictures["mean"]), _notes(figures, "mean")))
        columns.append(Column(f"deviation, white {white:.2g}", spread))
    columns += [Column(name, medium.shown(pictures[name]), _notes(figures, name)) for name in drawn.beside]
    if drawn.truth is not None:
        columns.append(Column("truth", medium.shown(medium.inverse(drawn.truth))))
    out.mkdir(parents=True, exist_ok=True)
    sheet.save(out / "sheet.png", columns, drawn.names)

    pictures_of_answers = {}
    for i, name in enumerate(drawn.names):
        pictures_of_answers |= {out / f"{name}_{k}.png": answers[i, k] for k in range(answers.shape[1])}
        if several:
            pictures_of_answers[out / f"{name}_mean.png"] = pictures["mean"][i]
            pictures_of_answers[out / f"{name}_deviation.png"] = spread[i]
    for path, picture in pictures_of_answers.items():
        sheet.save_picture(path, picture)
    arrays = {"names": np.array(drawn.names), "answers": unit(drawn.answers), "mean": unit(mean)}
    arrays |= {"deviation": deviation / 2, **drawn.arrays}
    arrays |= {} if drawn.truth is None else {"truth": unit(drawn.truth)}
    with replace_file(out / "answers.npz") as file:
        np.savez_compressed(file, **arrays)
    told = {**settings, "deviation_white": _rounded(white), "figures": averages, "inputs": figures}
    strict_json.write(out / "results.json", told)
    answers = counted(drawn.answers.shape[1], "answer")
    return Results(
        f"{_said(averages)}{answers} for each of {len(drawn.names)}: {out / 'sheet.png'}",
        (out / "sheet.png", *pictures_of_answers, out / "answers.npz", out / "results.json"),
        told,
        arrays,
    )


def _judge(
    answers: np.ndarray, singles: Mapping[str, np.ndarray], truth: np.ndarray
) -> dict[str, dict[str, np.ndarray]]:
    """By metric, then by what is measured: "answers" (N, K), the others (N,). What is beyond black and white is clipped."""
    count, each = answers.shape[:2]
    everything = np.concatenate([answers.reshape(-1, *truth.shape[1:]), *singles.values()]).clip(-1, 1)
    truths = np.concatenate([np.repeat(truth, each, 0), *[truth] * len(singles)])
    judged = {}
    for metric, function in METRICS.items():
        values = np.asarray(function(everything, truths))
        rows = values[count * each :].reshape(len(singles), count)
        judged[metric] = {
            "answers": values[: count * each].reshape(count, each),
            **dict(zip(singles, rows, strict=True)),
        }
    return judged


def _correlation(deviation: np.ndarray, error: np.ndarray) -> float:
    """How far the deviation tells where the error is: Pearson's coefficient over the pixels of an image, averaged."""
    rows = [(values - values.mean(1, keepdims=True)) for values in (a.reshape(len(a), -1) for a in (deviation, error))]
    norms = np.sqrt(np.square(rows[0]).sum(1) * np.square(rows[1]).sum(1))
    return float(np.mean((rows[0] * rows[1]).sum(1) / np.maximum(norms, np.finfo(norms.dtype).tiny)))


def _rounded(values: Any) -> Any:
    """Six digits, as JSON has them."""
    values = np.asarray(values, float)
    return float(f"{values:.6g}") if not values.ndim else [_rounded(value) for value in values]


def _notes(figures: list[dict], of: str, number: int | None = None) -> list[str]:
    """The PSNR below each picture, where it is known."""
    if not figures or "psnr" not in figures[0]:
        return []
    found = [figure["psnr"][of] for figure in figures]
    return [f"{value if number is None else value[number]:.1f} dB" for value in found]


def _said(averages: Mapping[str, Any]) -> str:
    """The averages in a few words."""
    parts = [f"misfit {averages['misfit']:.3g}"] if "misfit" in averages else []
    if "psnr" in averages:
        parts.append("PSNR " + ", ".join(f"{value:.2f} dB ({of})" for of, value in averages["psnr"].items()))
    return "; ".join(parts) + ("; " if parts else "")
