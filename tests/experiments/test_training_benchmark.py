"""`benchmark --suite=training`: what it says hangs together, and an overhead that is known is found."""

import re

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


@pytest.mark.thorough
def test_devices_traffic_start_and_overhead(monkeypatch, capsys):
    """Of the command; the programs of the first start are there for the second."""
    monkeypatch.setattr(training, "counts", lambda config: [1, 2])
    small = flags(training__steps_per_call=2, training__checkpoint_every=4, model__channels=4)
    assert main(["benchmark", "--suite=training", f"--config={ROOT}/configs/digits.py", *small]) == 0
    rows = dict(re.findall(r"^(.+?)  +(.*)$", capsys.readouterr().out, re.MULTILINE))
    cold, warm = (float(rows[f"start to the end of the first 2 steps, {kind}"].split()[0]) for kind in ("cold", "warm"))
    assert cold > warm + 1
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
