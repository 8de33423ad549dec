"""Graceful shutdown: Ctrl-C (SIGINT) and SIGTERM are recorded and polled by the training loop, which saves and stops.

The first signal is only recorded. The loop polls it after each call, saves, and returns. Three rules bound the delay:

- In phases without unsaved progress (`nothing_to_save`: loading data, compiling, evaluating a saved run), SIGTERM ends
  the process at once with a message and an exit code (0 by default), and Ctrl-C raises KeyboardInterrupt.
- With a deadline, the process ends that many seconds after SIGTERM in any case, with exit code 1 and a message that
  states what is saved. An incomplete save is removed at the next start.
- A second signal goes to the previous signal handlers, which end the process by default.

Python runs signal handlers between bytecode instructions, hence not while XLA compiles or computes. A watcher thread
handles such cases; the signal wakes it by a byte in a pipe (`signal.set_wakeup_fd`).
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
    """Context manager in which the first Ctrl-C or SIGTERM only sets `signal`; a second one ends the process.

    It is true as a boolean once a signal was received.

    Args:
        deadline: seconds from SIGTERM to the end of the process; 0 disables the deadline.
        code: exit code on SIGTERM in phases without unsaved progress.
        saved: () -> description of what is saved, a sentence without its full stop; called when the deadline has
            passed.

    Attributes:
        signal: the signal received, or None.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, deadline: float = 0.0, code: int = 0, saved: Callable[[], str] = lambda: "What was saved stays"):
        self.signal: signal.Signals | None = None
        self._deadline = deadline
        self._code = code
        self._saved = saved
        self._idle: str | None = None  # description of the current phase without unsaved progress
        self._lock = threading.Lock()  # guards `_idle`: the watcher must not end the process after such a phase
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # other threads cannot set signal handlers
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
            os.write(self._write, b"\0")  # 0 is not the number of a signal: the watcher returns
            self._thread.join()
            os.close(self._read)
            os.close(self._write)
            del self._thread

    def __bool__(self) -> bool:
        return self.signal is not None

    @contextlib.contextmanager
    def nothing_to_save(self, why: str) -> Iterator[None]:
        """Context manager of a phase without unsaved progress, which SIGTERM ends at once.

        Args:
            why: position and saved state, to follow "Interrupted by SIGTERM", such as "at step 8: saved".
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
        """Watcher thread: ends the process on SIGTERM in a phase without unsaved progress, or at the deadline."""
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
