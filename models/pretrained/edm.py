"""Common parts of the import of EDM's two networks: the layout of q, k and v, and the arguments.

Source: Karras et al. (2022), https://github.com/NVlabs/edm/blob/main/training/networks.py.
"""

from collections.abc import Mapping
from typing import Any

from models.pretrained.mapping import Layout

PLACES = ("img_resolution", "in_channels", "out_channels")  # required arguments, set by the images


def arguments(
    network: str, settings: Mapping[str, Any], defaults: Mapping[str, Any], allowed: Mapping[str, tuple]
) -> dict[str, Any]:
    """Returns all arguments of one of EDM's networks, with defaults, and lists as tuples.

    Args:
        network: name of the class, for messages.
        settings: the arguments with which the network was built.
        defaults: the default of each optional argument.
        allowed: the supported values of arguments for which not all values are supported.

    Raises:
        ValueError: an argument or its value is not supported; the message names both.
    """
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    complete = {**defaults, **given}
    if unknown := complete.keys() - defaults.keys() - set(PLACES):
        raise ValueError(f"{network}: {sorted(unknown)[0]} has no counterpart here")
    for key, values in allowed.items():
        if complete[key] not in values:
            only = ", ".join(map(repr, values))
            raise ValueError(f"{network}: {key}={complete[key]!r} has no counterpart here: only {only}")
    return complete


def by_channel(layout: Layout) -> Layout:
    """Returns the layout of channels ordered q0 k0 v0 q1 k1 v1 ... in the file, q0 q1 ... k0 k1 ... v0 v1 ... here."""
    return Layout(lambda a: _grouped(layout.to_ours(a)), lambda a: layout.to_theirs(_interleaved(a)))


def _grouped(a):
    """Reorders q0 k0 v0 q1 ... to q0 q1 ... k0 k1 ... v0 v1 ..., along the last axis."""
    return a.reshape(*a.shape[:-1], -1, 3).swapaxes(-1, -2).reshape(a.shape)


def _interleaved(a):
    return a.reshape(*a.shape[:-1], 3, -1).swapaxes(-1, -2).reshape(a.shape)
