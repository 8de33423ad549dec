"""Signals, in real processes: where they wait, where they end a process at once, and what the deadline does.

`busy` stands for XLA: a call that gives the interpreter up, in which Python runs no handler of a signal.
"""

import signal
import subprocess
import sys
import time

import pytest

from tests.experiments.tiny import ROOT

pytestmark = pytest.mark.e2e

BEGIN = """
import hashlib, time
from experiments.runs.interruption import Interruption

def busy(seconds):  # one call
    rate = 200_000
    since = time.monotonic()
    hashlib.pbkdf2_hmac("sha256", b"", b"", rate)
    took = time.monotonic() - since
    print("busy", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", min(int(rate * seconds / took), 2**31 - 1))  # it takes no more
"""


def child(code):
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN + code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "busy\n"
    return process


def end(process, timeout=60):
    out, error = process.communicate(timeout=timeout)
    return process.returncode, out.strip(), error.strip()


SAVES = """
with Interruption(deadline={deadline}, saved=lambda: "The last good checkpoint is step 8") as interruption:
    busy({seconds})
    if interruption:
        print("saved after", interruption.signal.name)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_signal_waits_for_the_end_of_the_call(number):
    process = child(SAVES.format(deadline=0, seconds=0.5))
    process.send_signal(number)
    assert end(process) == (0, f"saved after {number.name}", "")


def test_a_deadline_that_is_kept_changes_nothing():
    process = child(SAVES.format(deadline=60, seconds=0.2))
    process.send_signal(signal.SIGTERM)
    assert end(process) == (0, "saved after SIGTERM", "")


def test_the_deadline_ends_a_process_in_the_middle_of_a_call():
    process = child(SAVES.format(deadline=0.5, seconds=600))
    since = time.monotonic()
    process.send_signal(signal.SIGTERM)
    code, out, error = end(process)
    assert 0.5 <= time.monotonic() - since < 10
    assert (code, out) == (1, "")
    assert error == (
        "error: interrupted by SIGTERM; nothing more could be saved within --deadline=0.5 s. "
        "The last good checkpoint is step 8; run the same command to go on from there"
    )


def test_the_deadline_is_not_for_ctrl_c():
    process = child(SAVES.format(deadline=0.1, seconds=1))
    process.send_signal(signal.SIGINT)
    assert end(process) == (0, "saved after SIGINT", "")


def test_a_second_signal_ends_it_as_usual():
    process = child(SAVES.format(deadline=0, seconds=0.1) + "    busy(0.1); time.sleep(3600)")
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "saved after SIGTERM\n"
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == -signal.SIGTERM


IDLE = """
with Interruption(code={code}) as interruption:
    with interruption.nothing_to_save("at step 8: saved"):
        busy({seconds})
        time.sleep({seconds})
    print("went on")
    {rest}
"""


@pytest.mark.parametrize("code", [0, 75])
def test_where_nothing_is_lost_sigterm_ends_it_in_the_middle_of_a_call(code):
    process = child(IDLE.format(seconds=600, rest="", code=code))
    since = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert end(process) == (code, "Interrupted by SIGTERM at step 8: saved. Run the same command to go on.", "")
    assert time.monotonic() - since < 10


def test_where_nothing_is_lost_ctrl_c_acts_as_usual():
    process = child(IDLE.format(seconds=0.3, rest="", code=0))
    process.send_signal(signal.SIGINT)
    _, out, error = end(process)
    assert error.endswith("KeyboardInterrupt") and "went on" not in out


def test_after_that_part_signals_wait_again():
    process = child(IDLE.format(seconds=0.01, rest="busy(0.5); print(interruption.signal.name)", code=0))
    assert process.stdout.readline() == "went on\n"
    assert process.stdout.readline() == "busy\n"
    process.send_signal(signal.SIGTERM)
    assert end(process) == (0, "SIGTERM", "")


def test_a_signal_noted_before_ends_it_where_nothing_is_lost():
    process = child(
        """
with Interruption() as interruption:
    busy(0.5)
    print("noted" if interruption else "not yet")
    with interruption.nothing_to_save("at step 8: saved"):
        time.sleep(3600)
"""
    )
    process.send_signal(signal.SIGTERM)
    code, out, error = end(process)
    assert (code, error) == (0, "")
    assert out.split("\n")[0] == "noted" and out.endswith(
        "Interrupted by SIGTERM at step 8: saved. Run the same command to go on."
    )


def test_the_handlers_are_put_back():
    from experiments.runs.interruption import Interruption

    before = [signal.getsignal(number) for number in Interruption.SIGNALS]
    descriptor = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(descriptor)
    with Interruption():
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(number) for number in Interruption.SIGNALS] == before
    assert signal.set_wakeup_fd(descriptor) == descriptor
