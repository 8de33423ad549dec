"""`report.html`: one self-contained page made of what lies in the run's folder, so that it can be made again at any time.

It is made anew at each grid of samples in training, and at last with the evaluation.
"""

import html
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data.sources.names import class_title
from experiments.devices import distributed
from experiments.factory.experiment import Experiment
from experiments.files import strict_json
from experiments.logs import history
from experiments.metrics import names as metric_names
from experiments.plotting import curves, page
from experiments.runs.workdir import Workdir

MAX_GRIDS = 4  # on the page; all are in samples/
MAX_CLASSES = 100  # in the table of images by class
SPLITS = {"train": "training images", "validation": "validation images", "test": "test images"}


def write(workdir: Workdir) -> None:
    """Makes the page from the run's config, history, grids and metrics, as far as they are there."""
    experiment, rows = Experiment(workdir.read_config()), history.read(workdir.history)
    step = int(rows[-1]["step"]) if rows else 0
    measured = strict_json.read(workdir.metrics, strict_json.METRICS) if workdir.metrics.exists() else None
    stored = workdir.read_data()
    drawn_of = experiment.sampled_classes(workdir.class_names()) if experiment.draws_samples else ""
    sections = [
        *_heading(workdir, experiment, rows, measured),
        page.section(f"{_pictures(experiment)} over training", _grids(workdir, drawn_of)),
    ]
    if measured is not None and not experiment.draws_samples:
        sections.append(page.section("Figures of held-out examples", _of_objective(measured)))
    elif measured is not None:
        strip = ""
        if workdir.strip.exists():
            strip = page.picture(workdir.strip, "Each row is one sample, from the prior to the data.")
        when = "" if measured["step"] >= step else f", at step {measured['step']:,}"
        sections += [
            page.section("Noise becoming images", strip),
            page.section(f"How good they are{when}", _figures(measured)),
        ]
    sections.append(page.section("Training", _curves(experiment, rows) if rows else ""))
    if measured is not None and experiment.draws_samples:
        sections.append(page.section("Error at each noise level", _levels(measured)))
    sections.append(page.section("Data", _data(stored) if "summary" in stored else ""))
    keys = f"<details><summary>All keys</summary><pre>{html.escape(workdir.config.read_text())}</pre></details>"
    sections.append(page.section("Config", keys))
    page.write(workdir.report, experiment.title, sections)


def _pictures(experiment: Experiment) -> str:
    return "Samples" if experiment.draws_samples else "Pictures"


def _of_objective(measured: dict[str, Any]) -> str:
    """The figures of an objective without samples, and those at each noise level, where they are."""
    rows = [[name.replace("_", " "), _number(value)] for name, value in measured["figures"].items()]
    shown = page.table(["figure", "value"], rows)
    levels = measured.get("levels")
    if not levels:
        return shown
    head, x = list(levels[0]), np.array([row["log_snr"] for row in levels])
    plots = []
    for name, colour in zip(head[1:], curves.COLOURS, strict=False):
        plot = curves.Curves("log-SNR", name.replace("_", " "))
        plot.add(x, np.array([row[name] for row in levels]), colour, name)
        plots.append(page.plot(f"{name.replace('_', ' ')} by noise level", plot.svg()))
    table = [[_number(row[name]) for name in head] for row in levels]
    return shown + page.table([name.replace("_", " ") for name in head], table) + page.plots(plots)


def _heading(
    workdir: Workdir, experiment: Experiment, rows: list[dict[str, float]], measured: dict[str, Any] | None
) -> list[str]:
    """What the run is, how far it is, and its last figures."""
    total, last = experiment.training.num_steps, rows[-1] if rows else {}
    step = max(int(last.get("step", 0)), measured["step"] if measured else 0)
    if step < total:
        state = f"Training, step {step:,} of {total:,}"
    else:
        state = f"Trained, {step:,} steps" + ("" if measured else "; the evaluation is to come")
    lines = [f"<h1>{html.escape(experiment.title)}</h1>", f"<p>{state}; batch {experiment.data.batch_size}.</p>"]
    if measured is not None and experiment.draws_samples:
        sampling = measured["sampling"]
        evaluations = sampling["evaluations"] or "its own number of"
        lines.append(
            f"<p>Samples by {sampler_of(sampling)}, {sampling['steps']} steps, {evaluations} evaluations of the network.</p>"
        )
    lines.append(page.progress(min(step / total, 1)))
    shown = [
        ("loss", "loss", "{:.4f}"),
        ("images_per_second", "images per second", "{:,.0f}"),
        ("mfu", "of the peak (MFU)", "{:.1%}"),
        ("data_fraction", "of the time for data", "{:.1%}"),
        ("memory_peak_mib", "MiB of memory at most", "{:,.0f}"),
    ]
    facts = [(name, text.format(last[key])) for key, name, text in shown if key in last]
    seconds = last.get("seconds", 0.0)
    facts.append(("of training", duration(seconds)))
    if 0 < step < total and seconds:
        facts.append(("to go, about", duration(seconds * (total - step) / step)))
    return [*lines, page.facts(facts)]


