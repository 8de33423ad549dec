"""Ctrl-C and SIGTERM as a question that a loop asks, so that it can save before it stops."""

import signal
import threading
from types import FrameType


class Interruption:
    """Within the context, the first Ctrl-C or SIGTERM only sets `signal`; a second one acts as usual.

    Attributes:
        signal: the signal received, or None.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            self._previous = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def __bool__(self) -> bool:
        return self.signal is not None
