"""Evaluation: the loss of a network that outputs zero has a closed form; figures and pages hold what was measured."""

import json
import re

import jax
import numpy as np
import pytest

from experiments import data, load_run
from experiments.__main__ import main
from experiments.evaluation.losses import loss_per_noise_level
from experiments.plotting import pictures
from tests.experiments.tiny import flags


def test_loss_of_an_untrained_network_is_that_of_its_preconditioning(tiny_run):
    """With F = 0, noise_hat = s / (s^2 + d^2) (x0 + s noise): its squared error is known given E x0^2."""
    run = load_run(tiny_run)
    zero = jax.tree.map(np.zeros_like, run.variables)
    test = data.load("digits", image_size=8, num_channels=1, test_fraction=0.5).test
    rows = loss_per_noise_level(type(run)(run.workdir, run.experiment, 0, zero), test)
    second_moment, d = np.square(np.asarray(run.medium.forward(test.images))).mean(), 0.75
    assert len(rows) == 3
    for row in rows:
        s = row["noise_to_signal"]
        np.testing.assert_allclose(row["log_snr"], -2 * np.log(s), rtol=1e-3)
        expected = (s / (s**2 + d**2)) ** 2 * second_moment + (d**2 / (s**2 + d**2)) ** 2
        np.testing.assert_allclose(row["loss"], expected, rtol=0.02)
        assert abs(row["loss"] - expected) < 4 * row["standard_error"] < 0.05 * expected


def test_evaluate_measures_against_held_out_images_with_the_floor_beside(tiny_run, tmp_path, capsys):
    import shutil

    workdir = tmp_path / "run"
    shutil.copytree(tiny_run, workdir)
    assert main(["evaluate", f"--workdir={workdir}", "--sampler=ddim", "--steps=6"]) == 0
    printed = capsys.readouterr().out
    measured = json.loads((workdir / "metrics.json").read_text())
    assert measured["sampling"] | {"seed": 0} == {
        "sde": "vp", "average": "warmup", "sampler": "ddim", "steps": 6, "evaluations": 6, "num_samples": 64, "seed": 0,
    }  # fmt: skip
    assert measured["reference"] == "64 held-out images"
    assert measured["real"]["frechet_distance"] < measured["samples"]["frechet_distance"]
    assert f"{measured['samples']['frechet_distance']:.3f}" in printed
    assert measured["held_out_loss"] != measured["training_loss"]
    page = (workdir / "report.html").read_text()
    assert f"<td>{measured['samples']['frechet_distance']:.3f}</td>" in page
    assert "6 evaluations of the network" in page and measured["features"] in page


def test_the_report_needs_nothing_beside_it(tiny_run):
    page = (tiny_run / "report.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
    assert len([s for s in sources if s.startswith("data:image/png;base64,")]) == 3  # two grids and the strip
    assert len([s for s in sources if s.startswith("data:image/svg+xml;base64,")]) == len(sources) - 3 >= 6
    assert "<script" not in page and "step 40" in page and "step 20" in page


def test_a_grid_lays_images_out_row_by_row():
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 1), np.uint8)
    picture = pictures.grid(images, columns=3)
    assert picture.shape == (5, 11, 1)
    np.testing.assert_array_equal(picture[[0, 0, 0, 3, 3, 3], [0, 4, 8, 0, 4, 8], 0], [0, 1, 2, 3, 4, 255])
    assert (picture[2] == 255).all() and (picture[:, 3] == 255).all()


@pytest.mark.parametrize("tile, factor", [(8, 6), (32, 2), (64, 1)])
def test_small_pictures_are_enlarged_by_whole_pixels(tmp_path, tile, factor):
    from PIL import Image

    picture = np.random.default_rng(0).integers(0, 256, (tile, tile, 3), np.uint8)
    pictures.save(tmp_path / "p.png", picture, tile)
    saved = np.asarray(Image.open(tmp_path / "p.png"))
    np.testing.assert_array_equal(saved, np.kron(picture, np.ones((factor, factor, 1), np.uint8)))


@pytest.mark.thorough
def test_benchmark_prints_what_the_readme_promises(capsys):
    from tests.experiments.tiny import ROOT

    assert main(["benchmark", f"--config={ROOT}/configs/digits.py", *flags()]) == 0
    rows = dict(re.split(r"  +", line.strip(), maxsplit=1) for line in capsys.readouterr().out.strip().splitlines())
    step = float(rows["training step in a loop of 4"].split()[0])
    assert float(rows["relative to one alone"]) == pytest.approx(
        step / float(rows["training step alone"].split()[0]), rel=0.1
    )
    assert rows["sampling, heun, 7 evaluations"].endswith(" s")
    assert float(rows["training images per second"].replace(",", "")) == pytest.approx(16e3 / step, rel=0.1)
