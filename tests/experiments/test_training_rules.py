"""The rules of the loop: when a call ends, what is drawn and kept at which step, and what is said. Nothing is trained."""

import errno
import os
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.devices import distributed
from experiments.devices.drawing import Drawing
from experiments.devices.parallel import BATCH, SAME, STATE, Fsdp, Pmap
from experiments.errors import RunError, UserError, nearest, unknown_name
from experiments.factory.experiment import Experiment
from experiments.learning import optimizers
from experiments.logs.history import History
from experiments.plotting import pictures
from experiments.runs.checkpoint import Checkpoints
from experiments.runs.integrity import SUMS
from experiments.runs.workdir import Workdir
from experiments.training import timing, train, utilization
from tests.experiments.tiny import tiny_config

pytestmark = pytest.mark.devices


@pytest.mark.parametrize("snapshots", [0, 9])
def test_a_call_ends_where_anything_is_to_be_done(snapshots):
    periods = {"steps_per_call": 4, "log_every": 6, "checkpoint_every": 10, "sample_every": 7, "num_steps": 23}
    config = tiny_config(**{f"training__{key}": value for key, value in periods.items()})
    config.training.ema_snapshot_every = snapshots
    ends, step = [], 0
    while step < 23:
        n = train.steps_of_next_call(Experiment(config), step)
        assert 1 <= n <= 4
        step += n
        ends.append(step)
    every = [p for key, p in periods.items() if key != "num_steps"] + ([snapshots] if snapshots else [])
    assert ends == [s for s in range(1, 24) if s == 23 or any(s % p == 0 for p in every)]


def test_grids_are_drawn_at_their_steps_and_at_the_end():
    config = tiny_config(training__sample_every=20, training__num_steps=50)
    assert [step for step in range(1, 60) if train._is_drawn(Experiment(config), step)] == [20, 40, 50]
    assert (train.GRID_SIZE, train.GRID_SEED) == (64, 0)


@pytest.mark.parametrize("n, size", [(1, 1), (2, 5), (4, 4)])
def test_batches_of_a_call_are_stacked_and_filled_up_with_zeros(n, size):
    batches = iter({"image": np.full((3, 2), i, np.uint8), "label": np.full(3, -i, np.int32)} for i in range(1, 9))
    taken = train.take_batches(batches, n, size)
    for name, sign, dtype in (("image", 1, np.uint8), ("label", -1, np.int32)):
        expected = [sign * i for i in range(1, n + 1)] + [0] * (size - n)
        np.testing.assert_array_equal(taken[name].reshape(size, -1)[:, 0], expected)
        assert taken[name].dtype == dtype
        assert (np.ptp(taken[name].reshape(size, -1), axis=1) == 0).all()
    assert next(batches)["label"][0] == -(n + 1)


def test_where_a_run_is_is_told_by_its_last_checkpoint(tmp_path):
    workdir = Workdir(tmp_path)
    assert train._at(workdir, "starting") == "at step 0: nothing to save yet (starting)"
    for step in ("8", "16", "broken-24"):
        (workdir.checkpoints / step).mkdir(parents=True)
    assert train._at(workdir, "starting") == "at step 16: saved (starting)"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EFBIG, errno.EIO])
@pytest.mark.parametrize("name", [None, "a/b"])
def test_a_disk_that_fails_is_one_line(tmp_path, number, name):
    with pytest.raises(RunError) as told, train._disk_errors(Workdir(tmp_path)):
        raise OSError(number, os.strerror(number), name)
    assert str(told.value).startswith(
        f"{name or 'a file'} cannot be written: {os.strerror(number)}. There is no checkpoint yet; make room"
    )
    with pytest.raises(ConnectionError), train._disk_errors(Workdir(tmp_path)):
        raise ConnectionError(errno.ECONNRESET, "reset")


@pytest.mark.parametrize("error", [UserError("a"), RunError("b")])
def test_errors_of_the_data_that_are_one_line_stay_it(tmp_path, error):
    with pytest.raises(type(error), match=f"^{error}$"), train._data_errors(4, SimpleNamespace(folder=tmp_path)):
        raise error


