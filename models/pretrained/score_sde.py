"""The weights of score_sde's NCSN++ and DDPM++, of the PyTorch and the JAX release, as those of our network.

The PyTorch release numbers the parts of its network in the order in which they run, `all_modules.0`, `all_modules.1`, ...,
and names the layers in each (`Conv_0`, `GroupNorm_1`, `NIN_2`, ...). Its checkpoints hold `model`, tensors by name, and
`ema`, whose `shadow_params` is a list without names: the trainable ones in the same order (`named_ema` names them).

The JAX release (flax) numbers its parts by class, `ResnetBlockBigGANpp_0`, `Conv_0`, ..., in the same order. Its
checkpoints hold nested dictionaries, `params_ema` among them (`by_path` flattens them).

Sources: https://github.com/yang-song/score_sde_pytorch/blob/main/models/ncsnpp.py and models/ema.py;
https://github.com/yang-song/score_sde/blob/main/models/ncsnpp.py.
"""

import re
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from models.ncsnpp import NCSNpp
from models.pretrained.mapping import (
    CONV,
    DENSE,
    POINTWISE_TRANSPOSED,
    SAME,
    Layout,
    Path,
    Tensors,
    Weight,
    WeightsError,
    flatten,
)


def torch_mapping(network: NCSNpp, shapes: Any) -> dict[Path, Weight]:
    """For each weight of the network its tensor in the PyTorch release, named as `named_model` and `named_ema` do.

    A network with `conditional=False` cannot be had from there: its blocks keep unused weights for the embedding.

    Args:
        network: as the checkpoint's config has it.
        shapes: its variables, or their shapes (`jax.eval_shape` of its init).

    Raises:
        ValueError: for a network with options that score_sde does not have.
    """
    parts = [part for part in _parts(network, _names(network, shapes)) if part.numbered]
    places = {part.name: (f"all_modules.{number}", part.flax) for number, part in enumerate(parts)}
    return _mapping(network, shapes, places, ".", TORCH_LEAVES)


def jax_mapping(network: NCSNpp, shapes: Any) -> dict[Path, Weight]:
    """For each weight of the network its tensor in the JAX release, named as `by_path` does. See `torch_mapping`."""
    counts, places = Counter(), {}
    for part in _parts(network, _names(network, shapes)):
        places[part.name] = f"{part.flax}_{counts[part.flax]}", part.flax
        counts[part.flax] += 1
    return _mapping(network, shapes, places, "/", FLAX_LEAVES)


def named_model(model: Tensors) -> dict[str, np.ndarray]:
    """The parameters of a PyTorch checkpoint's `model`, without the prefix of DataParallel and without buffers."""
    named = {name.removeprefix("module."): tensor for name, tensor in model.items()}
    return {name: tensor for name, tensor in named.items() if name not in BUFFERS}


def named_ema(shadow_params: Sequence[np.ndarray], model: Tensors) -> dict[str, np.ndarray]:
    """The parameters of a PyTorch checkpoint with their moving averages in the place of those that have one.

    Args:
        shadow_params: of the checkpoint's `ema`: the averages of the trainable parameters, in order.
        model: the checkpoint's `model`, by name and in order; what is not trained is taken from here.

    Raises:
        WeightsError: number or shapes of the averages are not those of the trainable parameters.
    """
    named = named_model(model)
    trained = [name for name in named if not FROZEN.fullmatch(name)]
    if len(shadow_params) != len(trained):
        raise WeightsError(
            f"ema holds {len(shadow_params)} averages, but model has {len(trained)} trainable parameters"
        )
    averages = dict(zip(trained, shadow_params, strict=True))
    for name, average in averages.items():
        if average.shape != named[name].shape:
            raise WeightsError(f"ema's average of {name} has the shape {average.shape}, not {named[name].shape}")
    return named | averages


