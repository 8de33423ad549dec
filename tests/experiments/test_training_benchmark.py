"""`benchmark --suite=training`: what it says hangs together, and an overhead that is known is found."""

import re
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments.__main__ import main
from experiments.benchmarks import training
from experiments.errors import RunError
from experiments.factory import model
from experiments.factory.experiment import Experiment
from experiments.logs.history import History
from experiments.runs.checkpoint import Checkpoints
from tests.experiments.test_augmentation import Told
from tests.experiments.tiny import ROOT, flags, tiny_config

pytestmark = [pytest.mark.e2e, pytest.mark.devices]


def test_devices_traffic_start_and_overhead(monkeypatch, capsys):
    monkeypatch.setattr(training, "counts", lambda config: [1, 2])
    small = flags(training__steps_per_call=2, training__checkpoint_every=4, model__channels=4)
    assert main(["benchmark", "--suite=training", f"--config={ROOT}/configs/digits.py", *small]) == 0
    rows = dict(re.findall(r"^(.+?)  +(.*)$", capsys.readouterr().out, re.MULTILINE))
    cold, warm = (float(rows[f"start to the end of the first 2 steps, {kind}"].split()[0]) for kind in ("cold", "warm"))
    assert cold > 0 and warm > 0  # which is faster depends on what else the machine does
    for strategy in ("pmap", "fsdp"):
        assert rows[f"{strategy}, 1 device"].endswith("of one device")
        speed, sent = rows[f"{strategy}, 2 devices"].split("; ")
        assert re.fullmatch(r"[\d,]+ images/s, [\d.]+ of one device", speed)
        assert float(re.fullmatch(r"[\d,]+ bytes a step, ([\d.]+) of the least", sent)[1]) == pytest.approx(1, abs=0.1)
        assert f"{strategy}, 4 devices" not in rows
    assert {"checkpoints, one each 4 steps", "checkpoints and logging together"} < set(rows)


def test_an_overhead_that_is_known(monkeypatch):
    """On a clock by which a batch takes 60 ms, a row 12 ms and a checkpoint 90 ms."""
    monkeypatch.setattr(model, "network", lambda config: Told())  # costs nothing to compile
    take, save, append, now = training.take_batches, Checkpoints.save, History.append, [0]

    def timed(milliseconds, function):
        def call(*arguments):
            now[0] += milliseconds(*arguments)
            return function(*arguments)

        return call

    def seconds(function):
        start = now[0]
        function()
        return now[0] - start

    monkeypatch.setattr(training, "take_batches", timed(lambda iterator, n, size: 60 * n, take))
    monkeypatch.setattr(Checkpoints, "save", timed(lambda *_: 90, save))
    monkeypatch.setattr(History, "append", timed(lambda *_: 12, append))
    monkeypatch.setattr(training, "seconds", seconds)
    config = tiny_config(data__augmentation=0.12, training__log_every=2, training__checkpoint_every=6)
    assert training._overhead(Experiment(config)) == [
        ("logging, a row each 2 steps", "10.0 % of training time (10.0 to 10.0 in 7 turns)"),
        ("checkpoints, one each 6 steps", "25.0 % of training time (25.0 to 25.0 in 7 turns)"),
        ("checkpoints and logging together", "35.0 % of training time"),
    ]


def test_so_many_devices_as_share_the_batch():
    assert [training.counts(Experiment(tiny_config(data__batch_size=n))) for n in (16, 12, 3)] == [
        [1, 2, 4, 8],
        [1, 2, 4],
        [1],
    ]


def test_the_calls_of_the_loop_are_those_of_training():
    config = tiny_config(training__steps_per_call=5, training__log_every=4, training__num_steps=100)
    assert list(training._calls(Experiment(config), 2, 10)) == [2, 1, 3, 2]


def test_a_start_that_fails_says_why(tmp_path):
    arguments = [f"--config={ROOT}/configs/digits.py", "--config.data.source=npz:none.npz"]
    with pytest.raises(RunError, match=r"training does not start: .*none\.npz"):
        training._seconds_to_first_row(Experiment(tiny_config()), arguments, tmp_path, "cold")


def test_an_experiment_must_be_named(fails):
    assert "--suite=training measures an experiment" in fails("benchmark", "--suite=training")


