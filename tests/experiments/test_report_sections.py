"""Sections of the report for special runs: objectives without samples, sweeps of guidance, the config."""

import html
import json
import re

import numpy as np
import pytest

from experiments.files import strict_json
from experiments.plotting import curves
from experiments.reports import report
from experiments.runs.workdir import Workdir
from tests.experiments.test_report import make_run, rows, text_of
from tests.experiments.test_report_figures import Plot, measured, rounded, tables


@pytest.fixture(autouse=True)
def plots(monkeypatch):
    """The plots that are made."""
    made = []
    monkeypatch.setattr(curves, "Curves", lambda *labels: made.append(Plot(*labels)) or made[-1])
    return made


LEVELS = [{"log_snr": snr, "accuracy": 0.1 * i, "cross_entropy": 2.0 - i} for i, snr in enumerate((-8.0, 0.5, 9.0))]
CLASSIFIER = {"objective__name": "classification", "model__num_classes": 3}


@pytest.mark.parametrize("levels", [LEVELS, None, []])
def test_an_objective_without_samples_has_its_figures_and_their_curves(tmp_path, plots, levels):
    """One plot for each figure by the log-SNR, and a table of all; no samples, copies or errors of the noise."""
    workdir = make_run(tmp_path / "run", [], **CLASSIFIER)
    found = {"step": 40, "objective": "classification", "figures": {"accuracy": 0.9375, "held_out_images": 1234}}
    strict_json.write(workdir.metrics, found | ({} if levels is None else {"levels": levels}))
    report.write(workdir)
    page = workdir.report.read_text()
    expected = [[["figure", "value"], ["accuracy", "0.938"], ["held out images", "1,234"]]]
    if levels:
        by_level = [
            [f"{row['log_snr']:.3f}", f"{row['accuracy']:.3f}", f"{row['cross_entropy']:.3f}"] for row in levels
        ]
        expected.append([["log snr", "accuracy", "cross entropy"], *by_level])
    assert tables(page) == expected
    assert re.findall("<h2>(.*?)</h2>", page) == ["Figures of held-out examples", "Config"]
    names = ["accuracy", "cross_entropy"] if levels else []
    assert re.findall("<h3>(.*?)</h3>", page) == [f"{name.replace('_', ' ')} by noise level" for name in names]
    for plot, name, colour in zip(plots, names, curves.COLOURS, strict=False):
        assert plot.labels == ("log-SNR", name.replace("_", " ")) and plot.axis == {}
        values = [row[name] for row in LEVELS]
        assert plot.lines == [([-8.0, 0.5, 9.0], rounded(values), colour, name, None)]
    assert "Trained, 40 steps; batch 16." in text_of(page)


def test_figures_of_an_objective_are_printed_in_two_columns(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "write", lambda workdir: None)
    workdir = Workdir(tmp_path)
    report.publish(workdir, {"figures": {"accuracy": 0.9375, "held_out_images": 1234}})
    assert capsys.readouterr().out.splitlines() == [
        "accuracy         0.938", "held out images  1,234",
        f"Pictures over training: {workdir.samples}", f"Report: {workdir.report}",
    ]  # fmt: skip


SCALES = [
    {"scale": 1.0, "evaluations": 35, "frechet_distance": 2.5, "precision": 0.5, "recall": 0.75, "density": 0.25},
    {"scale": 1.5, "evaluations": 70, "frechet_distance": 1.25, "precision": 0.875, "recall": 0.5, "density": 1.5},
    {"scale": 3.0, "evaluations": 1400, "frechet_distance": 4.0, "precision": 1.0, "recall": 0.125, "density": 1.75},
]


@pytest.mark.parametrize("chosen, more", [("frechet_distance", False), ("recall", False), ("density", True)])
def test_a_sweep_of_guidance_has_its_table_its_plots_and_its_best_scale(
    plots, chosen, more, capsys, tmp_path, monkeypatch
):
    """The distance, the shares of images, and what the best is chosen by where it is another figure."""
    samples = {key: SCALES[1][key] for key in ("frechet_distance", "precision", "recall", "density")}
    found = measured(guidance=SCALES, chosen_by=chosen, samples=samples)
    page = report._guidance(found)
    shown = ["frechet_distance", "precision", "recall", *(["density"] * more)]
    titles = ["Frechet distance", "precision", "recall", *(["density"] * more)]
    (table,) = tables(page)
    assert table == [["guidance", *titles, "evaluations"]] + [
        [f"{row['scale']:g}", *(f"{row[key]:.3f}" for key in shown), f"{row['evaluations']:,}"] for row in SCALES
    ]
    groups = [(["frechet_distance"], "distance"), (["precision", "recall"], "share of images")]
    groups += [(["density"], "value")] * more
    assert [(plot.labels, len(plot.lines)) for plot in plots] == [
        (("scale of guidance", unit), len(keys)) for keys, unit in groups
    ]
    for plot, (keys, _) in zip(plots, groups, strict=True):
        for line, key, colour in zip(plot.lines, keys, curves.COLOURS, strict=False):
            assert line == ([1.0, 1.5, 3.0], rounded(row[key] for row in SCALES), colour, key, None)
    assert re.findall("<h3>(.*?)</h3>", page) == [f"{', '.join(keys)} by the scale of guidance" for keys, _ in groups]
    best = f"Best of 3 scales by {chosen}: 1.5 with {samples[chosen]:.3f}"
    assert f"<p>{best}. The figures above are of this scale.</p>" in page
    monkeypatch.setattr(report, "write", lambda workdir: None)
    report.publish(Workdir(tmp_path), found)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == best and [line.split() for line in lines[-4:-1]] == [row[:1] + row[1:] for row in table[1:]]


def test_the_page_ends_with_all_keys_of_the_config_and_begins_with_the_process(tmp_path):
    workdir = make_run(tmp_path / "run", rows(20), data__source="npz:<a>.npz")
    strict_json.write(workdir.metrics, measured(step=20))
    report.write(workdir)
    page = workdir.report.read_text()
    keys = re.search("<details><summary>All keys</summary><pre>(.*?)</pre></details>", page, re.DOTALL)[1]
    assert "<a>" not in keys and json.loads(html.unescape(keys)) == json.loads(workdir.config.read_text())
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert headings == ["How good they are", "Training", "Error at each noise level", "Config"]
    assert page.index("<h1>") < page.index("Training, step 20 of 40") < page.index("How good they are")


def test_numbers_intervals_and_errors_in_words():
    assert [report._number(value) for value in (None, 1234, 0.0625, 1234.5)] == ["", "1,234", "0.062", "1234.500"]
    assert [report._interval(ends) for ends in (None, np.nan, [0.5, 2.0])] == ["", "", "0.500 to 2.000"]
    assert report._error({"standard_error": None}) == "unknown" and report._error({"standard_error": 0.5}) == "0.500"
    assert report.sampler_of({"method": "ddim"}) == "ddim" and report.sampler_of({}) == ""
    assert report.sampler_of({"sampler": "heun", "method": "ddim"}) == "heun"
    assert report._aligned([["a", "bbb"], ["cccc", "d"]]) == ["a     bbb", "cccc    d"]
