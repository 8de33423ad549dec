"""One process at a time in a folder.

The lock is a file that says who holds it, and that its holder rewrites every few seconds, with a number that grows.

- On the same machine the kernel decides: it holds the file's `flock` for as long as the process lives, so that what a
  killed process leaves is known to be stale at once. A machine is known by its kernel's boot id: containers share it.
- Of another machine on a shared disk, where a kernel may know nothing of the other's locks, or a server may keep those of a
  machine that is gone, the number decides: a lock whose number stands still for some time is stale. No clocks are compared.
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

BEAT = 5.0  # seconds between two numbers
PATIENCE = 20.0  # seconds without a new number after which the lock of another machine is stale
LENGTH = 512  # bytes of the file
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # of file systems without flock


def _machine() -> str:
    """What tells this machine, since it was started, from all others."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


class Lock:
    """Within the context, no other process holds the lock of this path.

    Args:
        path: of the lock's file; its folder is created if need be.
        what: what is locked, to begin the message with, as "--workdir=runs/digits".

    Raises:
        UserError: another process holds it, or the folder cannot be written.
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
        """The open file, once it is ours."""
        while True:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                ours = self._try_flock(file)
                before = os.pread(file, LENGTH, 0)
                holder = _parse(before)
                elsewhere = bool(before) and holder.get("machine") != _machine()
                if ours is False and not elsewhere:
                    raise self._in_use(holder)
                if (elsewhere or (before and ours is None)) and self._beats(before, holder):
                    raise self._in_use(holder)
                if _is(file, self._path):
                    return file
            except BaseException:
                os.close(file)
                raise
            os.close(file)  # its holder has just removed it

    def _try_flock(self, file: int) -> bool | None:
        """Whether the kernel gives it to us; None where it knows no locks."""
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
        """Whether the number of a lock, of another machine, grows."""
        print(
            f"{self._what} was in use by {_name(holder)}: waiting {PATIENCE:g} s to see whether it still is",
            file=sys.stderr,
        )
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            time.sleep(PATIENCE / 20)
            with contextlib.suppress(FileNotFoundError):
                if self._path.read_bytes()[:LENGTH] != before:  # opened anew, which makes NFS look
                    return True
        return False

    def _in_use(self, holder: dict[str, str]) -> UserError:
        return UserError(
            f"{self._what} is in use by {_name(holder)}: two cannot share it. Wait for it, stop it, or choose another"
        )

    def _beat(self) -> None:
        self._number += 1
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "machine": _machine(), "number": self._number}
        content = json.dumps(holder).encode()[:LENGTH].ljust(LENGTH)  # one write, and nothing left of what was there
        with contextlib.suppress(OSError):  # a full disk: who writes what matters says so
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
    """Whether the path still names the open file."""
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
