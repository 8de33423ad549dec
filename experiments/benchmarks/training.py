"""What training costs beside its mathematics: devices, what they exchange, checkpoints and logging, the start.

speed          images per second of one step on 1, 2, 4, ... devices, by each strategy, for the same global batch. Each
               takes turns with one device. Virtual devices share the processor's cores, so that there one device's speed
               is the most that can be had, and what is missing is what the division costs
bytes          that each device sends in a step, read from the compiled program, beside the least that any such step
               must send (`experiments/benchmarks/collectives.py`)
overhead       of metrics and writers, and of checkpoints, as `train` has them, against the same steps without, in turns
               of some seconds; a checkpoint's share is of the steps between two. They are written where temporary
               files are (TMPDIR)
start          from the command to the end of its first call of steps, in a process of its own: without compiled programs
               in the cache (cold), and with them (warm)
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import factory
from experiments.benchmarks import collectives
from experiments.benchmarks.speed import minima, seconds
from experiments.devices.parallel import STRATEGIES, Strategy
from experiments.errors import RunError
from experiments.factory.experiment import Experiment
from experiments.learning import state
from experiments.logs.history import History
from experiments.runs.checkpoint import Checkpoints
from experiments.runs.workdir import Workdir
from experiments.training.monitor import Monitor
from experiments.training.train import (
    initial_state,
    load_data,
    make_step,
    step_flops,
    steps_of_next_call,
    take_batches,
    training_stream,
)

VIRTUAL_DEVICES = 8  # of the CPU
TURNS = 7  # of training with and without checkpoints and logging
PAIRS = 3  # of steps with and without logging, in a turn
BESIDE_WRITING = 2  # times the steps between two rows, beside which a checkpoint is written


def use_virtual_devices() -> None:
    """Divides the CPU into devices, unless JAX_NUM_CPU_DEVICES says how many; must come before JAX is used.

    Devices with memory of their own are not taken whole either, so that a start can be measured beside this process.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if jax.config.jax_num_cpu_devices < 1:
        jax.config.update("jax_num_cpu_devices", VIRTUAL_DEVICES)


def benchmark(experiment: Experiment, arguments: list[str]) -> str:
    """Measures and returns a table; takes some minutes, mostly compilation.

    Args:
        experiment: its objects.
        arguments: of the command line that gave it, for `train`.

    Raises:
        RunError: training cannot start.
    """
    rows = [("devices", f"{jax.device_count()} x {jax.local_devices()[0].device_kind}")]
    for part in (_starts(experiment, arguments), _devices(experiment), _overhead(experiment)):
        rows += part
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {value}" for name, value in rows)