def test_averages_are_kept_at_the_places_of_their_widths(tmp_path):
    saved = []
    snapshots = SimpleNamespace(save=lambda *given, **named: saved.append((given, named)))
    config = tiny_config(training__ema_snapshot_dtype="float16")
    current = SimpleNamespace(emas=("warmup", "narrow", "wide"), updates=np.int32(37))
    strategy = SimpleNamespace(to_host=lambda tree: f"{tree} on the host")
    train._keep_averages(Experiment(config), snapshots, {1: 0.05, 2: 0.1}, 40, strategy, current)
    named = {"updates": 37, "dtype": "float16"}
    assert saved == [((40, 0.05, "narrow on the host"), named), ((40, 0.1, "wide on the host"), named)]


# ---- speed ----


def test_a_reading_is_of_the_calls_since_the_last_one(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    speed = timing.Speedometer(100.0)
    speed.call_done(4, 10.0, 99.0)  # the first, which compiles
    assert (speed.steps, speed.seconds, speed.total_seconds) == (0, 0, 100)
    assert speed.read() == {"seconds": 100.0, "seconds_in_checkpoints": 0.0, "seconds_in_samples": 0.0}
    for what, seconds in ((timing.CHECKPOINTS, 3.0), (timing.SAMPLES, 5.0), (timing.CHECKPOINTS, 1.0)):
        with pytest.raises(KeyError), speed.away(what):
            now[0] += seconds
            raise KeyError  # the time counts all the same
    speed.call_done(4, 25.0, 1.5)  # of 15 seconds, 9 away
    speed.call_done(2, 27.0, 0.5)
    assert (speed.steps, speed.seconds, speed.total_seconds) == (6, 8.0, 108.0)
    row = speed.read()
    assert row == {"seconds": 108.0, "data_fraction": 0.25, "seconds_in_checkpoints": 4.0, "seconds_in_samples": 5.0}
    assert (speed.steps, speed.seconds) == (0, 0)
    speed.call_done(1, 28.0, 7.0)
    assert speed.read()["data_fraction"] == 1.0  # batches of a call are made beside the one before
    speed.call_done(1, 27.5, 0.0)
    assert speed.total_seconds == 109.0  # clocks of threads may be read in another order


def test_seconds_of_data_are_told_once(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    speed = timing.Speedometer()
    for seconds in (0.5, 0.25):
        with speed.waiting_for_data():
            now[0] += seconds
    assert [speed.data_seconds(), speed.data_seconds()] == [0.75, 0.0]


MIB = 2**20


def device(used=None, peak=None):
    named = {"bytes_in_use": used, "peak_bytes_in_use": peak}
    statistics = {name: value * MIB for name, value in named.items() if value is not None}
    return SimpleNamespace(memory_stats=lambda: statistics or None)


@pytest.mark.parametrize(
    "devices, expected", [([(3, 5), (4, 4)], (4, 5)), ([(3,)], (3, 3)), ([(3, 2)], (3, 3)), ([(1, 2), (1, 9)], (1, 9))]
)
def test_memory_is_that_of_the_fullest_device(monkeypatch, devices, expected):
    monkeypatch.setattr(jax, "local_devices", lambda: [device(*statistics) for statistics in devices])
    assert utilization.memory() == {"memory_mib": expected[0], "memory_peak_mib": expected[1]}


def test_memory_on_cpu_is_that_of_the_process(monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: [device(), device(9000)])
    monkeypatch.setattr(utilization.resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=1 << 30))
    monkeypatch.setattr(utilization.resource, "getpagesize", lambda: 4096)
    monkeypatch.setattr(
        utilization, "Path", lambda path: SimpleNamespace(exists=lambda: True, read_text=lambda: "9 512 7 1")
    )
    for platform, peak in (("linux", 1 << 20), ("darwin", 1 << 10)):
        monkeypatch.setattr(utilization.sys, "platform", platform)
        assert utilization.memory() == {"memory_mib": 2, "memory_peak_mib": peak}
    monkeypatch.setattr(utilization, "Path", lambda path: SimpleNamespace(exists=lambda: False))
    assert utilization.memory() == {"memory_mib": 1 << 10, "memory_peak_mib": 1 << 10}


# ---- history, checkpoints ----


def test_figures_that_are_not_finite_are_left_out_for_every_writer(monkeypatch, tmp_path):
    told = []

    class Writer:
        def __init__(self, name):
            self.name = name

        def scalars(self, step, values):
            told.append((self.name, step, values))

        def picture(self, step, name, picture):
            told.append((self.name, step, name, picture))

        def close(self):
            told.append((self.name, "closed"))
            raise OSError("full")

    monkeypatch.setattr("experiments.logs.writers.open_all", lambda *given: [Writer("a"), Writer("b")])
    workdir = Workdir(tmp_path)
    workdir.history.write_text('{"step": 4, "loss": 3}\n{"step": 8, "loss": 2}\n{"step": 12, "loss": 1}\n')
    history = History(workdir, None, 8)
    assert history.before == {"step": 8, "loss": 2} and History(workdir, None, 3, write=False).before == {}
    history.append(9, {"a": 1.0, "b": np.nan, "c": -np.inf, "d": 0})
    history.picture(9, "samples", "picture")
    assert told == [
        ("a", 9, {"a": 1.0, "d": 0}), ("b", 9, {"a": 1.0, "d": 0}),
        ("a", 9, "samples", "picture"), ("b", 9, "samples", "picture"),
    ]  # fmt: skip
    with pytest.raises(OSError, match="full"), history:
        pass
    with pytest.raises(RunError, match="first"), history:  # a disk that was full before is full still
        raise RunError("first")


@pytest.mark.parametrize(
    "count, told",
    [(1, "there are 0"), (3, "there are 0, 1, 2"), (10, f"there are {', '.join(map(str, range(10)))}"),
     (11, f"there are 11 steps, the last of them {', '.join(map(str, range(1, 11)))}")],
)  # fmt: skip
def test_up_to_ten_steps_of_checkpoints_are_named(tmp_path, count, told):
    for step in range(count):
        (tmp_path / str(step)).mkdir()
    with Checkpoints(tmp_path, 2, read_only=True) as checkpoints:
        with pytest.raises(UserError) as error:
            checkpoints._require_step(999)
        checkpoints._require_step(0)
    assert str(error.value) == f"{tmp_path} has no checkpoint of step 999: {told}"


@pytest.mark.parametrize(
    "error, reason",
    [
        (OSError(errno.EDQUOT, "x"), os.strerror(errno.EDQUOT)),
        (ValueError("a [os_error_code='28'] b"), os.strerror(errno.ENOSPC)),
        (ValueError("something\n  else"), "something else"),
        (ValueError("x" * 300), "x" * 200),
    ],
)
def test_a_checkpoint_that_is_not_written_says_why(tmp_path, error, reason):
    (tmp_path / "8").mkdir()
    with Checkpoints(tmp_path, 2, read_only=True) as checkpoints:
        told = str(checkpoints._not_written(error))
    assert told == (
        f"a checkpoint cannot be written to {tmp_path}: {reason}. The last good checkpoint is step 8; "
        "make room and run the same command again"
    )
    assert SUMS == "checksums.json"


# ---- processes and devices ----


@pytest.mark.parametrize(
    "given, told",
    [
        (
            ("h:1", 2, None),
            "--process_id missing: pass all of --coordinator_address, --num_processes, --process_id, or none",
        ),
        ((None, 2, 0), "--coordinator_address missing"),
        ((None, None, 0), "--coordinator_address and --num_processes missing"),
        (("h", 2, 0), "--coordinator_address=h: must be HOST:PORT"),
        ((":1", 2, 0), "--coordinator_address=:1: must be HOST:PORT"),
        (("h:1x", 2, 0), "--coordinator_address=h:1x: must be HOST:PORT"),
        (("h:1", 2, -1), "--process_id=-1: with --num_processes=2 they are 0 to 1"),
        (("h:1", 2, 2), "--process_id=2: with --num_processes=2 they are 0 to 1"),
        (("h:1", 1, 1), "--process_id=1: with --num_processes=1 they are 0 to 0"),
    ],
)
def test_where_the_processes_are_is_told_whole(monkeypatch, given, told):
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **k: pytest.fail("joined"))
    with pytest.raises(UserError, match=f"^{told}"):
        distributed.start(*given)


