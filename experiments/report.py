"""`report.html`: one self-contained page made of what lies in the run's folder, so that it can be made again at any time."""

import base64
import html
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments import history
from experiments.evaluation import figures
from experiments.workdir import Workdir, replace_text

MAX_GRIDS = 4  # on the page; all are in samples/

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1d2430; max-width: 62rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p, figcaption { color: #556070; margin: .3rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem 1.1rem .3rem 0; text-align: right; border-bottom: 1px solid #e3e7ec; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; }
.grids { display: flex; flex-wrap: wrap; gap: 1.25rem; } figure { margin: 0; }
.grids figure { flex: 1 1 13rem; max-width: 28rem; } img { width: 100%; display: block; image-rendering: pixelated; }
.curve img { image-rendering: auto; } pre { background: #f4f6f8; padding: 1rem; overflow-x: auto; font-size: .85rem; }
"""


def write(workdir: Workdir) -> None:
    """Makes the page from the run's config, history, grids and metrics."""
    rows = history.read(workdir.history)
    measured = json.loads(workdir.metrics.read_text())
    config = workdir.read_config()
    title = f"{config.data.source}, {config.sde.name}"
    sampling = measured["sampling"]
    sections = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{measured['step']:,} steps of batch {config.data.batch_size}; samples by {sampling['method']}, "
        f"{sampling['steps']} steps, {sampling['evaluations'] or 'its own number of'} evaluations of the network.</p>",
        _section("Samples over training", _grids(workdir)),
        _section(
            "Noise becoming images", _picture(workdir.strip, "Each row is one sample, from the prior to the data.")
        ),
        _section("How good they are", _figures(measured)),
        _section("Loss", f'<div class="curve">{_embedded(_loss_curve(rows), "training loss over steps")}</div>'),
        _section("Error at each noise level", _levels(measured)),
        _section("Config", f"<pre>{html.escape(workdir.config.read_text())}</pre>"),
    ]
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n{chr(10).join(sections)}\n</body></html>\n"
    )
    replace_text(workdir.report, page)


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>\n{content}</section>"


def _embedded(png: bytes, description: str) -> str:
    return f'<img alt="{html.escape(description)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _picture(path: Path, caption: str) -> str:
    return f"<figure>{_embedded(path.read_bytes(), caption)}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _grids(workdir: Workdir) -> str:
    """The last grid and some before it, evenly spread."""
    paths = sorted(workdir.samples.glob("step_*.png"))
    chosen = np.unique(np.linspace(0, len(paths) - 1, MAX_GRIDS).round().astype(int)) if paths else []
    figures = [_picture(paths[i], f"step {int(paths[i].stem.removeprefix('step_')):,}") for i in chosen]
    return f'<div class="grids">{"".join(figures)}</div>'