def test_speed_and_traffic_are_those_of_each_strategy_and_number_of_devices(monkeypatch):
    """Each takes turns with one device: steps of 2 s alone and of 4 / n s on n devices, of batches of 16."""
    made = []

    def stepper(config, strategy, batch):
        made.append((strategy, batch))
        n = strategy[1]
        return n, lambda: 4 / n if len(made) > 1 else 2.0

    def minima(alone, run):
        return {"alone": 99, "run": 99}, {"alone": alone(), "run": run()}

    def traffic(config, strategy, compiled):
        return SimpleNamespace(total=1000.0 * compiled, bound=800.0)

    kinds = {name: lambda devices, name=name: (name, len(devices)) for name in ("pmap", "fsdp")}
    for name, value in {
        "_stepper": stepper, "minima": minima, "STRATEGIES": kinds, "counts": lambda config: [1, 4],
        "load_data": lambda config: SimpleNamespace(train="images"),
        "training_stream": lambda config, images: nullcontext(iter([f"first of {images}"])),
    }.items():  # fmt: skip
        monkeypatch.setattr(training, name, value)
    monkeypatch.setattr(training.collectives, "of_training", traffic)
    monkeypatch.setattr(training.jax, "devices", lambda: list(range(8)))
    rows = training._devices(Experiment(tiny_config(data__batch_size=16)))
    assert made == [(strategy, "first of images") for strategy in
                    (("pmap", 1), ("pmap", 1), ("pmap", 4), ("fsdp", 1), ("fsdp", 4))]  # fmt: skip
    one, four = (
        "4 images/s, 1.00 of one device",
        "16 images/s, 4.00 of one device; 4,000 bytes a step, 5.000 of the least",
    )
    assert rows == [
        ("pmap, 1 device", one), ("pmap, 4 devices", four), ("fsdp, 1 device", one), ("fsdp, 4 devices", four),
    ]  # fmt: skip


def test_the_start_is_that_of_train_up_to_its_first_row(monkeypatch, tmp_path):
    """In a folder of its own, with a cache that the second start shares; the child is ended then."""
    now, calls, killed = [100.0], [], []

    class Child(nullcontext):
        def __init__(self, command, *, env, **pipes):
            super().__init__(self)
            calls.append((command, env))
            self.looked = 0

        def poll(self):
            self.looked += 1
            if self.looked == 3:
                folder = Path(calls[-1][0][-3].removeprefix("--workdir="))
                folder.mkdir(parents=True)
                (folder / "metrics.jsonl").write_text("{}\n")

        def kill(self):
            killed.append(self.looked)

    monkeypatch.setattr(training.subprocess, "Popen", Child)
    monkeypatch.setattr(training.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(training.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + 2.0))
    monkeypatch.setattr(training.tempfile, "TemporaryDirectory", lambda: nullcontext(str(tmp_path)))
    rows = training._starts(Experiment(tiny_config(training__steps_per_call=4)), ["--config=a", "--config.b=1"])
    assert rows == [(f"start to the end of the first 4 steps, {kind}", "6.0 s") for kind in ("cold", "warm")]
    assert killed == [3, 3]
    for (command, environment), kind in zip(calls, ("cold", "warm"), strict=True):
        assert command[1:] == [
            "-m", "experiments", "train", "--config=a", "--config.b=1", f"--workdir={tmp_path / kind}",
            "--config.training.num_steps=4", "--config.training.writers=jsonl",
        ]  # fmt: skip
        assert environment["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "cache")


@pytest.mark.parametrize("text, told", [("a\nerror: the last\n", "the last"), ("", "exit code 9"), ("only", "only")])
def test_a_start_that_ends_says_its_last_line_or_its_code(monkeypatch, tmp_path, text, told):
    class Child(nullcontext):
        returncode, stderr = 9, SimpleNamespace(read=lambda: text)

        def __init__(self, command, **options):
            super().__init__(self)

        def poll(self):
            return 9

        def kill(self):
            pass

    monkeypatch.setattr(training.subprocess, "Popen", Child)
    with pytest.raises(RunError, match=f"^training does not start: {told}$"):
        training._seconds_to_first_row(Experiment(tiny_config()), [], tmp_path, "cold")


@pytest.mark.parametrize("backend, expected", [("cpu", [0]), ("gpu", [0, 1, 2])])
def test_parts_of_one_processor_are_not_whole_devices(monkeypatch, backend, expected):
    monkeypatch.setattr(training.jax, "devices", lambda: [0, 1, 2])
    monkeypatch.setattr(training.jax, "default_backend", lambda: backend)
    assert training._whole_devices() == expected


def test_an_overhead_is_the_median_of_its_turns(monkeypatch):
    """In units of the median of the steps alone; a checkpoint's is divided among the steps between two."""
    turns = [training._Turn(*turn) for turn in ((1.0, 0.1, 0.9), (2.0, 0.3, 1.2), (9.0, 0.2, 0.3))]
    changed = []
    monkeypatch.setattr(training, "_turns", lambda config, workdir, iterator: changed.append(config.training) or turns)
    monkeypatch.setattr(training, "load_data", lambda config: SimpleNamespace(train=None))
    monkeypatch.setattr(training, "training_stream", lambda config, images: nullcontext())
    config = tiny_config(training__log_every=5, training__checkpoint_every=20)
    assert training._overhead(Experiment(config)) == [
        ("logging, a row each 5 steps", "10.0 % of training time (5.0 to 15.0 in 3 turns)"),
        ("checkpoints, one each 20 steps", "11.2 % of training time (3.8 to 15.0 in 3 turns)"),
        ("checkpoints and logging together", "21.2 % of training time"),
    ]
    assert (changed[0].checkpoint_every, changed[0].sample_every, changed[0].log_every) == (5, 5, 5)
    assert changed[0].num_steps > 1e15 and config.training.checkpoint_every == 20
