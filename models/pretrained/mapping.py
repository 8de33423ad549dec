"""Conversion between the tensors of another code base and the variables of a network.

A mapping gives, for each weight of the network by its path in the variables, the tensors of the file that contain the
weight, and their layout:

    {("params", "conv_in", "kernel"): Weight("all_modules.3.weight", CONV), ...}

`to_variables` imports and `to_tensors` exports with the same mapping, so the import of an export is the identity.
Errors list missing tensors, unused tensors and tensors of a wrong shape by their names in the file.

Throughout this package, "ours" are names and layouts of the networks in `models`, "theirs" are those of the other code
base.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

Path = tuple[str, ...]
Tensors = Mapping[str, np.ndarray]


class WeightsError(ValueError):
    """The tensors of the file do not match the network."""


class Layout(NamedTuple):
    """Conversion of an array between the layout of the file and the layout of the network: two inverse functions."""

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray]


SAME = Layout(lambda a: a, lambda a: a)
# Kernels of PyTorch's Conv2d (out, in, height, width) and Linear (out, in).
CONV = Layout(lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1))
DENSE = Layout(lambda a: a.T, lambda a: a.T)
# 1x1 convolutions stored as a matrix (out, in), or (in, out), or with one spatial axis (out, in, 1).
POINTWISE = Layout(lambda a: a.T[None, None], lambda a: a[0, 0].T)
POINTWISE_TRANSPOSED = Layout(lambda a: a[None, None], lambda a: a[0, 0])
POINTWISE_1D = Layout(lambda a: a[..., 0].T[None, None], lambda a: a[0, 0].T[..., None])


class Weight(NamedTuple):
    """The tensors of the file that contain one weight of the network.

    Attributes:
        names: name of the tensor; several tensors are concatenated along the last axis of the weight, in equal parts.
        layout: layout of each tensor.
    """

    names: str | tuple[str, ...]
    layout: Layout = SAME

    @property
    def parts(self) -> tuple[str, ...]:
        """The names, as a tuple."""
        return (self.names,) if isinstance(self.names, str) else self.names


def flatten(variables: Any) -> dict[Path, Any]:
    """Flattens nested dictionaries to one dictionary by path."""
    leaves = jax.tree_util.tree_flatten_with_path(variables)[0]
    return {tuple(key.key for key in path): leaf for path, leaf in leaves}


def to_variables(tensors: Tensors, mapping: Mapping[Path, Weight], shapes: Any) -> Any:
    """Returns the variables of the network, float32.

    Args:
        tensors: tensors of the file, by name.
        mapping: the tensors of every weight of the network.
        shapes: the variables of the network, or their shapes (`jax.eval_shape` of its init).

    Raises:
        WeightsError: tensors are missing, unused, or of a wrong shape; the message lists their names.
        ValueError: the mapping and the network have different weights.
    """
    expected_leaves = flatten(shapes)
    if expected_leaves.keys() != mapping.keys():
        differing = sorted("/".join(path) for path in expected_leaves.keys() ^ mapping.keys())
        raise ValueError(f"the mapping and the network disagree on {', '.join(differing)}")
    used = {name for weight in mapping.values() for name in weight.parts}
    faults = [_listed("missing", used - tensors.keys()), _listed("not of this network", tensors.keys() - used)]
    leaves, misshapen = {}, {}
    for path, weight in mapping.items():
        if not set(weight.parts) <= tensors.keys():
            continue
        shape = expected_leaves[path].shape
        part = (*shape[:-1], shape[-1] // len(weight.parts)) if shape else ()
        expected = weight.layout.to_theirs(np.broadcast_to(np.float32(0), part)).shape
        wrong = {name: tensors[name].shape for name in weight.parts if tensors[name].shape != expected}
        misshapen |= {f"{name} {shape}, not {expected}": None for name, shape in wrong.items()}
        if not wrong:
            parts = [weight.layout.to_ours(np.asarray(tensors[name], np.float32)) for name in weight.parts]
            leaves[path] = parts[0] if len(parts) == 1 else np.concatenate(parts, -1)
    faults.append(_listed("of another shape", misshapen))
    if any(faults):
        raise WeightsError("; ".join(fault for fault in faults if fault))
    return _nested(leaves)


def to_tensors(variables: Any, mapping: Mapping[Path, Weight]) -> dict[str, np.ndarray]:
    """Returns the tensors of the file, by name: the inverse of `to_variables`."""
    tensors = {}
    for path, array in flatten(variables).items():
        weight = mapping[path]
        parts = np.split(np.asarray(array), len(weight.parts), -1) if len(weight.parts) > 1 else [np.asarray(array)]
        for name, part in zip(weight.parts, parts, strict=True):
            tensors[name] = np.asarray(weight.layout.to_theirs(part), order="C")
    return tensors


def _nested(flat: Mapping[Path, Any]) -> dict[str, Any]:
    tree = {}
    for path, leaf in flat.items():
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = leaf
    return tree


def _listed(label: str, names: Any, most: int = 8) -> str:
    """Returns 'label: a, b and 3 more', or '' without names."""
    names = sorted(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{label}: {', '.join(names[:most])}{more}" if names else ""
