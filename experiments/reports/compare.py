"""Runs on one page: losses on the same axes, where their configs differ, their last figures and samples side by side."""

import html
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.config import files as configs
from experiments.errors import UserError, nearest
from experiments.factory.experiment import Experiment
from experiments.files import strict_json
from experiments.logs import history
from experiments.plotting import curves, page
from experiments.reports import report
from experiments.runs.workdir import Workdir

MAX_VALUE = 60  # characters of a value in the table of differences


class Compared:
    """What is read of one run.

    Args:
        path: its folder.

    Raises:
        UserError: no run is there, or its files are not readable as such.

    Attributes:
        workdir, experiment, rows: of the run.
        measured: its metrics.json; None before the evaluation.
    """

    def __init__(self, path: Path):
        self.workdir = Workdir(path)
        if not self.workdir.config.is_file():
            siblings = [str(p.parent) for p in path.parent.glob("*/config.json")]
            raise UserError(f"{path} holds no run (no config.json){nearest(str(path), siblings)}")
        self.experiment = Experiment(self.workdir.read_config())
        self.rows = history.read(self.workdir.history)
        self.measured = _read_json(self.workdir.metrics)

    @property
    def step(self) -> int:
        """The last logged."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    @property
    def state(self) -> str:
        """How far it is."""
        total = self.experiment.training.num_steps
        return f"{self.step:,} steps" if self.step >= total else f"step {self.step:,} of {total:,}"


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        return strict_json.read(path, strict_json.METRICS)
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error


def names(paths: Sequence[Path]) -> list[str]:
    """The folders without what they have in common at their beginnings: short, and each another."""
    whole = [path.resolve() for path in paths]
    if len(whole) == 1:
        return [whole[0].name]
    common = Path(os.path.commonpath(whole))
    return [str(path.relative_to(common)) if path != common else path.name for path in whole]


def write(paths: Sequence[Path], out: Path) -> None:
    """Makes the page of the runs in these folders.

    Raises:
        UserError: a folder holds no run, or is there twice; nothing is written.
    """
    whole = [path.resolve() for path in paths]
    for path, resolved in zip(paths, whole, strict=True):
        if whole.count(resolved) > 1:
            raise UserError(f"{path} is there twice: name each run once")
    runs = dict(zip(names(paths), map(Compared, paths), strict=True))
    colours = {name: curves.COLOURS[i % len(curves.COLOURS)] for i, name in enumerate(runs)}
    title = f"{len(runs)} runs" if len(runs) > 3 else " / ".join(runs)
    sections = [
        f"<h1>{html.escape(title)}</h1>",
        _overview(runs, colours),
        page.section("Loss", _curves(runs, colours)),
        page.section("Where the configs differ", _differences(runs)),
        page.section("How good they are", _figures(runs)),
        page.section("Last samples", _samples(runs)),
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    page.write(out, title, sections)


def _overview(runs: dict[str, Compared], colours: dict[str, str]) -> str:
    header = ["run", "of", "trained", "training time", "loss", "images per second", "MFU"]
    body = []
    for name, run in runs.items():
        last = run.rows[-1] if run.rows else {}
        cells = [
            run.experiment.title,
            run.state,
            report.duration(last["seconds"]) if "seconds" in last else "",
            f"{_final_loss(run):.4f}" if run.rows else "",
            f"{last['images_per_second']:,.0f}" if "images_per_second" in last else "",
            f"{last['mfu']:.1%}" if "mfu" in last else "",
        ]
        swatch = f'<span class="swatch" style="background:{colours[name]}"></span>{html.escape(name)}'
        body.append(f"<td>{swatch}</td>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells))
    head = "".join(f"<th>{name}</th>" for name in header)
    rows = "".join(f"<tr>{row}</tr>" for row in body)
    note = "<p>The loss is the mean over the last twentieth of the logged rows.</p>"
    return f'<div class="scroll" style="margin-top:1.2rem"><table><tr>{head}</tr>{rows}</table></div>{note}'


def _final_loss(run: Compared) -> float:
    _, losses = curves.column(run.rows, "step", "loss")
    return float(curves.smoothed(losses)[-1]) if len(losses) else math.nan


def _curves(runs: dict[str, Compared], colours: dict[str, str]) -> str:
    def plot(title: str, x: str, xlabel: str, y: str, ylabel: str, *, smooth: bool = True, **axis: bool) -> str:
        drawing = curves.Curves(xlabel, ylabel)
        for name, run in runs.items():
            steps, values = curves.column(run.rows, x, y)
            line = curves.smoothed(values) if smooth else values
            drawing.add(steps, line, colours[name], name, behind=values if smooth else None)
        return page.plot(title, drawing.svg(**axis))

    return page.plots(
        [
            plot("Loss by step", "step", "step", "loss", "loss", logarithmic=True),
            plot("Loss by training time", "seconds", "seconds", "loss", "loss", logarithmic=True),
            plot("Gradient norm", "step", "step", "grad_norm", "norm", logarithmic=True),
            plot("Speed", "step", "step", "images_per_second", "images per second", smooth=False, zero=True),
        ]
    )


def _differences(runs: dict[str, Compared]) -> str:
    """The keys in which not all agree; "absent" where a config has a key not."""
    leaves = {name: dict(configs.leaves(run.experiment.config)) for name, run in runs.items()}
    keys = sorted(set().union(*leaves.values()))
    values = {key: [of.get(key, "absent") for of in leaves.values()] for key in keys}
    rows = [[key, *map(_shown, found)] for key, found in values.items() if any(v != found[0] for v in found)]
    return page.table(["key", *runs], rows) if rows else "<p>Nowhere: all keys are the same.</p>"


def _shown(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= MAX_VALUE else text[: MAX_VALUE - 1] + "…"


def _figures(runs: dict[str, Compared]) -> str:
    """The figures of the samples in each run's metrics.json, and what they are of."""
    measured = {name: run.measured for name, run in runs.items() if run.measured is not None}
    if not measured:
        return "<p>None has been evaluated yet.</p>"
    found = {name: numbers(of.get("samples", {})) for name, of in measured.items()}
    keys = list(dict.fromkeys(key for of in found.values() for key in of))
    rows = [[key.replace("_", " "), *(_number(found[name].get(key)) for name in found)] for key in keys]
    drawn = [of.get("sampling", {}) for of in measured.values()]
    rows.append(["samples", *(_number(of.get("num_samples")) for of in drawn)])
    rows.append(["sampler", *map(report.sampler_of, drawn)])
    rows.append(["evaluations of the network", *(_number(of.get("evaluations")) for of in drawn)])
    rows.append(["of step", *(_number(of.get("step")) for of in measured.values())])
    note = "; ".join(dict.fromkeys(str(of.get("features", "")) for of in measured.values()))
    against = "; ".join(dict.fromkeys(str(of.get("reference", "")) for of in measured.values()))
    return (
        page.table(["samples", *found], rows) + f"<p>Against {html.escape(against)}. Features: {html.escape(note)}</p>"
    )


def numbers(figures: dict[str, Any]) -> dict[str, float]:
    """The figures that are numbers."""
    return {k: v for k, v in figures.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else "" if value is None else str(value)


def _samples(runs: dict[str, Compared]) -> str:
    last = {name: sorted(run.workdir.samples.glob("step_*.png"))[-1:] for name, run in runs.items()}
    return page.grids(
        page.picture(paths[0], f"{name}, step {report.step_of(paths[0]):,}") for name, paths in last.items() if paths
    )
