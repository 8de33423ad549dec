"""Restore tasks and posterior methods by name: their options, settings and noise, checked before anything slow is loaded.

The records are in `tasks/` and `methods/`, a file for each; an import path names a `Task` or `Method` of the user.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.config.components import component, has_module, is_path
from experiments.config.ranges import Range
from experiments.errors import UserError, nearest, unknown_name
from experiments.inverse.methods import METHODS
from experiments.inverse.records import FILE, NEEDS, NOISE_OF_METHODS, Method, Task
from experiments.inverse.request import Request
from experiments.inverse.tasks import TASKS

__all__ = ["FILE", "METHODS", "TASKS", "Method", "Restoration", "Task"]

NOISES = ("gaussian", "poisson")
MOST_NOISE = 1000.0  # standard deviation; images lie in [-1, 1]
PEAKS = 1e-3, 1e8  # expected counts of a white pixel; samples of larger ones exceed int32


@dataclass(frozen=True, kw_only=True)
class Restoration(Request):
    """What `restore` is asked.

    Attributes:
        task: its name.
        peak: of Poisson noise, in place of Gaussian; None for Gaussian.
    """

    task: str
    peak: float | None


def task_of(name: str) -> Task:
    """Returns the task of a name, or the `Task` of the user at an import path.

    Raises:
        UserError: there is no such task, or the object at the import path is none.
    """
    found = component("--task", name, TASKS)
    missing = [part.name for part in dataclasses.fields(Task) if not hasattr(found, part.name)]
    std = getattr(found, "noise", None)
    if not missing and (not isinstance(std, int | float) or not 0 <= std <= MOST_NOISE):
        raise UserError(f"--task={name}: its noise is {std!r}; a standard deviation of at least 0 is needed")
    if missing or (is_path(name) and _fault_of_task(found)):
        what = f"{type(found).__name__} has no {missing[0]}" if missing else _fault_of_task(found)
        raise UserError(
            f"--task={name}: {what}; a task is an experiments.inverse.records.Task whose make(shape, options) returns a "
            "Measurement"
        )
    return found


def _fault_of_task(found: Task) -> str:
    """What is wrong with the parts of a task of the user; an empty text for nothing."""
    for part in ("flags", "choices", "help", "baselines", "kinds", "cases"):
        if not isinstance(getattr(found, part), Mapping):
            return f"its {part} is a {type(getattr(found, part)).__name__}, no dict"
    return "" if callable(found.make) else "its make is no function"


def task(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a task: its defaults, and over them the flags that were given.

    Args:
        name: of the task.
        given: the flags of tasks on the command line, without those left out.

    Raises:
        UserError: there is no such task, a choice is unknown, or a flag would do nothing.
    """
    spec = task_of(name)
    options = {**spec.flags, **given}
    conditional = {flag for choices in spec.choices.values() for uses in choices.values() for flag in uses}
    used, because = set(spec.flags) - conditional, ""
    for flag, choices in spec.choices.items():
        choice = options[flag]
        key = choice if choice in choices else FILE
        if key not in choices or (key == FILE and "." not in choice):
            raise unknown_name(f"--{flag}", choice, choices)
        used |= set(choices[key])
        because += f" --{flag}={choice}"
    for flag in given:
        if flag not in used:
            allowed = ", ".join(f"--{name}" for name in spec.flags if name in used) or "no flags of its own"
            raise UserError(f"--{flag}={given[flag]} does nothing for --task={name}{because}, which uses {allowed}")
    return {flag: value for flag, value in options.items() if flag in used}


def method_of(name: str, flag: str = "--method") -> Method:
    """Returns the method of a name, or the `Method` of the user at an import path.

    Args:
        name: of the method.
        flag: that it was given to, for messages.

    Raises:
        UserError: there is no such method, or the object at the import path lacks a part.
    """
    found = component(flag, name, METHODS)
    if name in METHODS:
        return found
    missing = [part.name for part in dataclasses.fields(Method) if not hasattr(found, part.name)]
    what = f"{type(found).__name__} has no {missing[0]}" if missing else _fault(found)
    if what:
        raise UserError(
            f"{flag}={name}: {what}; a method is an experiments.inverse.records.Method with posterior(prior, "
            "measurement, y, noise, settings) -> Denoiser or steps(measurement, y, noise, settings) -> Sampler"
        )
    return found


