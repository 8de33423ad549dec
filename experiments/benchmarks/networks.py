"""How large and how fast each family of networks is, beside the network of the same shape in diffusers.

For each case of `cases.py`, in float32 and without dropout: parameters, operations of a forward pass (`flops.py`), seconds
of a forward pass and of a training step (mean squared error, gradient, Adam), and the memory that training takes.

- Times: of compiled code, waited for. Ours and the peer's take turns in one process, and the ratio is the median of the
  ratios of neighbours, so that what else the machine does at that moment falls on both.
- Memory: the most that a process of its own held over a few training steps, less what it held once JAX, or torch and
  diffusers, were loaded. Ours takes its program from the compilation cache, so that the compiler's memory is not counted.
  Where JAX runs on another device, it is that device's.

Where torch and diffusers are not installed (the `interop` extra), or torch has not JAX's device, ours are measured alone.
"""

import importlib.metadata
import math
import multiprocessing
import os
import platform
import resource
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

import models
from experiments.benchmarks import torch_networks
from experiments.benchmarks.cases import CASES, Case
from experiments.errors import RunError
from experiments.training.flops import flops

# Seconds before each measurement, after which threads of the other library that wait for work by spinning have given up.
PAUSE = 0.05
ACCELERATOR_BATCH = 32  # times the batch of the CPU, so that the device has enough to do
ROUNDS = (3, 20)  # at least, at most
SECONDS = 8.0  # of rounds, after which none is begun


class Side(Protocol):
    """What is measured: ours, or the peer."""

    name: str

    @property
    def parameters(self) -> int:
        """How many weights there are."""

    def flops(self) -> int:
        """Of a forward pass of one input."""

    def forward(self) -> None:
        """A forward pass of the batch, to its end."""

    def step(self) -> None:
        """A training step on the batch, to its end."""


class Ours:
    """The network of a case, its weights random, with what is measured of it."""

    name = "ornstein"

    def __init__(self, case: Case):
        network = case.network()
        optimizer = optax.adam(1e-4)
        self._network = network
        self._inputs = _inputs(network, case.shape, case.batch)
        self._one = _inputs(network, case.shape, 1)
        self._shapes = jax.eval_shape(network.init, jax.random.key(0), *self._one)

        def step(state, inputs, target):
            params, opt_state = state
            gradient = jax.grad(lambda params: ((network.apply(params, *inputs, train=True) - target) ** 2).mean())(
                params
            )
            updates, opt_state = optimizer.update(gradient, opt_state)
            return optax.apply_updates(params, updates), opt_state

        self._initial = jax.jit(optimizer.init)
        self._forward = jax.jit(network.apply)
        self._step = jax.jit(step, donate_argnums=0)

    @property
    def parameters(self) -> int:
        """How many weights there are, with the frequencies of a Fourier embedding, which are not trained."""
        return sum(leaf.size for leaf in jax.tree.leaves(self._shapes))

    def flops(self) -> int:
        """Of a forward pass of one input."""
        return flops(self._network.apply, self._shapes, *self._one)

    @cached_property
    def _state(self):
        params = jax.tree_util.tree_map_with_path(_random, self._shapes)
        return params, self._initial(params)

    @cached_property
    def _target(self):
        return _random((), jax.eval_shape(self._network.apply, self._shapes, *self._inputs))

    def forward(self) -> None:
        """A forward pass of the batch, to its end."""
        jax.block_until_ready(self._forward(self._state[0], *self._inputs))

    def step(self) -> None:
        """A training step on the batch, to its end: mean squared error, gradient, Adam."""
        self._state = jax.block_until_ready(self._step(self._state, self._inputs, self._target))


def _inputs(network, shape, batch):
    condition = {"label": jnp.zeros(batch, jnp.int32)} if getattr(network, "num_classes", 0) else None
    if type(network) in models.CLASSIFIERS.values():
        condition = None
    return _random((), jax.ShapeDtypeStruct((batch, *shape), jnp.float32)), jnp.ones(batch), condition


def _random(path, leaf):
    """Normal numbers that keep the size of activations: zeros, as at initialization, could be skipped."""
    rng = np.random.default_rng(zlib.crc32(str(path).encode()))
    fan_in = math.prod(leaf.shape[:-1]) if path else 1
    return jnp.asarray(rng.standard_normal(leaf.shape, np.float32) / math.sqrt(fan_in))


@dataclass(frozen=True)
class Figures:
    """What was measured of one side: seconds and bytes, and operations of one input."""

    name: str
    parameters: int
    flops: int
    forward: tuple[float, ...]
    step: tuple[float, ...]
    memory: int = 0


@dataclass(frozen=True)
class Row:
    """A case with the figures of ours and, where there is one, of the peer."""

    case: Case
    ours: Figures
    peer: Figures | None = None


# ---- What runs in a process of its own ----


def _sides(case: Case, beside: bool) -> list[Side]:
    return [Ours(case), *([_peer(case)] if beside else [])]


def _peer(case: Case) -> Side:
    device = torch_networks.DEVICES[jax.default_backend()]
    return torch_networks.Peer(case.peer, case.network(), case.shape, case.batch, threads(), device)


