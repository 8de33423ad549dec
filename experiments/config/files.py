"""Config files: loading, overrides from the command line, comparison and storage.

A config is a Python file that defines `get_config()`, or `get_config(argument)` for `--config=FILE:ARGUMENT`. Loading a
config runs its code, so the file must be trusted. A stored `config.json` is data only.
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
    """Loads the config of `FILE` or `FILE:ARGUMENT` and applies the (dotted key, text) overrides in order.

    Raises:
        UserError: the file does not exist, the argument is invalid, a key is unknown, or a value has the wrong type.
    """
    path, _, argument = spec.partition(":")
    config = _run_file(Path(path), argument)
    _require_keys(path, config)
    for key in named.EXTENDED:
        _extend(config, key)
    return apply(complete(config), overrides)


def _require_keys(path: str, config: ConfigDict) -> None:
    """Checks that a config file has all keys of base.py and of its network, and no other keys.

    Raises:
        UserError: a key is missing or unknown.
    """
    required = dict(leaves(base.get_config()))
    for section in base.get_config():
        if not isinstance(config.get(section), ConfigDict):
            raise UserError(f"--config={path}: the section {section} is missing; start from configs.base.get_config()")
    name = config.model.get("name")
    known = {key for key in required if not key.startswith("model.")} | {"model.name"}
    values = dict(leaves(config))
    for key in sorted(known - values.keys()):
        if not key.startswith("sde.") or key == "sde.name":  # a process has its own defaults
            raise UserError(f"--config={path}: {key} is missing; start from configs.base.get_config()")
    if name in models.KNOWN:
        known |= {f"model.{option}" for option in models.options(name)}
    elif components.is_path(name):
        known |= {f"model.{option}" for option in components.options(components.load("model.name", name))}
    else:
        known |= {key for key in values if key.startswith("model.")}  # the unknown name is refused later
    for key in named.EXTENDED:
        section = key.rpartition(".")[0]
        known |= {f"{section}.{option}" for option in named.options(key, values[key])}
    for key in values:
        if key not in known and key.startswith("model."):
            option = key.removeprefix("model.")
            raise UserError(
                f"--config={path}: {key} is not an option of model.name={name!r}"
                f"{nearest(option, models.options(name))}; to replace the network of the base config, start with "
                f"config.model = ConfigDict({{'name': {name!r}}})"
            )
        if key not in known:
            raise UserError(f"--config={path}: {key} is an unknown key{_nearest_key(key, sorted(known))}")
    _require_own_defaults(path, config.sde)


def _require_own_defaults(path: str, section: ConfigDict) -> None:
    """Checks that no option of the process has the default of base.py instead of the process's own default.

    Raises:
        UserError: an option has the value of base.py, but the default of the process differs.
    """
    general = base.get_config().sde
    if not set(general) <= set(section):
        return  # the config file has replaced the section of base.py
    for option, own in named.options("sde.name", section.name).items():
        value = section.get(option)
        if None not in (own, value) and value == general.get(option) != own:
            raise UserError(
                f"--config={path}: sde.{option}={value} is the default of configs/base.py, but the default of "
                f"{section.name} is {own}: set config.sde = ConfigDict({{'name': {section.name!r}, '{option}': ...}}); "
                "omitted options get the defaults of the process"
            )


def apply(
    config: ConfigDict, overrides: Iterable[tuple[str, str]], *, allowed: tuple[str, ...] = ("",), command: str = ""
) -> ConfigDict:
    """Applies the (dotted key, text) overrides to a config, which is modified and returned; see `override`.

    Args:
        config: is modified in place.
        overrides: pairs of a dotted key and the text of its value.
        allowed: prefixes of the keys that may be set; some keys of a trained run may not change.
        command: name of the command that restricts the keys, for messages.

    Raises:
        UserError: as `override`; or a key has none of the allowed prefixes.
    """
    # Components are set first: they may add keys, which then are known in any order of the command line.
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
    """Disables `sampling.evaluations` if an override sets the sampler, its steps or its times.

    Raises:
        UserError: overrides set both `sampling.evaluations` and such a key.
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
    """Returns True if the config file of `FILE` or `FILE:ARGUMENT` takes an argument.

    Raises:
        UserError: the file cannot be loaded.
    """
    return bool(inspect.signature(_get_config(Path(spec.partition(":")[0]))).parameters)


def _get_config(path: Path) -> Callable[..., ConfigDict]:
    """Returns the function `get_config` of a config file."""
    if not path.is_file():
        existing = sorted(str(p) for p in path.parent.glob("*.py") if p.stem not in ("__init__", "base"))
        similar = difflib.get_close_matches(path.stem, [Path(other).stem for other in existing], 1, 0.5)
        hint = f"; there are {', '.join(existing)}" if existing else ""
        if similar:
            hint = f"; did you mean {str(path.with_name(f'{similar[0]}.py'))!r}?"
        raise UserError(f"--config={path}: no such file{hint}")
    module_spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    if module_spec is None:
        raise UserError(f"--config={path}: a config must be a Python file (.py)")
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
    """Returns the error for a config file that raises, with the line of the file and the reason."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else lines[-1] if lines else None
    reason = " ".join(str(error).split())[:300]
    return UserError(f"--config={path}{f', line {line}' if line else ''}: {type(error).__name__}: {reason}")


def complete(config: ConfigDict) -> ConfigDict:
    """Adds the missing options of the network and of the other components with their own defaults.

    base.py documents the options of the U-Net; the options of another network are documented in its file in `models/`.
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
    """Yields (dotted key, value) of every value in the config."""
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def override(config: ConfigDict, key: str, text: str) -> None:
    """Sets a dotted key from text, converted to the type of the current value.

    Setting another network (`model.name`), or a process by import path, resets its section to the defaults of this
    component. A process set by name replaces only those options that still have the default of base.py. Another
    component adds its options to the section.

    Raises:
        UserError: the key does not exist, or the text cannot be converted to the type of the value.
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
        raise UserError(f"--config.{key}={text}: this key was renamed to {RENAMED[key]}")
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
    """Sets a component by name or import path, and adds its options with their defaults to the section.

    Named components share keys of base.py, so an option that the section already has keeps its value. Only an option of
    a process that still has the default of base.py is reset to the default of the process.
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
    """Adds the missing options of a component to its section, with the component's own defaults."""
    section, name = _parent(config, key)
    with section.ignore_type():
        section.update({k: v for k, v in named.options(key, section[name]).items() if k not in section})