def _starts(experiment: Experiment, arguments: list[str]) -> list[tuple[str, str]]:
    """The start of `train`, cold and warm."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("cold", "warm"):
            seconds = _seconds_to_first_row(experiment, arguments, Path(folder), kind)
            rows.append(
                (
                    f"start to the end of the first {experiment.training.steps_per_call} steps, {kind}",
                    f"{seconds:.1f} s",
                )
            )
    return rows


def _seconds_to_first_row(experiment: Experiment, arguments: list[str], folder: Path, name: str) -> float:
    """How long `train` takes to log its first call of steps; it is killed then."""
    workdir, steps = Workdir(folder / name), experiment.training.steps_per_call
    command = [sys.executable, "-m", "experiments", "train", *arguments, f"--workdir={workdir.path}"]
    command += [f"--config.training.num_steps={steps}", "--config.training.writers=jsonl"]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
    start = time.perf_counter()
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as child:
        try:
            while not (workdir.history.is_file() and workdir.history.stat().st_size):
                if child.poll() is not None:
                    said = child.stderr.read().strip().splitlines() or [f"exit code {child.returncode}"]
                    raise RunError(f"training does not start: {said[-1].removeprefix('error: ')}")
                time.sleep(0.01)
            return time.perf_counter() - start
        finally:
            child.kill()


def counts(experiment: Experiment) -> list[int]:
    """1, 2, 4, ...: the numbers of devices there are that share the batch evenly."""
    powers = (2**i for i in range(jax.device_count().bit_length()))
    return [n for n in powers if experiment.data.batch_size % n == 0]


def _devices(experiment: Experiment) -> list[tuple[str, str]]:
    """Speed and traffic of each strategy on each number of devices."""
    with training_stream(experiment, load_data(experiment).train) as iterator:
        batch = next(iterator)
    alone = _stepper(experiment, STRATEGIES["pmap"](jax.devices()[:1]), batch)[1]
    rows = []
    for name, kind in STRATEGIES.items():
        for n in counts(experiment):
            strategy = kind(jax.devices()[:n])
            compiled, run = _stepper(experiment, strategy, batch)
            least = minima(alone=alone, run=run)[1]
            said = [
                f"{experiment.data.batch_size / least['run']:,.0f} images/s, "
                f"{least['alone'] / least['run']:.2f} of one device"
            ]
            if n > 1:
                traffic = collectives.of_training(experiment, strategy, compiled)
                said.append(f"{traffic.total:,.0f} bytes a step, {traffic.total / traffic.bound:.3f} of the least")
            rows.append((f"{name}, {n} device{'s' * (n > 1)}", "; ".join(said)))
    return rows


def _stepper(
    experiment: Experiment, strategy: Strategy, batch: dict[str, np.ndarray]
) -> tuple[jax.stages.Compiled, Callable[[], Any]]:
    """One training step, compiled for a strategy, and what makes it once more and gives something to wait for."""
    current, shares = initial_state(experiment, None, strategy), strategy.shard(batch)
    compiled = collectives.compiled_step(experiment, strategy)

    def run():
        nonlocal current
        current, _ = compiled(current, shares, np.int32(1))
        return current.step

    return compiled, run


def _overhead(experiment: Experiment) -> list[tuple[str, str]]:
    """What checkpoints and logging add to the time of training."""
    every, log_every = experiment.training.checkpoint_every, experiment.training.log_every
    config = experiment.config.copy_and_resolve_references()
    config.training.num_steps = sys.maxsize  # the last step would be a row of its own
    config.training.checkpoint_every = config.training.sample_every = log_every  # so that calls end at rows alone
    experiment = Experiment(config)
    with tempfile.TemporaryDirectory() as folder, training_stream(experiment, load_data(experiment).train) as iterator:
        turns = _turns(experiment, Workdir(Path(folder)), iterator)
    between = median(turn.bare for turn in turns)
    logging = [100 * turn.logging / between for turn in turns]
    checkpoint = [100 * turn.checkpoint / (between * every / log_every) for turn in turns]
    together = median(logging) + median(checkpoint)
    return [
        (f"logging, a row each {log_every} steps", _share(logging)),
        (f"checkpoints, one each {every} steps", _share(checkpoint)),
        ("checkpoints and logging together", f"{together:.1f} % of training time"),
    ]


def _share(percents: Sequence[float]) -> str:
    return f"{median(percents):.1f} % of training time ({min(percents):.1f} to {max(percents):.1f} in {len(percents)} turns)"


class _Turn(NamedTuple):
    """Seconds of the steps from one row to the next, and what is added to them."""

    bare: float
    logging: float  # by the row and by looking at every call's metrics
    checkpoint: float  # by a checkpoint, until it is written


def _turns(experiment: Experiment, workdir: Workdir, iterator: Any) -> list[_Turn]:
    """Steps without anything, with logging, and with a checkpoint besides, measured in turns.

    A turn is of seconds, not minutes, so that what else the machine does is the same for all that is compared.
    """
    strategy, training = factory.parallel(experiment.config, _whole_devices()), experiment.training
    train_steps = strategy.map_training(
        state.make_train_steps(make_step(experiment, strategy), training.steps_per_call)
    )
    current, taken, step = initial_state(experiment, None, strategy), None, 0

    def batches(n):
        nonlocal taken
        taken = take_batches(iterator, n, training.steps_per_call)
        return strategy.shard(taken, axis=1)

    def bare():
        nonlocal current
        for n in _calls(experiment, 0, training.log_every):
            current, _ = train_steps(current, batches(n), np.int32(n))
        return current.step

    def watched():
        nonlocal current, step
        for n in _calls(experiment, 0, training.log_every):
            with monitor.waiting_for_data():
                ready = batches(n)
            current, metrics = train_steps(current, ready, np.int32(n))
            step += n
            monitor.watch(step, n, metrics)
        monitor.catch_up()
        return current.step

    def saved():
        """A checkpoint, the steps beside which it is written, and the wait for it if they are over before."""
        with monitor.saving():
            checkpoints.save(strategy.whole(current), iterator)
        for _ in range(BESIDE_WRITING):
            watched()
        checkpoints.wait()
        return current.step

    turns = []
    with (
        Checkpoints(workdir.checkpoints, training.keep_checkpoints) as checkpoints,
        History(workdir, experiment.config, 0) as history,
        Monitor(experiment, 0, history, checkpoints, lambda: step_flops(experiment, taken)) as monitor,
    ):
        watched()  # compiles
        saved()
        while len(turns) < TURNS:
            pairs = [(seconds(bare), seconds(watched)) for _ in range(PAIRS)]
            alone, logged = (median(times) for times in zip(*pairs, strict=True))
            turns.append(_Turn(alone, logged - alone, seconds(saved) - BESIDE_WRITING * logged))
    return turns


def _whole_devices() -> list[jax.Device]:
    """All devices there are; of those that are parts of one processor, which training has whole, the first."""
    return jax.devices()[:1] if jax.default_backend() == "cpu" else jax.devices()


def _calls(experiment: Experiment, step: int, end: int) -> Iterator[int]:
    """The steps of each call that training makes between two steps."""
    while step < end:
        n = min(steps_of_next_call(experiment, step), end - step)
        yield n
        step += n
