"""The weights of score_sde's `ddpm` network, of the PyTorch and the JAX release, as those of `DDPM(up_attention="level")`.

PyTorch's release has its modules in one list, `all_modules`, in the order in which they run; the JAX release numbers them by
class, `ResnetBlockDDPM_0`, `AttnBlock_0`, ..., in the same order. In both, 1x1 convolutions are matrices (in, out). How the
tensors get their names is the same as for NCSN++ (`models/pretrained/score_sde.py`).

Left to the caller, since they are no weights: `data.centered=False`, where images in [0, 1] become 2 x - 1 before the
network, and `model.scale_by_sigma`, where the output is divided by sigma after it.

Sources: https://github.com/yang-song/score_sde_pytorch/blob/main/models/ddpm.py and layers.py;
https://github.com/yang-song/score_sde/blob/main/models/ddpm.py and layers.py.
"""

from collections import Counter
from collections.abc import Container, Iterator
from typing import Any

from models.pretrained.mapping import POINTWISE_TRANSPOSED, SAME, Path, Weight
from models.pretrained.unet import LEAVES, Layer, Place, down, require, up, weights
from models.unet import UNet


def torch_mapping(network: UNet, shapes: Any) -> dict[Path, Weight]:
    """Where the weights of the network are in PyTorch's release, "all_modules.2.weight" and so on.

    Args:
        network: a DDPM, or a UNet with options that make it one.
        shapes: its variables, or their shapes (`jax.eval_shape` of its init with images of the published size).

    Raises:
        ValueError: score_sde's ddpm has no such network; the option is named.
    """
    parts = enumerate(_parts(network, shapes))
    return weights(shapes, {name: _place(f"all_modules.{n}", kind, ".") for n, (name, kind) in parts})


def jax_mapping(network: UNet, shapes: Any) -> dict[Path, Weight]:
    """Where they are in the JAX release, "ResnetBlockDDPM_0/Conv_0/kernel" and so on. See `torch_mapping`."""
    counts, places = Counter(), {}
    for name, kind in _parts(network, shapes):
        places[name] = _place(f"{kind}_{counts[kind]}", kind, "/")
        counts[kind] += 1
    return weights(shapes, places, "/")


# The layers of a module by its class.
BLOCK, ATTENTION = "ResnetBlockDDPM", "AttnBlock"
LAYERS = {
    BLOCK: {
        "norm_in": "GroupNorm_0",
        "conv_in": "Conv_0",
        "embedding": "Dense_0",
        "norm_out": "GroupNorm_1",
        "conv_out": "Conv_1",
        "skip": "NIN_0",
    },
    ATTENTION: {"norm": "GroupNorm_0", "qkv": ("NIN_0", "NIN_1", "NIN_2"), "out": "NIN_3"},
    "Downsample": {"": "Conv_0"},
    "Upsample": {"": "Conv_0"},
}
MATRIX = {"kernel": "W", "bias": "b"}


def _place(module, kind, separator):
    leaves, layout = (LEAVES, None) if separator == "." else ({leaf: leaf for leaf in LEAVES}, SAME)

    def layer(names):
        is_matrix = "NIN" in "".join(names)
        return Layer(names, POINTWISE_TRANSPOSED if is_matrix else layout, leaves=MATRIX if is_matrix else leaves)

    return Place(module, {ours: layer(theirs) for ours, theirs in LAYERS.get(kind, {"": ""}).items()})


def _parts(network: UNet, shapes: Any) -> Iterator[tuple[str, str]]:
    """(our name, their class) of the modules in the order in which they run; some have no weights."""
    require(
        network,
        "score_sde's ddpm",
        embedding="positional",
        norm_groups=32,
        norm_epsilon=1e-6,
        resampling=("strided", "plain"),
        scale_shift=False,
        middle_attention=True,
        up_attention="level",
        num_heads=1,
        head_channels=0,
        num_classes=0,
        augment_features=0,
        learned_variance=False,
    )
    modules: Container[str] = shapes["params"]
    yield "embedding_0", "Dense"
    yield "embedding_1", "Dense"
    yield "conv_in", "Conv"
    for direction, resampler, steps in (("down", "Downsample", down), ("up", "Upsample", up)):
        for level, what in steps(network):
            name = f"{direction}_{level}_{what}"
            yield name, resampler if what == "resample" else BLOCK
            if f"{name}_attention" in modules:
                yield f"{name}_attention", ATTENTION
        if direction == "down":
            yield "middle_0", BLOCK
            yield "middle_attention", ATTENTION
            yield "middle_1", BLOCK
    yield "norm_out", "GroupNorm"
    yield "conv_out", "Conv"
