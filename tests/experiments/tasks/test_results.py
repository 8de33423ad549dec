"""The files of a task: arrays on the scale of [0, 1], figures of what is shown."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments.inverse import results
from experiments.media import ImageMedium
from experiments.metrics import quality


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Three answers for each of two inputs, some beyond white, beside a plain one; and what is in the files."""
    monkeypatch.setattr(results, "METRICS", {"psnr": quality.psnr})
    rng = np.random.default_rng(0)
    truth = rng.uniform(-0.5, 1, (2, 8, 8, 1)).astype(np.float32)
    answers = truth[:, None] + rng.normal(0, 0.3, (2, 3, 8, 8, 1)).astype(np.float32)
    answers[:, 0, :4] += 1.5
    misfit = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    given = results.Drawn(("a", "b"), answers, {}, truth, {"plain": truth + 0.1}, misfit, {"measured": truth})
    line = results.write(tmp_path, given, ImageMedium((8, 8, 1)), {"seed": 7}).summary
    with np.load(tmp_path / "answers.npz") as file:
        arrays = dict(file)
    return given, line, arrays, json.loads((tmp_path / "results.json").read_text())


def test_arrays_are_in_units_of_black_to_white(written):
    given, _, arrays, _ = written
    np.testing.assert_allclose(arrays["answers"], (given.answers + 1) / 2, rtol=1e-6)
    np.testing.assert_allclose(arrays["mean"], arrays["answers"].mean(1), rtol=1e-5)
    np.testing.assert_allclose(arrays["deviation"], arrays["answers"].std(1), rtol=1e-5)
    np.testing.assert_allclose(arrays["truth"], (given.truth + 1) / 2, rtol=1e-6)
    np.testing.assert_array_equal(arrays["measured"], given.truth)  # as it is given


def test_figures_are_of_pictures_that_can_be_shown(written):
    """What is beyond white counts as white, in each answer and in their mean; the truth and its plain answer are within."""
    given, line, _, told = written
    shown, mean = given.answers.clip(-1, 1), given.answers.mean(1).clip(-1, 1)
    of_answers = np.stack([quality.psnr(shown[:, k], given.truth) for k in range(3)], 1)
    for i, figure in enumerate(told["inputs"]):
        assert figure["psnr"]["answers"] == pytest.approx(of_answers[i], rel=1e-5)
        assert figure["psnr"]["mean"] == pytest.approx(quality.psnr(mean, given.truth)[i], rel=1e-5)
        assert figure["misfit"] == pytest.approx(given.misfit[i])
    figures = told["figures"]
    assert figures["psnr"]["answers"] == pytest.approx(of_answers.mean(), rel=1e-5)
    assert figures["psnr"]["plain"] == pytest.approx(
        quality.psnr((given.truth + 0.1).clip(-1, 1), given.truth).mean(), rel=1e-5
    )
    assert figures["misfit"] == pytest.approx(np.sqrt(0.91 / 6), rel=1e-5)
    assert told["seed"] == 7 and line.startswith(
        f"misfit {figures['misfit']:.3g}; PSNR {figures['psnr']['answers']:.2f} dB"
    )


def test_the_deviation_is_judged_by_its_correlation_with_the_error(written):
    given, _, _, told = written
    deviation, error = given.answers.std(1), np.abs(given.answers.mean(1) - given.truth)
    expected = np.mean([np.corrcoef(d.ravel(), e.ravel())[0, 1] for d, e in zip(deviation, error, strict=True)])
    assert told["figures"]["deviation_error_correlation"] == pytest.approx(expected, rel=1e-4)
    assert told["deviation_white"] == pytest.approx(deviation.max(), rel=1e-4)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_white_is_the_largest_deviation_of_a_pixel_over_its_channels(tmp_path, channels):
    """The root of the mean over channels of the variance; the answers are that far above and below their mean."""
    deviation = np.random.default_rng(0).uniform(0.01, 0.4, (2, 8, 8, channels)).astype(np.float32)
    answers = 0.1 + np.stack([deviation, -deviation], 1)
    results.write(tmp_path, results.Drawn(("a", "b"), answers, {}), ImageMedium((8, 8, 1)), {})
    of_pixels = np.sqrt(np.square(deviation).mean(-1))
    told = json.loads((tmp_path / "results.json").read_text())
    assert told["deviation_white"] == pytest.approx(of_pixels.max(), rel=1e-3)
    levels = np.stack([np.asarray(Image.open(tmp_path / f"{name}_deviation.png"), int) for name in "ab"])
    assert levels.shape == (2, 8, 8) and levels.max() == 255
    assert np.abs(levels - 255 * of_pixels / of_pixels.max()).max() < 0.6


@pytest.mark.parametrize("half_width, white", [(0.0, 1e-3), (5e-4, 1e-3), (2e-3, 2e-3)])
def test_answers_that_agree_are_black_in_their_deviation(tmp_path, half_width, white):
    answers = np.stack([np.full((1, 4, 4, 3), sign * half_width, np.float32) for sign in (-1, 1)], 1)
    results.write(tmp_path, results.Drawn(("a",), answers, {}), ImageMedium((8, 8, 1)), {})
    assert json.loads((tmp_path / "results.json").read_text())["deviation_white"] == pytest.approx(white, rel=1e-3)
    level = np.asarray(Image.open(tmp_path / "a_deviation.png"), int)
    assert np.abs(level - 255 * half_width / white).max() < 0.6
