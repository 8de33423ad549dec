"""TensorBoard's events, written by the caller's own thread, so that a full disk is an error here and nowhere else.

tensorboardX is imported by the writer alone: it sets an environment variable when it is imported.

All files of events in the folder are one run; rows past the step that a run goes on from are hidden by a session's start.
"""

import time
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.files import naming
from experiments.runs.workdir import Workdir

FLUSH_EVERY = 30.0  # seconds between two times that events reach the disk


class TensorBoard:
    """Writes figures as `train/NAME` and pictures as NAME."""

    def __init__(self, workdir: Workdir, config: ConfigDict, step: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._path = workdir.path / "events"
        with naming(self._path):
            self._writer = EventsWriter(str(self._path), f".{time.time_ns()}")  # a name of its own
            if step:
                self._write(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))
            self._writer.flush()
        self._flushed = time.monotonic()

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self._writer.write_event(event)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """One event for the row."""
        from tensorboardX import summary
        from tensorboardX.proto.event_pb2 import Event

        parts = [part for name, value in values.items() for part in summary.scalar(f"train/{name}", value).value]
        with naming(self._path):
            self._write(Event(step=step, summary=summary.Summary(value=parts)))
            if time.monotonic() - self._flushed > FLUSH_EVERY:
                self._flushed = time.monotonic()
                self._writer.flush()

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        """One event."""
        from tensorboardX import summary
        from tensorboardX.proto.event_pb2 import Event

        with naming(self._path):
            self._write(Event(step=step, summary=summary.image(name, picture, dataformats="HWC")))

    def close(self) -> None:
        """Flushes and closes the file."""
        with naming(self._path):
            self._writer.close()