def threads() -> int:
    """The processors that this process may use: JAX takes them all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _times(case: Case, beside: bool) -> list[Figures]:
    """All figures but the memory, ours first."""
    sides = _sides(case, beside)
    forward = _rounds([side.forward for side in sides])
    step = _rounds([side.step for side in sides])
    return [Figures(side.name, side.parameters, side.flops(), forward[i], step[i]) for i, side in enumerate(sides)]


def _rounds(functions: list[Callable[[], None]]) -> list[tuple[float, ...]]:
    """Seconds of each function in each round, after two that do not count."""
    for function in functions * 2:
        function()
    rounds, end = [], time.perf_counter() + SECONDS
    while len(rounds) < ROUNDS[0] or (len(rounds) < ROUNDS[1] and time.perf_counter() < end):
        rounds.append([_seconds(function) for function in functions])
    return list(zip(*rounds, strict=True))


def _seconds(function):
    time.sleep(PAUSE)
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _memory(case: Case, ours: bool) -> int:
    """Bytes that three training steps take at most."""
    if ours:
        jax.block_until_ready(jnp.zeros(1) + 1)
    else:
        import diffusers  # noqa: F401
        import torch

        torch.zeros(1)
    before = _peak()
    side = Ours(case) if ours else _peer(case)
    for _ in range(3):
        side.step()
    on_device = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use") if ours else side.memory
    return _peak() - before if on_device is None else on_device


def _peak() -> int:
    """The most bytes that this process has held. Linux adds to `ru_maxrss` what the parent held before the start."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _device() -> tuple[str, str]:
    """The platform that JAX runs on, and the name of its first device."""
    return jax.default_backend(), jax.local_devices()[0].device_kind


def _call(sender: Connection, cache: str | None, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    if cache:
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    sender.send(function(*arguments))


# ---- The suite ----


def _alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's result, from a process of its own. Raises EOFError where that ends without one."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    cache = jax.config.jax_compilation_cache_dir
    process = context.Process(target=_call, args=(sender, cache, function, arguments), daemon=True)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    finally:  # also where the user interrupts
        process.kill()
        process.join()


def families() -> list[str]:
    """The names that `benchmark` knows."""
    return list(dict.fromkeys(case.family for case in CASES))


class Suite:
    """The measurements on this machine.

    Args:
        names: of the families; all by default.
    """

    def __init__(self, names: list[str] | None = None):
        self._platform, self._kind = _alone(_device)
        factor = 1 if self._platform == "cpu" else ACCELERATOR_BATCH
        chosen = [case for case in CASES if names is None or case.family in names]
        self.cases = [replace(case, batch=factor * case.batch) for case in chosen]
        self._beside = _alone(torch_networks.runs_on, self._platform)

    def rows(self) -> Iterator[Row]:
        """One for each case, as it is measured. Raises RunError where a process is ended from outside."""
        progress = tqdm(self.cases, unit="network")
        for case in progress:
            progress.set_description(case.family)
            try:
                yield self._row(case)
            except EOFError:
                raise RunError(
                    f"{case.family} ({case.what}): the process that measured it ended early, likely for want of memory"
                ) from None

    def _row(self, case: Case) -> Row:
        beside = self._beside and bool(case.peer)
        figures = _alone(_times, case, beside)
        memory = [_alone(_memory, case, ours) for ours in (True, False)[: len(figures)]]
        return Row(case, *(Figures(**(vars(f) | {"memory": m})) for f, m in zip(figures, memory, strict=True)))

    def heading(self) -> str:
        """What was measured with what, and the table's head."""
        version = importlib.metadata.version
        lines = [
            f"JAX {version('jax')} on {self._platform} ({self._kind}, {platform.machine()}), {threads()} threads; "
            "float32"
            + (", no dropout." if self._platform == "cpu" else " (products at each library's TF32), no dropout.")
        ]
        if self._beside:
            lines.append(
                f"Beside it diffusers {version('diffusers')} on torch {version('torch')}, eager, {threads()} threads: "
                "ours / the peer's (ratio; less than 1 is less than the peer)."
            )
        else:
            lines.append(
                "diffusers was not measured beside: it, or torch for this device, is not installed: "
                'pip install -e ".[interop]"'
            )
        columns = ("network", "of", "input", "batch", "peer", "parameters, M", "GFLOP per input", "forward, ms")
        columns += ("training step, ms", "memory of training, MiB")
        return "\n".join([*lines, "", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)])


def line(row: Row) -> str:
    """The table's line of a row."""
    case, ours, peer = row.case, row.ours, row.peer
    cells = [case.family, case.what, "x".join(map(str, case.shape)), case.batch, peer.name if peer else "-"]
    for key, unit in (("parameters", 1e6), ("flops", 1e9), ("forward", 1e-3), ("step", 1e-3), ("memory", 2**20)):
        mine, theirs = getattr(ours, key), getattr(peer, key, None)
        cells.append(_cell(mine, theirs, unit))
    return f"| {' | '.join(map(str, cells))} |"


def _cell(ours, theirs, unit):
    if theirs is None:
        return _number(np.median(ours) / unit)
    ratio = np.median(np.divide(ours, theirs))
    return f"{_number(np.median(ours) / unit)} / {_number(np.median(theirs) / unit)} ({ratio:.2f})"


def _number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}" if value else "0"
