"""What EDM's two networks share: how they keep q, k and v, and what a network can be made of their arguments.

Source: Karras et al. (2022), https://github.com/NVlabs/edm/blob/main/training/networks.py.
"""

from collections.abc import Mapping
from typing import Any

from models.pretrained.mapping import Layout

PLACES = ("img_resolution", "in_channels", "out_channels")  # arguments that no option decides


def arguments(
    network: str, settings: Mapping[str, Any], defaults: Mapping[str, Any], allowed: Mapping[str, tuple]
) -> dict[str, Any]:
    """All arguments of one of EDM's networks, lists as tuples.

    Args:
        network: its class.
        settings: the arguments that it was made with.
        defaults: of those that may be absent.
        allowed: the values that can be had here, of the arguments of which not all can.

    Raises:
        ValueError: an argument has no counterpart, or a value that is not allowed; it is named.
    """
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    found = {**defaults, **given}
    if unknown := found.keys() - defaults.keys() - set(PLACES):
        raise ValueError(f"{network}: {sorted(unknown)[0]} has no counterpart here")
    for key, values in allowed.items():
        if found[key] not in values:
            only = ", ".join(map(repr, values))
            raise ValueError(f"{network}: {key}={found[key]!r} has no counterpart here: only {only}")
    return found


def by_channel(layout: Layout) -> Layout:
    """The layout of q, k and v that lie as q0 q1 ... k0 k1 ... v0 v1 ... here, q0 k0 v0 q1 k1 v1 ... there."""
    return Layout(lambda a: _grouped(layout.to_ours(a)), lambda a: layout.to_theirs(_interleaved(a)))


def _grouped(a):
    """q0 k0 v0 q1 ... to q0 q1 ... k0 k1 ... v0 v1 ..., along the last axis."""
    return a.reshape(*a.shape[:-1], -1, 3).swapaxes(-1, -2).reshape(a.shape)


def _interleaved(a):
    return a.reshape(*a.shape[:-1], 3, -1).swapaxes(-1, -2).reshape(a.shape)
