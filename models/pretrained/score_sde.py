"""Import of score_sde's NCSN++ and DDPM++, of the PyTorch and the JAX release, as `models.ncsnpp.NCSNpp`.

The PyTorch release numbers the modules of its network in the order of execution, `all_modules.0`, `all_modules.1`, ...,
and names the layers in each (`Conv_0`, `GroupNorm_1`, `NIN_2`, ...). Its checkpoints contain `model`, tensors by name,
and `ema`, whose `shadow_params` is an unnamed list of the trainable parameters in the order of `model` (`named_ema`
assigns the names).

The JAX release (flax) numbers its modules by class, `ResnetBlockBigGANpp_0`, `Conv_0`, ..., in the order of execution.
Its checkpoints contain nested dictionaries, including `params_ema` (`by_path` flattens them).

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
    """Returns the tensor of the PyTorch release for each weight, with the names of `named_model` and `named_ema`.

    Networks with `conditional=False` are not supported: in score_sde, their blocks have unused weights for the
    embedding.

    Args:
        network: the network of the checkpoint's config.
        shapes: its variables, or their shapes (`jax.eval_shape` of its init).

    Raises:
        ValueError: the network has options that score_sde does not have.
    """
    parts = [part for part in _parts(network, _names(network, shapes)) if part.numbered]
    places = {part.name: (f"all_modules.{number}", part.flax) for number, part in enumerate(parts)}
    return _mapping(network, shapes, places, ".", TORCH_LEAVES)


def jax_mapping(network: NCSNpp, shapes: Any) -> dict[Path, Weight]:
    """Returns the tensor of the JAX release for each weight, with the names of `by_path`; see `torch_mapping`."""
    counts, places = Counter(), {}
    for part in _parts(network, _names(network, shapes)):
        places[part.name] = f"{part.flax}_{counts[part.flax]}", part.flax
        counts[part.flax] += 1
    return _mapping(network, shapes, places, "/", FLAX_LEAVES)


def named_model(model: Tensors) -> dict[str, np.ndarray]:
    """Returns the parameters of a PyTorch checkpoint's `model`, without DataParallel's prefix and without buffers."""
    named = {name.removeprefix("module."): tensor for name, tensor in model.items()}
    return {name: tensor for name, tensor in named.items() if name not in BUFFERS}


def named_ema(shadow_params: Sequence[np.ndarray], model: Tensors) -> dict[str, np.ndarray]:
    """Returns the parameters of a PyTorch checkpoint, with trainable parameters replaced by their moving averages.

    Args:
        shadow_params: the moving averages of the trainable parameters in the checkpoint's `ema`, in order.
        model: the checkpoint's `model`, by name and in order; the source of parameters that are not trained.

    Raises:
        WeightsError: the number or shapes of the averages differ from those of the trainable parameters.
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
    """Flattens nested dictionaries to arrays with names such as "ResnetBlockBigGANpp_0/Conv_0/kernel".

    Scales and biases of group norms, (1, 1, 1, C) in early versions of flax, are reshaped to (C,).
    """
    named = {"/".join(path): np.asarray(array) for path, array in flatten(params).items()}
    return {name: array.reshape(-1) if "GroupNorm" in name else array for name, array in named.items()}


# Tensors of `model` that are not parameters: the table of noise levels.
BUFFERS = ("sigmas",)
# Parameters that are not trained: the Fourier frequencies.
FROZEN = re.compile(r"all_modules\.\d+\.W")

# Names and layouts of the leaves of a layer in the releases, by class; absent leaves have equal names and layouts.
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
# The layers of a module by our names; "" is a module that is a single layer here, but contains a layer in score_sde.
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
    """A module of score_sde's network: our name, its class, and whether it is numbered in the PyTorch release."""

    name: str
    flax: str
    numbered: bool = True


def _names(network, shapes):
    if network.num_classes or network.augment_features:
        raise ValueError("score_sde's networks have no num_classes and no augment_features")
    return {path[1] for path in flatten(shapes)}


def _parts(network: NCSNpp, names: Container[str]) -> Iterator[Part]:
    """Yields the modules in the order of execution, including modules without weights, which are numbered as well.

    Args:
        network: the network.
        names: our names of the modules with weights; optional modules that are absent in `names` are omitted.
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
        part_layers = layers[part_class]["".join(inner)]
        name, layout = leaves.get((part_layers[0].split("_")[0], leaf), (leaf, SAME))
        names = [separator.join((place, layer, name)) for layer in part_layers]
        return Weight(tuple(names) if len(names) > 1 else names[0], layout)

    return {path: weight(path) for path in flatten(shapes)}
