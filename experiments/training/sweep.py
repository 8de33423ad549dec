"""Sweeps: one run per combination of values, in subfolders with readable names.

`--sweep="optim.lr=1e-4,2e-4;sde=vp,ve"` makes four runs, in the folders `lr=1e-4,sde=vp` and so on. Values that contain
commas are written in brackets, as in `model.channel_multipliers=(1,2),(1,2,2)`. The text before `=` is one of:

- A key of the config, such as `optim.lr` or `sde.name`: equivalent to `--config.optim.lr=1e-4`, after the other
  overrides.
- `sde`: the process. If the config file takes an argument (`configs/digits.py:ve`), the value replaces the word of the
  argument that selects the process. The file then sets everything that depends on the process (t_min, the published
  loss, ...), which `sde.name` would leave unchanged. If the config file takes no argument, `sde` is `sde.name`.
- Another section with a key `name`, such as `model` or `optim`: short for `model.name`.

All configs are checked before the first run starts. Each run is a separate process, so runs share no state. The same
command continues interrupted runs and skips complete runs.
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
PROCESS = "sde"  # short name of the process, which may select a word of the config's argument


@dataclasses.dataclass(frozen=True)
class Child:
    """One run of a sweep.

    Attributes:
        name: name of the folder.
        spec: config file, with its argument.
        overrides: (dotted key, text) pairs of the swept values of this run.
    """

    name: str
    spec: str
    overrides: tuple[tuple[str, str], ...]


def parse(text: str) -> dict[str, list[str]]:
    """Returns the values by key, in the order of the text.

    Raises:
        UserError: the text is not `KEY=VALUE,VALUE;KEY=VALUE`, or a key or a value of a key is repeated.
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
    """Splits a text at commas outside of brackets."""
    return [word.strip() for word in re.split(r",(?![^()\[\]]*[)\]])", text)]


def children(spec: str, overrides: Overrides, text: str) -> list[Child]:
    """Returns the runs of a sweep; the values of the last key vary fastest.

    Args:
        spec: `FILE` or `FILE:ARGUMENT`.
        overrides: overrides of all runs.
        text: value of `--sweep`.

    Raises:
        UserError: the text is invalid, a key does not exist, a value has the wrong type, or two runs have the same
            folder.
    """
    axes = parse(text)
    sections = {
        key.partition(".")[0] for key, _ in config.leaves(config.load(spec, overrides)) if key.endswith(".name")
    }
    short = _short_names(axes)
    if PROCESS in axes and "sde.name" in dict(overrides):
        raise UserError("--sweep: sde and --config.sde.name both set the process: use only one of them")
    runs = []
    for values in itertools.product(*axes.values()):
        run_spec, own = spec, []
        for key, value in zip(axes, values, strict=True):
            if key == PROCESS and config.takes_argument(spec):
                run_spec = _with_process(spec, value)
            else:
                own.append((f"{key}.name" if key in sections else key, value))
        pairs = zip(axes, values, strict=True)
        name = ",".join(
            f"{short[key]}={re.sub(r'[^A-Za-z0-9._+-]+', '-', value.strip('()[]'))}" for key, value in pairs
        )
        try:
            config.load(run_spec, [*overrides, *own])
        except UserError as error:
            raise UserError(f"--sweep: {error}") from error
        runs.append(Child(name, run_spec, tuple(own)))
    names = [child.name for child in runs]
    if duplicate := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"--sweep: two runs would have the folder {duplicate}: their values differ only in punctuation")
    return runs


def _short_names(axes: dict[str, list[str]]) -> dict[str, str]:
    """Returns the last word of each key, or the full key if two keys have the same last word."""
    last = [key.rpartition(".")[2] for key in axes]
    return {key: word if last.count(word) == 1 else key for key, word in zip(axes, last, strict=True)}


def _with_process(spec: str, process: str) -> str:
    """Returns the spec with `process` in its argument: in place of the word for the process, else as the first word."""
    if process not in PROCESSES:
        raise unknown_name("--sweep: sde", process, PROCESSES)
    path, _, argument = spec.partition(":")
    words = [word for word in argument.split(",") if word]
    place = next((i for i, word in enumerate(words) if word in PROCESSES), None)
    words = [process, *words] if place is None else [*words[:place], process, *words[place + 1 :]]
    return f"{path}:{','.join(words)}"


def arguments(child: Child, workdir: Path, passed: Sequence[str]) -> list[str]:
    """Returns the arguments after `python -m experiments` of one run.

    Args:
        child: the run.
        workdir: folder of the sweep.
        passed: arguments of all runs: overrides and flags of `train`.
    """
    own = [f"--config.{key}={value}" for key, value in child.overrides]
    return ["train", f"--config={child.spec}", f"--workdir={workdir / child.name}", *passed, *own]


def command(child: Child, workdir: Path, passed: Sequence[str]) -> str:
    """Returns the shell command of one run, to be executed in the folder of this code base."""
    return shlex.join(["python", "-m", "experiments", *arguments(child, workdir, passed)])


def is_complete(child: Child, workdir: Path, overrides: Overrides) -> bool:
    """Returns True if the run's folder contains this experiment, completely trained and evaluated."""
    folder = Workdir(workdir / child.name)
    if not folder.config.is_file():
        return False
    expected = config.load(child.spec, [*overrides, *child.overrides])
    is_equal = not config.differences(folder.read_config(), expected)
    return is_equal and folder.is_evaluated(expected.training.num_steps)


class Sweep:
    """Executes runs one after another, in the given order.

    Args:
        runs: runs from `children`.
        workdir: folder of the sweep.
        overrides: overrides of all runs, to determine which runs are complete.
        passed: as in `arguments`.
    """

    def __init__(self, runs: Sequence[Child], workdir: Path, overrides: Overrides, passed: Sequence[str]):
        self._runs = list(runs)
        self._workdir = workdir
        self._overrides = overrides
        self._passed = list(passed)
        self._process: subprocess.Popen | None = None
        self._signal: signal.Signals | None = None

    def run(self) -> int:
        """Executes all runs, prints which failed, writes `compare.html`, and returns the exit code.

        The sweep continues after a failed run. SIGTERM and Ctrl-C are forwarded to the current run and end the sweep
        after it.
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
        """Executes a run; returns its exit code and its last error message."""
        texts = [sys.executable, "-m", "experiments", *arguments(child, self._workdir, self._passed)]
        # In a new session, Ctrl-C in a terminal reaches only this process, which forwards it once.
        self._process = subprocess.Popen(texts, stderr=subprocess.PIPE, start_new_session=True)
        if self._signal is not None:  # received before the process was started
            self._process.send_signal(self._signal)
        errors = _Echo(self._process.stderr.fileno())
        code, last = self._process.wait(), errors.last()
        self._process = None  # this closes the pipe, so it must follow the last read
        return code, last

    def _compare(self) -> None:
        folders = [self._workdir / child.name for child in self._runs]
        existing = [folder for folder in folders if Workdir(folder).config.is_file()]
        if existing:
            compare.write(existing, self._workdir / "compare.html")
            print(f"Comparison of all runs: {self._workdir / 'compare.html'}")


class _Echo:
    """Copies a pipe to this process's standard error, and keeps its last 4096 bytes."""

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
        """Returns the last line that begins with `error: `, without this prefix; empty if there is none."""
        self._thread.join(timeout=5)
        lines = re.split(r"[\r\n]", self._end.decode(errors="replace"))
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return errors[-1] if errors else ""
