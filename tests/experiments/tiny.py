"""The digits experiment at a size that compiles in seconds: everything is on, nothing is large."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
from ml_collections import ConfigDict

from experiments import data
from experiments.config import files as config
from experiments.factory.experiment import Experiment
from experiments.runs.checkpoint import Checkpoints
from experiments.runs.workdir import Workdir
from experiments.training.monitor import MEASURED
from experiments.training.train import abstract_state

ROOT = Path(__file__).parents[2]

OVERRIDES = {
    "model.channels": "8",
    "model.channel_multipliers": "1",
    "model.blocks_per_level": "1",
    "model.head_channels": "4",
    "data.batch_size": "16",
    "training.num_steps": "40",
    "training.steps_per_call": "4",
    "training.checkpoint_every": "8",
    "training.sample_every": "20",
    "training.log_every": "4",
    "optim.warmup_steps": "4",
    "sampling.steps": "4",
    "sampling.batch_size": "16",
    "evaluation.num_samples": "64",
    "evaluation.noise_levels": "3",
}


def flags(**changes: str) -> list[str]:
    """The overrides as command-line flags; `section__key=value` adds or replaces one."""
    merged = OVERRIDES | {k.replace("__", "."): str(v) for k, v in changes.items()}
    return [f"--config.{k}={v}" for k, v in merged.items()]


def tiny_config(process: str = "vp", **changes: str):
    merged = OVERRIDES | {k.replace("__", "."): str(v) for k, v in changes.items()}
    return config.load(f"{ROOT}/configs/digits.py:{process}", merged.items())


def command(*arguments: str, devices: int = 1) -> subprocess.Popen:
    """A real child process of the command line, on its own devices."""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, "-m", "experiments", *map(str, arguments)],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def restored(workdir: Path):
    """Everything in the newest checkpoint: step, weights, optimizer, EMA, and the next batch of data."""
    state, batch = _newest(workdir, tiny_config())
    return [*jax.tree.leaves(state), batch["image"]]


def newest_state(workdir: Path):
    """The state in the newest checkpoint of a run of any config."""
    return _newest(workdir, Workdir(workdir).read_config())[0]


def _newest(workdir, config):
    dataset = data.load("digits", image_size=8, num_channels=1, test_fraction=0.5)
    iterator = data.training_batches(dataset.train, batch_size=16, seed=0, flip=False)
    with Checkpoints(workdir / "checkpoints", keep=2) as checkpoints:
        state = checkpoints.restore(abstract_state(Experiment(config)), iterator)
    return state, next(iterator)


def history(workdir: Path):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in MEASURED} for row in rows]


def fake_run(config: ConfigDict, **fields: Any) -> SimpleNamespace:
    """What tests pass for a run: its config, the experiment of it, and some fields."""
    return SimpleNamespace(config=config, experiment=Experiment(config), **fields)
