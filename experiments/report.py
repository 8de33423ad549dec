"""`report.html`: one self-contained page made of what lies in the run's folder, so that it can be made again at any time."""

import base64
import html
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments import history
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


# Name and meaning of each figure of `metrics.compare`.
FIGURES = {
    "frechet_distance": ("Frechet distance", "less is better"),
    "kernel_distance": ("kernel distance", "less is better"),
    "precision": ("precision", "samples that look real"),
    "recall": ("recall", "real images that are covered"),
}


def summary(measured: dict[str, Any]) -> str:
    """The figures as a small table in text: samples beside real images."""
    lines = [f"{'':18}{'samples':>10}{'real':>10}   (against {measured['reference']})"]
    for key, (name, _) in FIGURES.items():
        lines.append(f"{name:18}{measured['samples'][key]:10.3f}{measured['real'][key]:10.3f}")
    return "\n".join(lines)


def _figures(measured: dict[str, Any]) -> str:
    rows = [
        [f"{name} ({meaning})", f"{measured['samples'][key]:.3f}", f"{measured['real'][key]:.3f}"]
        for key, (name, meaning) in FIGURES.items()
    ]
    note = (
        f"{measured['sampling']['num_samples']:,} samples, and {measured['real']['images']}, each against "
        f"{measured['reference']}. Features: {measured['features']}"
    )
    return _table(["", "samples", "real images"], rows) + f"<p>{html.escape(note)}</p>"


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
