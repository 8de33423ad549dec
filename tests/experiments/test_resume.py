"""What was killed and resumed equals what never stopped, bit for bit. The processes are real."""

import itertools
import signal
import time

import pytest

from tests.experiments.kills import Child, Kill, assert_same, contents, plan, strike

pytestmark = pytest.mark.e2e


def finish(child, step):
    code, out, error = child.communicate()
    assert code == 0, error
    assert f"Training is complete (step {step})" in out


def go_through(folder, kills, num_steps):
    """The run is killed so often, then goes to its end; another, with nobody near it, to compare with."""
    changes = {"training__num_steps": num_steps, "training__sample_every": num_steps}
    since = time.monotonic()
    finish(Child(folder, folder / "undisturbed", **changes), num_steps)
    times = [time.monotonic() - since]
    for kill in kills:
        strike(Child(folder, folder / "run", **changes), folder / "run", kill)
        times.append(time.monotonic() - since)
    finish(Child(folder, folder / "run", **changes), num_steps)
    times.append(time.monotonic() - since)
    print("seconds of each child:", " ".join(f"{b - a:.1f}" for a, b in itertools.pairwise([0, *times])))
    assert_same(contents(folder / "run"), contents(folder / "undisturbed"))


def test_killed_and_interrupted_runs_end_as_if_never_stopped(tmp_path):
    """SIGKILL while a checkpoint is written, SIGTERM and Ctrl-C in training, SIGKILL in the evaluation."""
    kills = [
        Kill(signal.SIGKILL, "saving", 0.01),
        Kill(signal.SIGTERM, "training", 0.03),
        Kill(signal.SIGINT, "training", 0.05),
        Kill(signal.SIGKILL, "evaluating", 0.1),
    ]
    go_through(tmp_path, kills, 40)


def test_sixteen_random_kills_leave_no_trace(tmp_path):
    """Three in starting, four in training, five while a checkpoint is written, two SIGTERMs, two in the evaluation."""
    kills = plan(seed=0, starting=3, training=4, saving=5, sigterms=2)
    assert len(kills) == 16
    go_through(tmp_path, kills, 300)
