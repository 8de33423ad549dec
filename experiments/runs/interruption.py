"""Ctrl-C and SIGTERM as a question that a loop asks, so that it can save before it stops.

The first signal is only noted. The loop asks after each call, saves, and ends. Three things bound the wait:

- where nothing would be lost (`nothing_to_save`: data are loaded, programs compiled, or the run is saved and evaluated),
  SIGTERM ends the process at once, with its line and exit code (0), and Ctrl-C raises KeyboardInterrupt;
- with a deadline, the process ends that many seconds after SIGTERM whatever it does, with a line that says what is saved
  and exit code 1. A save that is not complete then is removed at the next start: what is there is complete;
- a second signal acts as it usual does.

Python runs a signal's handler between two of its own instructions, so not while XLA compiles or computes. What the handler
cannot do in time, a thread does, which the signal wakes by a byte in a pipe (`signal.set_wakeup_fd`).
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType


class Interruption:
    """Within the context, the first Ctrl-C or SIGTERM only sets `signal`; a second one acts as usual.

    Args:
        deadline: seconds from SIGTERM to the end of the process; 0 is no deadline.
        code: of the exit on SIGTERM where nothing would be lost.
        saved: says what of the run is saved, in a sentence without its end; asked when the deadline has passed.

    Attributes:
        signal: the signal received, or None.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, deadline: float = 0.0, code: int = 0, saved: Callable[[], str] = lambda: "What was saved stays"):
        self.signal: signal.Signals | None = None
        self._deadline = deadline
        self._code = code
        self._saved = saved
        self._idle: str | None = None  # why nothing would be lost now
        self._lock = threading.Lock()  # of `_idle`: the thread must not end the process after it has begun to matter
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            self._read, self._write = os.pipe()
            os.set_blocking(self._write, False)
            self._previous_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
            self._previous = {number: signal.signal(number, self._note) for number in self.SIGNALS}
            self._thread = threading.Thread(target=self._watch, name="interruption", daemon=True)
            self._thread.start()
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self._restore_handlers()
        if number == signal.SIGINT and self._idle is not None:
            raise KeyboardInterrupt

    def _restore_handlers(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def __exit__(self, *exception: object) -> None:
        self._restore_handlers()
        if hasattr(self, "_thread"):
            signal.set_wakeup_fd(self._previous_fd)
            os.write(self._write, b"\0")  # no signal's number: the end
            self._thread.join()
            os.close(self._read)
            os.close(self._write)
            del self._thread

    def __bool__(self) -> bool:
        return self.signal is not None

    @contextlib.contextmanager
    def nothing_to_save(self, why: str) -> Iterator[None]:
        """A part of the run that SIGTERM ends at once.

        Args:
            why: where it is and what is saved, after "Interrupted by SIGTERM", as "at step 8: saved".
        """
        self._set_idle(why)
        try:
            yield
        finally:
            self._set_idle(None)

    def _set_idle(self, why: str | None) -> None:
        with self._lock:
            self._idle = why
        if why is not None and self.signal is signal.SIGTERM:
            self._end_if_idle()

    def _end_if_idle(self) -> None:
        with self._lock:
            if self._idle is not None:
                print(f"\nInterrupted by SIGTERM {self._idle}. Run the same command to go on.", flush=True)
                os._exit(self._code)

    def _watch(self) -> None:
        """The thread: ends the process on SIGTERM where nothing would be lost, or at the deadline."""
        ends = None
        while True:
            left = None if ends is None else max(0.0, ends - time.monotonic())
            if not select.select([self._read], [], [], left)[0]:
                self._give_up()
            for number in os.read(self._read, 64):
                if number == 0:
                    return
                if number == signal.SIGTERM and ends is None:
                    ends = time.monotonic() + self._deadline if self._deadline else None
                    self._end_if_idle()

    def _give_up(self) -> None:
        print(
            f"\nerror: interrupted by SIGTERM; nothing more could be saved within --deadline={self._deadline:g} s. "
            f"{self._saved()}; run the same command to go on from there",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        os._exit(1)
