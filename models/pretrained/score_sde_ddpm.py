"""The weights of score_sde's `ddpm` network, for which `models.ddpm.DDPM(up_attention="level")` is the network.

Their modules stand in one list, `all_modules`, in the order in which they run; 1x1 convolutions are matrices (in, out). What
is not a weight is left to the caller: the buffer `sigmas` of the file, `data.centered=False` (images in [0, 1] are mapped to
2 x - 1 before the network) and `model.scale_by_sigma` (the output is divided by sigma after it).

Source: https://github.com/yang-song/score_sde_pytorch/blob/main/models/ddpm.py and layers.py.
"""

import itertools
from typing import Any

from models.pretrained.mapping import POINTWISE_TRANSPOSED, Path, Weight
from models.pretrained.unet import Layer, Place, down, require, up, weights
from models.unet import UNet

MATRIX = {"kernel": "W", "bias": "b"}
RESIDUAL = {
    "norm_in": Layer("GroupNorm_0"),
    "conv_in": Layer("Conv_0"),
    "embedding": Layer("Dense_0"),
    "norm_out": Layer("GroupNorm_1"),
    "conv_out": Layer("Conv_1"),
    "skip": Layer("NIN_0", POINTWISE_TRANSPOSED, leaves=MATRIX),
}
ATTENTION = {
    "norm": Layer("GroupNorm_0"),
    "qkv": Layer(("NIN_0", "NIN_1", "NIN_2"), POINTWISE_TRANSPOSED, leaves=MATRIX),
    "out": Layer("NIN_3", POINTWISE_TRANSPOSED, leaves=MATRIX),
}
# Of a module, in the order of the release's nameless list of weights.
SUBMODULES = ("GroupNorm_0", "Conv_0", "Dense_0", "GroupNorm_1", "Conv_1", "NIN_0", "NIN_1", "NIN_2", "NIN_3")


def mapping(network: UNet, shapes: Any) -> dict[Path, Weight]:
    """Where the weights of the network are in the file.

    Args:
        network: a DDPM, or a UNet with options that make it one.
        shapes: its variables, or their shapes (`jax.eval_shape` of its init with images of the published size).

    Raises:
        ValueError: score_sde's ddpm has no such network; the option is named.
    """
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
        learned_variance=False,
    )
    modules = shapes["params"]
    places, number = {}, itertools.count()

    def add(name, layers=None):
        if layers is None:
            places[name] = Place(f"all_modules.{next(number)}")
        elif name in modules:
            places[name] = Place(f"all_modules.{next(number)}", layers)

    def add_all(direction, steps):
        for level, what in steps:
            name = f"{direction}_{level}_{what}"
            if what == "resample":
                places[name] = Place(f"all_modules.{next(number)}.Conv_0")
                continue
            add(name, RESIDUAL)
            add(f"{name}_attention", ATTENTION)

    add("embedding_0")
    add("embedding_1")
    add("conv_in")
    add_all("down", down(network))
    add("middle_0", RESIDUAL)
    add("middle_attention", ATTENTION)
    add("middle_1", RESIDUAL)
    add_all("up", up(network))
    add("norm_out")
    add("conv_out")
    return weights(shapes, places)


def parameter_names(network: UNet, shapes: Any) -> list[str]:
    """The names of the file's trainable weights in the order of its nameless EMA list; arguments as of `mapping`."""

    def place(name):
        _, number, *submodule, leaf = name.split(".")
        return int(number), SUBMODULES.index(submodule[0]) if submodule else 0, leaf in ("bias", "b")

    return sorted((name for weight in mapping(network, shapes).values() for name in weight.parts), key=place)
