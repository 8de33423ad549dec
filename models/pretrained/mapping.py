"""From the tensors of another code base to a network's variables and back, weight by weight.

A mapping says for each of our weights, by its path in the variables, which tensors of the file it is made of and how they
are laid out there:

    {("params", "conv_in", "kernel"): Weight("all_modules.3.weight", CONV), ...}

`to_variables` reads it in one direction, `to_tensors` in the other, so an import of an export is the identity. Whatever is
missing, left over or of another shape is listed by its name in the file.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

Path = tuple[str, ...]
Tensors = Mapping[str, np.ndarray]


class WeightsError(ValueError):
    """The file's tensors are not those of the network."""


class Layout(NamedTuple):
    """How one array is laid out in the file and here: two functions, each the other's inverse."""

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray]


SAME = Layout(lambda a: a, lambda a: a)
# Kernels of PyTorch's Conv2d (out, in, height, width) and Linear (out, in).
CONV = Layout(lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1))
DENSE = Layout(lambda a: a.T, lambda a: a.T)
# 1x1 convolutions that the file keeps as a matrix: (out, in), or (in, out), or with one spatial axis (out, in, 1).
POINTWISE = Layout(lambda a: a.T[None, None], lambda a: a[0, 0].T)
POINTWISE_TRANSPOSED = Layout(lambda a: a[None, None], lambda a: a[0, 0])
POINTWISE_1D = Layout(lambda a: a[..., 0].T[None, None], lambda a: a[0, 0].T[..., None])


class Weight(NamedTuple):
    """What one of our weights is in the file.

    Attributes:
        names: the tensor's name; several are joined along our last axis, in equal parts.
        layout: of each of them.
    """

    names: str | tuple[str, ...]
    layout: Layout = SAME

    @property
    def parts(self) -> tuple[str, ...]:
        """The names, as a tuple."""
        return (self.names,) if isinstance(self.names, str) else self.names


def flatten(variables: Any) -> dict[Path, Any]:
    """Nested dictionaries as one, by path."""
    leaves = jax.tree_util.tree_flatten_with_path(variables)[0]
    return {tuple(key.key for key in path): leaf for path, leaf in leaves}


def to_variables(tensors: Tensors, mapping: Mapping[Path, Weight], shapes: Any) -> Any:
    """The network's variables, float32.

    Args:
        tensors: the file's, by name.
        mapping: for every weight of the network.
        shapes: the network's variables, or their shapes (`jax.eval_shape` of its init).

    Raises:
        WeightsError: tensors are missing, left over, or of the wrong shape; all are named.
    """
    wanted = flatten(shapes)
    if wanted.keys() != mapping.keys():
        odd = sorted("/".join(path) for path in wanted.keys() ^ mapping.keys())
        raise ValueError(f"the mapping and the network disagree on {', '.join(odd)}")
    used = {name for weight in mapping.values() for name in weight.parts}
    faults = [_listed("missing", used - tensors.keys()), _listed("not of this network", tensors.keys() - used)]
    found, misshapen = {}, {}
    for path, weight in mapping.items():
        if not set(weight.parts) <= tensors.keys():
            continue
        part = (*wanted[path].shape[:-1], wanted[path].shape[-1] // len(weight.parts)) if wanted[path].shape else ()
        expected = weight.layout.to_theirs(np.broadcast_to(np.float32(0), part)).shape
        wrong = {name: tensors[name].shape for name in weight.parts if tensors[name].shape != expected}
        misshapen |= {f"{name} {shape}, not {expected}": None for name, shape in wrong.items()}
        if not wrong:
            parts = [weight.layout.to_ours(np.asarray(tensors[name], np.float32)) for name in weight.parts]
            found[path] = parts[0] if len(parts) == 1 else np.concatenate(parts, -1)
    faults.append(_listed("of another shape", misshapen))
    if any(faults):
        raise WeightsError("; ".join(fault for fault in faults if fault))
    return _nested(found)


def to_tensors(variables: Any, mapping: Mapping[Path, Weight]) -> dict[str, np.ndarray]:
    """The file's tensors, by name: the inverse of `to_variables`."""
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


def _listed(what: str, names: Any, most: int = 8) -> str:
    """'what: a, b and 3 more', or nothing for no names."""
    names = sorted(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{what}: {', '.join(names[:most])}{more}" if names else ""