def _fault(method: Method) -> str:
    """What is wrong with the parts of a method of the user; an empty text for nothing."""
    if not any(callable(part) for part in (method.posterior, method.steps)):
        return "its posterior and its steps are no functions"
    for part, allowed in (("noise", NOISE_OF_METHODS), ("asks", NEEDS)):
        if getattr(method, part) not in allowed:
            return f"its {part} is {getattr(method, part)!r}, none of {', '.join(allowed)}"
    from configs import base

    known = base.get_config().sampling
    for key in method.sampling:
        if key not in known:
            return f"its sampling has {key!r}, which is no key of config.sampling{nearest(key, known)}"
    for setting, value in method.settings.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"its setting {setting} is {value!r}, no number"
    return ""


def method(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the settings of NAME or NAME:SETTING=VALUE,SETTING=VALUE; NAME is perhaps an import path.

    Raises:
        UserError: there is no such method or setting, or a value is of another kind or out of its range.
    """
    name, _, rest = text.partition(":")
    attribute, _, settings = rest.partition(":")
    path = is_path(f"{name}:{attribute}") and (has_module(name) or not nearest(name, METHODS))
    if name not in METHODS and path:
        name, rest = f"{name}:{attribute}", settings
    found = method_of(name)
    return name, _settings("--method", text, name, rest, found.settings, found.ranges)


def named_settings(flag: str, text: str, known: Mapping[str, Mapping[str, Any]]) -> tuple[str, dict[str, Any]]:
    """The name and the settings of NAME or NAME:SETTING=VALUE,SETTING=VALUE; NAME is perhaps the import path of a method.

    Args:
        flag: that the text was given to, for messages.
        text: of the user.
        known: names, most of them of methods that work on masks, and the settings of each with their defaults.

    Raises:
        UserError: there is no such name or setting, a value is of another kind or out of its range, or the method of the
            user does not work on masks.
    """
    name, _, rest = text.partition(":")
    attribute, _, settings = rest.partition(":")
    path = f"{name}:{attribute}"
    if name not in known and is_path(path) and has_module(name):
        found = method_of(path, flag)
        if not (found.masks and callable(found.posterior)):
            raise UserError(
                f"{flag}={path}: a method with a posterior that works without noise is needed; such a one has masks=True"
            )
        return path, _settings(flag, text, path, settings, found.settings, found.ranges)
    if name not in known:
        raise unknown_name(flag, name, known)
    return name, _settings(flag, text, name, rest, known[name], METHODS[name].ranges)


def _settings(
    flag: str, text: str, name: str, rest: str, defaults: Mapping[str, Any], ranges: Mapping[str, Range]
) -> dict[str, Any]:
    """The settings SETTING=VALUE,SETTING=VALUE of a method over their defaults."""
    settings = dict(defaults)
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if key not in settings or not equals:
            known = ", ".join(f"{key}={value}" for key, value in settings.items()) or "none"
            raise UserError(
                f"{flag}={text}: {part!r} is no setting of {name}, which are {known}{nearest(key, settings)}"
            )
        try:
            settings[key] = type(settings[key])(value)
        except ValueError:
            kind = "a whole number" if type(settings[key]) is int else "a number"
            raise UserError(f"{flag}={text}: {key} must be {kind}, such as {settings[key]}") from None
        if key in ranges and not ranges[key].allows(settings[key]):
            raise UserError(f"{flag}={text}: {key} must {ranges[key].demand(settings[key])}")
    return settings


def check_overrides(name: str, overrides: list[tuple[str, str]]) -> None:
    """Makes sure that no (key, text) pair of the config does nothing for the method of that name.

    Raises:
        UserError: one does.
    """
    for key, text in overrides:
        if key in ("sampling.sampler", "sampling.evaluations") and method_of(name).own_steps:
            raise UserError(f"--config.{key}={text} does nothing: --method={name} brings its own steps")


def check_std(std: float) -> None:
    """Makes sure that --noise is a standard deviation that float32 can restore from.

    Raises:
        UserError: it is negative, above `MOST_NOISE`, or no number.
    """
    if not 0 <= std <= MOST_NOISE:
        raise UserError(f"--noise={std}: must be at least 0 and at most {MOST_NOISE:g}; black to white is 2")


def noise(
    name: str, method_name: str, std: float | None, kind: str, peak: float | None, *, given: bool
) -> tuple[float, float | None]:
    """The standard deviation of Gaussian noise and the peak of Poisson noise, one of which counts.

    Args:
        name: of the task.
        method_name: of the method.
        std, kind, peak: --noise, --noise_kind and --peak, None where they are left out.
        given: whether the measurements are given, so that only the method has a use for the noise.

    Raises:
        UserError: they do not go together, or would do nothing.
    """
    if kind not in NOISES:
        raise unknown_name("--noise_kind", kind, NOISES)
    unused = method_of(method_name).noise in ("none", "not asked")
    if given and unused and (std is not None or kind != "gaussian"):
        what = f"--noise={std}" if std is not None else f"--noise_kind={kind}"
        raise UserError(f"{what} does nothing: --method={method_name} does not ask for the noise of --input")
    if kind == "gaussian":
        if peak is not None:
            raise UserError(f"--peak={peak} does nothing without --noise_kind=poisson")
        if std is not None:
            check_std(std)
        return (0.0 if method_of(method_name).noise == "none" else task_of(name).noise) if std is None else std, None
    if std is not None:
        raise UserError(f"--noise={std} does nothing with --noise_kind=poisson, which --peak sets")
    if peak is None:
        raise UserError("--noise_kind=poisson needs --peak, the expected count of a white pixel, such as --peak=100")
    if not PEAKS[0] <= peak <= PEAKS[1]:
        raise UserError(
            f"--peak={peak}: must be at least {PEAKS[0]:g} and at most {PEAKS[1]:g}, the expected count of a white pixel"
        )
    if not task_of(name).image:
        raise UserError(f"--noise_kind=poisson: counts are of light, but --task={name} measures no image")
    return 0.0, peak


def flags() -> list[str]:
    """The flags of all tasks."""
    return list(dict.fromkeys(flag for spec in TASKS.values() for flag in spec.flags))


def choices(flag: str, tasks: Mapping[str, Task] = TASKS) -> list[str]:
    """What a flag of the tasks may choose."""
    found = (spec.choices[flag] for spec in tasks.values() if flag in spec.choices)
    return list(dict.fromkeys(choice for choices in found for choice in choices))


def kind(flag: str, tasks: Mapping[str, Task] = TASKS) -> Any:
    """The type of a flag of the tasks: as of `Task.kinds`, or the type of its default."""
    spec = next(spec for spec in tasks.values() if flag in spec.flags)
    default = spec.flags[flag]
    return spec.kinds.get(flag, str if default is None else type(default))


def meaning(flag: str, tasks: Mapping[str, Task] = TASKS) -> str:
    """The text of --help on a flag of the tasks: "TASK, TASK: meaning (default VALUE, VALUE)"."""
    users: dict[str, list[str]] = {}
    defaults: dict[str, list[str]] = {}
    for name, spec in tasks.items():
        if flag in spec.flags:
            text, value = spec.help.get(flag, ""), spec.flags[flag]
            users.setdefault(text, []).append(f"{name}{_condition(flag, spec)}")
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            defaults.setdefault(text, []).extend([] if value is None else [shown])
    found = []
    for text, names in users.items():
        shown = ", ".join(dict.fromkeys(defaults[text]))
        default = f" (default {shown})" if shown and "default" not in text else ""
        text = text.replace("{choices}", ", ".join(choices(flag, tasks)))
        found.append(f"{', '.join(names)}: {text}{default}")
    return "; ".join(found)


def meanings(task: Task) -> dict[str, str]:
    """The meanings of the flags of one task."""
    listed = {flag: ", ".join(choices(flag, {"": task})) for flag in task.flags}
    return {flag: text.replace("{choices}", listed[flag]) for flag, text in task.help.items() if flag in listed}


def _condition(flag: str, spec: Task) -> str:
    """ " --mask=random" for a flag that this choice of the task alone uses."""
    uses = [(by, choice) for by, made in spec.choices.items() for choice, used in made.items() if flag in used]
    return f" --{uses[0][0]}={uses[0][1]}" if len(uses) == 1 else ""


def table(entries: Mapping[str, Task | Method]) -> str:
    """Names and summaries, a line each, for --help."""
    width = max(map(len, entries)) + 2
    return "\n".join(f"  {name:{width}}{entry.summary}" for name, entry in entries.items())
