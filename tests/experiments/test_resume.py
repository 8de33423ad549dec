"""What was killed and resumed equals what never stopped, bit for bit. The processes are real."""

import random
import signal
import time
from pathlib import Path

import numpy as np

from tests.experiments.tiny import history, restored, train_command


def wait_for(process, path: Path, pattern: str):
    deadline = time.monotonic() + 240
    while not any(path.glob(pattern)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, f"no {pattern} in {path}"
        time.sleep(0.05)


def test_killed_and_interrupted_runs_end_as_if_never_stopped(tmp_path):
    """SIGKILL at a random moment after the first checkpoint, then SIGTERM, then Ctrl-C, then to the end."""
    undisturbed = train_command(tmp_path / "undisturbed")
    workdir, rng = tmp_path / "run", random.Random(0)
    for number, pattern in ((signal.SIGKILL, "8"), (signal.SIGTERM, "16"), (signal.SIGINT, "24")):
        process = train_command(workdir)
        wait_for(process, workdir / "checkpoints", pattern)
        time.sleep(rng.uniform(0, 0.2))
        process.send_signal(number)
        out, error = process.communicate(timeout=240)
        if number == signal.SIGKILL:
            assert process.returncode == -signal.SIGKILL
        elif "Training is complete" not in out:  # it may have been faster than the signal
            assert f"Interrupted by {number.name} at step" in out, error
            assert process.returncode == 128 + number
    for process in (train_command(workdir), undisturbed):
        out, error = process.communicate(timeout=400)
        assert process.returncode == 0, error
        assert "Training is complete (step 40)" in out
    for mine, theirs in zip(restored(workdir), restored(tmp_path / "undisturbed"), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert history(workdir) == history(tmp_path / "undisturbed")
