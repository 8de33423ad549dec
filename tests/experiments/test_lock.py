"""The lock of a folder: real processes, and locks that other machines left."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from experiments.errors import UserError
from experiments.runs import lock
from experiments.runs.lock import Lock
from tests.experiments.tiny import ROOT

HOLDER = """
import sys, time
from pathlib import Path
from experiments.runs.lock import Lock
with Lock(Path(sys.argv[1]), "--workdir=runs/a"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "train.lock"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.4)


def holder(path, seconds):
    command = [sys.executable, "-c", HOLDER, str(path), str(seconds)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "held\n"
    return child


def test_another_process_is_named_and_its_death_frees_the_folder(path, capsys):
    child = holder(path, 600)
    try:
        with pytest.raises(UserError) as told, Lock(path, "--workdir=runs/a"):
            pass
        assert str(told.value).startswith(f"--workdir=runs/a is in use by process {child.pid} on ")
        assert json.loads(path.read_text())["pid"] == child.pid  # it still is
    finally:
        child.kill()
        child.wait()
    assert path.exists()  # stale, which the kernel knows at once
    with Lock(path, "--workdir=runs/a"):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()
    assert capsys.readouterr().err == ""


def test_a_folder_is_free_after_use_and_after_an_error(path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), Lock(path, "it"):
            raise ZeroDivisionError
        assert not path.exists()


def test_many_at_once_take_turns(path):
    """No two are inside at the same time, though each removes the file when it leaves."""
    inside, most, entered = [0], [0], [0]

    def work():
        for _ in range(200):
            try:
                with Lock(path, "it"):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    entered[0] += 1
                    inside[0] -= 1
            except UserError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] and entered[0] > 4 and not path.exists()


def test_a_file_that_its_holder_removes_meanwhile_is_no_lock(path, monkeypatch):
    """Between our opening it and locking it; a third process would make another."""
    flock, times = fcntl.flock, []

    def after_the_holder_left(file, operation):
        times.append(operation)
        if len(times) == 1:
            path.unlink()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", after_the_holder_left)
    with Lock(path, "it"):
        assert len(times) == 2
        assert json.loads(path.read_text())["pid"] == os.getpid()


def left_by_another_machine(path, number=1):
    """As a lock writes itself: in one piece over what was there."""
    path.parent.mkdir(exist_ok=True)
    content = json.dumps({"host": "node7", "pid": 12, "machine": "another", "number": number})
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.pwrite(file, content.encode().ljust(lock.LENGTH), 0)
    os.close(file)


def test_a_lock_of_another_machine_is_stale_when_its_number_stands_still(path, capsys):
    left_by_another_machine(path)
    since = time.monotonic()
    with Lock(path, "--workdir=runs/a"):
        assert time.monotonic() - since >= 0.4
    assert "--workdir=runs/a was in use by process 12 on node7: waiting 0.4 s" in capsys.readouterr().err


def test_a_lock_of_another_machine_holds_while_its_number_grows(path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 10.0)
    left_by_another_machine(path)
    stop = threading.Event()

    def beat():
        number = 1
        while not stop.wait(0.05):
            number += 1
            left_by_another_machine(path, number)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(UserError, match="in use by process 12 on node7"), Lock(path, "it"):
            pass
    finally:
        stop.set()
        thread.join()


def test_a_server_that_keeps_the_lock_of_a_machine_that_is_gone_is_not_believed(path):
    left_by_another_machine(path)
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with Lock(path, "it"):
            pass


def test_a_disk_without_locks_goes_by_the_number(path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.05)
    monkeypatch.setattr(lock, "PATIENCE", 10.0)

    def none(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with Lock(path, "it"), pytest.raises(UserError, match=f"in use by process {os.getpid()}"), Lock(path, "it"):
        pass


def test_its_number_grows(path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.02)
    with Lock(path, "it"):
        first = json.loads(path.read_text())["number"]
        time.sleep(0.3)
        assert json.loads(path.read_text())["number"] > first


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match="--workdir=x cannot be written: Not a directory"),
        Lock(tmp_path / "file" / "run" / "train.lock", "--workdir=x"),
    ):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_disk_that_knows_no_locks_is_no_obstacle(path, monkeypatch, number):
    def none(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    with Lock(path, "it"):
        assert json.loads(path.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("number", [errno.EWOULDBLOCK, errno.EACCES])
def test_a_lock_that_the_kernel_does_not_give_is_held(path, monkeypatch, number):
    """Both are what systems say of a lock that another process has."""
    holder = {"pid": 77, "host": "here", "machine": lock._machine(), "number": 1}
    path.parent.mkdir()
    path.write_text(json.dumps(holder))

    def held(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", held)
    with pytest.raises(UserError, match="it is in use by process 77 on here"), Lock(path, "it"):
        pass


def test_other_errors_of_the_disk_are_told(path, monkeypatch):
    def broken(*arguments):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(UserError, match="it cannot be written: Input/output error"), Lock(path, "it"):
        pass


def test_a_lock_says_who_holds_it_whole_and_at_one_length(path, monkeypatch):
    """With the longest name that a host may have; nothing is left of a longer content before."""
    monkeypatch.setattr(lock.socket, "gethostname", lambda: "h" * 64)
    path.parent.mkdir()
    path.write_bytes(b"x" * 300)
    with Lock(path, "it"):
        content = path.read_bytes()
        held = json.loads(content)
    assert len(content) == lock.LENGTH == 512
    assert held == {"host": "h" * 64, "pid": os.getpid(), "machine": lock._machine(), "number": held["number"]}


@pytest.mark.parametrize(
    "content, name",
    [
        (b'{"pid": 7, "host": "a"}', "process 7 on a"),
        (b'{"pid": 7}', "another process"),
        (b'{"host": "a"}', "another process"),
        (b"[]", "another process"),
        (b"\xff", "another process"),
        (b"", "another process"),
    ],
)
def test_a_holder_has_the_name_that_its_lock_tells(content, name):
    assert lock._name(lock._parse(content)) == name


def test_a_live_lock_changes_well_within_the_patience_of_others():
    import importlib

    fresh = importlib.util.module_from_spec(lock.__spec__)
    lock.__spec__.loader.exec_module(fresh)
    assert 3 * fresh.BEAT < fresh.PATIENCE <= 60


@pytest.fixture
def files(path, monkeypatch):
    """The open files of the lock, by number."""
    found, opening, closing = [], os.open, os.close

    def open_(name, *given):
        file = opening(name, *given)
        found.extend([file] if name == path else [])
        return file

    def close(file):
        closing(file)
        if file in found:
            found.remove(file)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "close", close)
    return found


def test_no_file_stays_open(path, files, monkeypatch):
    """After use, where it is held, where its holder removes it meanwhile, and where a disk fails."""
    with Lock(path, "it"):
        assert len(files) == 1
        with pytest.raises(UserError), Lock(path, "it"):
            pass
        assert len(files) == 1
    assert files == []
    removed = iter([False, True, True])
    monkeypatch.setattr(lock, "_is", lambda file, path: next(removed))
    with Lock(path, "it"):
        assert len(files) == 1
    monkeypatch.setattr(fcntl, "flock", lambda *given: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    with pytest.raises(UserError), Lock(path, "it"):
        pass
    assert files == []


def test_a_lock_that_another_has_made_meanwhile_is_not_removed(path):
    """Only the file that was locked is the holder's to remove."""
    with Lock(path, "it"):
        path.unlink()
        path.write_text("another's")
    assert path.read_text() == "another's"
