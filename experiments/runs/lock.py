"""Lock files: only one process at a time may use a folder.

The lock file contains the host and process id of the holder and a heartbeat counter. The holder increments the counter
every few seconds.

- Between processes on one machine, `flock` decides. The kernel releases it when the process ends, so the lock of a
  killed process is stale at once. A machine is identified by the boot id of its kernel, which containers share.
- Between machines on a shared disk, `flock` is not reliable: a kernel may not see the locks of another machine, or a
  server may keep the locks of a machine that is gone. The heartbeat decides: a lock whose counter does not change for
  `PATIENCE` seconds is stale. Clocks of different machines are not compared.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

from experiments.errors import UserError

BEAT = 5.0  # seconds between two heartbeats
PATIENCE = 20.0  # seconds without a heartbeat after which the lock of another machine is stale
LENGTH = 512  # size of the file in bytes
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # errors of file systems without flock


def _machine() -> str:
    """Returns an identifier of this machine since its last boot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


class Lock:
    """Context manager that holds the lock file `path`.

    Args:
        path: path of the lock file; its folder is created if necessary.
        what: name of the locked object, at the start of messages, such as "--workdir=runs/digits".

    Raises:
        UserError: another process holds the lock, or the folder cannot be written.
    """

    def __init__(self, path: Path, what: str):
        self._path = path
        self._what = what
        self._stopped = threading.Event()

    def __enter__(self) -> "Lock":
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._acquire()
        except OSError as error:
            raise UserError(f"{self._what} cannot be written: {error.strerror}") from error
        self._number = 0
        self._beat()
        self._thread = threading.Thread(target=self._beat_on, name="lock", daemon=True)
        self._thread.start()
        return self

    def _acquire(self) -> int:
        """Acquires the lock and returns the descriptor of the open file.

        Raises:
            UserError: another process holds the lock.
        """
        while True:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                locked = self._try_flock(file)
                before = os.pread(file, LENGTH, 0)
                holder = _parse(before)
                other_machine = bool(before) and holder.get("machine") != _machine()
                if locked is False and not other_machine:
                    raise self._in_use(holder)
                if (other_machine or (before and locked is None)) and self._beats(before, holder):
                    raise self._in_use(holder)
                if _is(file, self._path):
                    return file
            except BaseException:
                os.close(file)
                raise
            os.close(file)  # the previous holder has just removed the file: try again

    def _try_flock(self, file: int) -> bool | None:
        """Returns True if `flock` succeeds, False if another process has it, None if the file system has no locks."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in NO_LOCKS:
                return None
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            return False
        return True

    def _beats(self, before: bytes, holder: dict[str, str]) -> bool:
        """Waits up to `PATIENCE` seconds; returns True as soon as the file of another holder changes."""
        print(
            f"{self._what} was in use by {_name(holder)}: waiting {PATIENCE:g} s to see whether it still is",
            file=sys.stderr,
        )
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            time.sleep(PATIENCE / 20)
            with contextlib.suppress(FileNotFoundError):
                if self._path.read_bytes()[:LENGTH] != before:  # opening the file makes NFS refresh its cache
                    return True
        return False

    def _in_use(self, holder: dict[str, str]) -> UserError:
        return UserError(
            f"{self._what} is in use by {_name(holder)}: two cannot share it. Wait for it, stop it, or choose another"
        )

    def _beat(self) -> None:
        self._number += 1
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "machine": _machine(), "number": self._number}
        content = json.dumps(holder).encode()[:LENGTH].ljust(LENGTH)  # one write replaces all old content
        with contextlib.suppress(OSError):  # a full disk is reported by the code that writes results
            os.pwrite(self._file, content, 0)

    def _beat_on(self) -> None:
        while not self._stopped.wait(BEAT):
            self._beat()

    def __exit__(self, *exception: object) -> None:
        self._stopped.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            if _is(self._file, self._path):
                self._path.unlink()
        os.close(self._file)


def _is(file: int, path: Path) -> bool:
    """Returns True if the path still refers to the open file."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file), path.stat())
    return False


def _parse(content: bytes) -> dict[str, str]:
    try:
        return {str(key): str(value) for key, value in json.loads(content).items()}
    except (ValueError, AttributeError):
        return {}


def _name(holder: dict[str, str]) -> str:
    return f"process {holder['pid']} on {holder['host']}" if {"pid", "host"} <= set(holder) else "another process"