@pytest.mark.parametrize(
    "given, awaited", [(("[::1]:12", 2, 1), True), (("h:1", 2, 0), False), ((None, None, None), False)]
)
def test_processes_are_joined_as_they_are_told(monkeypatch, given, awaited):
    """All but the first wait for it; what is given is all there is to know, so that no cluster is looked for."""
    joined, waited, updated = [], [], {}
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **k: joined.append((a, k)))
    monkeypatch.setattr(distributed, "_await", waited.append)
    monkeypatch.setattr(distributed.jax, "config", SimpleNamespace(update=updated.__setitem__))
    distributed.start(*given)
    method = None if given[0] is None else "deactivate"
    assert joined == [(given, {"cluster_detection_method": method, "initialization_timeout": 600})]
    assert waited == ([given[0]] if awaited else []) and updated == {"jax_enable_preemption_service": False}


@pytest.mark.parametrize("missing", [True, False])
def test_processes_that_do_not_join_are_one_line(monkeypatch, missing):
    def fails(*given, **named):
        raise ValueError("coordinator_address\n should be defined" if missing else "no\n  answer " + "x" * 400)

    monkeypatch.setattr(jax.distributed, "initialize", fails)
    monkeypatch.setattr(distributed.jax, "config", SimpleNamespace(update=lambda *a: None))
    with pytest.raises(UserError) as error:
        distributed.start(*([] if missing else ["h:1", 2, 0]))
    told = str(error.value)
    if missing:
        assert told.startswith("--distributed: no cluster found") and told.endswith("--num_processes, --process_id")
    else:
        assert told == "--distributed: the processes of this run cannot be joined: " + ("no answer " + "x" * 400)[:300]


