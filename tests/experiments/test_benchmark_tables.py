"""Seconds, bytes and rates of the benchmarks, and the tables they stand in. No network is run but a perceptron."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import data, networks, speed, training
from experiments.benchmarks.cases import Case
from experiments.errors import RunError


def test_rates_of_the_pipeline_are_of_all_its_batches_and_seconds(monkeypatch):
    """On a clock by which a batch takes 0.5 s, gathering 2, a transfer 1, preparing 0.25, and a call of training 1.6.

    Two devices, 4 steps a call, batches of 16; the first round takes half as long and does not count.
    """
    now, calls, taken = [0.0], [0], []
    rounds = {"factor": 0.5}

    def spend(seconds):
        now[0] += rounds["factor"] * seconds

    def seconds(function):
        calls[0] += 1
        rounds["factor"] = 0.5 if calls[0] <= 6 else 1.0
        start = now[0]
        function()
        return now[0] - start

    class Stream:
        def __next__(self):
            spend(0.5)
            return {"image": np.zeros((16, 8, 8, 1), np.uint8)}

    class Images:
        def __len__(self):
            return 1234

        def gather(self, numbers):
            taken.append(numbers)
            spend(2)

    class Leaf(np.ndarray):
        pass

    def mapped(function, inputs, outputs):
        return lambda leaf: spend(1) if isinstance(leaf, dict) else leaf

    def trained(state, batches, n):
        assert n == 4 and batches["image"].shape == (4, 16, 8, 8, 1)
        spend(1.6)
        return SimpleNamespace(step=0), None

    strategy = SimpleNamespace(
        shard=lambda tree, axis=0: tree, map=mapped, map_training=lambda function: trained, num_devices=2
    )
    fake = SimpleNamespace(
        tree=jax.tree, random=jax.random, Array=jax.Array, jit=lambda function: function,
        local_device_count=lambda: 2, local_devices=lambda: [SimpleNamespace(device_kind="kind")],
    )  # fmt: skip

    def prepare(keys, batch):
        assert len(keys) == len(batch["image"]) == 8
        spend(0.25)

    experiment = SimpleNamespace(
        training=SimpleNamespace(steps_per_call=4), data=SimpleNamespace(batch_size=16, workers=0),
        strategy=strategy, preparation=prepare,
    )  # fmt: skip
    for name, value in (
        ("jax", fake), ("seconds", seconds), ("batches_ahead", lambda workers: 10), ("make_step", lambda *a: None),
        ("initial_state", lambda *a: None),
        ("state", SimpleNamespace(make_train_steps=lambda step, k: None)),
    ):  # fmt: skip
        monkeypatch.setattr(data, name, value)
    assert data._rows(experiment, Images(), Stream()) == [
        ("devices", "2 x kind"),
        ("data", "1,234 images 8x8x1, batches of 16, read in a thread"),
        ("gather", "8 images/s"),
        ("batches", "32 images/s"),
        ("to device", f"{3 * 4 * 16 / (3 * (4 * 0.5 + 1)):,.0f} images/s"),
        ("prepare, on each device", "32 images/s"),
        ("training, on batches that lie ready", "40 images/s"),
        ("training, fed by the pipeline", f"{4 * 16 / (4 * 0.5 + 1.6):,.0f} images/s"),
        ("pipeline relative to training", f"{(64 / 3) / 40:.1f}"),
        ("training fed relative to training alone", f"{1.6 / 3.6:.3f}"),
    ]
    assert all(len(numbers) == 16 and numbers.max() < 1234 and numbers.min() >= 0 for numbers in taken)
    assert len(np.unique(np.concatenate(taken))) > 40 and calls == [4 * 6]  # the first round compiles


# ---- times ----


def test_a_time_is_until_the_result_is_there(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])

    class Later:
        def block_until_ready(self):
            now[0] += 5.0
            return self

    assert speed.seconds(lambda: [Later()]) == 5.0


def test_a_pause_before_a_measurement_is_not_measured(monkeypatch):
    now, slept = [0.0], []
    monkeypatch.setattr(networks.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(
        networks.time, "sleep", lambda seconds: slept.append(seconds) or now.__setitem__(0, now[0] + 100)
    )
    assert networks._seconds(lambda: now.__setitem__(0, now[0] + 3.0)) == 3.0
    assert slept == [0.05]


def test_the_peak_of_a_process_is_that_of_linux_where_there_is_one(monkeypatch):
    text = "Name: x\nVmRSS:    7 kB\nVmHWM:    12 kB\nVmPeak:   99 kB\n"
    status = SimpleNamespace(exists=lambda: True, read_text=lambda: text)
    monkeypatch.setattr(networks, "Path", lambda path: status)
    assert networks._peak() == 12 * 1024
    monkeypatch.setattr(networks, "Path", lambda path: SimpleNamespace(exists=lambda: False))
    monkeypatch.setattr(networks.resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=3))
    for platform, peak in (("linux", 3 * 1024), ("darwin", 3)):
        monkeypatch.setattr(networks.sys, "platform", platform)
        assert networks._peak() == peak


def test_threads_are_the_processors_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(networks.os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert networks.threads() == 3
    monkeypatch.delattr(networks.os, "sched_getaffinity")
    monkeypatch.setattr(networks.os, "cpu_count", lambda: 11)
    assert networks.threads() == 11


def test_a_step_of_ours_is_adam_on_the_squared_error_of_the_batch():
    """Its first step moves each weight by 1e-4 against the sign of its gradient; a class-conditional one has labels."""
    ours = networks.Ours(Case("mlp", "small", (2,), 5, {"width": 8, "depth": 1}))
    before = jax.tree.map(np.array, ours._state[0])
    (x, level, labels), target = ours._inputs, ours._target
    assert x.shape == (5, 2) and (np.asarray(level) == 1).all() and labels is None and ours._one[0].shape == (1, 2)

    def loss(params):
        return jnp.square(ours._network.apply(params, x, level, None, train=True) - target).mean()

    gradient = jax.jit(jax.grad(loss))(before)
    ours.step()
    for old, new, slope in zip(*map(jax.tree.leaves, (before, ours._state[0], gradient)), strict=True):
        large = np.abs(slope) > 1e-3
        np.testing.assert_allclose((new - old)[large], -1e-4 * np.sign(slope)[large], atol=2e-6)
    assert ours.parameters == sum(leaf.size for leaf in jax.tree.leaves(before))
    conditional = networks._inputs(SimpleNamespace(num_classes=3), (8, 8, 1), 4)[2]
    assert list(conditional) == ["label"]
    np.testing.assert_array_equal(conditional["label"], [0] * 4)
    classifier = Case("unet_classifier", "", (8, 8, 1), 4, {"num_classes": 3}).network()
    assert networks._inputs(classifier, (8, 8, 1), 4)[2] is None


@pytest.mark.parametrize(
    "value, text", [(0, "0"), (1, "1.00"), (9.994, "9.99"), (12.34, "12.3"), (0.1234, "0.123"), (1234.5, "1,234")]
)
def test_a_number_has_three_digits_or_all_before_the_point(value, text):
    assert networks._number(value) == text


# ---- tables ----


@pytest.mark.parametrize("suite", ["speed", "data", "training"])
def test_a_table_has_its_values_in_a_column(monkeypatch, suite):
    """Two spaces after the longest name; the speed is that of a first start, without programs that were kept."""
    module = {"speed": speed, "data": data, "training": training}[suite]
    parts = {
        "speed": {"_training": [("a", "1")], "_sampling": [("longest", "2")], "_memory": [("c", "3")]},
        "data": {"_rows": [("a", "1"), ("longest", "2"), ("c", "3")]},
        "training": {"_starts": [("a", "1")], "_devices": [("longest", "2")], "_overhead": [("c", "3")]},
    }[suite]
    for name, rows in parts.items():
        monkeypatch.setattr(module, name, lambda *given, rows=rows: rows)
    updated = {}
    fake = SimpleNamespace(
        config=SimpleNamespace(update=updated.__setitem__), local_device_count=lambda: 2, device_count=lambda: 2,
        local_devices=lambda: [SimpleNamespace(device_kind="kind")],
    )  # fmt: skip
    closed = []

    class Stream:
        def __enter__(self):
            return self

        def __exit__(self, *exception):
            closed.append(True)

    monkeypatch.setattr(module, "jax", fake)
    monkeypatch.setattr(module, "load_data", lambda config: SimpleNamespace(train=None))
    monkeypatch.setattr(module, "training_stream", lambda config, images: Stream())
    lines = module.benchmark(None, []).splitlines() if suite == "training" else module.benchmark(None).splitlines()
    head = [] if suite == "data" else ["devices  2 x kind"]
    assert lines == [*head, "a        1", "longest  2", "c        3"]
    assert updated == ({"jax_enable_compilation_cache": False} if suite == "speed" else {})
    assert closed == ([True] if suite == "data" else [])


def test_a_case_whose_process_ends_early_is_named(monkeypatch):
    suite = object.__new__(networks.Suite)
    suite.cases = [Case("mlp", "small", (2,), 4), Case("dit", "large", (8, 8, 4), 4)]

    def row(case):
        if case.family == "dit":
            raise EOFError
        return case.family

    monkeypatch.setattr(suite, "_row", row, raising=False)
    found = suite.rows()
    assert next(found) == "mlp"
    with pytest.raises(
        RunError, match=r"dit \(large\): the process that measured it ended early, likely for want of memory"
    ):
        next(found)


def test_a_process_of_its_own_shares_the_compiled_programs(monkeypatch):
    """All of them, however small or fast to compile; its result is what is sent."""
    updated, sent = {}, []
    monkeypatch.setattr(networks.jax.config, "update", updated.__setitem__)
    sender = SimpleNamespace(send=sent.append)
    networks._call(sender, None, lambda a, b: a + b, (1, 2))
    assert updated == {} and sent == [3]
    networks._call(sender, "cache", max, (1, 2))
    assert sent == [3, 2] and updated == {
        "jax_compilation_cache_dir": "cache", "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }  # fmt: skip


def test_a_stage_of_the_peer_is_measured_with_its_own_threads(monkeypatch):
    made = []
    monkeypatch.setattr(networks.torch_networks, "Peer", lambda *given: made.append(given))
    monkeypatch.setattr(networks, "threads", lambda: 3)
    case = Case("dit", "large", (8, 8, 4), 5, {"num_classes": 3, "depth": 1, "width": 64, "num_heads": 2}, "dit")
    for backend, device in (("cpu", "cpu"), ("gpu", "cuda")):
        monkeypatch.setattr(networks.jax, "default_backend", lambda backend=backend: backend)
        networks._peer(case)
        kind, network, *rest = made.pop()
        assert (kind, network.num_classes, network.dropout) == ("dit", 3, 0.0)
        assert rest == [(8, 8, 4), 5, 3, device]
