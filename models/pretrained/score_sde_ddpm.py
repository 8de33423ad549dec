"""Import of score_sde's `ddpm` network, of the PyTorch and the JAX release, as `DDPM(up_attention="level")`.

The PyTorch release has its modules in one list, `all_modules`, in the order of execution; the JAX release numbers them
by class, `ResnetBlockDDPM_0`, `AttnBlock_0`, ..., in the order of execution. In both, 1x1 convolutions are matrices
(in, out). Tensors are named as for NCSN++ (`models/pretrained/score_sde.py`).

The caller must handle two options of the config: with `data.centered=False`, images in [0, 1] are rescaled to 2 x - 1
before the network; with `model.scale_by_sigma`, the output is divided by sigma.

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
    """Returns the tensor of the PyTorch release for each weight of the network, such as "all_modules.2.weight".

    Args:
        network: a `DDPM`, or a `UNet` with equivalent options.
        shapes: its variables, or their shapes (`jax.eval_shape` of its init with images of the published size).

    Raises:
        ValueError: score_sde's ddpm has no such network; the message names the option.
    """
    parts = enumerate(_parts(network, shapes))
    return weights(shapes, {name: _place(f"all_modules.{n}", kind, ".") for n, (name, kind) in parts})


def jax_mapping(network: UNet, shapes: Any) -> dict[Path, Weight]:
    """Returns the tensor of the JAX release for each weight, such as "ResnetBlockDDPM_0/Conv_0/kernel".

    Arguments and errors as in `torch_mapping`.
    """
    counts, places = Counter(), {}
    for name, kind in _parts(network, shapes):
        places[name] = _place(f"{kind}_{counts[kind]}", kind, "/")
        counts[kind] += 1
    return weights(shapes, places, "/")


# The layers of a module, by its class.
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
    """Yields (our name, their class) of the modules in the order of execution, including modules without weights."""
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
        for level, step in steps(network):
            name = f"{direction}_{level}_{step}"
            yield name, resampler if step == "resample" else BLOCK
            if f"{name}_attention" in modules:
                yield f"{name}_attention", ATTENTION
        if direction == "down":
            yield "middle_0", BLOCK
            yield "middle_attention", ATTENTION
            yield "middle_1", BLOCK
    yield "norm_out", "GroupNorm"
    yield "conv_out", "Conv"
