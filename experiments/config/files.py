"""Config files: loading one with its argument, applying overrides, comparing and storing.

A config is a Python file with `get_config()`, or `get_config(argument)` for `--config=FILE:ARGUMENT`. It is trusted code:
it is run. A stored `config.json` is data.
"""

import ast
import difflib
import importlib.util
import inspect
import json
import math
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import models
from configs import base
from experiments.config import components, named, sizes
from experiments.errors import UserError, nearest


def load(spec: str, overrides: Iterable[tuple[str, str]] = ()) -> ConfigDict:
    """The config of `FILE` or `FILE:ARGUMENT`, with (dotted key, text) overrides applied in order.

    Raises:
        UserError: no such file, a wrong argument, an unknown key or a value of the wrong type.
    """
    path, _, argument = spec.partition(":")
    config = _run_file(Path(path), argument)
    _require_keys(path, config)
    for key in named.EXTENDED:
        _extend(config, key)
    return apply(complete(config), overrides)


def _require_keys(path: str, config: ConfigDict) -> None:
    """Makes sure that a config file has the keys of base.py, and of its network, and no others.

    Raises:
        UserError: a key is missing or unknown.
    """
    needed = dict(leaves(base.get_config()))
    for section in base.get_config():
        if not isinstance(config.get(section), ConfigDict):
            raise UserError(f"--config={path}: the section {section} is missing; start from configs.base.get_config()")
    name = config.model.get("name")
    known = {key for key in needed if not key.startswith("model.")} | {"model.name"}
    found = dict(leaves(config))
    for key in sorted(known - found.keys()):
        if not key.startswith("sde.") or key == "sde.name":  # a process has its own defaults
            raise UserError(f"--config={path}: {key} is missing; start from configs.base.get_config()")
    if name in models.KNOWN:
        known |= {f"model.{option}" for option in models.options(name)}
    elif components.is_path(name):
        known |= {f"model.{option}" for option in components.options(components.load("model.name", name))}
    else:
        known |= {key for key in found if key.startswith("model.")}  # the unknown name is refused by itself
    for key in named.EXTENDED:
        section = key.rpartition(".")[0]
        known |= {f"{section}.{option}" for option in named.options(key, found[key])}
    for key in found:
        if key not in known and key.startswith("model."):
            option = key.removeprefix("model.")
            raise UserError(
                f"--config={path}: {key} is no option of model.name={name!r}{nearest(option, models.options(name))}; a "
                f"config of another network starts with config.model = ConfigDict({{'name': {name!r}}})"
            )
        if key not in known:
            raise UserError(f"--config={path}: {key} is an unknown key{_nearest_key(key, sorted(known))}")
    _require_own_defaults(path, config.sde)


def _require_own_defaults(path: str, section: ConfigDict) -> None:
    """Makes sure that the process of a config file does not have a default of base.py in place of its own.

    Raises:
        UserError: an option has the value of base.py, where the process has another default.
    """
    general = base.get_config().sde
    if not set(general) <= set(section):
        return  # not the section of base.py
    for option, own in named.options("sde.name", section.name).items():
        value = section.get(option)
        if None not in (own, value) and value == general.get(option) != own:
            raise UserError(
                f"--config={path}: sde.{option}={value} is the default of configs/base.py, that of {section.name} is {own}: "
                f"set config.sde = ConfigDict({{'name': {section.name!r}, '{option}': ...}}), where options left out have "
                "the defaults of the process"
            )


def apply(
    config: ConfigDict, overrides: Iterable[tuple[str, str]], *, allowed: tuple[str, ...] = ("",), command: str = ""
) -> ConfigDict:
    """The config with the (dotted key, text) overrides applied in order; see `override`.

    Args:
        config: is changed.
        overrides: what to set.
        allowed: the beginnings of the keys that may be set; of a trained run some may not.
        command: that allows no others.

    Raises:
        UserError: as `override`; or a key begins with none of those allowed.
    """
    # A component that adds keys first, so that these are known whatever the order on the command line.
    overrides = list(overrides)
    for key, text in sorted(overrides, key=lambda pair: pair[0] not in named.EXTENDED):
        override(config, key, text)
        if not key.startswith(allowed):
            raise UserError(
                f"--config.{key}={text}: cannot be changed after training; {command} takes keys of {', '.join(allowed)}"
            )
    _choose_sampler(config, dict(overrides))
    return config