def _table(header: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _rows(measured: dict[str, Any]) -> list[list[str]]:
    """Title, meaning, figure, interval, count and floor of each figure that was taken of the samples."""
    rows = []
    for key, (title, meaning) in figures.meanings(measured.get("feature_network", "perceptron")).items():
        if key in measured["samples"]:
            sure = _interval(measured.get("intervals", {}).get("samples", {}).get(key))
            count = measured.get("counts", {}).get("samples", {}).get(key)
            floor = measured["real"].get(key)
            rows.append([title, meaning, f"{measured['samples'][key]:.3f}", sure, _number(count), _number(floor)])
    return rows


def _interval(ends: list[float] | None) -> str:
    return f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else ""


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def summary(measured: dict[str, Any]) -> str:
    """The figures as a small table in text: samples, with their 95 % intervals, beside real images."""
    rows = _rows(measured)
    width = max(len(row[0]) for row in rows) + 2
    lines = [f"{'':{width}}{'samples':>10}{'95 %':>20}{'real':>10}   (against {measured['reference']})"]
    lines += [f"{title:{width}}{value:>10}{sure:>20}{floor:>10}" for title, _, value, sure, _, floor in rows]
    if "memorisation" in measured:
        found = measured["memorisation"]
        for key, (title, _) in figures.MEMORISATION.items():
            lines.append(
                f"{title}: {found['samples'][key]:.3f} of samples, {found['held_out'][key]:.3f} of held-out images"
            )
    if "bits_per_dim" in measured:
        bits = measured["bits_per_dim"]
        lines.append(
            f"bits per dimension: {bits['value']:.3f} +- {bits['standard_error']:.3f} ({bits['images']:,} images)"
        )
    return "\n".join(lines)


def _figures(measured: dict[str, Any]) -> str:
    rows = [[f"{title} ({meaning})", *rest] for title, meaning, *rest in _rows(measured)]
    note = (
        f"{measured['sampling']['num_samples']:,} samples, and {measured['real']['images']}, each against "
        f"{measured['reference']}. Features: {measured['features']}"
    )
    page = _table(["", "samples", "95 % interval", "of", "real images"], rows) + f"<p>{html.escape(note)}</p>"
    return page + _memorisation(measured) + _bits_per_dim(measured) + _checkpoints(measured)


def _memorisation(measured: dict[str, Any]) -> str:
    if "memorisation" not in measured:
        return ""
    found = measured["memorisation"]
    rows = [
        [
            f"{title} ({meaning})",
            f"{found['samples'][key]:.3f}",
            _interval(found["intervals"]["samples"][key]),
            f"{found['counts']['samples'][key]:,}",
            f"{found['held_out'][key]:.3f}",
        ]
        for key, (title, meaning) in figures.MEMORISATION.items()
    ]
    note = f"Nearest of {found['training_images']:,} training images, in the same features."
    return _table(["Copies", "samples", "95 % interval", "of", "held-out images"], rows) + f"<p>{note}</p>"


def _bits_per_dim(measured: dict[str, Any]) -> str:
    if "bits_per_dim" not in measured:
        return ""
    bits = measured["bits_per_dim"]
    return (
        f"<p>Bits per dimension of {bits['images']:,} held-out images, at most: {bits['value']:.3f} "
        f"(standard error {bits['standard_error']:.3f}; 95 % {_interval(bits['interval'])}; t_min {bits['t_min']:g}).</p>"
    )


def _checkpoints(measured: dict[str, Any]) -> str:
    if "checkpoints" not in measured:
        return ""
    metric = measured["chosen_by"]
    rows = [[f"step {row['step']:,}", f"{row[metric]:.3f}"] for row in measured["checkpoints"]]
    note = f"The figures are those of step {measured['step']:,}, the best of these by {metric}."
    return _table(["Checkpoint", metric], rows) + f"<p>{html.escape(note)}</p>"


def _levels(measured: dict[str, Any]) -> str:
    pairs = zip(measured["held_out_loss"], measured["training_loss"], strict=True)
    rows = [
        [f"{a['noise_to_signal']:.3g}", f"{a['log_snr']:.2f}", f"{a['loss']:.3g}", f"{b['loss']:.3g}"] for a, b in pairs
    ]
    note = "Mean squared error of the predicted noise, per pixel; 1 is no better than predicting 0."
    return _table(["sigma / alpha", "log-SNR", "held-out images", "training images"], rows) + f"<p>{note}</p>"


def _loss_curve(rows: list[dict[str, float]]) -> bytes:
    """The loss at each logged step and its running mean, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    rows = [row for row in rows if "loss" in row]  # those of skipped steps alone have none
    steps, losses = [row["step"] for row in rows], np.array([row["loss"] for row in rows])
    axes.plot(steps, losses, color="#b9c3d0", linewidth=1, label="each logged call")
    if len(losses):
        width = min(len(losses), 1 + len(losses) // 20)
        means = np.convolve(losses, np.ones(width) / width, mode="valid")
        axes.plot(steps[width - 1 :], means, color="#1f5fbf", linewidth=1.8, label=f"mean of the last {width}")
    # A loss with learned uncertainty falls below 0.
    axes.set(xlabel="step", ylabel="loss", yscale="log" if (losses > 0).all() else "linear")
    axes.grid(alpha=0.25, which="both")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
