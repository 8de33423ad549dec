"""`benchmark --suite=training`: what it says hangs together, and an overhead that is known is found."""

import re

import pytest

from experiments.__main__ import main
from experiments.benchmarks import training
from experiments.build import model
from experiments.checkpoint import Checkpoints
from experiments.errors import RunError
from experiments.workdir import Workdir
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
    assert "checkpoints and logging, in 4 steps with one checkpoint" in rows


def test_an_overhead_that_is_known(monkeypatch, tmp_path):
    """On a clock by which eight batches of 60 ms and one checkpoint of 240 ms are half as much again as the batches."""
    monkeypatch.setattr(model, "network", lambda config: Told())  # costs nothing to compile
    take, save, now = training.take_batches, Checkpoints.save, [0]

    def timed_take(iterator, n, size):
        now[0] += 60 * n
        return take(iterator, n, size)

    def timed_save(self, state, iterator):
        now[0] += 240
        save(self, state, iterator)

    def seconds(function):
        start = now[0]
        function()
        return now[0] - start

    monkeypatch.setattr(training, "take_batches", timed_take)
    monkeypatch.setattr(Checkpoints, "save", timed_save)
    monkeypatch.setattr(training, "seconds", seconds)
    config = tiny_config(data__augmentation=0.12, training__sample_every=1000)
    with training.training_stream(config, training.load_data(config).train) as iterator:
        ratios = training._watched_to_bare(config, Workdir(tmp_path), iterator)
    assert ratios == [1.5] * training.ROUNDS


def test_so_many_devices_as_share_the_batch():
    assert [training.counts(tiny_config(data__batch_size=n)) for n in (16, 12, 3)] == [[1, 2, 4, 8], [1, 2, 4], [1]]


def test_the_calls_of_the_loop_are_those_of_training():
    config = tiny_config(training__steps_per_call=5, training__log_every=4, training__num_steps=100)
    assert list(training._calls(config, 2, 10)) == [2, 1, 3, 2]


def test_a_start_that_fails_says_why(tmp_path):
    arguments = [f"--config={ROOT}/configs/digits.py", "--config.data.source=npz:none.npz"]
    with pytest.raises(RunError, match=r"training does not start: .*none\.npz"):
        training._seconds_to_first_row(tiny_config(), arguments, tmp_path, "cold")


def test_an_experiment_must_be_named(fails):
    assert "--suite=training measures an experiment" in fails("benchmark", "--suite=training")
