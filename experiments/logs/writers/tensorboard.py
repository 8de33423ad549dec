"""TensorBoard event files, written in the caller's thread, so that a full disk raises an error in the caller.

tensorboardX is imported only by the writer, because its import sets an environment variable.

All event files in the folder belong to one run. When a run is resumed, a session-start event hides rows of later steps.
"""

import time
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.files import naming
from experiments.runs.workdir import Workdir

FLUSH_EVERY = 30.0  # seconds between two flushes to disk


class TensorBoard:
    """Writes metrics as `train/NAME` and pictures as NAME."""

    def __init__(self, workdir: Workdir, config: ConfigDict, step: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._path = workdir.path / "events"
        with naming(self._path):
            self._writer = EventsWriter(str(self._path), f".{time.time_ns()}")  # a unique suffix of the file
            if step:
                self._write(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))
            self._writer.flush()
        self._flushed = time.monotonic()

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self._writer.write_event(event)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes one event for the row."""
        from tensorboardX import summary
        from tensorboardX.proto.event_pb2 import Event

        parts = [part for name, value in values.items() for part in summary.scalar(f"train/{name}", value).value]
        with naming(self._path):
            self._write(Event(step=step, summary=summary.Summary(value=parts)))
            if time.monotonic() - self._flushed > FLUSH_EVERY:
                self._flushed = time.monotonic()
                self._writer.flush()

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        """Writes one event for the picture."""
        from tensorboardX import summary
        from tensorboardX.proto.event_pb2 import Event

        with naming(self._path):
            self._write(Event(step=step, summary=summary.image(name, picture, dataformats="HWC")))

    def close(self) -> None:
        """Flushes and closes the file."""
        with naming(self._path):
            self._writer.close()
