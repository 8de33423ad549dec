"""Sweeps: one run for each combination of values, in folders of readable names below one.

`--sweep="optim.lr=1e-4,2e-4;sde=vp,ve"` is four runs, in `lr=1e-4,sde=vp` and so on; values with commas of their own stand
in brackets, as in `model.channel_multipliers=(1,2),(1,2,2)`. What stands before `=` is

- a key of the config, such as `optim.lr` or `sde.name`: as `--config.optim.lr=1e-4`, after the other overrides;
- `sde`, short for the process. Where the config file takes an argument (`configs/digits.py:ve`), it is the word of the
  argument that chooses the process, in the place of the one that is there: with it the file sets all that goes with a
  process (its t_min, the published loss, ...), which `sde.name` alone would leave as it was for another one. Where it
  takes none, it is `sde.name`;
- another section that has a `name`, such as `model` or `optim`: short for `model.name`.

Everything is checked before the first run starts. Each run is a process of its own, so that nothing of one is left for the
next; the same command goes on with what was interrupted and passes over what is complete.
"""

import dataclasses
import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from configs.parts.sde import PROCESSES
from experiments.config import files as config
from experiments.errors import UserError, unknown_name
from experiments.reports import compare
from experiments.runs.workdir import Workdir

Overrides = Sequence[tuple[str, str]]
PROCESS = "sde"  # the short name that may stand for a word of the config's argument


@dataclasses.dataclass(frozen=True)
class Child:
    """One run of a sweep.

    Attributes:
        name: of its folder.
        spec: the config file, with its argument.
        overrides: (dotted key, text) of the values that this run has of its own.
    """

    name: str
    spec: str
    overrides: tuple[tuple[str, str], ...]


def parse(text: str) -> dict[str, list[str]]:
    """The values of each key, in the order of the text.

    Raises:
        UserError: the text is not `KEY=VALUE,VALUE;KEY=VALUE`, or a key or a value of one is there twice.
    """
    axes: dict[str, list[str]] = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        key, equals, values = part.partition("=")
        key, listed = key.strip().removeprefix("config."), _split(values)
        if not equals or not key or not all(listed):
            raise UserError(f'--sweep={part}: expected KEY=VALUE,VALUE, as in --sweep="optim.lr=1e-4,2e-4;sde=vp,ve"')
        if key in axes or len(set(listed)) < len(listed):
            raise UserError(f"--sweep={part}: {'the key' if key in axes else 'a value'} is there twice")
        axes[key] = listed
    if not axes:
        raise UserError('--sweep is empty: expected KEY=VALUE,VALUE, as in --sweep="optim.lr=1e-4,2e-4;sde=vp,ve"')
    return axes


def _split(text: str) -> list[str]:
    """The words between commas that stand in no brackets."""
    return [word.strip() for word in re.split(r",(?![^()\[\]]*[)\]])", text)]


def children(spec: str, overrides: Overrides, text: str) -> list[Child]:
    """The runs of a sweep; the last key's values follow each other first.

    Args:
        spec: `FILE` or `FILE:ARGUMENT`.
        overrides: that all runs have.
        text: of `--sweep`.

    Raises:
        UserError: a key does not exist, or a value is not of its type.
    """
    axes = parse(text)
    sections = {
        key.partition(".")[0] for key, _ in config.leaves(config.load(spec, overrides)) if key.endswith(".name")
    }
    short = _short_names(axes)
    if PROCESS in axes and "sde.name" in dict(overrides):
        raise UserError("--sweep: sde and --config.sde.name both say which process: take one of them")
    found = []
    for values in itertools.product(*axes.values()):
        chosen, of_its_own = spec, []
        for key, value in zip(axes, values, strict=True):
            if key == PROCESS and config.takes_argument(spec):
                chosen = _with_process(spec, value)
            else:
                of_its_own.append((f"{key}.name" if key in sections else key, value))
        pairs = zip(axes, values, strict=True)
        name = ",".join(
            f"{short[key]}={re.sub(r'[^A-Za-z0-9._+-]+', '-', value.strip('()[]'))}" for key, value in pairs
        )
        try:
            config.load(chosen, [*overrides, *of_its_own])
        except UserError as error:
            raise UserError(f"--sweep: {error}") from error
        found.append(Child(name, chosen, tuple(of_its_own)))
    names = [child.name for child in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"--sweep: two runs would have the folder {twice}: their values differ in signs alone")
    return found


def _short_names(axes: dict[str, list[str]]) -> dict[str, str]:
    """Each key's last word, or the whole key where two have the same."""
    last = [key.rpartition(".")[2] for key in axes]
    return {key: word if last.count(word) == 1 else key for key, word in zip(axes, last, strict=True)}