def _choose_sampler(config: ConfigDict, chosen: Mapping[str, str]) -> None:
    """Lets keys of the sampler that were set by hand disable `sampling.evaluations`.

    Raises:
        UserError: both were set by hand.
    """
    others = [key for key in chosen if key in ("sampling.sampler", "sampling.steps", "sampling.times")]
    if not others or not config.get("sampling", {}).get("evaluations", 0):
        return
    if "sampling.evaluations" in chosen:
        raise UserError(
            f"sampling.evaluations={config.sampling.evaluations} chooses the sampler by itself: leave out either it or "
            + ", ".join(others)
        )
    config.sampling.evaluations = 0


def takes_argument(spec: str) -> bool:
    """Whether the config file of `FILE` or `FILE:ARGUMENT` takes an argument.

    Raises:
        UserError: it cannot be loaded.
    """
    return bool(inspect.signature(_get_config(Path(spec.partition(":")[0]))).parameters)


def _get_config(path: Path) -> Callable[..., ConfigDict]:
    """The function of that name in a file."""
    if not path.is_file():
        there = sorted(str(p) for p in path.parent.glob("*.py") if p.stem not in ("__init__", "base"))
        alike = difflib.get_close_matches(path.stem, [Path(other).stem for other in there], 1, 0.5)
        hint = f"; there are {', '.join(there)}" if there else ""
        if alike:
            hint = f"; did you mean {str(path.with_name(f'{alike[0]}.py'))!r}?"
        raise UserError(f"--config={path}: no such file{hint}")
    module_spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    if module_spec is None:
        raise UserError(f"--config={path}: a config is a Python file (.py)")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        raise _broken(path, error) from error
    get_config = getattr(module, "get_config", None)
    if get_config is None:
        raise UserError(f"--config={path}: the file defines no get_config()")
    return get_config


def _run_file(path: Path, argument: str) -> ConfigDict:
    get_config = _get_config(path)
    if argument and not inspect.signature(get_config).parameters:
        raise UserError(f"--config={path}:{argument}: this config takes no argument")
    try:
        config = get_config(argument) if argument else get_config()
    except ValueError as error:
        raise UserError(f"--config={path}:{argument}: {error}") from error
    except Exception as error:
        raise _broken(path, error) from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config={path}: get_config() must return a ConfigDict, not {type(config).__name__}")
    return config


def _broken(path: Path, error: Exception) -> UserError:
    """The error for a config file that raises: the line of the file and the reason."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else lines[-1] if lines else None
    reason = " ".join(str(error).split())[:300]
    return UserError(f"--config={path}{f', line {line}' if line else ''}: {type(error).__name__}: {reason}")


def complete(config: ConfigDict) -> ConfigDict:
    """The config with the defaults of its network for the options that it leaves out.

    base.py says those of the U-Net; the options of another network are explained in its file in `models/`. Options of other
    components that base.py does not have are added with their own defaults.
    """
    if config.model.name in models.KNOWN or components.is_path(config.model.name):
        config.model = ConfigDict(
            {"name": config.model.name} | _network_options(config.model.name) | config.model.to_dict()
        )
    for key in named.EXTENDED:
        section, name = _parent(config, key)
        if section[name] in named.table(key):
            _extend(config, key)
    return config


def _network_options(name: str) -> dict[str, Any]:
    """Returns the options of a network with their defaults."""
    if name in models.KNOWN:
        return models.options(name)
    return components.options(components.load("model.name", name))


def leaves(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every value in the config."""
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def override(config: ConfigDict, key: str, text: str) -> None:
    """Sets a dotted key from text, in the type that its value has.

    Another network (`model.name`), and a process given by import path, begin with their own defaults; a process given by
    name does where the value is still that of base.py. Another component adds its options to the section.

    Raises:
        UserError: the key does not exist, or the text is not of its type.
    """
    if key == "model.name" and text != config.model.name and (text in models.KNOWN or components.is_path(text)):
        config.model = ConfigDict({"name": text} | _network_options(text))
        return
    if key == "sde.name" and components.is_path(text):
        config.sde = ConfigDict({"name": text} | named.options(key, text))
        return
    if key in named.EXTENDED and (components.is_path(text) or text in named.table(key)):
        _choose(config, key, text)
        return
    known = dict(leaves(config))
    if key in RENAMED:
        raise UserError(f"--config.{key}={text}: this key is {RENAMED[key]} now")
    if key not in known:
        raise UserError(f"--config.{key}={text}: unknown key{_nearest_key(key, known)}")
    parent, name = _parent(config, key)
    if key in sizes.KEYS:
        with parent.ignore_type():  # a number or a text
            parent[name] = sizes.written(sizes.parse(text, f"--config.{key}"))
        return
    parent[name] = _parse(key, text, known[key])


