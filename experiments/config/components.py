"""User components by import path: `module:name` is accepted wherever a config key accepts the name of a component.

`--config.sde.name=my_sdes:Bridge` selects the class `Bridge` of the module `my_sdes`, which is in the current folder
or installed. Importing a module runs its code, so an import path has to be trusted like a config file.
"""

import dataclasses
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Iterable
from typing import Any

from experiments.errors import UserError, nearest, unknown_name

RESERVED = ("name", "parent", "t_min")  # fields that the program sets, so they are no options


def is_path(name: str) -> bool:
    """Returns True for `module:name`, where both parts are identifiers (the module may be dotted)."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))


def has_module(name: str) -> bool:
    """Returns True if a module of this name is in the current folder or installed."""
    _add_current_folder_to_path()
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _add_current_folder_to_path() -> None:
    """Makes modules of the current folder importable: `python -m` does this too, a console script does not."""
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)


def component(key: str, name: str, table: dict[str, Any]) -> Any:
    """Returns the component of a config key: the entry `name` of `table`, or the object at the import path `name`.

    Raises:
        UserError: `name` is neither in the table nor an import path that can be imported.
    """
    if name in table:
        return table[name]
    if is_path(name):
        return load(key, name)
    raise unknown(key, name, table)


def unknown(key: str, name: str, table: Iterable[str]) -> UserError:
    """Returns the error for a name that is neither in a table nor an import path."""
    if all(part.isidentifier() for part in name.split(".")) and has_module(name):
        return UserError(f"{key}={name}: is a module; name a component of it as {name}:NAME")
    return unknown_name(key, name, table)


def load(key: str, path: str) -> Any:
    """Returns the object at an import path; modules of the current folder are found too.

    Args:
        key: config key or flag with this value, for messages.
        path: `module:name`.

    Raises:
        UserError: there is no such module or name, or importing the module raises.
    """
    module_name, _, attribute = path.partition(":")
    _add_current_folder_to_path()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _broken(key, path, error) from error
        raise UserError(f"{key}={path}: there is no module {error.name!r} in {os.getcwd()} or installed") from error
    except Exception as error:
        raise _broken(key, path, error) from error
    if not hasattr(module, attribute):
        public = [name for name in vars(module) if not name.startswith("_")]
        raise UserError(f"{key}={path}: the module {module_name} has no {attribute!r}{nearest(attribute, public)}")
    return getattr(module, attribute)


def _broken(key: str, path: str, error: Exception) -> UserError:
    """Returns the error for a module that raises on import, with the line of its file and the reason."""
    module = path.partition(":")[0].rpartition(".")[2]
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.endswith(f"{module}.py")]
    line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else frames[-1].lineno if frames else None
    reason = " ".join(str(error).split())[:300]
    return UserError(f"{key}={path}{f', line {line}' if line else ''}: {type(error).__name__}: {reason}")


def options(made: Any) -> dict[str, Any]:
    """Returns the options of a class or function with their defaults, as keys of a config.

    Options are the annotated attributes of a class (as in a dataclass), or the parameters of a function. Options
    without a default are left out, and so are options whose default cannot be stored in a config. A config can store
    None, booleans, numbers, texts and sequences of these.
    """
    return {name: _plain(value) for name, value in fields(made).items() if _is_public(name) and _is_plain(value)}


def fields(made: Any) -> dict[str, Any]:
    """Returns the annotated attributes of a class, or the parameters of a function, with their defaults.

    Without a default the value is `dataclasses.MISSING`, or `inspect.Parameter.empty`.
    """
    if not callable(made):
        return {}
    if not inspect.isclass(made):
        return {parameter.name: parameter.default for parameter in inspect.signature(made).parameters.values()}
    annotations = [inspect.get_annotations(base).items() for base in reversed(made.__mro__)]
    names = [name for items in annotations for name, kind in items if _is_field(kind)]
    found = {name: getattr(made, name, dataclasses.MISSING) for name in names}
    return {name: value.default if type(value) is dataclasses.Field else value for name, value in found.items()}


def _is_field(kind: Any) -> bool:
    return "ClassVar" not in str(kind)


def _is_public(name: str) -> bool:
    return not name.startswith("_") and name not in RESERVED


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