def test_the_first_process_is_asked_for_at_its_address(monkeypatch):
    asked, now, slept = [], [0.0], []

    def connect(address, timeout):
        asked.append((address, timeout))
        if len(asked) < 3:
            raise ConnectionRefusedError
        return SimpleNamespace(close=lambda: None)

    monkeypatch.setattr(distributed.socket, "create_connection", connect)
    monkeypatch.setattr(distributed.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(distributed.time, "sleep", lambda seconds: slept.append(seconds))
    distributed._await("[::1]:1234")
    assert asked == [(("::1", 1234), 10)] * 3 and slept == [1, 1]
    asked.clear()
    monkeypatch.setattr(distributed.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + 601))
    monkeypatch.setattr(distributed.socket, "create_connection", lambda *a, **k: (_ for _ in ()).throw(OSError("no")))
    with pytest.raises(UserError, match=r"process 0 does not answer there after 600 s \(no\)"):
        distributed._await("h:1")
    assert now[0] == 601


def test_what_one_process_alone_decides_is_its_own():
    """Alone, an action runs once, and its value may be of any kind."""
    calls = []
    assert distributed.together(lambda: calls.append(1) or "value") == "value"
    assert distributed.first_tells(lambda: {1, 2}) == {1, 2} and distributed.is_first()
    assert distributed.first_process_does(lambda: calls.append(2)) is None and calls == [1, 2]
    assert [distributed.any_process(flag) for flag in (True, False)] == [True, False]
    for error in (UserError("a"), RunError("b")):
        with pytest.raises(type(error), match=str(error)):
            distributed.together(lambda error=error: (_ for _ in ()).throw(error))


@pytest.mark.parametrize("kind", [Pmap, Fsdp])
@pytest.mark.parametrize(
    "batch_size, most, size", [(3, None, 6), (3, 5, 6), (3, 4, 4), (3, 1, 2), (1, 9, 2), (3, 100, 6)]
)
def test_a_batch_is_no_larger_than_what_is_asked_for(kind, batch_size, most, size):
    """On two devices, each with the same number of examples."""
    strategy, sizes = kind(jax.devices()[:2]), []
    strategy.map = lambda program, inputs, outputs: (
        (inputs == (BATCH, SAME, STATE) and outputs == BATCH) and (lambda examples, same, variables: examples)
    )
    drawing = Drawing(None, strategy, batch_size, most)

    def take(numbers):
        sizes.append(len(numbers))
        return numbers * 10

    drawn = list(drawing(np.arange(3, 8), take, None, {"w": np.zeros(2)}))
    assert set(sizes) == {size}
    np.testing.assert_array_equal(np.concatenate([numbers for numbers, _ in drawn]), np.arange(3, 8))
    np.testing.assert_array_equal(np.concatenate([values for _, values in drawn]), 10 * np.arange(3, 8))
    assert list(drawing(np.arange(0), take, None, {})) == []


