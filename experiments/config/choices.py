"""Lookup of a named value of the config in a table."""

from typing import Any

from experiments.errors import unknown_name


def choose(key: str, name: str, table: dict[str, Any]) -> Any:
    """Returns the entry `name` of `table`.

    Args:
        key: the config key that has the value `name`, for messages.
        name: the value of the key.
        table: objects by name.

    Raises:
        UserError: the table has no such entry.
    """
    if name not in table:
        raise unknown_name(key, name, table)
    return table[name]
