"""Requests to data workers, without processes: pipes, errors, restarts; and the streams that are made of them."""

import multiprocessing
import pickle
import queue
import signal
import sys
import threading

import numpy as np
import pytest

from experiments.data import pipeline, workers
from experiments.data.batches import ShuffledBatches
from experiments.errors import RunError, UserError
from tests.experiments.decoding import numbered

BATCH = {
    "image": np.arange(60, dtype=np.uint8).reshape(2, 5, 3, 2)[:, ::-1],
    "label": np.array([-3, 2**31 - 1], np.int32),
    "big_endian": np.array([[1.5, -2.0, 3.0]], ">f8"),
    "one_byte": np.array([True]),
    "empty": np.zeros((0, 4), np.float32),
    "column_major": np.asfortranarray(np.arange(6).reshape(2, 3)),
}


def assert_equal(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].flags.writeable
        np.testing.assert_array_equal(found[name], array)


def test_arrays_of_any_kind_come_through_a_pipe():
    """Also those whose memory has gaps, and those of no bytes; one batch after the other."""
    ours, theirs = multiprocessing.Pipe()
    for batch in (BATCH, {}, {"label": BATCH["label"]}):
        sender = threading.Thread(target=workers._send, args=(theirs, batch))
        sender.start()
        header = ours.recv()
        assert header == {name: (array.dtype, array.shape) for name, array in batch.items()}
        assert_equal(workers._receive(ours, header), batch)
        sender.join()
    assert not ours.poll()


class Unpicklable(Exception):
    """An error that a pipe does not take."""

    def __reduce__(self):
        raise TypeError("not this one")


class Unreadable(Exception):
    """An error that cannot be made again from its arguments."""

    def __init__(self, number, text):
        super().__init__(f"{text} {number}")


def test_an_error_comes_through_as_it_is_or_by_its_name():
    found = workers._picklable(KeyError("a"))
    assert type(found) is KeyError and found.args == ("a",)
    for error, text in ((Unpicklable("x"), "Unpicklable: x"), (Unreadable(3, "y"), "Unreadable: y 3")):
        found = workers._picklable(error)
        assert type(found) is RuntimeError and str(found) == text
    with pytest.raises(UserError, match=r"^broken$") as caught:
        workers._raise(UserError("broken"), "the place")
    assert not hasattr(caught.value, "__notes__")
    with pytest.raises(ValueError, match=r"^odd") as caught:
        workers._raise(ValueError("odd"), "the place")
    assert caught.value.__notes__ == ["In a data worker:\nthe place"]


class Numbers:
    """Batches of their number; 2 is broken."""

    def __getitem__(self, index):
        if index == 2:
            raise UserError("broken")
        return {"label": np.array([index])}


def test_a_worker_answers_each_number_until_nobody_asks_and_does_not_hear_signals(monkeypatch):
    given = {}
    monkeypatch.setattr(workers.signal, "signal", given.__setitem__)
    ours, theirs = multiprocessing.Pipe()
    worker = threading.Thread(target=workers._work, args=(theirs, Numbers))
    worker.start()
    for index in (1, 2, 3):
        ours.send(index)
        answer = ours.recv()
        if index == 2:
            error, text = answer
            assert type(error) is UserError and 'raise UserError("broken")' in text
        else:
            assert workers._receive(ours, answer) == {"label": [index]}
    ours.close()
    worker.join(20)
    assert not worker.is_alive() and given == dict.fromkeys((signal.SIGINT, signal.SIGTERM), signal.SIG_IGN)


class Process:
    """Stands for a process: how it ended, and what it was told."""

    def __init__(self, exitcode=None):
        self.exitcode, self.told, self.pid = exitcode, [], 70

    def join(self, timeout):
        self.told.append(("join", timeout))

    def kill(self):
        self.told.append("kill")


@pytest.mark.parametrize(
    "code, said", [(-9, "was ended by signal 9"), (-15, "was ended by signal 15"), (0, "ended with exit code 0"),
                   (3, "ended with exit code 3"), (None, "ended with exit code None")],
)  # fmt: skip
def test_how_a_worker_ended_and_that_another_one_starts(code, said):
    worker, started = object.__new__(workers._Worker), []
    worker.process, (worker._connection, _) = Process(code), multiprocessing.Pipe()
    worker._start = lambda: started.append(worker._connection.closed)
    assert worker.restart() == said
    assert worker.process.told == [("join", 10), "kill", ("join", 10)] and started == [True]


def test_a_worker_is_waited_for_as_long_as_it_is_given():
    worker = object.__new__(workers._Worker)
    worker._connection, theirs = multiprocessing.Pipe()
    with pytest.raises(TimeoutError):
        worker.ask(5, 0.01)
    assert theirs.recv() == 5
    workers._send(theirs, {"label": np.array([7])})
    assert worker.ask(6, 5.0) == {"label": [7]} and theirs.recv() == 6
    theirs.send((UserError("broken"), "the place"))
    with pytest.raises(UserError, match="broken"):
        worker.ask(7, 5.0)


class Scripted:
    """Stands for a worker: what happens at each request, in turn."""

    script: list = []

    def __init__(self, make, number):
        self.make, self.number, self.process = make, number, Process()
        self.process.pid = 100 + number
        self.asked, self.restarts, self.killed = [], 0, 0

    def ask(self, index, timeout):
        self.asked.append((index, timeout, type(index)))
        event = self.script.pop(0)
        if isinstance(event, BaseException):
            raise event
        return event

    def restart(self):
        self.restarts += 1
        return "was ended by signal 9"

    def kill(self):
        self.killed += 1


