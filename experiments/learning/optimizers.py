"""Optimizers: Adam, AdamW with weight decay on matrices only, and Muon for hidden matrices and kernels.

Kernels of dense layers have the shape (in, out), kernels of convolutions (height, width, in, out). Biases, gains, norms
and class embeddings are neither decayed by `adamw` nor orthogonalized by `muon`.

Muon replaces the momentum M of a matrix by the nearest matrix with orthonormal rows or columns, U V^T for the singular
value decomposition M = U S V^T. Five Newton-Schulz iterations approximate U V^T, with singular values of about 1 (0.7
to 1.2). The kernel of a convolution is treated as a matrix (height * width * in, out). The update is scaled by 0.2
sqrt(max(rows, columns)), so that its root mean square equals that of Adam's updates and one learning rate and one
weight decay serve all weights.

The input and output layers of images and the class embeddings are updated by Adam: they do not map hidden features to
hidden features.

Sources: https://kellerjordan.github.io/posts/muon (convolutions, which layers); Liu et al. (2025),
https://arxiv.org/abs/2502.16982, section 2.2 (the scale); `optax.contrib.muon` of optax 0.2.8.
"""

from typing import Any

import jax
import optax
from optax import contrib

MUON_RMS = 0.2  # typical root mean square of Adam's updates (Liu et al.)

# Input and output layers of the networks in models/, by name; only top-level layers count.
ENDS = ("conv_in", "conv_out", "patches", "in", "out")


def adam(rate: optax.Schedule, beta1: float, beta2: float, eps: float, weight_decay: float):
    """Returns Adam; `weight_decay` is decoupled (AdamW) and applies to all weights."""
    return optax.adamw(rate, beta1, beta2, eps, weight_decay=weight_decay)


def adamw(rate: optax.Schedule, beta1: float, beta2: float, eps: float, weight_decay: float):
    """Returns AdamW with weight decay on matrices and kernels only, not on biases, gains and norms.

    Source: Loshchilov and Hutter (2019), https://arxiv.org/abs/1711.05101, algorithm 2; the mask follows
    https://github.com/karpathy/minGPT.
    """
    return optax.adamw(rate, beta1, beta2, eps, weight_decay=weight_decay, mask=is_matrix)


def muon(rate: optax.Schedule, beta1: float, beta2: float, eps: float, weight_decay: float, momentum: float):
    """Returns Muon with Nesterov `momentum` for hidden matrices and kernels, and `adamw` for all other weights.

    The other arguments are those of `adamw`; the learning rate and the weight decay also apply to Muon.
    """
    orthogonal = contrib.muon(
        rate,
        beta=momentum,
        weight_decay=weight_decay,
        muon_weight_dimension_numbers=_matrix_axes,
        consistent_rms=MUON_RMS,
    )
    return optax.partition({"muon": orthogonal, "adam": adamw(rate, beta1, beta2, eps, weight_decay)}, muon_or_adam)


def is_matrix(params: Any) -> Any:
    """Returns a tree of booleans: True for each weight with two or more axes."""
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)


def _matrix_axes(params: Any) -> Any:
    """Returns the axes of each weight as a matrix: all axes but the last are the inputs, the last axis the outputs."""
    return jax.tree.map(lambda leaf: contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1), params)


def muon_or_adam(params: Any) -> Any:
    """Returns "muon" for each hidden matrix of the variables {collection: {layer: ...}}, "adam" for other weights."""

    def label(path, leaf):
        collection, *layers, name = (entry.key for entry in path)
        is_end = len(layers) == 1 and layers[0] in ENDS
        excluded = any(layer == "classes" or layer.endswith("_pyramid") for layer in layers)
        hidden = collection == "params" and name == "kernel" and not is_end and not excluded
        return "muon" if hidden and leaf.ndim >= 2 else "adam"

    return jax.tree_util.tree_map_with_path(label, params)
