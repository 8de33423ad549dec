"""Worker processes: the same stream whatever their number, and what happens to it when they die, hang or fail."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments.data import training_batches
from experiments.errors import RunError, UserError
from tests.experiments.decoding import Faulty, numbered
from tests.experiments.test_data_pipeline import assert_equal, take
from tests.experiments.tiny import ROOT


def start(images=None, *, workers, **changes):
    images = numbered(50) if images is None else images
    return training_batches(images, **{"batch_size": 8, "seed": 0, "flip": True, "workers": workers} | changes)


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_stream_and_its_position_do_not_depend_on_the_workers():
    """Nor does a position saved with some of them, by grain, fit the same number alone."""
    reference = start(workers=0)
    expected = take(reference, 30)
    with start(workers=2) as two:
        assert_equal(take(two, 13), expected[:13])
        state = two.get_state()
        assert_equal(take(two, 4), expected[13:17])
        two.set_state(state)
        assert_equal(take(two, 7), expected[13:20])
    with start(workers=1) as one:
        one.set_state(state)
        assert_equal(take(one, 17), expected[13:])
        state = one.get_state()
    reference.set_state(state)
    following = take(reference, 5)
    resumed = start(workers=0)
    take(resumed, 30)
    assert_equal(take(resumed, 5), following)


def test_a_killed_worker_is_replaced_and_the_stream_goes_on(tmp_path, capfd):
    """By kill -9, while it waits, and while it makes a batch."""
    expected = take(start(workers=0), 40)
    with start(Faulty(50, "deadly once", tmp_path), workers=2) as batches:
        found = take(batches, 20)
        children = [int(p.name) for p in tmp_path.iterdir() if p.name.isdigit() and alive(p.name)]
        assert children and os.getpid() not in children
        for child in children:
            os.kill(child, signal.SIGKILL)
        found += take(batches, 20)
    assert_equal(found, expected)
    said = [line for line in capfd.readouterr().err.splitlines() if "data worker" in line]
    assert len(said) >= 2 and all("was ended by signal 9 at batch" in line for line in said)


def test_a_worker_that_always_dies_ends_the_run(tmp_path):
    with (
        start(Faulty(50, "deadly", tmp_path), workers=1) as batches,
        pytest.raises(RunError, match=r"data worker 0 \(process \d+\) was ended by signal 9 at batch \d.*3 in a row"),
    ):
        take(batches, 10)
    assert len(list(tmp_path.glob("met*"))) == 3


def test_a_worker_that_hangs_ends_the_run_in_time(tmp_path):
    with start(Faulty(50, "slow", tmp_path), workers=1, worker_timeout=6.0) as batches:
        with pytest.raises(RunError, match=r"made no batch in 6 s .*data\.worker_timeout"):
            take(batches, 10)
        process = next(tmp_path.glob("met*")).name.removeprefix("met")
        assert not alive(process)


@pytest.mark.parametrize(
    "fault, kind, told", [("broken", UserError, "image 7 cannot be read"), ("bug", KeyError, "'a bug'")]
)
def test_what_goes_wrong_in_a_source_comes_through(fault, kind, told, tmp_path):
    """A line for the user as it is; a fault of the program with the place where it happened."""
    with start(Faulty(50, fault, tmp_path), workers=1) as batches, pytest.raises(kind) as error:
        take(batches, 10)
    assert str(error.value) == told
    assert any('raise KeyError("a bug")' in note for note in error.value.__notes__) == (fault == "bug")


SCRIPT = """
if __name__ == "__main__":
    import os, sys, signal
    from tests.experiments.decoding import Faulty
    from tests.experiments.test_data_workers import start, take
    batches = start(Faulty(50, "", sys.argv[1]), workers=2)
    take(batches, 3)
    for number in (signal.SIGTERM, signal.SIGINT):
        for process in os.listdir(sys.argv[1]):
            os.kill(int(process), number)
    take(batches, 30)
    print("read", flush=True)
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.thorough
@pytest.mark.parametrize("end", ["killed", "returned"])
def test_workers_end_with_their_parent(end, tmp_path):
    """However it ends; and not before it, when a whole job is told to stop."""
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "processes").mkdir()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py", tmp_path / "processes", end],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "read" in done.stdout and "data worker" not in done.stderr, done.stderr
    assert done.returncode == (-signal.SIGKILL if end == "killed" else 0), done.stderr
    processes = os.listdir(tmp_path / "processes")
    assert len(processes) == 2
    wait_until(lambda: not any(alive(process) for process in processes))


def test_every_row_of_every_batch_is_read_by_one_host():
    """1, 2 and 4 hosts see the same global batches, flips and all."""
    expected = take(start(workers=0), 20)
    for hosts in (2, 4):
        shares = [take(start(workers=0, host=host, hosts=hosts), 20) for host in range(hosts)]
        joined = [
            {name: np.concatenate([share[i][name] for share in shares]) for name in ("image", "label")}
            for i in range(20)
        ]
        assert_equal(joined, expected)


def test_a_batch_that_hosts_cannot_share_is_said():
    with pytest.raises(UserError, match=r"data\.batch_size=8 cannot be shared by 3 hosts: .* such as 9"):
        start(workers=0, host=0, hosts=3)