@pytest.fixture
def scripted(monkeypatch):
    monkeypatch.setattr(workers, "_Worker", Scripted)

    def start(script, count=1, timeout=2.5):
        monkeypatch.setattr(Scripted, "script", script)
        return workers.WorkerBatches("make", count, timeout)

    return start


def test_a_batch_is_made_by_the_worker_that_waits_longest(scripted):
    batches = scripted(list("abcde"), 2)
    assert [batches[np.int64(index)] for index in range(5)] == list("abcde")
    first, second = batches._workers
    assert first.asked == [(index, 2.5, int) for index in (0, 2, 4)] and second.asked[0] == (1, 2.5, int)
    assert len(batches) == sys.maxsize and batches.processes() == [100, 101]
    assert (first.make, first.number, second.number, first.restarts) == ("make", 0, 1, 0)


@pytest.mark.parametrize("died", [EOFError(), BrokenPipeError(), OSError()])
def test_a_batch_is_given_up_after_the_third_worker_that_died_of_it(scripted, capsys, died):
    batches = scripted([died, died, "a", died, died, died])
    (worker,) = batches._workers
    assert batches[4] == "a" and worker.restarts == 2 and not worker.killed
    line = "data worker 0 (process 100) was ended by signal 9 at batch 4 of the stream: another process makes it again"
    assert capsys.readouterr().err.split("\n")[:2] == [line] * 2
    with pytest.raises(RunError) as error:
        batches[5]
    assert str(error.value) == (
        "data worker 0 (process 100) was ended by signal 9 at batch 5 of the stream, as 3 in a row did: give them more "
        "memory, or see above what they say"
    )
    assert worker.restarts == 5 and worker.killed == 1


def test_a_worker_that_takes_too_long_ends_all_and_the_first_reason_stays(scripted):
    batches = scripted([TimeoutError(), BrokenPipeError(), EOFError()], 2)
    reason = (
        "data worker 0 (process 100) made no batch in 2.5 s (batch 3 of the stream): the data are too slow to read, or "
        "data.worker_timeout is too short"
    )
    for index in (3, 4):  # the first does not hear a second request; the second was ended with the first
        with pytest.raises(RunError) as error:
            batches[index]
        assert str(error.value) == reason
    assert [worker.killed for worker in batches._workers] == [1, 1]
    assert [worker.restarts for worker in batches._workers] == [0, 0]
    batches.close()
    assert batches._ended.reason == reason and [worker.killed for worker in batches._workers] == [2, 2]


def test_what_a_source_raises_leaves_the_worker_for_the_next_batch(scripted):
    batches = scripted([UserError("broken"), "a", EOFError()])
    with pytest.raises(UserError, match="broken"):
        batches[0]
    assert batches._idle.qsize() == 1 and batches[1] == "a"
    batches.close()
    batches.close()
    assert batches._workers[0].killed == 1  # once
    with pytest.raises(RunError, match=r"^the data workers were ended$"):
        batches[2]
    assert batches._idle.get_nowait() is batches._workers[0]
    with pytest.raises(queue.Empty):
        batches._idle.get_nowait()


class Remote:
    """Stands for worker processes."""

    def __init__(self, make, count, timeout):
        self.batches, self.given, self.closed = pickle.loads(pickle.dumps(make))(), (count, timeout), 0

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]

    def close(self):
        self.closed += 1


def test_a_stream_of_workers_has_a_thread_and_two_batches_for_each(monkeypatch):
    made, options, read_options = [], [], pipeline.grain.ReadOptions
    monkeypatch.setattr(pipeline, "WorkerBatches", lambda *of: made.append(Remote(*of)) or made[-1])
    monkeypatch.setattr(pipeline.grain, "ReadOptions", lambda **of: options.append(of) or read_options(**of))
    settings = {"batch_size": 4, "seed": 1, "flip": False}
    with pipeline.training_batches(numbered(9), **settings, workers=3) as batches:
        found = [next(batches)["label"].tolist() for _ in range(4)]
    assert made[0].given == (3, 300.0) and made[0].closed
    with pipeline.training_batches(numbered(9), **settings) as batches:
        assert [next(batches)["label"].tolist() for _ in range(4)] == found
    assert len(made) == 1
    pipeline.training_batches(numbered(9), **settings, workers=1, worker_timeout=7.5).close()
    assert made[1].given == (1, 7.5) and made[1].closed
    threads = [(of["num_threads"], of["prefetch_buffer_size"]) for of in options]
    assert threads == [(3, 6), (1, 4), (1, 4)]


def test_the_order_is_that_of_the_docstring():
    """Image p of the stream is permutation(seed, p // N)[p % N], whichever rows of a batch are read."""
    images, size = numbered(7), 5

    def expected(seed, place):
        return np.random.default_rng((seed, place // 7)).permutation(7)[place % 7]

    for seed in (0, 3, 2**32 - 1):
        whole = ShuffledBatches(images, size, slice(0, size), seed)
        part = ShuffledBatches(images, size, slice(2, 4), seed)
        for index in (0, 1, 2, 5, 1000):
            places = index * size + np.arange(size)
            labels = [expected(seed, place) for place in places.tolist()]
            assert whole[np.int64(index)]["label"].tolist() == labels
            assert part[index]["label"].tolist() == labels[2:4]
    assert len(whole) == sys.maxsize // 5
    assert ShuffledBatches(images, 20, slice(0, 20), 1)[0]["label"].tolist() == [expected(1, p) for p in range(20)]


def test_a_batch_of_one_image_and_the_largest_seed():
    for seed in (0, 2**32 - 1):
        batches = pipeline.training_batches(numbered(3), batch_size=1, seed=seed, flip=True)
        assert sorted(next(batches)["label"].item() for _ in range(3)) == [0, 1, 2]
