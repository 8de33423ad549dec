"""Where the time of training goes: when each call was done, to the moment, and what lay between.

The devices work while the host looks at earlier calls, and some hold the host up until they are done, so the moment at which
the host reads a result says little of the moment at which it was there. A thread waits for each result and notes the time.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import jax

DATA, CHECKPOINTS, SAMPLES = "data", "checkpoints", "samples"  # what the host does beside training


class Completions:
    """Notes when results are there, by `time.perf_counter`."""

    def __init__(self):
        self._waiting: queue.SimpleQueue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._wait, name="completions", daemon=True)
        self._thread.start()

    def time_of(self, results: Any) -> Future:
        """The moment, now or later, at which all arrays of a tree are there; what their computation raises, it raises."""
        future: Future = Future()
        if all(leaf.is_ready() for leaf in jax.tree.leaves(results) if hasattr(leaf, "is_ready")):
            future.set_result(time.perf_counter())
        else:
            self._waiting.put((future, results))
        return future

    def _wait(self) -> None:
        while (item := self._waiting.get()) is not None:
            future, results = item
            try:
                jax.block_until_ready(results)
                future.set_result(time.perf_counter())
            except Exception as error:
                future.set_exception(error)
            del future, results, item

    def close(self) -> None:
        """Ends the thread when it has noted what it waits for."""
        self._waiting.put(None)


class Speedometer:
    """The speed of training alone, over all calls since the last reading.

    A call takes the time from the end of the one before to its own end, less what the host did in `away`, for which it has
    waited for the devices: so waiting for data counts, and checkpoints and pictures do not. The first call, in which
    programs are compiled, counts not at all.

    Args:
        seconds: of training, before; see `total_seconds`.

    Attributes:
        total_seconds: of training so far.
        steps: of the calls since the last reading.
        seconds: that they took.
    """

    def __init__(self, seconds: float = 0.0):
        self.total_seconds = seconds
        self._since: float | None = None
        self._away = 0.0
        self._spent = dict.fromkeys((DATA, CHECKPOINTS, SAMPLES), 0.0)
        self._data = 0.0
        self.steps, self.seconds = 0, 0.0

    @contextlib.contextmanager
    def away(self, what: str) -> Iterator[None]:
        """Around what the host does while the devices have nothing to do: CHECKPOINTS or SAMPLES."""
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            self._away += seconds
            self._spent[what] += seconds

    @contextlib.contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Around the making of a call's batches; the devices may be at work on the call before."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._data += time.perf_counter() - start

    def data_seconds(self) -> float:
        """What the batches of the next call took; to be asked once for each call, when it starts."""
        seconds, self._data = self._data, 0.0
        return seconds

    def call_done(self, steps: int, done: float, data_seconds: float) -> None:
        """Counts a call of so many steps that was done at a moment of `time.perf_counter`."""
        if self._since is not None:
            seconds = max(done - self._since - self._away, 0.0)
            self.steps += steps
            self.seconds += seconds
            self.total_seconds += seconds
            self._spent[DATA] += data_seconds
        self._since, self._away = done, 0.0

    def read(self) -> dict[str, float]:
        """What there is to say of the calls since the last reading, which begins anew."""
        row = {"seconds": self.total_seconds}
        if self.seconds > 0:
            row["data_fraction"] = min(self._spent[DATA] / self.seconds, 1.0)
        row |= {f"seconds_in_{what}": self._spent[what] for what in (CHECKPOINTS, SAMPLES)}
        self._spent = dict.fromkeys(self._spent, 0.0)
        self.steps, self.seconds = 0, 0.0
        return row
