"""Processes that make batches: for sources that decode, which one process, with its one interpreter, would do too slowly.

`WorkerBatches(make, ...)[i]` is `make()[i]`, made in another process. Since a batch is a function of its number, nothing
depends on which process makes it or on how many there are; a process that dies (out of memory, killed) is replaced, and the
batch it owed is asked for again; one that does not answer in time ends the run with a line that says so.

The order, the reading ahead and the position are grain's, whose threads ask here. Grain has worker processes of its own
(`mp_prefetch`), but of version 0.2.18 they outlive a parent that is killed, `close` waits for one that hangs, one that dies
ends the stream, shared memory is left behind, and the saved position fits the same number of workers alone. Here a process
ends with its parent: its end of a pipe that the parent alone writes to is closed by the system, whatever ends the parent.
"""

import multiprocessing
import pickle
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from multiprocessing import util
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from tqdm import tqdm

from experiments.errors import RunError, UserError

DEATHS = 3  # of workers at one batch, after which that batch is given up
GRACE = 10  # seconds for a worker that closed its pipe to be gone

Batch = dict[str, np.ndarray]


class WorkerBatches:
    """Random access to batches that other processes make. May be asked by several threads at once.

    Args:
        make: -> what is indexed with the number of a batch, and gives arrays by name; picklable. Each process calls it once.
        workers: how many processes, 1 or more; they start now.
        timeout: seconds for an answer, the start of the process included.
    """

    def __init__(self, make: Callable[[], Mapping[int, Batch]], workers: int, timeout: float):
        self._timeout = timeout
        self._ended = _Ended()
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._workers = [_Worker(make, number) for number in range(workers)]
        for worker in self._workers:
            self._idle.put(worker)
        # Before multiprocessing, at the end of the interpreter, waits for all processes.
        self._finalize = util.Finalize(self, _end, (self._ended, self._workers), exitpriority=1)

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> Batch:
        """Batch number `index`.

        Raises:
            RunError: a worker takes longer than `timeout`, or workers die of this batch again and again; then all are ended.
            Exception: whatever making the batch raises.
        """
        worker = self._idle.get()
        try:
            for _ in range(DEATHS):
                name = f"data worker {worker.number} (process {worker.process.pid})"
                try:
                    return worker.ask(int(index), self._timeout)
                except TimeoutError:
                    self._give_up(
                        f"{name} made no batch in {self._timeout:g} s (batch {index} of the stream): the data are too slow "
                        "to read, or data.worker_timeout is too short"
                    )
                except (EOFError, OSError):
                    with self._ended.lock:
                        if self._ended.reason:
                            break
                        what = f"{name} {worker.restart()} at batch {index} of the stream"
                    tqdm.write(f"{what}: another process makes it again", file=sys.stderr)
            else:
                self._give_up(f"{what}, as {DEATHS} in a row did: give them more memory, or see above what they say")
            raise RunError(self._ended.reason)
        finally:
            self._idle.put(worker)

    def _give_up(self, reason):
        _end(self._ended, self._workers, reason)

    def processes(self) -> list[int]:
        """The numbers that the system gives the processes."""
        return [worker.process.pid for worker in self._workers]

    def close(self) -> None:
        """Ends the processes at once, whatever they do."""
        self._finalize()  # once; it does nothing after that


class _Ended:
    """Why the processes were ended, once they are; the first reason counts."""

    def __init__(self):
        self.reason = ""
        self.lock = threading.Lock()


def _end(ended, workers, reason="the data workers were ended"):
    with ended.lock:
        ended.reason = ended.reason or reason
        for worker in workers:
            worker.kill()


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, make, number):
        self._make = make
        self.number = number
        self._start()

    def _start(self):
        context = multiprocessing.get_context("spawn")  # a fork would copy JAX's threads in the middle of their work
        self._connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, self._make), daemon=True, name=f"data-{self.number}")
        self.process.start()
        theirs.close()  # theirs alone: when the process is gone, reading here ends

    def ask(self, index, timeout):
        self._connection.send(index)
        if not self._connection.poll(timeout):
            raise TimeoutError
        answer = self._connection.recv()
        return _receive(self._connection, answer) if isinstance(answer, dict) else _raise(*answer)

    def restart(self):
        """Replaces a process that died; how it did."""
        self.process.join(GRACE)
        code = self.process.exitcode
        self.kill()
        self._connection.close()
        self._start()
        return f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"

    def kill(self):
        self.process.kill()  # SIGTERM is not heard
        self.process.join(GRACE)


def _raise(error, text):
    if not isinstance(error, UserError):
        error.add_note(f"In a data worker:\n{text}")
    raise error


def _work(connection: Connection, make: Callable[[], Any]) -> None:
    """What a process does until nobody is left to ask: answers each number with its batch, or with what went wrong."""
    # Both go to all processes of a job. The one that trains saves first; it needs its workers for that long.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    batches = make()
    try:
        while True:
            index = connection.recv()
            try:
                batch = batches[index]
            except Exception as error:
                connection.send((_picklable(error), traceback.format_exc()))
            else:
                _send(connection, batch)
    except (EOFError, OSError):
        return


def _picklable(error: Exception) -> Exception:
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


def _send(connection: Connection, batch: Batch) -> None:
    """Shapes first, then plain bytes: pickled arrays would be copied twice more."""
    arrays = {name: np.ascontiguousarray(array) for name, array in batch.items()}
    connection.send({name: (array.dtype, array.shape) for name, array in arrays.items()})
    for array in arrays.values():
        if array.nbytes:
            connection.send_bytes(array.reshape(-1).view(np.uint8))


def _receive(connection: Connection, header: dict[str, tuple[np.dtype, tuple[int, ...]]]) -> Batch:
    batch = {name: np.empty(shape, dtype) for name, (dtype, shape) in header.items()}
    for array in batch.values():
        if array.nbytes:
            connection.recv_bytes_into(array.reshape(-1).view(np.uint8))
    return batch
