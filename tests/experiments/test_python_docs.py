"""The examples of docs/python.md run, and do what their comments say."""

import re

import numpy as np
import pytest

from experiments.__main__ import main
from tests.experiments.tiny import ROOT

pytestmark = pytest.mark.e2e
SHORT = [f"--config.training.{key}=4" for key in ("num_steps", "sample_every", "checkpoint_every", "log_every")]
SMALL = ["--config.evaluation.num_samples=16", "--config.evaluation.noise_levels=2", "--config.sampling.steps=3"]


def test_examples_do_what_they_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "python.md").read_text()
    (train,) = re.findall(r"^    python -m experiments (train .*)$", text, re.M)
    assert main([*train.replace("configs/", f"{ROOT}/configs/").split(), *SHORT, *SMALL]) == 0
    space = {}
    for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S):
        exec(block, space)
    run, images, drawn, restored = (space[name] for name in ("run", "images", "drawn", "restored"))
    assert images.shape == (16, 8, 8, 1) and images.dtype == np.uint8 and drawn.shape == (20, 8, 8, 1)
    strong = run.experiment.guided(run.denoiser, space["labels"])
    plain = run.denoiser.replace(condition=run.experiment.condition(space["labels"]))
    null = run.denoiser.replace(condition=run.experiment.condition(np.full(16, 10)))
    x = space["x"]
    expected = null(x, 0.5) + 2 * (plain(x, 0.5) - null(x, 0.5))
    np.testing.assert_allclose(strong(x, 0.5), expected, rtol=1e-4, atol=1e-5)
    assert restored.shape == (2, 2, 8, 8, 1) and restored.min() >= -0.5 and (restored[:, 0] != restored[:, 1]).any()
    left = np.abs(restored[..., :4, :] - drawn[:2, None, :, :4] / 255).mean()
    right = np.abs(restored[..., 4:, :] - drawn[:2, None, :, 4:] / 255).mean()
    assert left < 0.1 < right and space["psnr"]
    assert {path.name for path in space["results"].files} >= {"sheet.png", "answers.npz", "results.json"}
