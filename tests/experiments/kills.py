"""Drives real training processes through kills, each at a moment that a seed and the run's own progress choose.

A killed child makes progress, or the kills could go on for ever: all but a few wait for a checkpoint that was not there when
the child began. Those few strike while it starts.
"""

import contextlib
import dataclasses
import functools
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path
from unittest import mock

import jax
import numpy as np

import models
from experiments import data
from experiments.__main__ import main
from experiments.config import files as config
from experiments.factory.experiment import Experiment
from experiments.runs.checkpoint import Checkpoints, complete_steps
from experiments.runs.workdir import Workdir
from experiments.training.monitor import MEASURED
from experiments.training.train import abstract_state, load_data
from tests.experiments.tiny import ROOT

CONFIG = f"{ROOT}/tests/experiments/one_layer.py"
PATIENCE = 600.0  # seconds for what takes some on a quiet machine
ENVIRONMENT = {"JAX_NUM_CPU_DEVICES": "1", "JAX_PLATFORMS": "cpu", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}


@dataclasses.dataclass(frozen=True)
class Kill:
    """One end of a child.

    Attributes:
        signal: what is sent.
        moment: "starting": `delay` seconds after its start; "training": after a new checkpoint; "saving": while the one
            after that is written; "evaluating": when the training is complete.
        delay: seconds more to wait then.
    """

    signal: signal.Signals
    moment: str
    delay: float


def plan(seed: int, starting: int, training: int, saving: int, sigterms: int) -> list[Kill]:
    """SIGKILLs at so many moments of each kind, and SIGTERMs in training, in random order; one of each in evaluating."""
    rng = random.Random(seed)
    kills = [Kill(signal.SIGKILL, "starting", rng.uniform(0, 2)) for _ in range(starting)]
    kills += [Kill(signal.SIGKILL, "training", rng.uniform(0, 0.1)) for _ in range(training)]
    kills += [Kill(signal.SIGKILL, "saving", rng.uniform(0, 0.05)) for _ in range(saving)]
    kills += [Kill(signal.SIGTERM, "training", rng.uniform(0, 0.1)) for _ in range(sigterms)]
    rng.shuffle(kills)
    return [*kills, *(Kill(s, "evaluating", rng.uniform(0, 0.2)) for s in (signal.SIGKILL, signal.SIGTERM))]


class Child:
    """A process of the command line that trains, or goes on. It prints to files.

    It is forked from a server that has only imported what all of them import, so that 30 of them take minutes. The server
    is the standard library's; it makes nobody's weights, devices or threads.
    """

    def __init__(self, folder: Path, workdir: Path, **changes: object):
        overrides = [f"--config.{key.replace('__', '.')}={value}" for key, value in changes.items()]
        arguments = ["train", f"--config={CONFIG}", f"--workdir={workdir}", *overrides]
        self._texts = [folder / f"{workdir.name}.{name}" for name in ("out", "err")]
        for text in self._texts:
            text.unlink(missing_ok=True)
        with mock.patch.dict(os.environ, ENVIRONMENT):
            self._process = _server().Process(target=_run, args=(arguments, self._texts), daemon=True)
            self._process.start()

    def poll(self) -> int | None:
        """The exit code, minus the number of a signal that ended it; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """Sends it, unless the child has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def printed(self) -> str:
        """What it has printed on its first stream until now."""
        return self._texts[0].read_text() if self._texts[0].exists() else ""

    def communicate(self) -> tuple[int, str, str]:
        """Waits for its end; its exit code and what it printed on both streams."""
        self._process.join(PATIENCE)
        assert self._process.exitcode is not None, "the child does not end"
        return self._process.exitcode, *(text.read_text() for text in self._texts)


@functools.cache
def _server():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.experiments.preload"])
    return context


def _run(arguments: list[str], texts: list[Path]) -> None:
    """In the child: the command line, as `python -m experiments` has it."""
    for text, stream in zip(texts, (1, 2), strict=True):
        os.dup2(os.open(text, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    sys.stdout.reconfigure(line_buffering=True)
    code = main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def wait_for(child: Child, condition) -> bool:
    """Waits until the condition holds; False if the child ends before."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if child.poll() is not None:
            return condition()
        assert time.monotonic() < deadline, "the child does not come to the moment of the kill"
        time.sleep(0.002)
    return True


def strike(child: Child, workdir: Path, kill: Kill) -> None:
    """Kills a child at the moment, and makes sure that it ended by that."""
    folder = workdir / "checkpoints"

    def newest() -> int:
        return max(complete_steps(folder), default=0)

    before = newest()
    if kill.moment in ("training", "saving"):
        assert wait_for(child, lambda: newest() > before), child.communicate()
    if kill.moment == "saving":
        assert wait_for(child, lambda: any(folder.glob("*.orbax-checkpoint-tmp"))), child.communicate()
    if kill.moment == "evaluating":
        assert wait_for(child, lambda: "Evaluating" in child.printed()), child.communicate()
    time.sleep(kill.delay)
    child.send_signal(kill.signal)
    code, out, error = child.communicate()
    if kill.signal == signal.SIGKILL:
        assert code == -9, (kill, code, error)
    else:
        assert code == {signal.SIGTERM: 0, signal.SIGINT: 130}[kill.signal], (kill, code, error)
        assert f"Interrupted by {kill.signal.name} at step" in out, (kill, out, error)


def contents(workdir: Path) -> dict[str, object]:
    """All that a run leaves, but for speeds and times."""
    run = Workdir(workdir)
    settings = run.read_config()
    iterator = data.training_batches(
        load_data(Experiment(settings)).train,
        batch_size=settings.data.batch_size,
        seed=settings.training.seed,
        flip=False,
    )
    with mock.patch.dict(models.NETWORKS), mock.patch.dict(models.KNOWN):
        config.load(CONFIG)  # it brings its network
        abstract = abstract_state(Experiment(settings))
    with Checkpoints(run.checkpoints, keep=2, read_only=True) as checkpoints:
        state = checkpoints.restore(abstract, iterator)
    rows = [json.loads(line) for line in run.history.read_text().splitlines()]
    return {
        "state": [*jax.tree.leaves(jax.tree.map(np.asarray, state)), next(iterator)["image"]],
        "rows": [{k: v for k, v in row.items() if k not in MEASURED} for row in rows],
        "grids": {path.name: path.read_bytes() for path in sorted(run.samples.iterdir())},
        "metrics": json.loads(run.metrics.read_text()),
        "steps": complete_steps(run.checkpoints),
        "files": sorted(p.name for p in workdir.iterdir() if not p.name.startswith("events")),
        "left in checkpoints": sorted(p.name for p in run.checkpoints.iterdir() if not p.name.isdigit()),
    }


def assert_same(mine: dict[str, object], theirs: dict[str, object]) -> None:
    """Bit for bit."""
    for a, b in zip(mine.pop("state"), theirs.pop("state"), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    for name, value in mine.items():
        assert value == theirs[name], name
