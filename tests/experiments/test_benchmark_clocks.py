"""How the benchmarks measure: on clocks and memories that the tests turn, nothing is computed."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import factory
from experiments.benchmarks import guidance, networks, speed, torch_networks, training
from experiments.benchmarks.cases import CASES
from experiments.factory.experiment import Experiment
from tests.experiments.tiny import tiny_config


@pytest.mark.parametrize("given, told, preallocate", [(0, 8, None), (-1, 8, "true"), (1, None, None), (4, None, None)])
def test_the_cpu_is_divided_unless_the_user_says_how(monkeypatch, given, told, preallocate):
    updated = {}
    fake = SimpleNamespace(config=SimpleNamespace(jax_num_cpu_devices=given, update=updated.__setitem__))
    monkeypatch.setattr(training, "jax", fake)
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE", raising=False)
    if preallocate:
        monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", preallocate)
    training.use_virtual_devices()
    assert updated == ({} if told is None else {"jax_num_cpu_devices": told})
    assert training.os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == (preallocate or "false")


def test_guidance_measures_what_the_paper_counts():
    """MMPS of 1, 2, 3 and 5 steps, none of which stops by itself; a classifier as wide as the network."""
    loaded = tiny_config(model__num_classes=3, model__channels=16)
    shape = (8, 8, 1)
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.factory.model.init_variables", lambda *given: {})
        patch.setattr(guidance.jax, "jit", lambda function: lambda *arguments: {})
        made |= dict(guidance._denoisers(Experiment(loaded), 5, shape))
    assert list(made) == [
        "plain", "ClassifierGuidance", "DPS", "PiGDM", "TMPD", "MMPS, 1 step", "MMPS, 2 steps",
        "MMPS, 3 steps", "MMPS, 5 steps",
    ]  # fmt: skip
    np.testing.assert_array_equal(made["plain"].condition["label"], [0, 1, 2, 0, 1])
    for name, posterior in made.items():
        if name.startswith("MMPS"):
            assert posterior.max_steps == int(name.split()[1]) and posterior.rtol < 1e-20
        if name in ("PiGDM", "TMPD") or name.startswith("MMPS"):
            assert posterior.measurement_noise == 0.05
    network = made["ClassifierGuidance"].log_likelihood.network
    assert (network.channels, network.channel_multipliers, network.num_classes) == (16, (1,), 10)
    half = made["DPS"].measurement.forward(jnp.ones((1, *shape)))
    assert half[0, :, :4].sum() in (0, 32) and half.sum() == 32


def test_times_are_of_the_call_and_of_the_least_of_the_later_ones(monkeypatch):
    """Seconds of the first call, and the least of five rounds in turns."""
    now, calls = [0.0], []
    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])

    def function(name, times):
        times = iter(times)

        def call():
            calls.append(name)
            now[0] += next(times)

        return call

    first, least = speed.minima(a=function("a", [9, 5, 4, 3, 6, 7]), b=function("b", [1, 2, 2, 2, 2, 0.5]))
    assert first == {"a": 9, "b": 1} and least == {"a": 3, "b": 0.5}
    assert calls == ["a", "b"] * 6


def test_what_the_benchmark_of_speed_tells_is_its_measurements(monkeypatch):
    """On a clock by which all that is not timed by itself takes no time, but 20 calls for data 4 seconds."""
    loaded = tiny_config(data__batch_size=16, training__steps_per_call=5, sampling__batch_size=24)
    times = {"alone": (9.0, 0.5), "loop": (30.0, 2.0), "network": (3.0, 0.25), "sampler": (20.0, 4.0)}

    def minima(**functions):
        return tuple({name: times[name][i] for name in functions} for i in (0, 1))

    now = [0.0]

    def take(iterator, n, size):
        now[0] += 0.2
        return {"image": np.zeros((size, 16, 8, 8, 1), np.uint8)}

    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), factory.abstract_variables(loaded))

    def initial(config):
        now[0] += 1.25
        return SimpleNamespace(params=zeros)

    monkeypatch.setattr(speed, "minima", minima)
    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(speed, "take_batches", take)
    monkeypatch.setattr(speed, "load_data", lambda config: SimpleNamespace(train=None))
    monkeypatch.setattr(speed, "training_stream", lambda config, images: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(speed, "initial_state", initial)
    monkeypatch.setattr("experiments.factory.model.init_variables", lambda *given: zeros)
    monkeypatch.setattr(speed.jax, "block_until_ready", lambda value: value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed.jax.tree, "map", lambda function, *trees: trees[0])
        rows = speed._training(Experiment(loaded))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(zeros))
    assert rows == [
        ("parameters", f"{parameters:,}"),
        ("initialization, first start", "1.2 s"),
        ("compilation of a training call", "28.0 s"),
        ("training step alone", "500.0 ms"),
        ("training step in a loop of 5", "400.0 ms"),
        ("  relative to one alone", "0.800"),
        ("training images per second", "40"),
        ("data pipeline, images per second", f"{20 * 5 * 16 / 4:,.0f}"),
    ]
    assert speed._sampling(Experiment(loaded)) == [
        ("network evaluation, batch 24", "250.0 ms"),
        ("sampling, heun, 7 evaluations", "4.000 s"),
        ("  relative to its evaluations", f"{4 / (7 * 0.25):.3f}"),
        ("  samples per second on one device", "6"),
        ("compilation of the sampler", "16.0 s"),
    ]


def test_memory_is_in_mebibytes(monkeypatch):
    device = SimpleNamespace(memory_stats=lambda: {"peak_bytes_in_use": 3 * 2**30})
    monkeypatch.setattr(speed.jax, "local_devices", lambda: [device])
    monkeypatch.setattr(speed.resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=5 * 2**20))
    for platform, process in (("linux", "5,120 MiB"), ("darwin", "5 MiB")):
        monkeypatch.setattr(speed.sys, "platform", platform)
        assert speed._memory() == [("peak memory of the process", process), ("peak memory of a device", "3,072 MiB")]


@pytest.fixture
def suite(monkeypatch):
    """(platform, whether torch is there) -> a suite whose processes of its own are not started."""

    def make(platform, beside, names=None):
        def alone(function, *arguments):
            return {networks._device: (platform, "a kind"), torch_networks.runs_on: beside}[function]

        monkeypatch.setattr(networks, "_alone", alone)
        return networks.Suite(names)

    return make


@pytest.mark.parametrize("platform, factor", [("cpu", 1), ("gpu", 32), ("tpu", 32)])
def test_an_accelerator_has_32_times_the_batch(suite, platform, factor):
    made = suite(platform, False)
    assert [case.batch for case in made.cases] == [factor * case.batch for case in CASES]
    assert [case.family for case in suite(platform, False, ["dit", "mlp"]).cases] == ["dit", "mlp"]


@pytest.mark.parametrize("platform, beside", [("cpu", True), ("cpu", False), ("gpu", True)])
def test_the_heading_says_what_stands_beside(suite, platform, beside, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"1.2 of {name}")  # the peers may not be installed
    heading = suite(platform, beside).heading().splitlines()
    assert f"on {platform} (a kind, " in heading[0]
    assert ("TF32" in heading[0]) == (platform == "gpu")
    peers = "Beside it diffusers 1.2 of diffusers on torch 1.2 of torch, eager"
    assert heading[1].startswith(peers if beside else "diffusers was not measured")
    assert heading[3].count("|") == heading[4].count("|") == 11


def test_a_row_has_the_memory_of_each_side(suite, monkeypatch):
    """The peer is measured where there is one and torch is there for the device."""
    with_peer, without = (next(case for case in CASES if bool(case.peer) == has) for has in (True, False))
    asked = []

    def alone(function, case, option):
        asked.append((function, option))
        if function is networks._times:
            return [networks.Figures(name, 1, 2, (3.0,), (4.0,)) for name in ("ours", "peer")[: 1 + option]]
        return 100 if option else 200

    for beside, case, sides in ((True, with_peer, 2), (True, without, 1), (False, with_peer, 1)):
        made = suite("cpu", beside)
        monkeypatch.setattr(networks, "_alone", alone)
        asked.clear()
        row = made._row(case)
        assert asked == [(networks._times, sides == 2)] + [(networks._memory, ours) for ours in (True, False)[:sides]]
        assert row.ours.memory == 100 and (row.peer.memory == 200 if sides == 2 else row.peer is None)


@pytest.mark.parametrize("each, rounds", [(0.01, 20), (1.0, 8), (10.0, 3), (3.0, 3), (2.0, 4)])
def test_rounds_are_3_to_20_within_8_seconds_after_two_that_do_not_count(monkeypatch, each, rounds):
    now, calls = [0.0], []
    monkeypatch.setattr(networks.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(networks.time, "sleep", lambda seconds: None)

    def function():
        calls.append(1)
        now[0] += each if len(calls) > 2 else 1000.0

    (times,) = networks._rounds([function])
    assert times == pytest.approx((each,) * rounds) and len(calls) == rounds + 2


def test_weights_keep_the_size_of_activations():
    """Each output of a layer of unit inputs has unit variance; an input is of unit variance itself."""
    kernel = networks._random(("a",), jax.ShapeDtypeStruct((3, 3, 16, 400), jnp.float32))
    assert kernel.std() == pytest.approx(1 / np.sqrt(3 * 3 * 16), rel=0.02)
    assert networks._random((), jax.ShapeDtypeStruct((40, 30, 10), jnp.float32)).std() == pytest.approx(1, rel=0.02)
    assert (networks._random(("b",), kernel) != kernel).any()


def test_memory_is_what_three_steps_add(monkeypatch):
    """To what the process held before the network was made."""
    held, steps = [1000], []

    class Side:
        def __init__(self, case):
            held[0] += 50

        def step(self):
            steps.append(1)
            held[0] += 7

    monkeypatch.setattr(networks, "Ours", Side)
    monkeypatch.setattr(networks, "_peak", lambda: held[0])
    monkeypatch.setattr(networks.jax, "local_devices", lambda: [SimpleNamespace(memory_stats=lambda: None)])
    assert networks._memory(None, True) == 50 + 3 * 7 and len(steps) == 3
    monkeypatch.setattr(
        networks.jax, "local_devices", lambda: [SimpleNamespace(memory_stats=lambda: {"peak_bytes_in_use": 99})]
    )
    assert networks._memory(None, True) == 99