def duration(seconds: float) -> str:
    """Seconds for a reader."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def _grids(workdir: Workdir, drawn_of: str) -> str:
    """The last grid and some before it, evenly spread; below them the classes that they are drawn of, if any."""
    paths = sorted(workdir.samples.glob("step_*.png"))
    chosen = np.unique(np.linspace(0, len(paths) - 1, MAX_GRIDS).round().astype(int)) if paths else []
    grids = page.grids(page.picture(paths[i], f"step {step_of(paths[i]):,}") for i in chosen)
    return grids + (f"<p>{html.escape(f'Row by row, {drawn_of}.')}</p>" if grids and drawn_of else "")


def _data(stored: dict[str, Any]) -> str:
    """The summary, the warnings and the images by class that `data.json` holds."""
    lines = [stored["summary"], *(f"Warning: {text}" for text in stored["warnings"])]
    found = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
    counts, names = stored.get("class_counts", {}), stored["class_names"]
    if not counts or stored["num_classes"] > MAX_CLASSES:
        return found
    rows = [
        [class_title(number, names[number] if names else None), *(f"{counts[split][number]:,}" for split in counts)]
        for number in range(stored["num_classes"])
    ]
    return found + page.table(["class", *(SPLITS[split] for split in counts)], rows)


def sampler_of(sampling: dict[str, Any]) -> str:
    """Returns the sampler of the `sampling` of a metrics.json; files of before a renaming have it as `method`."""
    return sampling["sampler"] if "sampler" in sampling else sampling.get("method", "")


def step_of(grid: Path) -> int:
    """The step at which a grid `samples/step_*.png` was drawn."""
    return int(grid.stem.removeprefix("step_"))


def _curves(experiment: Experiment, rows: list[dict[str, float]]) -> str:
    """The loss, of all and of each noise level, the norms, and the speed, over the steps."""

    def single(title: str, key: str, unit: str, *, scale: float = 1.0, smooth: bool = False, **axis: bool) -> str:
        steps, values = curves.column(rows, "step", key)
        if not len(steps):
            return ""
        plot = curves.Curves("step", unit)
        line = curves.smoothed(values) if smooth else values
        plot.add(steps, scale * line, curves.COLOURS[0], behind=scale * values if smooth else None)
        return page.plot(title, plot.svg(**axis))

    plots = [
        single("Loss", "loss", "loss", smooth=True, logarithmic=True),
        _bins(experiment, rows),
        single("Gradient norm, before clipping", "grad_norm", "norm", smooth=True, logarithmic=True),
        single("Weight norm", "param_norm", "norm"),
        single("Learning rate", "learning_rate", "rate", zero=True),
        single("Speed", "images_per_second", "images per second", zero=True),
        single("Model FLOP utilization", "mfu", "% of a large matrix product", scale=100, zero=True),
        single("Getting data ready", "data_fraction", "% of training time", scale=100, zero=True),
    ]
    return page.plots(plots)


def _bins(experiment: Experiment, rows: list[dict[str, float]]) -> str:
    """The loss in each bin of noise levels, weighted as in training."""
    edges = experiment.loss_bin_edges
    plot, drawn = curves.Curves("step", "loss"), 0
    for i, colour in enumerate(curves.colours_between(len(edges) - 1)):
        steps, values = curves.column(rows, "step", f"loss_bin_{i}")
        high, low = (float(np.exp(-0.5 * edge)) for edge in edges[i : i + 2])
        plot.add(steps, curves.smoothed(values), colour, f"{low:.2g} to {high:.2g}")
        drawn += len(steps) > 0
    return (
        page.plot("Loss by noise level (sigma / alpha)", plot.svg(logarithmic=True, legend_outside=True))
        if drawn
        else ""
    )


def _rows(measured: dict[str, Any]) -> list[list[str]]:
    """Title, meaning, figure, interval, count and floor of each figure that was taken of the samples."""
    rows = []
    for key, (title, meaning) in metric_names.meanings(
        measured.get("feature_network", "perceptron"), measured.get("metrics")
    ).items():
        if key in measured["samples"]:
            sure = _interval(measured.get("intervals", {}).get("samples", {}).get(key))
            count = measured.get("counts", {}).get("samples", {}).get(key)
            floor = measured["real"].get(key)
            rows.append([title, meaning, f"{measured['samples'][key]:.3f}", sure, _number(count), _number(floor)])
    return rows


def _interval(ends: Any) -> str:
    """An interval in words; empty where it is unknown, which metrics.json has as null and `strict_json` reads as NaN."""
    return f"{ends[0]:.3f} to {ends[1]:.3f}" if np.ndim(ends) else ""


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def _error(figure: dict[str, Any]) -> str:
    """The standard error of a figure in words."""
    return "unknown" if figure["standard_error"] is None else f"{figure['standard_error']:.3f}"


def _aligned(rows: list[list[str]]) -> list[str]:
    """Lines of a table: the first column flush left, others flush right, at least two spaces between columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def publish(workdir: Workdir, measured: dict[str, Any]) -> None:
    """Writes the page on the first process, and prints the figures of an evaluation and where everything is."""
    if distributed.is_first():
        write(workdir)
    if "figures" in measured:
        print("\n".join(_aligned([[name.replace("_", " "), _number(x)] for name, x in measured["figures"].items()])))
        print(f"Pictures over training: {workdir.samples}\nReport: {workdir.report}")
        return
    print(summary(measured))
    print(f"Samples over training: {workdir.samples}\nReport: {workdir.report}")
    if "checkpoints" in measured:
        print(_choice(measured))
    if "guidance" in measured:
        print("\n".join(_aligned(_scales(measured))))
        print(_best_scale(measured))


