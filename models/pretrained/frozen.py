"""Import of feature networks with layers of `models.layers.frozen` from PyTorch's state dictionaries."""

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from models.pretrained import files
from models.pretrained.mapping import CONV, DENSE, Path, Weight, WeightsError, to_variables

NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}  # to the names of BatchNorm2d


def conv(ours: str, theirs: str, norm: str) -> dict[Path, Weight]:
    """Maps a `FrozenConv` with path `ours` to the Conv2d `theirs` and the BatchNorm2d `norm`."""
    path = ("params", *ours.split("/"))
    weights = {(*path, leaf): Weight(f"{norm}.{name}") for leaf, name in NORM.items()}
    return weights | {(*path, "kernel"): Weight(f"{theirs}.weight", CONV)}


def dense(ours: str, theirs: str) -> dict[Path, Weight]:
    """Maps a `FrozenDense` with path `ours`, with a bias, to the Linear `theirs`."""
    path = ("params", *ours.split("/"))
    return {(*path, "kernel"): Weight(f"{theirs}.weight", DENSE), (*path, "bias"): Weight(f"{theirs}.bias")}


def tensors(path: FilePath) -> dict[str, np.ndarray]:
    """Reads the tensors of a file, without BatchNorm2d's counters of training steps, which do not affect the output.

    Raises:
        ValueError: the file is broken, unsafe, or contains objects other than tensors by name.
        OSError: the file cannot be read.
    """
    contents = files.read(path)
    if not isinstance(contents, Mapping):
        raise WeightsError("it holds no tensors by name")
    others = [str(name) for name, tensor in contents.items() if not isinstance(tensor, np.ndarray)]
    if others:
        raise WeightsError(f"not tensors: {', '.join(others[:8])}{' and more' if len(others) > 8 else ''}")
    return {name: tensor for name, tensor in contents.items() if not str(name).endswith("num_batches_tracked")}


def variables(network: nn.Module, size: int, found: Mapping[str, np.ndarray], weights: Mapping[Path, Weight]) -> Any:
    """Returns the variables of a feature network.

    Args:
        network: a network of images (B, size, size, 3).
        size: side of the images in pixels.
        found: tensors of the file, by name.
        weights: mapping from the weights of the network to the tensors.

    Raises:
        WeightsError: tensors are missing, left over, or of the wrong shape; all are named.
    """
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
    return to_variables(found, weights, shapes)
