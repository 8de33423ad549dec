"""TensorBoard's events, written by the caller's own thread.

tensorboardX's SummaryWriter writes in a thread; when that one fails, on a full disk, its queue fills up and the training
waits for ever. Its EventsWriter, used here, raises the error where it can be told.
"""

import os
import time
from pathlib import Path

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from experiments.workdir import naming

FLUSH = 30.0  # seconds between two times that events reach the disk


class TensorBoard:
    """Writes scalars to a new file of events in a folder.

    Args:
        folder: that TensorBoard is pointed at; all files of events in it are one run.
        purge_step: what earlier files hold of this step and later ones is not shown; None shows all.

    Raises:
        OSError: the file, which the error names, cannot be written; so do the methods.
    """

    def __init__(self, folder: Path, purge_step: int | None = None):
        self._folder = folder
        with naming(folder / "events"):
            self._writer = EventsWriter(str(folder / "events"), f".{os.getpid()}")
            if purge_step is not None:
                self._write(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))
            self._writer.flush()
        self._flushed = time.monotonic()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._writer.write_event(event)

    def add(self, step: int, values: dict[str, float]) -> None:
        """Writes scalars by their names."""
        with naming(self._folder / "events"):
            for name, value in values.items():
                self._write(Event(step=step, summary=summary.scalar(name, value)))
            if time.monotonic() - self._flushed > FLUSH:
                self._flushed = time.monotonic()
                self._writer.flush()

    def close(self) -> None:
        """Writes what is left."""
        with naming(self._folder / "events"):
            self._writer.close()