def _choice(measured: dict[str, Any]) -> str:
    """Returns a line of the best checkpoint and the others."""
    metric, found = measured["chosen_by"], measured["checkpoints"]
    others = ", ".join(f"step {row['step']} has {row[metric]:.3f}" for row in found if row["step"] != measured["step"])
    best = f"step {measured['step']} with {measured['samples'][metric]:.3f}"
    return f"Best of {len(found)} checkpoints by {metric}: {best}" + (f" ({others})" if others else "")


def _meanings(measured: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """The title and the meaning of each figure, those of the user among them."""
    return metric_names.meanings(measured.get("feature_network", "perceptron"), measured.get("metrics", {}))


def _shown_over_scales(measured: dict[str, Any]) -> list[str]:
    """The keys that are shown over the scale of guidance: the distance, precision, recall and what the best is chosen by."""
    keys = (next(iter(_meanings(measured))), "precision", "recall", measured["chosen_by"])
    return [key for key in dict.fromkeys(keys) if key in measured["samples"]]


def _best_scale(measured: dict[str, Any]) -> str:
    """Returns a sentence of the best scale."""
    metric, value = measured["chosen_by"], measured["samples"][measured["chosen_by"]]
    scale = next(row["scale"] for row in measured["guidance"] if row[metric] == value)
    return f"Best of {len(measured['guidance'])} scales by {metric}: {scale:g} with {value:.3f}"


def _scales(measured: dict[str, Any]) -> list[list[str]]:
    """The rows of the table of the scales of guidance, its head first."""
    meanings, shown = _meanings(measured), _shown_over_scales(measured)
    rows = [["guidance", *(meanings[key][0] for key in shown), "evaluations"]]
    for row in measured["guidance"]:
        rows.append([f"{row['scale']:g}", *(f"{row[key]:.3f}" for key in shown), _number(row["evaluations"])])
    return rows


def _guidance(measured: dict[str, Any]) -> str:
    """The table and the plots of the scales of guidance."""
    if "guidance" not in measured:
        return ""
    head, *rows = _scales(measured)
    scales, plots = np.array([row["scale"] for row in measured["guidance"]]), []
    main, *others = _shown_over_scales(measured)
    shares = [key for key in others if key in ("precision", "recall")]
    for keys, unit in (
        ([main], "distance"),
        (shares, "share of images"),
        ([key for key in others if key not in shares], "value"),
    ):
        if not keys:
            continue
        plot = curves.Curves("scale of guidance", unit)
        for key, colour in zip(keys, curves.COLOURS, strict=False):
            plot.add(scales, np.array([row[key] for row in measured["guidance"]]), colour, key)
        plots.append(page.plot(f"{', '.join(keys)} by the scale of guidance", plot.svg()))
    note = f"{_best_scale(measured)}. The figures above are of this scale."
    return page.table(head, rows) + f"<p>{html.escape(note)}</p>" + page.plots(plots)


def summary(measured: dict[str, Any]) -> str:
    """The figures as a table in text: samples with their 95 % intervals, and real images."""
    rows = [["", "samples", "95 %", "real"]]
    rows += [[title, value, sure, floor] for title, _, value, sure, _, floor in _rows(measured)]
    lines = _aligned(rows)
    lines[0] += f"   (against {measured['reference']})"
    if "classes" in measured["sampling"]:
        lines.append(f"classes of the samples: {measured['sampling']['classes']}")
    if "memorisation" in measured:
        found = measured["memorisation"]
        for key, (title, _) in metric_names.MEMORISATION.items():
            lines.append(
                f"{title}: {found['samples'][key]:.3f} of samples, {found['held_out'][key]:.3f} of held-out images"
            )
    if "bits_per_dim" in measured:
        bits = measured["bits_per_dim"]
        images = f"{bits['images']:,} image" + ("" if bits["images"] == 1 else "s")
        lines.append(f"bits per dimension: {bits['value']:.3f} +- {_error(bits)} ({images})")
    return "\n".join(lines)


def _figures(measured: dict[str, Any]) -> str:
    rows = [[f"{title} ({meaning})", *rest] for title, meaning, *rest in _rows(measured)]
    note = (
        f"{measured['sampling']['num_samples']:,} samples, and {measured['real']['images']}, each against "
        f"{measured['reference']}. Features: {measured['features']}"
    )
    if "classes" in measured["sampling"]:
        note += f" Classes of the samples: {measured['sampling']['classes']}."
    table = page.table(["", "samples", "95 % interval", "of", "real images"], rows) + f"<p>{html.escape(note)}</p>"
    return table + _memorisation(measured) + _bits_per_dim(measured) + _checkpoints(measured) + _guidance(measured)


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
        for key, (title, meaning) in metric_names.MEMORISATION.items()
    ]
    note = f"Nearest of {found['training_images']:,} training images, in the same features."
    return page.table(["Copies", "samples", "95 % interval", "of", "held-out images"], rows) + f"<p>{note}</p>"


