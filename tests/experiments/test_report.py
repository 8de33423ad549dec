"""The pages: what they say of runs whose files are written here, by hand."""

import json
import re

import numpy as np
import pytest

from experiments.__main__ import main
from experiments.config import files as config
from experiments.plotting import curves, pictures
from experiments.reports import compare, report
from experiments.runs.workdir import Workdir
from tests.experiments.tiny import tiny_config


def make_run(path, rows, *, process="vp", grids=(), **changes):
    workdir = Workdir(path)
    workdir.samples.mkdir(parents=True)
    workdir.config.write_text(config.to_json(tiny_config(process, **changes)))
    workdir.history.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for step in grids:
        pictures.save(workdir.samples / f"step_{step:08d}.png", np.zeros((8, 8, 1), np.uint8), 8)
    return workdir


def rows(n, loss=1.0):
    return [
        {"step": s, "loss": loss / s, "loss_bin_4": 2 * loss / s, "grad_norm": 0.5, "seconds": 2.0 * s, "mfu": 0.25}
        for s in range(4, n + 1, 4)
    ]


def text_of(page):
    return " ".join(re.sub("<[^>]+>", " ", page.split("</style>")[1]).split())


def drawings(page):
    import base64

    return [base64.b64decode(s).decode() for s in re.findall(r'src="data:image/svg\+xml;base64,([^"]+)', page)]


def test_the_report_of_a_run_in_training_says_how_far_it_is(tmp_path):
    workdir = make_run(tmp_path / "run", rows(20), grids=(20,))
    report.write(workdir)
    page = workdir.report.read_text()
    text = text_of(page)
    assert "Training, step 20 of 40; batch 16." in text and 'style="width:50.0%"' in page
    assert "0.0500 loss" in text and "25.0% of the peak (MFU)" in text and "step 20 " in text
    assert "0 min 40 s of training" in text and "0 min 40 s to go, about" in text
    assert "How good they are" not in text and "Error at each noise level" not in text
    assert len(drawings(page)) == 4  # loss, bins, gradient norm, MFU: what the rows have
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_bin_is_named_by_its_noise_levels(tmp_path):
    """Bin 4 of 10 of VP, from log-SNR -10.0 (t = 1) to 13.4 (1e-5): sigma / alpha = exp(-log_snr / 2)."""
    workdir = make_run(tmp_path / "run", rows(20))
    report.write(workdir)
    alpha_bar = np.exp(-(0.1 * np.array([1, 1e-5]) + 0.5 * 19.9 * np.array([1, 1e-5]) ** 2))
    ends = np.log(alpha_bar / (1 - alpha_bar))
    levels = np.exp(-0.5 * (ends[0] + (ends[1] - ends[0]) * np.array([0.5, 0.4])))
    assert f"{levels[0]:.2g} to {levels[1]:.2g}" in drawings(workdir.report.read_text())[1]


def test_a_trained_run_waits_for_its_evaluation_and_an_old_one_has_its_step(tmp_path):
    workdir = make_run(tmp_path / "run", rows(40))
    report.write(workdir)
    assert "Trained, 40 steps; the evaluation is to come" in text_of(workdir.report.read_text())
    assert not workdir.is_evaluated(40)


def test_a_report_is_made_where_there_is_nothing_but_the_config(tmp_path):
    workdir = make_run(tmp_path / "run", [])
    report.write(workdir)
    assert "Training, step 0 of 40" in text_of(workdir.report.read_text())


def test_smoothing_is_the_mean_of_the_last_twentieth():
    np.testing.assert_allclose(curves.smoothed(np.arange(5.0)), np.arange(5))
    values = np.arange(40.0)
    np.testing.assert_allclose(curves.smoothed(values)[[0, 1, 2, 39]], [0, 0.5, 1, 38])


def test_long_curves_are_thinned_by_averages_and_rows_without_the_figure_left_out():
    rows = [{"step": s, "loss": float(s)} for s in range(1, 6001)] + [{"step": 7000}]
    steps, losses = curves.column(rows, "step", "loss")
    assert len(steps) == curves.MAX_POINTS
    np.testing.assert_allclose(steps[[0, -1]], [5.5, 5995.5])
    np.testing.assert_allclose(losses, steps)
    assert len(curves.column(rows, "step", "mfu")[0]) == 0


def test_compare_has_the_keys_that_differ_alone_and_figures_side_by_side(tmp_path, capsys):
    make_run(tmp_path / "runs/a", rows(40), grids=(20, 40))
    b = make_run(tmp_path / "runs/b", rows(20, loss=3.0), process="ve", optim__lr=1e-4)
    measured = {"step": 20, "sampling": {"sampler": "ddim"}, "samples": {"frechet_distance": 1.25, "note": "x"}}
    b.metrics.write_text(json.dumps(measured))
    out = tmp_path / "pages" / "both.html"
    assert main(["compare", f"{tmp_path}/runs/a", f"{tmp_path}/runs/b", f"--out={out}"]) == 0
    assert f"2 runs: {out}" in capsys.readouterr().out
    page = out.read_text()
    text = text_of(page)
    assert "Where the configs differ key a b" in text
    for row in ("optim.lr 0.002 0.0001", "sde.name vp ve", "sampling.t_min 0.001 1e-05"):
        assert row in text
    assert "data.batch_size" not in text
    assert "a digits, vp, unet 40 steps 1 min 20 s 0.0250" in text
    assert "b digits, ve, unet step 20 of 40 0 min 40 s 0.1500" in text
    assert "frechet distance 1.250" in text and "sampler ddim" in text and "note" not in text
    assert "a, step 40" in text and "a, step 20" not in text
    by_step, by_time, *_ = drawings(page)
    for colour in curves.COLOURS[:2]:
        assert colour in by_step and colour in by_time
    assert "<script" not in page


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["{0}/runs/a", "{0}/runs/bb"], "{0}/runs/bb holds no run (no config.json); did you mean '{0}/runs/b'?"),
        (["{0}/runs"], "{0}/runs holds no run (no config.json)"),
        (["{0}/runs/a", "{0}/runs/a/"], "{0}/runs/a is there twice: name each run once"),
        (["{0}/runs/a", "--out=page.png"], "--out=page.png: must end in .html"),
        (["{0}/runs/a", "--config.optim.lr=1"], "--config.optim.lr=1: runs are compared as they are; compare takes no"),
    ],
)
def test_compare_names_what_is_no_run_and_writes_nothing(tmp_path, fails, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        make_run(tmp_path / "runs" / name, rows(20))
    before = sorted(tmp_path.rglob("*"))
    assert fails("compare", *(text.format(tmp_path) for text in arguments)).startswith(message.format(tmp_path))
    assert sorted(tmp_path.rglob("*")) == before


def test_names_of_runs_are_what_their_folders_do_not_have_in_common(tmp_path):
    paths = [tmp_path / "x/lr=1/seed=0", tmp_path / "x/lr=2/seed=0"]
    assert compare.names(paths) == ["lr=1/seed=0", "lr=2/seed=0"]
    assert compare.names(paths[:1]) == ["seed=0"]


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0.4, "0 min 00 s"),
        (59.6, "1 min 00 s"),
        (61.0, "1 min 01 s"),
        (3599.7, "1 h 00 min"),
        (7_384_000, "2,051 h 06 min"),
    ],
)
def test_durations_are_rounded_to_seconds(seconds, text):
    assert report.duration(seconds) == text


def test_flags_and_texts_are_no_figures():
    assert compare.numbers({"a": True, "b": 2, "c": 0.5, "d": "x", "e": None}) == {"b": 2, "c": 0.5}
