"""Timing of training: completion times of calls, and the time in data preparation, checkpoints and sampling.

Devices compute while the host processes earlier calls, and some devices block the host until they are done, so the time
at which the host reads a result is not the time at which the result was complete. A thread waits for each result and
records its completion time.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import jax

DATA, CHECKPOINTS, SAMPLES = "data", "checkpoints", "samples"  # activities of the host


class Completions:
    """Records the completion times of results, by `time.perf_counter`."""

    def __init__(self):
        self._waiting: queue.SimpleQueue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._wait, name="completions", daemon=True)
        self._thread.start()

    def time_of(self, results: Any) -> Future:
        """Returns a future of the time at which all arrays of a tree are complete, or of the error of a computation."""
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
        """Ends the thread after the pending results are complete."""
        self._waiting.put(None)


class Speedometer:
    """Training speed over all calls since the last reading.

    The time of a call is the time from the end of the previous call to its own end, without the time in `away`, before
    which the host has waited for the devices. Hence waiting for data counts, and checkpoints and pictures do not. The
    first call, which compiles, is excluded.

    Args:
        seconds: training time of earlier starts of the run; see `total_seconds`.

    Attributes:
        total_seconds: total training time.
        steps: number of steps since the last reading.
        seconds: time of these steps.
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
        """Context manager that times an activity of the host while the devices are idle: CHECKPOINTS or SAMPLES."""
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            self._away += seconds
            self._spent[what] += seconds

    @contextlib.contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Context manager that times batch preparation; the devices may be computing the previous call."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._data += time.perf_counter() - start

    def data_seconds(self) -> float:
        """Returns and resets the preparation time of the next call's batches; call it once per call, at its start."""
        seconds, self._data = self._data, 0.0
        return seconds

    def call_done(self, steps: int, done: float, data_seconds: float) -> None:
        """Counts a call.

        Args:
            steps: number of steps of the call.
            done: completion time of the call, by `time.perf_counter`.
            data_seconds: preparation time of its batches.
        """
        if self._since is not None:
            seconds = max(done - self._since - self._away, 0.0)
            self.steps += steps
            self.seconds += seconds
            self.total_seconds += seconds
            self._spent[DATA] += data_seconds
        self._since, self._away = done, 0.0

    def read(self) -> dict[str, float]:
        """Returns the timing values of a row for the calls since the last reading, and starts a new reading."""
        row = {"seconds": self.total_seconds}
        if self.seconds > 0:
            row["data_fraction"] = min(self._spent[DATA] / self.seconds, 1.0)
        row |= {f"seconds_in_{what}": self._spent[what] for what in (CHECKPOINTS, SAMPLES)}
        self._spent = dict.fromkeys(self._spent, 0.0)
        self.steps, self.seconds = 0, 0.0
        return row
