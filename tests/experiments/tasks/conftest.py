"""A small model of digits, trained once, on which the tasks' commands are tried."""

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

import models
from experiments.devices.parallel import Pmap
from tests.experiments.tasks.perceptron import Perceptron
from tests.experiments.tiny import ROOT, command


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """The folder of a run of `small_digits.py`, trained on one device in a process of its own."""
    workdir = tmp_path_factory.mktemp("runs") / "digits"
    child = command("train", f"--config={ROOT}/tests/experiments/tasks/small_digits.py", f"--workdir={workdir}")
    _, said = child.communicate(timeout=500)
    assert child.returncode == 0, said
    return workdir


@pytest.fixture(autouse=True)
def perceptron(request, monkeypatch):
    """The run's network is known in this process too, as long as a test with it runs."""
    if "digits_run" in request.fixturenames:
        monkeypatch.setitem(models.NETWORKS, "perceptron", Perceptron)
        monkeypatch.setitem(models.KNOWN, "perceptron", Perceptron)


@pytest.fixture(scope="session")
def digits():
    """Handwritten digits, uint8 (6, 8, 8, 1)."""
    images = load_digits().images[[0, 1, 2, 3, 4, 6]]
    return np.rint(images * 255 / 16).astype(np.uint8)[..., None]


@pytest.fixture
def one_device(monkeypatch):
    """Commands draw on one device: programs of eight take longer to compile."""
    monkeypatch.setattr("experiments.factory.devices.parallel", lambda config: Pmap(jax.devices()[:1]))
