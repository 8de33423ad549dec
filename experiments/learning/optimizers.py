"""Which weights an optimizer treats how: weight decay on matrices, Muon on hidden matrices and kernels.

Kernels of dense layers are (in, out), those of convolutions (height, width, in, out). Biases, gains, norms and tables of
classes are neither decayed by `adamw` nor orthogonalized by `muon`.

Muon replaces the momentum M of a matrix by the nearest matrix with orthonormal rows or columns, U V^T of its singular value
decomposition M = U S V^T, by five Newton-Schulz iterations that bring every singular value to about 1 (0.7 to 1.2). A
convolution's kernel is the matrix (height * width * in, out). The update is then scaled by 0.2 sqrt(max(rows, columns)), so
that its root mean square is that of Adam's, and one learning rate and one weight decay serve all weights.

What reads or writes images, and tables of classes, Adam updates: they are no maps between hidden features.

Sources: https://kellerjordan.github.io/posts/muon (convolutions, which layers); Liu et al. (2025),
https://arxiv.org/abs/2502.16982, section 2.2 (the scale); `optax.contrib.muon` of optax 0.2.8.
"""

from typing import Any

import jax
import optax
from optax import contrib

MUON_RMS = 0.2  # of Adam's updates, as Liu et al. found it

# Layers at the ends of a network, by the names that those in models/ have: what is at the top reads or writes images.
ENDS = ("conv_in", "conv_out", "patches", "in", "out")


def adam(rate: optax.Schedule, beta1: float, beta2: float, eps: float, weight_decay: float):
    """Adam; a weight decay is that of AdamW on all weights alike."""
    return optax.adamw(rate, beta1, beta2, eps, weight_decay=weight_decay)


def adamw(rate: optax.Schedule, beta1: float, beta2: float, eps: float, weight_decay: float):
    """AdamW, whose decay leaves biases, gains and norms alone: only matrices and kernels have it.

    Source: Loshchilov and Hutter (2019), https://arxiv.org/abs/1711.05101, algorithm 2; the mask is that of
    https://github.com/karpathy/minGPT and of most since.
    """
    return optax.adamw(rate, beta1, beta2, eps, weight_decay=weight_decay, mask=is_matrix)


def muon(rate: optax.Schedule, beta1: float, beta2: float, eps: float, weight_decay: float, momentum: float):
    """Muon with Nesterov's `momentum` for hidden matrices and kernels, `adamw` with the other numbers for the rest."""
    orthogonal = contrib.muon(
        rate,
        beta=momentum,
        weight_decay=weight_decay,
        muon_weight_dimension_numbers=_matrix_axes,
        consistent_rms=MUON_RMS,
    )
    return optax.partition({"muon": orthogonal, "adam": adamw(rate, beta1, beta2, eps, weight_decay)}, muon_or_adam)


def is_matrix(params: Any) -> Any:
    """For each weight: whether it has two axes or more."""
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)


def _matrix_axes(params: Any) -> Any:
    """The axes (rows, columns) of each weight as a matrix: the last one, and all before it, are what it maps between."""
    return jax.tree.map(lambda leaf: contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1), params)


def muon_or_adam(params: Any) -> Any:
    """For each weight of the variables {collection: {layer: ...}}: "muon" if it is hidden and a matrix, else "adam"."""

    def label(path, leaf):
        collection, *layers, name = (entry.key for entry in path)
        at_an_end = len(layers) == 1 and layers[0] in ENDS
        other = any(layer == "classes" or layer.endswith("_pyramid") for layer in layers)
        hidden = collection == "params" and name == "kernel" and not at_an_end and not other
        return "muon" if hidden and leaf.ndim >= 2 else "adam"

    return jax.tree_util.tree_map_with_path(label, params)
