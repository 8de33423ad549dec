"""Records that the files of a package define, one in each: the package lists its components without a table by hand."""

import importlib
import pkgutil
from collections.abc import Iterable
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
