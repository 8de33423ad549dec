"""How many bytes the devices exchange in a training step, read from the compiled program.

Of n devices in a ring, each sends and receives for an array of S bytes

    all-gather       (n - 1) / n S    S is the result, each device has S / n of it
    reduce-scatter   (n - 1) / n S    S is what is summed, each device keeps S / n of it
    all-reduce     2 (n - 1) / n S    the one, then the other
    all-to-all       (n - 1) / n S
    collective-permute, collective-broadcast: S

which for an all-reduce no algorithm can be below. So a step that averages the gradients of P bytes of parameters, or
gathers the parameters and scatters the gradients, moves at least 2 (n - 1) / n P through each device.

Sources: Patarasuk and Yuan (2009), https://doi.org/10.1016/j.jpdc.2008.09.002, for the bound;
https://openxla.org/xla/operation_semantics for the operations.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator

import jax
import numpy as np

from experiments.devices.parallel import Strategy
from experiments.factory.experiment import Experiment
from experiments.training.train import abstract_state, make_step

KINDS = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute",
    "collective-broadcast",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Traffic:
    """What one device exchanges in one training step.

    Attributes:
        bytes: by kind of collective, sent (and as many received).
        bound: the least that any data-parallel step exchanges: 2 (n - 1) / n times the bytes of the parameters.
    """

    bytes: dict[str, float]
    bound: float

    @property
    def total(self) -> float:
        """The bytes of all kinds."""
        return sum(self.bytes.values())


def compiled_step(experiment: Experiment, strategy: Strategy) -> jax.stages.Compiled:
    """One training step of an experiment, (state, batch, 1) -> (state, metrics), compiled for a strategy's devices."""
    step = make_step(experiment, strategy)
    program = strategy.map_training(lambda state, batch, n: step(state, batch))
    state = strategy.layout(abstract_state(experiment))
    rows = len(range(experiment.data.batch_size)[strategy.rows(experiment.data.batch_size)])
    batch = {
        "image": np.zeros((rows, *experiment.medium.event_shape), np.uint8),
        "label": np.zeros(rows, np.int32),
    }
    return program.lower(state, strategy.shard(batch), np.int32(1)).compile()


def of_training(experiment: Experiment, strategy: Strategy, compiled: jax.stages.Compiled) -> Traffic:
    """Reads the traffic of a training step, made by `compiled_step`."""
    n = strategy.num_devices
    parameters = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(abstract_state(experiment).params))
    return Traffic(bytes_exchanged(compiled.as_text()), 2 * (n - 1) / n * parameters)


def bytes_exchanged(text: str) -> dict[str, float]:
    """The bytes that each device sends in one call of a compiled program, by kind of collective.

    Args:
        text: the program, `jax.jit(f).lower(...).compile().as_text()`. Loops count as often as they are known to run.

    Raises:
        ValueError: a loop of unknown length has collectives.
    """
    computations, devices = _computations(text), _devices(text)
    totals = Counter()
    for line, times in _executed(computations, next(name for name in computations if name.startswith("ENTRY "))):
        found = _collective(line, devices)
        if found:
            if times is None:
                raise ValueError(f"a loop of unknown length has a collective: {line.strip()[:120]}")
            totals[found[0]] += times * found[1]
    return dict(totals)


def _computations(text: str) -> dict[str, list[str]]:
    """The lines of each computation by its name; the entry's has "ENTRY " before it."""
    computations: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        opened = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
        if opened:
            current = computations.setdefault((opened[1] or "") + opened[2], [])
        else:
            current.append(line)
    return computations


def _devices(text: str) -> int:
    header = text.split("\n", 1)[0]
    counts = re.findall(r"(?:num_partitions|replica_count)=(\d+)", header)
    return math.prod(map(int, counts))


def _executed(computations: dict[str, list[str]], name: str, times: int | None = 1) -> Iterator[tuple[str, int | None]]:
    """Each instruction of a computation and of those it calls, with how often it runs; None is unknown."""
    for line in computations[name]:
        yield line, times
        inner = times
        if re.search(r"\bwhile\(", line):
            trips = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', line)
            inner = times * int(trips[1]) if trips and times is not None else None
        for called in re.findall(r"(?:calls|body|to_apply|true_computation|false_computation)=%?([\w.\-]+)", line):
            if called in computations:
                yield from _executed(computations, called, inner)
        for branches in re.findall(r"branch_computations=\{([^}]*)\}", line):
            for called in branches.replace("%", "").split(", "):
                yield from _executed(computations, called, inner)


def _collective(line: str, devices: int) -> tuple[str, float] | None:
    """The kind and the bytes per device of an instruction, if it is a collective."""
    match = re.search(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(", line)
    if not match:
        return None
    kind, started, n = match[2], match[3], _group_size(line, devices)
    if kind.endswith("permute"):
        # A start's value is what goes in, what comes out, and perhaps two numbers of its context.
        return kind, _size(match[1].replace("u32[]", "")) / 2 if started else _size(match[1])
    size = _size(match[1])
    if kind == "all-reduce":
        return kind, 2 * (n - 1) / n * size
    if kind in ("all-gather", "reduce-scatter"):
        if started:  # its value is what goes in and what comes out, of which one is n times the other
            return kind, (n - 1) / (n + 1) * size
        return kind, (n - 1) / n * size if kind == "all-gather" else (n - 1) * size
    return kind, (n - 1) / n * size if kind.endswith("all-to-all") else size


def _size(shape: str) -> int:
    """The bytes of `f32[8,16]{1,0}` or of a tuple of such."""
    total = 0
    for name, dimensions in re.findall(r"\b([a-z]+\d*\w*)\[([\d,]*)\]", shape):
        bits = 8 if name == "pred" else int(re.search(r"\d+", name)[0])
        total += math.prod(int(d) for d in dimensions.split(",") if d) * bits // 8
    return total


def _group_size(line: str, devices: int) -> int:
    """How many devices take part with one: replica groups as a list, as an iota or as axes of a mesh; by default all."""
    if match := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return match[1].count(",") + 1
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(match[1])
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", match[2]))
    return devices
