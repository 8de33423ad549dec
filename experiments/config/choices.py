"""A name of the config and what it stands for."""

from typing import Any

from experiments.errors import unknown_name


def choose(key: str, name: str, table: dict[str, Any]) -> Any:
    """What the table has under the name that the config's key has.

    Raises:
        UserError: it has none.
    """
    if name not in table:
        raise unknown_name(key, name, table)
    return table[name]
