"""Discovery of the components that the modules of a package define; no central table has to be maintained.

In a package of records each module defines one record (`records`). In other packages a module may define a mapping from
names to components (`named`):

    SAMPLERS = {"ddim": DDIM, "heun": Heun}
"""

import ast
import importlib
import pkgutil
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any


def records(package: str, path: Iterable[str], attribute: str) -> dict[str, Any]:
    """Returns the records of a package by name, in alphabetical order of the files.

    The name of a record is its attribute `name` or, if this is empty, the file name with - for _.

    Args:
        package: dotted name, `__name__` in the package.
        path: folders of the package, `__path__` in the package.
        attribute: name of the record in each module.

    Raises:
        AttributeError: a module has no such attribute.
        ValueError: two records have the same name.
    """
    by_name: dict[str, Any] = {}
    for file in sorted(module.name for module in pkgutil.iter_modules(path)):
        record = getattr(importlib.import_module(f"{package}.{file}"), attribute)
        name = record.name or file.replace("_", "-")
        if name in by_name:
            raise ValueError(f"{package}: two records are named {name!r}")
        by_name[name] = record
    return by_name


def named(package: ModuleType, attribute: str) -> dict[str, Any]:
    """Returns the named components of all modules of a package, in alphabetical order of the modules.

    Args:
        package: all its modules are imported; subpackages are skipped.
        attribute: name of the mapping {name: component}; a module without it has no named components.

    Raises:
        ValueError: two modules use the same name.
    """
    by_name: dict[str, Any] = {}
    for file in sorted(module.name for module in pkgutil.iter_modules(package.__path__) if not module.ispkg):
        module = importlib.import_module(f"{package.__name__}.{file}")
        for name, component in getattr(module, attribute, {}).items():
            if name in by_name:
                raise ValueError(f"{module.__name__}: another module of {package.__name__} has the name {name!r}")
            by_name[name] = component
    return by_name


def names(folder: Path, attribute: str) -> list[str]:
    """Returns the names of `named`, read from the text of the modules: for --help, which must not wait for imports.

    Args:
        folder: of the package.
        attribute: as of `named`; the names are the keys of its dict that are written as texts.
    """
    found = []
    for file in sorted(folder.glob("*.py")):
        for node in ast.parse(file.read_text()).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            if isinstance(getattr(node, "value", None), ast.Dict) and attribute in map(ast.unparse, targets):
                found += [key.value for key in node.value.keys if isinstance(key, ast.Constant)]
    return found