def _nearest_key(key: str, known: Iterable[str]) -> str:
    """Returns the hint for an unknown key: the most similar known key, or a list of the known keys.

    The candidates are, in this order:

    - a key of the same section that is almost equal in spelling (ratio 0.85),
    - a key of the same section of which one name abbreviates the other (lr, learning_rate) or the words of one name
      include those of the other (steps, num_steps),
    - a key of another section with the same name,
    - a key of the same section that is similar in spelling (ratio 0.6),
    - a key of another section by any of these criteria (spelling: ratio 0.75).
    """
    section, _, name = key.rpartition(".")
    by_name: dict[str, list[str]] = {}
    for k in sorted(known, key=lambda k: k.rpartition(".")[0] != section):  # the same section first
        by_name.setdefault(k.rpartition(".")[2], []).append(k)
    own = [n for n, keys in by_name.items() if keys[0].rpartition(".")[0] == section]

    def similar(names, ratio):
        return difflib.get_close_matches(name, names, 1, ratio)

    def related(names):
        short = [n for n in names if _is_short_for(n, name) or _is_short_for(name, n)]
        sharing = [n for n in names if _words(n) <= _words(name) or _words(name) <= _words(n)]
        return similar(short or sharing, 0)

    best = similar(own, 0.85) or related(own) or similar(by_name, 1.0) or similar(own, 0.6)
    best = best or related(by_name) or similar(by_name, 0.75)
    if best:
        return f"; did you mean {by_name[best[0]][0]!r}?"
    if own:
        return f"; {section} has {', '.join(own)}"
    return f"; the sections are {', '.join({k.split('.')[0]: 0 for k in known})}"


def _words(name: str) -> set[str]:
    return set(name.split("_"))


def _is_short_for(short: str, name: str) -> bool:
    """Returns True if `short` abbreviates `name` by initials (lr, learning_rate) or by prefixes of words (ch_mult)."""
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
    """Returns the config as indented JSON text."""
    return json.dumps(config.to_dict(), indent=2) + "\n"


# Keys that were renamed, old -> new: stored configs may still have the old key.
RENAMED = {"sampling.method": "sampling.sampler", "training.class_dropout": "condition.label.dropout"}


def _rename(stored: Any) -> None:
    """Moves the values of renamed keys in a stored config, a nested dict, to their current keys."""
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
    """Returns the config of a text of `to_json`; lists become tuples, and keys that the text lacks get their defaults.

    Raises:
        ValueError: the text is not JSON, or a section or value has another type than in base.py.
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
    """Checks that stored values have the types of the defaults (section, text, number, ...).

    Raises:
        ValueError: a value has another type.
    """
    if not isinstance(stored, dict):
        raise ValueError("the config must be an object of sections")
    for section, values in defaults.items():
        if not isinstance(stored.get(section, {}), dict):
            raise ValueError(f"{section} must be a section")
        _require_kinds_of(section, values, stored.get(section, {}))


def _require_kinds_of(section: str, defaults: dict[str, Any], stored: dict[str, Any]) -> None:
    """Checks the types in a section and its subsections; see `_require_kinds`."""
    for name, default in defaults.items():
        value = stored.get(name, default)
        if f"{section}.{name}" in sizes.KEYS and isinstance(value, str):
            continue
        if isinstance(default, dict):
            if not isinstance(value, dict):
                raise ValueError(f"{section}.{name} must be a section")
            _require_kinds_of(f"{section}.{name}", default, value)
        else:
            number = isinstance(default, int | float) and not isinstance(default, bool)
            kind = "a number" if number else _KINDS[type(default)]
            numeric = isinstance(value, int | float) and not isinstance(value, bool)
            if not (numeric or (value is None and section == "model") if number else isinstance(value, type(default))):
                raise ValueError(f"{section}.{name}={value!r} must be {kind}")


_KINDS = {bool: "true or false", str: "a text", tuple: "a list"}


def differences(old: ConfigDict, new: ConfigDict) -> list[str]:
    """Returns `key: old -> new` for each key that differs; "absent" stands for a missing key."""
    old_leaves, new_leaves = dict(leaves(old)), dict(leaves(new))
    keys = sorted(old_leaves.keys() | new_leaves.keys())
    pairs = [(k, old_leaves.get(k, "absent"), new_leaves.get(k, "absent")) for k in keys]
    return [f"{k}: {a} -> {b}" for k, a, b in pairs if a != b]
