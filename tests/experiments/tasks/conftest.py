"""A small model of digits, trained once, on which the tasks' commands are tried."""

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

from experiments import build
from experiments.parallel import Pmap
from tests.experiments.tiny import ROOT, command, flags


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """The folder of a run whose samples look like digits: 600 steps, on one device, in a process of its own."""
    workdir = tmp_path_factory.mktemp("runs") / "digits"
    changes = dict(
        model__channels=16, data__batch_size=64, training__num_steps=600, training__steps_per_call=50,
        training__checkpoint_every=600, training__sample_every=600, training__log_every=50, training__loss_bins=0,
        optim__warmup_steps=50, evaluation__num_samples=8,
    )  # fmt: skip
    arguments = [f"--config={ROOT}/configs/digits.py", f"--workdir={workdir}", *flags(**changes)]
    child = command("train", *arguments)
    _, said = child.communicate(timeout=500)
    assert child.returncode == 0, said
    return workdir


@pytest.fixture(scope="session")
def digits():
    """Handwritten digits, uint8 (6, 8, 8, 1)."""
    images = load_digits().images[[0, 1, 2, 3, 4, 6]]
    return np.rint(images * 255 / 16).astype(np.uint8)[..., None]


@pytest.fixture
def one_device(monkeypatch):
    """Commands draw on one device: programs of eight take longer to compile."""
    monkeypatch.setattr(build, "parallel", lambda config: Pmap(jax.devices()[:1]))