# ---- small things ----


@pytest.mark.parametrize(
    "count, columns, size",
    [(1, None, (1, 1)), (3, None, (2, 2)), (4, None, (2, 2)), (5, None, (2, 3)), (7, 7, (1, 7)), (10, None, (3, 4))],
)
def test_a_grid_has_about_as_many_rows_as_columns(count, columns, size):
    picture = pictures.grid(
        np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 1), np.uint8), columns
    )
    assert picture.shape == (size[0] * 3 - 1, size[1] * 4 - 1, 1)
    shown = picture[::3, ::4, 0].ravel()
    np.testing.assert_array_equal(shown[:count], np.arange(count))
    assert (shown[count:] == 255).all()


@pytest.mark.parametrize("channels, shown", [(1, [0]), (2, None), (3, [0, 1, 2]), (5, [0, 1, 2])])
def test_pictures_have_one_or_three_channels(channels, shown):
    images = np.arange(2 * 4 * 5 * channels, dtype=np.uint8).reshape(2, 4, 5, channels)
    expected = np.concatenate([images[..., :1], images[..., 1:]], 2) if shown is None else images[..., shown]
    np.testing.assert_array_equal(pictures.visible(images), expected)


@pytest.mark.parametrize("name", ["conv_in", "conv_out", "patches", "in", "out"])
def test_adam_has_the_ends_and_muon_the_hidden_matrices(name):
    """An end is a layer at the top of the network; a kernel of one axis, or of another collection, is no matrix to turn."""
    matrix, vector = jnp.zeros((3, 4)), jnp.zeros(3)
    params = {
        "params": {
            name: {"kernel": matrix},
            "hidden": {"kernel": matrix, "bias": matrix, "scale": vector, name: {"kernel": matrix}},
            "classes": {"kernel": matrix}, "up_0_pyramid": {"kernel": matrix}, "vector": {"kernel": vector},
            "a_pyramid_b": {"kernel": matrix},
        },
        "loss": {"hidden": {"kernel": matrix}},
    }  # fmt: skip
    labels = optimizers.muon_or_adam(params)
    hidden = labels["params"].pop("hidden")
    assert hidden == {"kernel": "muon", "bias": "adam", "scale": "adam", name: {"kernel": "muon"}}
    others = {key: value["kernel"] for key, value in labels["params"].items()}
    expected = dict.fromkeys((name, "classes", "up_0_pyramid", "vector"), "adam") | {"a_pyramid_b": "muon"}
    assert others == expected and labels["loss"]["hidden"]["kernel"] == "adam"


def test_matrices_have_two_axes_or_more():
    params = {"a": jnp.zeros(()), "b": jnp.zeros(3), "c": jnp.zeros((3, 1)), "d": jnp.zeros((2, 2, 3, 4))}
    assert optimizers.is_matrix(params) == {"a": False, "b": False, "c": True, "d": True}
    axes = optimizers._matrix_axes({"c": params["c"], "d": params["d"]})
    assert [(a.reduction_axis, a.output_axis) for a in axes.values()] == [((0,), 1), ((0, 1, 2), 3)]
    assert optimizers.MUON_RMS == 0.2


@pytest.mark.parametrize(
    "name, allowed, told",
    [
        ("heum", ["heun", "ddim"], "heun"),
        ("hn", ["heun"], "heun"),
        ("xy", ["heun"], None),
        ("1e3", ["1e4"], None),
        ("nan", ["nam"], None),
        ("v1", ["v2", 3], "v2"),
    ],
)
def test_names_that_are_half_alike_are_meant(name, allowed, told):
    assert nearest(name, allowed) == (f"; did you mean {told!r}?" if told else "")
    message = str(unknown_name("a.b", name, ["z", *map(str, allowed)]))
    assert message.startswith(f"a.b={name!r} is unknown: choose from {', '.join(sorted(['z', *map(str, allowed)]))}")
