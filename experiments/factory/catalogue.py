"""Catalogue of the components that a config or a flag names: one entry each, made of the component itself.

Summaries and sources are those of the docstrings, options those of the class or function, and the keys of the config that
an entry reads are recorded while it is built from the defaults.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import models
from configs import base
from experiments.conditions import CONDITIONS
from experiments.config import components
from experiments.config.choices import choose
from experiments.errors import unknown_name
from experiments.factory import guidance, losses, model, optimization, sampling
from experiments.learning import optimizers
from experiments.objectives import OBJECTIVES


@dataclass(frozen=True)
class Entry:
    """One component.

    Attributes:
        name: that the key takes.
        options: dotted keys of the config that it reads, with the defaults.
        made: its class or function, whose docstring explains it.
    """

    name: str
    options: Mapping[str, Any]
    made: Any

    @property
    def document(self) -> str:
        """The docstring."""
        return inspect.getdoc(self.made) or ""

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return self.document.partition("\n")[0]


@dataclass(frozen=True)
class Kind:
    """Components of one kind.

    Attributes:
        key: of the config that names one; empty for a kind whose components are chosen by their options.
        entries: makes them.
        takes_paths: whether the key takes the import path of a component of the user too.
    """

    key: str
    entries: Callable[[], Iterator[Entry]]
    takes_paths: bool = False

    def usage(self, name: str) -> str:
        """Returns the flag that names a component; an empty text where options choose it."""
        return f"--config.{self.key}={name}" if self.key else ""


class _Recorder:
    """A config that records the dotted keys that are read."""

    def __init__(self, config: Any, prefix: str, found: dict[str, Any]):
        self._config, self._prefix, self._found = config, prefix, found

    def __getattr__(self, name: str) -> Any:
        value, key = self._config[name], f"{self._prefix}{name}"
        if hasattr(value, "items"):
            return _Recorder(value, f"{key}.", self._found)
        self._found[key] = value
        return value


def _built(table: Mapping[str, Callable[[Any], Any]], section: str = "") -> Iterator[Entry]:
    """Entries of a table of functions of the config or of a section, by what they build from the defaults."""
    for name, make in table.items():
        config = base.get_config()
        if name == "adaptive":
            config.sampling.steps = 2  # the only number that it takes
        found: dict[str, Any] = {}
        recorder = _Recorder(config[section] if section else config, f"{section}." if section else "", found)
        yield Entry(name, found, type(make(recorder)))


def _processes() -> Iterator[Entry]:
    keys = base.get_config().sde
    for name, process in model.PROCESSES.items():
        taken = [key for key in inspect.signature(process).parameters if key in keys]
        yield Entry(name, {f"sde.{key}": keys[key] for key in taken}, process)


def _networks() -> Iterator[Entry]:
    for name in sorted(models.KNOWN):
        yield Entry(name, {f"model.{key}": value for key, value in models.options(name).items()}, models.KNOWN[name])


def _objectives() -> Iterator[Entry]:
    for name, made in OBJECTIVES.items():
        yield Entry(name, {f"objective.{key}": value for key, value in components.options(made).items()}, made)


def _guidances() -> Iterator[Entry]:
    section = base.get_config().sampling.guidance
    for name, made in guidance.GUIDANCES.items():
        taken = {key: section[key] for key in components.options(made) if key in section}
        yield Entry(name, {f"sampling.guidance.{key}": value for key, value in taken.items()}, made)


def _optimizers() -> Iterator[Entry]:
    for name in optimization.OPTIMIZERS:
        made = getattr(optimizers, name)
        yield Entry(
            name, {f"optim.{key}": value for key, value in base.get_config().optim.items() if key != "name"}, made
        )


def _conditions() -> Iterator[Entry]:
    config = base.get_config()
    for name, record in CONDITIONS.items():
        section = config.condition.get(name, {})
        yield Entry(
            name,
            {f"model.{record.option}": config.model[record.option]}
            | {f"condition.{name}.{key}": value for key, value in section.items()},
            record,
        )


KINDS = {
    "process": Kind("sde.name", _processes, takes_paths=True),
    "network": Kind("model.name", _networks, takes_paths=True),
    "parameterization": Kind("parameterization.name", lambda: _built(model.PARAMETERIZATIONS, "parameterization")),
    "weighting": Kind("loss.weighting", lambda: _built(losses.WEIGHTINGS)),
    "times": Kind("loss.times", lambda: _built(losses.TIME_DISTRIBUTIONS, "loss")),
    "objective": Kind("objective.name", _objectives, takes_paths=True),
    "sampler": Kind("sampling.sampler", lambda: _built(sampling.SAMPLERS, "sampling"), takes_paths=True),
    "guidance": Kind("sampling.guidance.name", _guidances, takes_paths=True),
    "optimizer": Kind("optim.name", _optimizers),
    "condition": Kind("", _conditions),
}


def kind(name: str) -> Kind:
    """Returns the components of a kind.

    Raises:
        UserError: there is no such kind.
    """
    if name not in KINDS:
        raise unknown_name("KIND", name, KINDS)
    return KINDS[name]


def entry(kind_name: str, name: str) -> Entry:
    """Returns a component by its name, or by import path.

    Raises:
        UserError: there is no such kind or component.
    """
    chosen = kind(kind_name)
    found = {known.name: known for known in chosen.entries()}
    if name not in found and chosen.takes_paths and components.is_path(name):
        made, section = components.load(chosen.key, name), chosen.key.rpartition(".")[0]
        return Entry(name, {f"{section}.{key}": value for key, value in components.options(made).items()}, made)
    return choose(chosen.key or kind_name, name, found)
