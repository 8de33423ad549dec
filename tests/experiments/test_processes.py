"""Several processes as one run, of which the tests stand for the others: what is told, joined and ended."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments.cli import arguments
from experiments.devices import distributed
from experiments.errors import RunError, UserError


@pytest.fixture
def processes(monkeypatch):
    """(whether this is the first of two, whether the other one fails) -> what is broadcast from the first."""

    def make(first, other=False, sent=()):
        sent = list(sent)

        def broadcast(value):
            if first:
                sent.append(np.array(value))
                return value
            told = sent.pop(0)
            assert np.shape(told) == np.shape(value) and told.dtype == np.asarray(value).dtype
            return told

        monkeypatch.setattr(jax, "process_count", lambda: 2)
        monkeypatch.setattr(jax, "process_index", lambda: 0 if first else 1)
        monkeypatch.setattr(distributed.multihost_utils, "process_allgather", lambda flag: np.array([flag, other]))
        monkeypatch.setattr(distributed.multihost_utils, "broadcast_one_to_all", broadcast)
        return sent

    return make


def test_what_any_process_says_is_true_of_all(processes):
    for other, flag in ((False, False), (False, True), (True, False), (True, True)):
        processes(True, other)
        assert distributed.any_process(flag) is (flag or other)


@pytest.mark.parametrize("value", [None, 3, [1, 2.5], {"a": "ä", "b": None}, "", "text" * 300, True])
def test_what_the_first_process_tells_reaches_the_others_whole(processes, value):
    """As JSON, whose length is told before; the others do not run the action."""
    sent = processes(True)
    assert distributed.first_tells(lambda: value) == value
    length, text = sent
    assert int(length) == len(text)
    processes(False, sent=sent)
    assert distributed.first_tells(lambda: pytest.fail("run")) == value


def test_an_error_of_one_process_ends_all(processes):
    """Its own where it is, and in the others that it has printed it; an action of the first alone is run there alone."""
    calls = []

    def fails():
        raise UserError("mine")

    for first in (True, False):
        processes(first, other=True)
        with pytest.raises(RunError, match="another process stopped with an error, which it has printed"):
            distributed.together(lambda: calls.append(1))
        with pytest.raises(UserError, match="mine"):
            distributed.together(fails)
        processes(first)
        with pytest.raises(UserError, match="mine"):
            distributed.together(fails)
        assert distributed.together(lambda: "value") == "value"
    assert calls == [1, 1]
    distributed.first_process_does(lambda: pytest.fail("run"))  # this is the second one
    processes(True)
    distributed.first_process_does(lambda: calls.append(2))
    assert calls == [1, 1, 2] and distributed.is_first()
    with pytest.raises(UserError, match="mine"):
        distributed.first_process_does(fails)


def test_whoever_waits_for_other_processes_is_told_after_half_a_minute(monkeypatch):
    made = []

    class Timer:
        def __init__(self, seconds, function, given, named):
            made.append((seconds, function, given, list(named)))

        def start(self):
            made.append(("started", self.daemon))

        def cancel(self):
            made.append("cancelled")

    monkeypatch.setattr(distributed.threading, "Timer", Timer)
    monkeypatch.setattr(distributed.jax, "config", SimpleNamespace(update=lambda *given: None))
    monkeypatch.setattr(jax.distributed, "initialize", lambda *given, **named: made.append("joined"))
    distributed.start()
    expected = [(30, print, ["waiting for the other processes of this run"], ["file"]), ("started", True)]
    assert made == [*expected, "joined", "cancelled"]

    def fails(*given, **named):
        raise RuntimeError("no")

    monkeypatch.setattr(jax.distributed, "initialize", fails)
    with pytest.raises(UserError):
        distributed.start()
    assert made[-1] == "cancelled" and made.count("cancelled") == 2


@pytest.mark.parametrize(
    "options, started, first",
    [
        ({}, None, True),
        ({"distributed": False}, None, True),
        ({"distributed": True}, (None, None, None), False),
        ({"coordinator_address": "h:1", "num_processes": 2, "process_id": 1}, ("h:1", 2, 1), False),
        ({"process_id": 0}, (None, None, 0), False),
        ({"distributed": True, "sweep": "a=1"}, None, True),
        ({"distributed": True, "sweep": None}, (None, None, None), False),
    ],
)
def test_processes_are_joined_where_the_flags_say_so(monkeypatch, options, started, first):
    """The runs of a sweep join by themselves."""
    calls = []
    monkeypatch.setattr(distributed, "start", lambda *given: calls.append(given))
    monkeypatch.setattr(distributed, "is_first", lambda: False)
    assert arguments.join_processes(SimpleNamespace(**options)) == first
    assert calls == ([] if started is None else [started])
