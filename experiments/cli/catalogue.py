"""Catalogue of the components that a config or a flag names: one entry each, made of the component itself.

Summaries and sources are those of the docstrings and records, options those of the class, function or record, and the
keys of the config that an entry reads are recorded while it is built from the defaults.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import models
from configs import base
from experiments.config import components, files, named
from experiments.config.choices import choose
from experiments.data import sources
from experiments.errors import UserError, unknown_name
from experiments.factory import conditions, losses, media, model, optimization, sampling
from experiments.inverse import problems
from experiments.metrics import records


@dataclass(frozen=True)
class Entry:
    """One component.

    Attributes:
        name: that the key or flag takes.
        options: its dotted keys of the config, flags or settings, with the defaults.
        made: its class, function or record.
        text: explanation; empty for the docstring of `made`.
        form: value of the key or flag, such as npz:PATH; empty for the name.
        meanings: of options.
    """

    name: str
    options: Mapping[str, Any]
    made: Any
    text: str = ""
    form: str = ""
    meanings: Mapping[str, str] = field(default_factory=dict)

    @property
    def document(self) -> str:
        """The explanation; a class without a docstring of its own has none."""
        own = vars(self.made).get("__doc__") or "" if inspect.isclass(self.made) else "-"
        made_by_dataclass = own.startswith(f"{getattr(self.made, '__name__', '')}(")
        return self.text or (inspect.getdoc(self.made) if own and not made_by_dataclass else "") or "no docstring"

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return self.document.partition("\n")[0]


@dataclass(frozen=True)
class Kind:
    """Components of one kind.

    Attributes:
        key: key of the config or flag that names one; empty for a kind whose components are chosen by their options.
        entries: makes them.
        own: makes the entry of a component of the user, of its import path; None where the key takes names alone.
        form: arguments of the command line that name a component `{name}`.
        option: arguments of the command line that set `{key}` of the options of `{name}` to `{value}`.
    """

    key: str
    entries: Callable[[], Iterator[Entry]]
    own: Callable[[str], Entry] | None = None
    form: str = ""
    option: str = "--config.{key}={value}"

    @classmethod
    def of_config(cls, key: str, entries: Callable[[], Iterator[Entry]], takes_paths: bool = False) -> "Kind":
        """Components that a key of the config names, and by import path too if `takes_paths`."""
        return cls(key, entries, partial(_own, key) if takes_paths else None, f"--config.{key}={{name}}")

    def usage(self, name: str) -> str:
        """Returns the arguments that name a component; an empty text where options choose it."""
        return self.form.format(name=name)

    def arguments(self, entry: Entry) -> Iterator[tuple[str, str]]:
        """Arguments that set the options of an entry to their defaults, and the meanings of the options.

        Options whose default depends on the data are left out.
        """
        for key, value in entry.options.items():
            if value is None:  # depends on the data
                continue
            shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
            yield self.option.format(name=entry.name, key=key, value=shown), entry.meanings.get(key, "")


def _own(key: str, path: str) -> Entry:
    """The entry of a component of the user, with its options as keys of the section."""
    made, section = components.load(key, path), key.rpartition(".")[0]
    return Entry(path, {f"{section}.{name}": value for name, value in components.options(made).items()}, made)


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
        found: dict[str, Any] = {}
        recorder = _Recorder(config[section] if section else config, f"{section}." if section else "", found)
        yield Entry(name, found, type(make(recorder)))


def _extended(key: str) -> Iterator[Entry]:
    """Entries of a key of `named.EXTENDED`; where the section has an option for several components, with that default."""
    section = key.rpartition(".")[0]
    defaults = dict(files.leaves(base.get_config()))
    for name, made in named.table(key).items():
        options = {f"{section}.{option}": value for option, value in named.options(key, name).items()}
        yield Entry(name, {option: defaults.get(option, value) for option, value in options.items()}, made)


def _samplers() -> Iterator[Entry]:
    section = base.get_config().sampling
    langevin = [*sampling.keys("langevin").values()]
    for name, made in named.SAMPLERS.items():
        own = named.options("sampling.sampler", name)
        keys = ["predictor", *langevin] if name == "predictor_corrector" else sampling.keys(name).values()
        options = {f"sampling.{key}": section[key] if key in section else own[key] for key in keys}
        yield Entry(name, options, made)


def _networks() -> Iterator[Entry]:
    for name in sorted(models.KNOWN):
        yield Entry(name, {f"model.{key}": value for key, value in models.options(name).items()}, models.KNOWN[name])


def _grids() -> Iterator[Entry]:
    for name, (made, keys) in sampling.TIME_GRIDS.items():
        yield Entry(name, {f"sampling.{key}": base.get_config().sampling[key] for key in ("steps", *keys)}, made)


def _optimizers() -> Iterator[Entry]:
    for name in optimization.OPTIMIZERS:
        made = getattr(optimization.optimizers, name)
        yield Entry(
            name, {f"optim.{key}": value for key, value in base.get_config().optim.items() if key != "name"}, made
        )


def _conditions() -> Iterator[Entry]:
    config = base.get_config()
    for name, record in conditions.CONDITIONS.items():
        section = config.condition.get(name, {})
        yield Entry(
            name,
            {f"model.{record.option}": config.model[record.option]}
            | {f"condition.{name}.{key}": value for key, value in section.items()},
            record,
        )


def _keys(names: Iterable[str]) -> dict[str, Any]:
    """Those of the names that are keys of `data`, with their defaults."""
    section = base.get_config().data
    return {f"data.{name}": section[name] for name in names if name in section}


def _media() -> Iterator[Entry]:
    for name, made in media.MEDIA.items():
        yield Entry(name, _keys(made.keys), made.medium)


def _sources() -> Iterator[Entry]:
    keys = _keys(field.name for field in dataclasses.fields(sources.Wanted))
    for name, (load, form) in sources.KINDS.items():
        yield Entry(name, keys, load, form=form)


def _metric(name: str) -> Entry:
    (made,) = records.load(name, [])
    return Entry(
        name, {}, made, f"{made.title}: {made.described['meaning']}\n\n{inspect.getdoc(made.compute) or ''}".strip()
    )


def _text(made: problems.Task | problems.Method) -> str:
    return f"{made.summary}\n\n{made.document}".strip()


def _task(name: str) -> Entry:
    made = problems.task_of(name)
    return Entry(name, made.flags, made, _text(made), meanings=problems.meanings(made))


def _method(name: str) -> Entry:
    made = problems.method_of(name)
    return Entry(name, made.settings, made, _text(made))


KINDS = {
    "process": Kind.of_config("sde.name", partial(_extended, "sde.name"), takes_paths=True),
    "network": Kind.of_config("model.name", _networks, takes_paths=True),
    "parameterization": Kind.of_config(
        "parameterization.name", lambda: _built(model.PARAMETERIZATIONS, "parameterization")
    ),
    "weighting": Kind.of_config("loss.weighting", lambda: _built(losses.WEIGHTINGS)),
    "times": Kind.of_config("loss.times", lambda: _built(losses.TIME_DISTRIBUTIONS, "loss")),
    "objective": Kind.of_config("objective.name", partial(_extended, "objective.name"), takes_paths=True),
    "sampler": Kind.of_config("sampling.sampler", _samplers, takes_paths=True),
    "grid": Kind.of_config("sampling.times", _grids),
    "guidance": Kind.of_config(
        "sampling.guidance.name", partial(_extended, "sampling.guidance.name"), takes_paths=True
    ),
    "optimizer": Kind.of_config("optim.name", _optimizers),
    "condition": Kind("", _conditions),
    "source": Kind.of_config("data.source", _sources, takes_paths=True),
    "medium": Kind.of_config("data.medium", _media),
    "metric": Kind(
        "evaluation.metrics",
        lambda: map(_metric, records.known()),
        _metric,
        "evaluate --config.evaluation.metrics={name}",
    ),
    "task": Kind("--task", lambda: map(_task, problems.TASKS), _task, "restore --task={name}", "--{key}={value}"),
    "method": Kind(
        "--method",
        lambda: map(_method, problems.METHODS),
        _method,
        "restore --method={name}",
        "--method={name}:{key}={value}",
    ),
}


def standard(kind_name: str) -> str:
    """Returns the name of a kind that is given by its name, by its key of the config or by the section: `process`, `sde`."""
    of_keys = {made.key: name for name, made in KINDS.items()}
    of_sections = {key.removesuffix(".name"): name for key, name in of_keys.items() if key.endswith(".name")}
    return kind_name if kind_name in KINDS else (of_keys | of_sections).get(kind_name, kind_name)


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
        UserError: there is no such kind or component; kinds that have one of this name are named.
    """
    chosen = kind(kind_name)
    found = {known.name: known for known in chosen.entries()}
    name = name if name in found or name.partition(":")[0] not in found else name.partition(":")[0]  # folder:DIR
    if name not in found and chosen.own is not None and components.is_path(name):
        return chosen.own(name)
    others = [
        other for other in KINDS if name not in found and name in (known.name for known in KINDS[other].entries())
    ]
    if others:
        raise UserError(f"there is no {kind_name} {name!r}; try `describe {others[0]} {name}`")
    return choose(chosen.key or kind_name, name, found)