def _parent(config: ConfigDict, key: str) -> tuple[ConfigDict, str]:
    """Returns the section of a dotted key, and the last part of the key."""
    *sections, name = key.split(".")
    for section in sections:
        config = config[section]
    return config, name


def _choose(config: ConfigDict, key: str, chosen: str) -> None:
    """Sets a component by name or import path; its section gets options with the component's own defaults.

    Components with names share keys of base.py: of their options only those are set that the section lacks, and, of a
    process, those that are at the default of base.py.
    """
    section, name = _parent(config, key)
    own, general = named.options(key, chosen), base.get_config().sde
    if chosen in named.table(key):
        own = {
            option: value
            for option, value in own.items()
            if option not in section
            or (key == "sde.name" and value is not None and section[option] == general.get(option))
        }
    with section.ignore_type():
        section.update(own | {name: chosen})


def _extend(config: ConfigDict, key: str) -> None:
    """Adds options that the section of a component lacks, with the component's own defaults."""
    section, name = _parent(config, key)
    with section.ignore_type():
        section.update({k: v for k, v in named.options(key, section[name]).items() if k not in section})


def _nearest_key(key: str, known: Iterable[str]) -> str:
    """What to say of an unknown key: the key meant, or those that there are.

    Meant is, in this order: one of its section that is all but spelt alike, that is short for it (lr for learning_rate),
    that it is short for, or that shares all words of the shorter one (steps for num_steps); one of the same name in another
    section; one of its section that is close in spelling; one of another section of any of these kinds.
    """
    section, _, name = key.rpartition(".")
    by_name: dict[str, list[str]] = {}
    for k in sorted(known, key=lambda k: k.rpartition(".")[0] != section):  # its own section first
        by_name.setdefault(k.rpartition(".")[2], []).append(k)
    own = [n for n, keys in by_name.items() if keys[0].rpartition(".")[0] == section]

    def spelt(names, alike):
        return difflib.get_close_matches(name, names, 1, alike)

    def related(names):
        short = [n for n in names if _is_short_for(n, name) or _is_short_for(name, n)]
        sharing = [n for n in names if _words(n) <= _words(name) or _words(name) <= _words(n)]
        return spelt(short or sharing, 0)

    best = spelt(own, 0.85) or related(own) or spelt(by_name, 1.0) or spelt(own, 0.6)
    best = best or related(by_name) or spelt(by_name, 0.75)
    if best:
        return f"; did you mean {by_name[best[0]][0]!r}?"
    if own:
        return f"; {section} has {', '.join(own)}"
    return f"; the sections are {', '.join({k.split('.')[0]: 0 for k in known})}"


def _words(name: str) -> set[str]:
    return set(name.split("_"))


def _is_short_for(short: str, name: str) -> bool:
    """Whether it is the initials of the name's words (lr, of learning_rate) or begins each of them (ch_mult)."""
    words, parts = name.split("_"), short.split("_")
    initials = len(words) > 1 and short == "".join(word[:1] for word in words)
    return initials or (len(words) == len(parts) and all(w.startswith(p) for w, p in zip(words, parts, strict=True)))