def _with_process(spec: str, process: str) -> str:
    """The config with another process in its argument, in the place of the one that is there, or as its first word."""
    if process not in PROCESSES:
        raise unknown_name("--sweep: sde", process, PROCESSES)
    path, _, argument = spec.partition(":")
    words = [word for word in argument.split(",") if word]
    place = next((i for i, word in enumerate(words) if word in PROCESSES), None)
    words = [process, *words] if place is None else [*words[:place], process, *words[place + 1 :]]
    return f"{path}:{','.join(words)}"


def arguments(child: Child, workdir: Path, passed: Sequence[str]) -> list[str]:
    """The arguments after `python -m experiments` that make one of the runs.

    Args:
        child: the run.
        workdir: of the sweep.
        passed: arguments that all runs have: overrides and flags of `train`.
    """
    own = [f"--config.{key}={value}" for key, value in child.overrides]
    return ["train", f"--config={child.spec}", f"--workdir={workdir / child.name}", *passed, *own]


def command(child: Child, workdir: Path, passed: Sequence[str]) -> str:
    """One line for a shell that makes one of the runs, to be run where this code base is."""
    return shlex.join(["python", "-m", "experiments", *arguments(child, workdir, passed)])


def is_complete(child: Child, workdir: Path, overrides: Overrides) -> bool:
    """Whether the run's folder holds this experiment, trained to its end and evaluated."""
    folder = Workdir(workdir / child.name)
    if not folder.config.is_file():
        return False
    wanted = config.load(child.spec, [*overrides, *child.overrides])
    same = not config.differences(folder.read_config(), wanted)
    return same and folder.is_evaluated(wanted.training.num_steps)


class Sweep:
    """Makes the runs one after the other, in this order.

    Args:
        runs: from `children`.
        workdir: the folder of their folders.
        overrides: that all have, for telling which are complete.
        passed: as of `arguments`.
    """

    def __init__(self, runs: Sequence[Child], workdir: Path, overrides: Overrides, passed: Sequence[str]):
        self._runs = list(runs)
        self._workdir = workdir
        self._overrides = overrides
        self._passed = list(passed)
        self._process: subprocess.Popen | None = None
        self._signal: signal.Signals | None = None

    def run(self) -> int:
        """Makes them all, says which failed, and writes `compare.html`; the exit code.

        A run that fails holds up no other; SIGTERM or Ctrl-C is handed to the one under way, and ends the sweep after it.
        """
        failed: dict[str, str] = {}
        handlers = {number: signal.signal(number, self._hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            for place, child in enumerate(self._runs, 1):
                title = f"[{place} of {len(self._runs)}] {child.name}"
                if is_complete(child, self._workdir, self._overrides):
                    print(f"{title}: complete already", flush=True)
                    continue
                print(title, flush=True)
                code, last = self._run_one(child)
                if self._signal is not None:
                    print(f"Interrupted by {self._signal.name} in {child.name}. Run the same command to go on.")
                    return code if self._signal is signal.SIGTERM else 128 + self._signal
                if code:
                    failed[child.name] = last or f"exit code {code}"
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        self._compare()
        print(f"{len(self._runs) - len(failed)} of {len(self._runs)} runs are complete.")
        for name, why in failed.items():
            print(f"failed: {name}: {why}", file=sys.stderr)
        return 1 if failed else 0

    def _hand_on(self, number: int, frame: object) -> None:
        self._signal = signal.Signals(number)
        if self._process is not None:
            self._process.send_signal(number)

    def _run_one(self, child: Child) -> tuple[int, str]:
        """The run's exit code, and the error that it said last."""
        texts = [sys.executable, "-m", "experiments", *arguments(child, self._workdir, self._passed)]
        # A group of its own: Ctrl-C in a terminal reaches this process alone, which hands it on once.
        self._process = subprocess.Popen(texts, stderr=subprocess.PIPE, start_new_session=True)
        if self._signal is not None:  # it came in between
            self._process.send_signal(self._signal)
        errors = _Echo(self._process.stderr.fileno())
        code, last = self._process.wait(), errors.last()
        self._process = None  # not before the pipe is read to its end: its file is closed with the process object
        return code, last

    def _compare(self) -> None:
        folders = [self._workdir / child.name for child in self._runs]
        there = [folder for folder in folders if Workdir(folder).config.is_file()]
        if there:
            compare.write(there, self._workdir / "compare.html")
            print(f"All in one page: {self._workdir / 'compare.html'}")


class _Echo:
    """Passes a pipe on to this process's standard error, and keeps its end."""

    def __init__(self, pipe: int):
        self._pipe, self._end = pipe, b""
        self._thread = threading.Thread(target=self._pass_on, daemon=True)
        self._thread.start()

    def _pass_on(self) -> None:
        while chunk := os.read(self._pipe, 4096):
            sys.stderr.write(chunk.decode(errors="replace"))
            sys.stderr.flush()
            self._end = (self._end + chunk)[-4096:]

    def last(self) -> str:
        """The last line that begins with `error: `, without that; empty if there is none."""
        self._thread.join(timeout=5)
        lines = re.split(r"[\r\n]", self._end.decode(errors="replace"))
        found = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return found[-1] if found else ""
