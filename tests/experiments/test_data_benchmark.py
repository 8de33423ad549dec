"""`benchmark --suite=data`: what it says hangs together."""

import pytest

from experiments.benchmarks import data
from experiments.factory.experiment import Experiment
from tests.experiments.test_augmentation import Told
from tests.experiments.tiny import tiny_config


def test_the_pipeline_beside_training(monkeypatch):
    """Of a network that costs nothing to compile."""
    monkeypatch.setattr("experiments.factory.model.network", lambda config: Told())
    printed = data.benchmark(Experiment(tiny_config(data__workers=1, data__augmentation=0.12)))
    rows = dict(line.split("  ", 1) for line in printed.splitlines())
    figures = {name.strip(): value.split()[0].replace(",", "") for name, value in rows.items()}
    rates = {name: float(value) for name, value in figures.items() if rows_of_rates(name)}
    assert all(rate > 0 for rate in rates.values()) and len(rates) == 6
    pipeline, alone, fed = (
        rates[name] for name in ("to device", "training, on batches that lie ready", "training, fed by the pipeline")
    )
    assert float(figures["pipeline relative to training"]) == pytest.approx(pipeline / alone, abs=0.06, rel=0.02)
    assert float(figures["training fed relative to training alone"]) == pytest.approx(fed / alone, rel=0.02)


def rows_of_rates(name):
    return name in ("gather", "batches", "to device", "prepare, on each device") or name.startswith("training, ")


def test_an_experiment_must_be_named(fails):
    assert "--suite=data measures an experiment" in fails("benchmark", "--suite=data")
