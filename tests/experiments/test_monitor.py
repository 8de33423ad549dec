"""Watching: speeds and times by a clock that the tests turn, loss by noise level by hand."""

import json
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import factory
from experiments.errors import RunError
from experiments.factory.experiment import Experiment
from experiments.logs.history import History
from experiments.runs.workdir import Workdir
from experiments.training import train, utilization
from experiments.training.monitor import MEASURED, Monitor
from experiments.training.timing import Completions
from tests.experiments.tiny import tiny_config

pytestmark = pytest.mark.devices

CALL, DATA, SAVE, GRID = 2.0, 0.5, 30.0, 100.0  # seconds
BATCH = 16


class Clock:
    """Stands for `time.perf_counter`."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


class Rows:
    """A history that keeps its rows."""

    def __init__(self, **before):
        self.before, self.rows = before, []

    def append(self, step, values):
        self.rows.append({"step": step, **values})


def run(clock, history, *, calls=8, call=CALL, before=0, step_flops=None, **changes):
    """The loop of training on a device that holds the host up until it is done; 4 steps a call, a save each second call."""
    config = tiny_config(training__num_steps=4 * (before + calls), **changes)
    with Monitor(Experiment(config), 4 * before, history, None, step_flops) as monitor:
        for number in range(before + 1, before + calls + 1):
            with monitor.waiting_for_data():
                clock.now += DATA
            clock.now += call if number > before + 1 else 60.0  # the first compiles
            monitor.watch(4 * number, 4, {"loss": np.full(4, number), "grad_norm": np.full(4, 0.5)})
            if number % 2 == 0:
                with monitor.saving():
                    clock.now += SAVE
            if number % 4 == 0:
                with monitor.sampling():
                    clock.now += GRID
        monitor.catch_up()
    return history.rows


@pytest.mark.parametrize("log_every", [4, 8])
def test_speed_is_of_training_alone_over_the_whole_interval(clock, log_every):
    """A call of 4 steps of 16 images takes 2.5 s with its data, whether or not a checkpoint or grid comes with it."""
    rows = run(clock, Rows(), training__log_every=log_every)
    assert [row["step"] for row in rows] == list(range(log_every, 33, log_every))
    speeds = [row["images_per_second"] for row in rows if "images_per_second" in row]
    assert speeds == pytest.approx([4 * BATCH / (CALL + DATA)] * (7 if log_every == 4 else 4))
    assert ("images_per_second" in rows[0]) == (log_every == 8)  # the first call, which compiles, says nothing


@pytest.mark.parametrize(
    "log_every, before, expected",
    [(8, 0, [8, 16, 20]), (12, 0, [12, 20]), (20, 0, [20]), (100, 0, [20]), (12, 2, [12, 24, 28])],
)
def test_a_row_is_written_each_interval_of_the_run_and_after_its_last_step(clock, log_every, before, expected):
    """Of five calls of 4 steps, whichever step the run resumes at; the rates are those of the steps after the rows."""
    rows = run(clock, Rows(), calls=5, before=before, training__log_every=log_every, optim__warmup_steps=100)
    assert [row["step"] for row in rows] == expected
    assert [row["loss"] for row in rows] == [step / 4 for step in expected]  # of the call that the row ends
    rates = np.array([row["learning_rate"] for row in rows])
    np.testing.assert_allclose(rates / rates[0], np.array(expected) / expected[0], rtol=1e-5)


def test_the_time_of_a_run_goes_where_it_went(clock):
    rows = run(clock, Rows(), training__log_every=4)
    assert [row["seconds"] for row in rows] == pytest.approx([(CALL + DATA) * n for n in range(8)])
    assert [row["data_fraction"] for row in rows[1:]] == pytest.approx([DATA / (CALL + DATA)] * 7)
    # What comes after a row is in the next one.
    assert [row["seconds_in_checkpoints"] for row in rows] == pytest.approx([0, 0, SAVE, 0, SAVE, 0, SAVE, 0])
    assert [row["seconds_in_samples"] for row in rows] == pytest.approx([0, 0, 0, 0, GRID, 0, 0, 0])
    assert all(0 < row["memory_mib"] <= row["memory_peak_mib"] for row in rows)
    assert all(set(row) - {"step", "loss", "grad_norm", "learning_rate"} <= set(MEASURED) for row in rows)


def test_a_resumed_run_counts_its_time_on(clock):
    rows = run(clock, Rows(seconds=70.0), before=5, calls=3, training__log_every=4)
    assert [row["seconds"] for row in rows] == pytest.approx([70, 72.5, 75])
    assert [row["step"] for row in rows] == [24, 28, 32]


def test_a_result_is_there_when_it_is_there_not_when_the_host_looks(clock):
    """The device is done at 1007; the host asks at 1050."""

    class Slow:
        done = threading.Event()

        def is_ready(self):
            return False

        def block_until_ready(self):
            self.done.wait(10)
            return self

    completions = Completions()
    moment = completions.time_of([Slow()])
    assert not moment.done()
    clock.now = 1007.0
    Slow.done.set()
    assert moment.result(10) == 1007.0
    clock.now = 1050.0
    assert moment.result() == 1007.0
    assert completions.time_of([np.zeros(1)]).result(0) == 1050.0
    completions.close()


def test_what_a_computation_raises_is_raised_where_its_time_is_asked():
    class Failing:
        def is_ready(self):
            return False

        def block_until_ready(self):
            raise RuntimeError("out of memory")

    completions = Completions()
    with pytest.raises(RuntimeError, match="out of memory"):
        completions.time_of([Failing()]).result(10)
    completions.close()


def test_mfu_is_the_models_operations_over_the_peak(clock, monkeypatch):
    """1.6 steps a second of 600 operations each, where 3,000 could be had."""
    monkeypatch.setattr(utilization, "peak_flops", lambda dtype: {"float32": 3000.0}[dtype])
    counted = threading.Event()

    def step_flops():
        counted.set()
        return 600

    class Patient(Rows):
        def append(self, step, values):  # the count comes from a thread
            counted.wait(10)
            super().append(step, values)
            time.sleep(0.02)

    rows = run(clock, Patient(), step_flops=step_flops, training__log_every=4)
    assert rows[-1]["mfu"] == pytest.approx(4 / (CALL + DATA) * 600 / 3000)
    assert "mfu" not in run(clock, Rows(), training__log_every=4)[-1]


def test_the_peak_is_that_of_all_devices_at_once(monkeypatch):
    """Each look at the clock is a tenth of a second after the last, so that each product of 64 x 64 takes that long."""
    moments = iter(np.arange(0.0, 100.0, 0.1))
    monkeypatch.setattr(utilization, "SIZES", (64,))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(moments)))
    assert utilization.peak_flops("bfloat16") == pytest.approx(8 * 2 * 64**3 / 0.1)


def test_operations_are_those_of_the_whole_batch_and_of_nothing_twice():
    config = tiny_config()
    batches = {"image": np.zeros((4, 16, 8, 8, 1), np.uint8), "label": np.zeros((4, 16), np.int32)}
    once = train.step_flops(Experiment(config), batches)
    config.data.batch_size, config.model.remat = 32, True
    of_one_host = {name: x[:, :4] for name, x in batches.items()}
    assert train.step_flops(Experiment(config), of_one_host) == 2 * once


def test_each_example_is_in_the_bin_of_its_noise_level(monkeypatch):
    """Times whose log-SNR is known: within bins 0, 1, 1 and 4, at both ends, just above an edge, and beyond the ends."""
    config = tiny_config(training__loss_bins=5)
    edges = factory.loss_bin_edges(config)
    process = factory.sde(config, config.training.t_min)
    ends = process.log_snr(jnp.array([process.t_max, process.t_min]))
    np.testing.assert_allclose(edges, np.linspace(*ends, 6), rtol=1e-5)
    places = np.array([0.5, 1.2, 1.7, 4.5, 0.0, 4.999, 3.001, 5.002, -0.002])
    t = process.time_at_log_snr(jnp.asarray(edges[0] + places * (edges[1] - edges[0]), jnp.float32))
    losses = jnp.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, jnp.inf, 64.0, 128.0])
    monkeypatch.setattr("experiments.factory.losses.loss", lambda config: lambda *arguments, return_times: (losses, t))
    given, found = factory.binned_loss(config)(None, None, None, None)
    np.testing.assert_array_equal(given, losses)
    np.testing.assert_array_equal(found[factory.BINNED_LOSS].sum(0), [145, 6, 0, np.inf, 104])
    np.testing.assert_array_equal(found[factory.BIN_SHARE].sum(0), [3, 2, 0, 1, 3])
    config.training.loss_bins = 0
    assert factory.binned_loss(config)(None, None, None, None)[1] == {}


def test_bins_of_a_row_are_means_over_its_examples_and_empty_ones_are_left_out(tmp_path):
    """Two steps of 16: 8 and 2 examples in bin 0 with sums 16 and 10, 8 and 0 in bin 2; and strict JSON."""
    config = tiny_config(training__loss_bins=3, training__num_steps=8, training__log_every=2, training__writers="jsonl")
    metrics = {
        "loss": np.array([1.0, 2.0, np.nan]),  # the third step of the call was not made
        "grad_norm": np.array([1.0, 3.0, np.nan]),
        "param_norm": np.full(3, np.inf),
        factory.BINNED_LOSS: np.array([[16, 0, 4], [10, 0, 0], [np.nan] * 3]) / 16,
        factory.BIN_SHARE: np.array([[8, 0, 8], [2, 0, 0], [np.nan] * 3]) / 16,
    }
    workdir = Workdir(tmp_path)
    with History(workdir, config, 0) as history, Monitor(Experiment(config), 0, history, None) as monitor:
        monitor.watch(2, 2, metrics)
        monitor.catch_up()

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    row = json.loads(workdir.history.read_text(), parse_constant=refuse)
    bins = {name: value for name, value in row.items() if name.startswith("loss_bin")}
    assert bins == {"loss_bin_0": 2.6, "loss_bin_0_count": 10, "loss_bin_2": 0.5, "loss_bin_2_count": 8}
    assert row["loss"] == 1.5 and row["grad_norm"] == 2 and "param_norm" not in row


class Kept:
    """Stands for the checkpoints."""

    def __init__(self, folder):
        self.folder = folder

    def wait(self):
        pass


@pytest.mark.parametrize(
    "bad, place, message",
    [
        ("loss", 0, "the loss is not finite at step 5 (its batch: examples 64 to 79 of the stream);"),
        ("grad_norm", 2, "the gradient is not finite at step 7 (its batch: examples 96 to 111 of the stream);"),
        ("loss", 3, "the loss is not finite at step 8 (its batch: examples 112 to 127 of the stream);"),
    ],
)
def test_a_step_that_is_not_finite_is_named_with_its_batch(tmp_path, bad, place, message):
    """Of steps 5 to 8, of 16 examples each."""
    metrics = {"loss": np.ones(4), "grad_norm": np.ones(4)}
    metrics[bad][place] = np.nan
    with Monitor(Experiment(tiny_config()), 4, Rows(), Kept(tmp_path)) as monitor:
        monitor.watch(8, 4, metrics)
        with pytest.raises(RunError) as error:
            monitor.catch_up()
    assert str(error.value).startswith(message)


def test_steps_are_skipped_up_to_the_limit_and_make_no_progress_in_the_learning_rate(tmp_path):
    """Two skips are allowed: the third stops. The learning rate is that of the updates made."""
    changes = {"training__max_skips": 2, "training__log_every": 4, "optim__warmup_steps": 30, "optim__lr": 0.3}
    config, history = tiny_config(**changes), Rows()
    metrics = {"loss": np.array([3.0, np.nan, np.nan, 5.0]), "grad_norm": np.array([1.0, np.nan, np.nan, 2.0])}
    with Monitor(Experiment(config), 0, history, Kept(tmp_path)) as monitor:
        monitor.watch(4, 4, metrics | {"skipped": np.array([0, 1, 2, 2])})
        monitor.watch(8, 4, metrics | {"skipped": np.array([2, 2, 3, 3])})
        with pytest.raises(RunError, match=r"step 7 .*, which would be skip 3 of the run \(training.max_skips=2\)"):
            monitor.catch_up()
    (row,) = history.rows
    assert (row["loss"], row["grad_norm"], row["skipped"]) == (4.0, 1.5, 2)
    assert row["learning_rate"] == pytest.approx(0.3 * 2 / 30)


@pytest.mark.parametrize("devices", [1, 8])
def test_what_a_loss_says_of_examples_is_averaged_over_all_devices(devices):
    import optax

    from experiments.devices.parallel import AXIS, Pmap
    from experiments.learning import averaging, state

    def loss(draws, params, batch, frozen):
        losses = batch["image"] @ params["w"]
        return losses, {"places": jnp.stack([losses, draws.places * 1.0], 1)}

    step = state.make_train_step(
        loss, optax.sgd(0.1), emas=[averaging.constant(0.9)], seed=0, has_aux=True, axis_name=AXIS
    )
    strategy = Pmap(jax.devices()[:devices])
    start = state.create({"w": jnp.array([3.0, -4.0])}, optax.sgd(0.1))
    images = np.random.default_rng(0).normal(size=(1, 16, 2)).astype(np.float32)
    steps = strategy.map_training(state.make_train_steps(step, 1))
    new, metrics = steps(strategy.place(start), strategy.shard({"image": images}, axis=1), np.int32(1))
    np.testing.assert_allclose(metrics["places"], [[(images @ [3, -4]).mean(), 7.5]], rtol=1e-5)
    np.testing.assert_allclose(metrics["param_norm"], [np.linalg.norm(new.params["w"])], rtol=1e-6)
    np.testing.assert_allclose(new.params["w"], [3, -4] - 0.1 * images.mean((0, 1)), rtol=1e-5)


class Device:
    """Stands for JAX on two devices of a process of three, whose product of a size takes the time that a test says."""

    def __init__(self, clock, seconds):
        self.clock, self.seconds, self.products = clock, seconds, []

    def local_devices(self):
        return ["a", "b"]

    def process_count(self):
        return 3

    def pmap(self, function, *, devices):
        assert devices == ["a", "b"]
        return lambda argument: (
            ("product", argument[1]) if isinstance(argument, tuple) else ("matrix", self.size(function))
        )

    @staticmethod
    def size(function):
        return function.__defaults__[0]

    def block_until_ready(self, made):
        kind, size = made
        assert kind == "product"
        self.products.append(size)
        times = self.seconds[size]
        self.clock.now += times.pop(0) if len(times) > 1 else times[0]


@pytest.mark.parametrize(
    "seconds, products, best",
    [
        # The first product compiles; the least of the four after it counts. Long enough: no larger ones.
        ({1024: [9e-3, 0.04, 0.02, 0.03, 0.05]}, {1024: 5}, 2 * 1024**3 / 0.02),
        # Too short at 1024: on to 2048, which is long enough.
        ({1024: [0.01, 0.001], 2048: [0.01, 0.016]}, {1024: 5, 2048: 5}, 2 * 1024**3 / 0.001),
        # The smaller one was faster in operations per second: the best counts.
        ({1024: [0.01, 0.002], 2048: [0.01, 0.004], 4096: [0.01, 0.0512]}, {1024: 5, 2048: 5, 4096: 5}, 2 * 2048**3 / 0.004),
        # After 0.4 seconds no product is begun, nor a larger size.
        ({1024: [0.405, 0.001]}, {1024: 2}, 2 * 1024**3 / 0.001),
        ({1024: [0.1, 0.2, 0.2]}, {1024: 3}, 2 * 1024**3 / 0.2),
        # All sizes are too short: the largest is the last.
        ({1024 * n: [1e-3] for n in (1, 2, 4, 8)}, {1024 * n: 5 for n in (1, 2, 4, 8)}, 2 * 8192**3 / 1e-3),
    ],
)  # fmt: skip
def test_the_peak_is_the_best_of_growing_products_within_its_time(clock, monkeypatch, seconds, products, best):
    """Of both devices of each of three processes; seconds of each product by its size, the last for all later ones."""
    device = Device(clock, {size: list(times) for size, times in seconds.items()})
    monkeypatch.setattr(utilization, "jax", device)
    monkeypatch.setattr(utilization.jnp, "arange", lambda count: count)
    assert utilization.peak_flops("float32") == pytest.approx(best * 2 * 3, rel=1e-6)
    assert {size: device.products.count(size) for size in device.products} == products


@pytest.mark.parametrize("ready", [[True, True], [False, True], [True, False], [False, False]])
def test_results_are_there_when_all_of_them_are(clock, ready):
    """The moment is at once where all are there; else that at which the last one comes."""

    class Part:
        def __init__(self, ready):
            self.ready = ready

        def is_ready(self):
            return self.ready

        def block_until_ready(self):
            clock.now = 1009.0
            return self

    completions = Completions()
    moment = completions.time_of({"a": Part(ready[0]), "b": [Part(ready[1])], "c": 3})
    assert moment.result(10) == (1000.0 if all(ready) else 1009.0)
    completions.close()


@pytest.fixture
def bar(monkeypatch):
    """What the bar of progress is given."""
    told = []

    class Bar:
        def __init__(self, **options):
            told.append(options)
            self.set_description_str = lambda text, refresh: told.append(("description", text))
            self.set_postfix_str = lambda text, refresh: told.append(("shown", text))
            self.update = lambda n: told.append(("done", n))
            self.close = lambda: told.append("closed")

    monkeypatch.setattr("experiments.training.monitor.tqdm", Bar)
    return told


@pytest.mark.parametrize("terminal, first", [(True, True), (False, True), (False, False)])
def test_progress_is_shown_as_it_is_known(clock, bar, monkeypatch, terminal, first):
    """One call late; the loss of its steps and the speed since the last row, which the first call does not have."""
    monkeypatch.setattr("experiments.training.monitor.sys.stderr.isatty", lambda: terminal)
    monkeypatch.setattr("experiments.training.monitor.distributed.is_first", lambda: first)
    run(clock, Rows(), calls=3, before=1, call=1.5, training__log_every=100)
    assert bar[0] == {
        "total": 16, "initial": 4, "unit": "step", "desc": "compiling", "mininterval": 0.1 if terminal else 10.0,
        "disable": not first,
    }  # fmt: skip
    assert [told[1] for told in bar[1:] if told[0] == "shown"] == [
        "loss 2.0000", "loss 3.0000, 32 img/s", "loss 4.0000, 32 img/s",
    ]  # fmt: skip
    assert [told for told in bar[1:] if told[0] == "done"] == [("done", 4)] * 3 and bar[-1] == "closed"
    assert [told for told in bar[1:] if told[0] == "description"] == [("description", "training")] * 3


def test_a_call_of_which_all_steps_were_skipped_has_no_means(bar, tmp_path):
    config, history = tiny_config(training__max_skips=9, training__log_every=2), Rows()
    metrics = {"loss": np.array([np.nan, 3.0]), "grad_norm": np.array([1.0, np.inf]), "skipped": np.array([4, 5])}
    with Monitor(Experiment(config), 0, history, Kept(tmp_path)) as monitor:
        monitor.watch(2, 2, metrics)
        monitor.catch_up()
        monitor.catch_up()  # nothing is pending
    (row,) = history.rows
    assert row["skipped"] == 5 and "loss" not in row and "grad_norm" not in row
    assert ("shown", "all steps skipped") in bar


def test_a_save_that_fails_does_not_hide_a_loss_that_is_not_finite(tmp_path):
    class Failing(Kept):
        def wait(self):
            raise RunError("the disk is full")

    metrics = {"loss": np.array([1.0, np.nan, 1.0, np.nan]), "grad_norm": np.array([1.0, 1.0, np.nan, np.nan])}
    (tmp_path / "8").mkdir()
    with Monitor(Experiment(tiny_config()), 8, Rows(), Failing(tmp_path)) as monitor:
        monitor.watch(12, 4, metrics)
        with pytest.raises(RunError) as error:
            monitor.catch_up()
    assert str(error.value) == (
        "the loss is not finite at step 10 (its batch: examples 144 to 159 of the stream); the last good checkpoint is step "
        f"8 in {tmp_path}. Try a smaller optim.lr or optim.grad_clip"
    )


@pytest.mark.parametrize(
    "bad, classes, advice", [(0, 10, "evaluate it for each class"), (0, 0, "optim.lr"), (1, 10, "optim.lr")]
)
def test_a_network_that_is_not_finite_from_the_start_is_named(tmp_path, bad, classes, advice):
    metrics = {"loss": np.where(np.arange(4) == bad, np.nan, 1.0), "grad_norm": np.ones(4)}
    with Monitor(Experiment(tiny_config(model__num_classes=classes)), 0, Rows(), Kept(tmp_path)) as monitor:
        monitor.watch(4, 4, metrics)
        with pytest.raises(RunError, match=rf"^the loss is not finite at step {bad + 1} .*{advice}"):
            monitor.catch_up()


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_program_whose_operations_are_unknown_has_no_mfu(clock, monkeypatch):
    """Other errors of the count are no such program."""
    monkeypatch.setattr(utilization, "peak_flops", lambda dtype: 3000.0)
    tried, error = threading.Event(), ValueError("a while loop, whose length is unknown")

    def step_flops():
        tried.set()
        raise error

    rows = run(clock, Rows(), step_flops=step_flops, training__log_every=4)
    assert tried.wait(10) and not any("mfu" in row for row in rows)
    with Monitor(Experiment(tiny_config()), 0, Rows(), None, step_flops) as monitor:
        monitor._count_flops()
        error = KeyError("a fault")
        with pytest.raises(KeyError):
            monitor._count_flops()
