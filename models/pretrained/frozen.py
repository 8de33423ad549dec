"""Weights of `models.layers.frozen` in PyTorch's state dictionaries, and the reading of such files."""

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from models.pretrained import files
from models.pretrained.mapping import CONV, DENSE, Path, Weight, WeightsError, to_variables

NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}  # ours: BatchNorm2d's


def conv(ours: str, theirs: str, norm: str) -> dict[Path, Weight]:
    """A `FrozenConv` by its path, the Conv2d of its kernel and the BatchNorm2d behind it."""
    path = ("params", *ours.split("/"))
    weights = {(*path, mine): Weight(f"{norm}.{name}") for mine, name in NORM.items()}
    return weights | {(*path, "kernel"): Weight(f"{theirs}.weight", CONV)}


def dense(ours: str, theirs: str) -> dict[Path, Weight]:
    """A `FrozenDense` with a bias by its path, and its Linear."""
    path = ("params", *ours.split("/"))
    return {(*path, "kernel"): Weight(f"{theirs}.weight", DENSE), (*path, "bias"): Weight(f"{theirs}.bias")}


def tensors(path: FilePath) -> dict[str, np.ndarray]:
    """The tensors of a file, less BatchNorm2d's counters of training steps, which no output depends on.

    Raises:
        ValueError: it is broken, unsafe, or holds something else than tensors by name.
        OSError: it cannot be read.
    """
    found = files.read(path)
    if not isinstance(found, Mapping):
        raise WeightsError("it holds no tensors by name")
    odd = [str(name) for name, tensor in found.items() if not isinstance(tensor, np.ndarray)]
    if odd:
        raise WeightsError(f"not tensors: {', '.join(odd[:8])}{' and more' if len(odd) > 8 else ''}")
    return {name: tensor for name, tensor in found.items() if not str(name).endswith("num_batches_tracked")}


def variables(network: nn.Module, size: int, found: Mapping[str, np.ndarray], weights: Mapping[Path, Weight]) -> Any:
    """The variables of a network of images (1, size, size, 3).

    Raises:
        WeightsError: tensors are missing, left over, or of the wrong shape; all are named.
    """
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
    return to_variables(found, weights, shapes)