def _bits_per_dim(measured: dict[str, Any]) -> str:
    if "bits_per_dim" not in measured:
        return ""
    bits = measured["bits_per_dim"]
    sure = f"; 95 % {_interval(bits['interval'])}" if bits["interval"] else ""
    return (
        f"<p>Bits per dimension of {bits['images']:,} held-out images, at most: {bits['value']:.3f} "
        f"(standard error {_error(bits)}{sure}; t_min {bits['t_min']:g}).</p>"
    )


def _checkpoints(measured: dict[str, Any]) -> str:
    if "checkpoints" not in measured:
        return ""
    metric = measured["chosen_by"]
    rows = [[f"step {row['step']:,}", f"{row[metric]:.3f}"] for row in measured["checkpoints"]]
    note = f"The figures are those of step {measured['step']:,}, the best of these by {metric}."
    return page.table(["Checkpoint", metric], rows) + f"<p>{html.escape(note)}</p>"


def _levels(measured: dict[str, Any]) -> str:
    pairs = zip(measured["held_out_loss"], measured["training_loss"], strict=True)
    rows = [
        [f"{a['noise_to_signal']:.3g}", f"{a['log_snr']:.2f}", f"{a['loss']:.3g}", f"{b['loss']:.3g}"] for a, b in pairs
    ]
    note = "Mean squared error of the predicted noise, per pixel; 1 is no better than predicting 0."
    return page.table(["sigma / alpha", "log-SNR", "held-out images", "training images"], rows) + f"<p>{note}</p>"