def by_path(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of nested dictionaries as "ResnetBlockBigGANpp_0/Conv_0/kernel" and so on.

    Early versions of flax kept the scale and bias of group norms as (1, 1, 1, C); they become (C,).
    """
    named = {"/".join(path): np.asarray(array) for path, array in flatten(params).items()}
    return {name: array.reshape(-1) if "GroupNorm" in name else array for name, array in named.items()}


# What `model` has besides parameters: the table of noise levels.
BUFFERS = ("sigmas",)
# Parameters that are not trained: the Fourier frequencies.
FROZEN = re.compile(r"all_modules\.\d+\.W")

# How the releases name and lay out the leaves of a layer, by its class; what is not here has our name and layout.
TORCH_LEAVES = {
    ("Conv", "kernel"): ("weight", CONV),
    ("Conv2d", "kernel"): ("weight", CONV),
    ("Dense", "kernel"): ("weight", DENSE),
    ("GroupNorm", "scale"): ("weight", SAME),
    ("NIN", "kernel"): ("W", POINTWISE_TRANSPOSED),
    ("NIN", "bias"): ("b", SAME),
    ("GaussianFourierProjection", "frequencies"): ("W", SAME),
}
FLAX_LEAVES = {
    ("Conv2d", "kernel"): ("weight", SAME),
    ("NIN", "kernel"): ("W", POINTWISE_TRANSPOSED),
    ("NIN", "bias"): ("b", SAME),
    ("GaussianFourierProjection", "frequencies"): ("W", SAME),
}
# The layers of a part by our name for them ("" is the part itself, which then is no layer there).
BLOCK = {
    "norm_in": ("GroupNorm_0",),
    "conv_in": ("Conv_0",),
    "embedding": ("Dense_0",),
    "norm_out": ("GroupNorm_1",),
    "conv_out": ("Conv_1",),
}
LAYERS = {
    "ResnetBlockDDPMpp": BLOCK | {"skip": ("NIN_0",)},
    "ResnetBlockBigGANpp": BLOCK | {"skip": ("Conv_2",)},
    "AttnBlockpp": {"norm": ("GroupNorm_0",), "qkv": ("NIN_0", "NIN_1", "NIN_2"), "out": ("NIN_3",)},
    "Combine": {"": ("Conv_0",)},
}
RESAMPLERS = ("Downsample", "Upsample")


class Part(NamedTuple):
    """A part of score_sde's network: our name for it, its class, and whether PyTorch's release has a number for it."""

    name: str
    flax: str
    numbered: bool = True


def _names(network, shapes):
    if network.num_classes or network.augment_features:
        raise ValueError("score_sde's networks have no num_classes and no augment_features")
    return {path[1] for path in flatten(shapes)}


def _parts(network: NCSNpp, names: Container[str]) -> Iterator[Part]:
    """The parts in the order in which they run; those without weights have numbers too.

    Args:
        network: the network.
        names: our names of those parts that have weights; the others are left out where they are optional.
    """
    block = {"ddpm": "ResnetBlockDDPMpp", "biggan": "ResnetBlockBigGANpp"}[network.resblock_type]
    coarsest = len(network.channel_multipliers) - 1
    if network.embedding == "fourier":
        yield Part("fourier", "GaussianFourierProjection")
    if network.conditional:
        yield from (Part(f"embedding_{i}", "Dense") for i in range(2))
    yield Part("conv_in", "Conv")
    for level in range(coarsest + 1):
        for i in range(network.blocks_per_level):
            yield Part(f"down_{level}_{i}", block)
            if f"down_{level}_{i}_attention" in names:
                yield Part(f"down_{level}_{i}_attention", "AttnBlockpp")
        if level < coarsest:
            yield Part(f"down_{level}_resample", block if network.resblock_type == "biggan" else "Downsample")
            if network.progressive_input == "input_skip":
                yield Part(f"down_{level}_pyramid_resample", "Downsample", numbered=False)
                yield Part(f"down_{level}_pyramid", "Combine")
            elif network.progressive_input == "residual":
                yield Part(f"down_{level}_pyramid", "Downsample")
    yield Part("middle_0", block)
    yield Part("middle_attention", "AttnBlockpp")
    yield Part("middle_1", block)
    for level in reversed(range(coarsest + 1)):
        yield from (Part(f"up_{level}_{i}", block) for i in range(network.blocks_per_level + 1))
        if f"up_{level}_attention" in names:
            yield Part(f"up_{level}_attention", "AttnBlockpp")
        if network.progressive == "output_skip" and level < coarsest:
            yield Part(f"up_{level}_pyramid_resample", "Upsample", numbered=False)
        if network.progressive == "output_skip" or (network.progressive == "residual" and level == coarsest):
            yield Part(f"up_{level}_pyramid_norm", "GroupNorm")
            yield Part(f"up_{level}_pyramid", "Conv")
        elif network.progressive == "residual":
            yield Part(f"up_{level}_pyramid", "Upsample")
        if level > 0:
            yield Part(f"up_{level}_resample", block if network.resblock_type == "biggan" else "Upsample")
    if network.progressive != "output_skip":
        yield Part("norm_out", "GroupNorm")
        yield Part("conv_out", "Conv")


def _mapping(
    network: NCSNpp,
    shapes: Any,
    places: Mapping[str, tuple[str, str]],
    separator: str,
    leaves: Mapping[tuple[str, str], tuple[str, Layout]],
) -> dict[Path, Weight]:
    resampler = {"": ("Conv2d_0" if network.fir else "Conv_0",)}
    layers = LAYERS | dict.fromkeys(RESAMPLERS, resampler)

    def weight(path):
        _, part, *inner, leaf = path
        place, part_class = places[part]
        if part_class not in layers:
            name, layout = leaves.get((part_class, leaf), (leaf, SAME))
            return Weight(f"{place}{separator}{name}", layout)
        of_part = layers[part_class]["".join(inner)]
        name, layout = leaves.get((of_part[0].split("_")[0], leaf), (leaf, SAME))
        names = [separator.join((place, layer, name)) for layer in of_part]
        return Weight(tuple(names) if len(names) > 1 else names[0], layout)

    return {path: weight(path) for path in flatten(shapes)}
