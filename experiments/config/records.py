"""Components that the modules of a package define: found by looking at every module, without a table by hand.

A module of a package of records defines one record (`records`). A module of another package may name some of what it
defines (`named`):

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

    The name is the record's own `name`; where this is empty, that of the file with - for _.

    Args:
        package: dotted name, `__name__` in the package.
        path: folders of the package, `__path__` in the package.
        attribute: of each module that is a record.

    Raises:
        AttributeError: a module has no such attribute.
        ValueError: two records have one name.
    """
    found: dict[str, Any] = {}
    for file in sorted(module.name for module in pkgutil.iter_modules(path)):
        record = getattr(importlib.import_module(f"{package}.{file}"), attribute)
        name = record.name or file.replace("_", "-")
        if name in found:
            raise ValueError(f"{package}: two records are named {name!r}")
        found[name] = record
    return found


def named(package: ModuleType, attribute: str) -> dict[str, Any]:
    """Returns the components that the modules of a package name, in alphabetical order of the modules.

    Args:
        package: its modules are imported; folders in it are left out.
        attribute: of those modules that name components: a mapping by name.

    Raises:
        ValueError: two modules use one name.
    """
    found: dict[str, Any] = {}
    for file in sorted(module.name for module in pkgutil.iter_modules(package.__path__) if not module.ispkg):
        module = importlib.import_module(f"{package.__name__}.{file}")
        for name, component in getattr(module, attribute, {}).items():
            if name in found:
                raise ValueError(f"{module.__name__}: another module of {package.__name__} has the name {name!r}")
            found[name] = component
    return found


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