def _parse(key: str, text: str, current: Any) -> Any:
    def wrong(kind: str) -> UserError:
        return UserError(
            f"--config.{key}={text}: expected {kind}{'' if current is None else f', such as {_example(current)}'}"
        )

    if isinstance(current, bool):
        values = {"true": True, "1": True, "false": False, "0": False}
        if text.lower() not in values:
            raise wrong("true or false")
        return values[text.lower()]
    if isinstance(current, str):
        return text
    if isinstance(current, tuple) and current and all(isinstance(v, str) for v in current):
        return tuple(word.strip().strip("'\"") for word in text.strip("()[]").split(",") if word.strip())
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = text
    if isinstance(current, tuple):
        value = (value,) if isinstance(value, int | float) and not isinstance(value, bool) else value
        whole = all(type(v) is int for v in current)
        kinds = (int,) if whole else (int, float)
        if not isinstance(value, tuple | list) or any(type(v) not in kinds for v in value):
            raise wrong(f"{'whole ' if whole else ''}numbers with commas between")
        return tuple(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(current, int):
        if not is_number or not math.isfinite(value) or value != int(value):
            raise wrong("a whole number")
        return int(value)
    if text.lower() in ("inf", "infinity"):
        return float("inf")
    if not is_number:
        raise wrong("a number")
    try:
        return float(value)
    except OverflowError:
        raise wrong("a number that is finite") from None


def _example(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def to_json(config: ConfigDict) -> str:
    """The config as indented JSON text."""
    return json.dumps(config.to_dict(), indent=2) + "\n"


# Old name -> name of keys in configs that were stored under the old one.
RENAMED = {"sampling.method": "sampling.sampler", "training.class_dropout": "condition.label.dropout"}


def _rename(stored: Any) -> None:
    """Moves the values of renamed keys in a stored config, a nested dict, to their names of today."""
    for old, new in RENAMED.items():
        *sections, key = old.split(".")
        parent = stored
        for name in sections:
            parent = parent.get(name) if isinstance(parent, dict) else None
        if not isinstance(parent, dict) or key not in parent:
            continue
        value = parent.pop(key)
        *sections, key = new.split(".")
        target = stored
        for name in sections:
            target = target.setdefault(name, {})
        target.setdefault(key, value)


def from_json(text: str) -> ConfigDict:
    """The config of `to_json`'s text; lists become tuples again. Keys younger than the text have the defaults of base.py.

    Raises:
        ValueError: the text is not JSON, or a section or the kind of a value is another than in base.py.
    """

    def restore(value):
        if isinstance(value, dict):
            return {k: restore(v) for k, v in value.items()}
        return tuple(restore(v) for v in value) if isinstance(value, list) else value

    def fill(defaults, stored):
        nested = {k: fill(defaults.get(k, {}), v) for k, v in stored.items() if isinstance(v, dict)}
        return {**defaults, **stored, **nested}

    defaults, stored = base.get_config().to_dict(), restore(json.loads(text))
    _rename(stored)
    _require_kinds(defaults, stored)
    if stored.get("model", {}).get("name", defaults["model"]["name"]) != defaults["model"]["name"]:
        defaults["model"] = {}
    if components.is_path(stored.get("sde", {}).get("name", "")):
        defaults["sde"] = {}
    return complete(ConfigDict(fill(defaults, stored)))


def _require_kinds(defaults: dict[str, Any], stored: Any) -> None:
    """Makes sure that stored values are sections, texts, numbers and so on where the defaults are.

    Raises:
        ValueError: one is not.
    """
    if not isinstance(stored, dict):
        raise ValueError("it is no object of sections")
    for section, values in defaults.items():
        if not isinstance(stored.get(section, {}), dict):
            raise ValueError(f"{section} is no section")
        _require_kinds_of(section, values, stored.get(section, {}))


def _require_kinds_of(section: str, defaults: dict[str, Any], stored: dict[str, Any]) -> None:
    """`_require_kinds` of a section and those within it."""
    for name, default in defaults.items():
        value = stored.get(name, default)
        if f"{section}.{name}" in sizes.KEYS and isinstance(value, str):
            continue
        if isinstance(default, dict):
            if not isinstance(value, dict):
                raise ValueError(f"{section}.{name} is no section")
            _require_kinds_of(f"{section}.{name}", default, value)
        else:
            number = isinstance(default, int | float) and not isinstance(default, bool)
            kind = "a number" if number else _KINDS[type(default)]
            given = isinstance(value, int | float) and not isinstance(value, bool)
            if not (given or (value is None and section == "model") if number else isinstance(value, type(default))):
                raise ValueError(f"{section}.{name}={value!r} must be {kind}")


_KINDS = {bool: "true or false", str: "a text", tuple: "a list"}


def differences(old: ConfigDict, new: ConfigDict) -> list[str]:
    """`key: old -> new` for each key that differs; "absent" where one has it not."""
    old_leaves, new_leaves = dict(leaves(old)), dict(leaves(new))
    keys = sorted(old_leaves.keys() | new_leaves.keys())
    pairs = [(k, old_leaves.get(k, "absent"), new_leaves.get(k, "absent")) for k in keys]
    return [f"{k}: {a} -> {b}" for k, a, b in pairs if a != b]
