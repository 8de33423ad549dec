"""Import of diffusion transformers of facebookresearch/DiT and diffusers as `models.dit.DiT`.

Sources: https://github.com/facebookresearch/DiT/blob/main/models.py (with timm's PatchEmbed, Attention and Mlp),
https://github.com/huggingface/diffusers/blob/main/src/diffusers/models/transformers/dit_transformer_2d.py.

Besides the names of the weights, diffusers differs in four ways: each block has its own embedding of noise level and
class; the frequencies of the noise level are those of DDPM; the norm before each MLP has a different epsilon; and for
image sizes other than the training size, the positions are rescaled to the training range. `from_diffusers_config` sets
the options accordingly.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from models.dit import SIZES, DiT
from models.layers.positions import sincos_positions
from models.pretrained.mapping import DENSE, Layout, Path, Tensors, Weight, WeightsError


def facebook_mapping(network: DiT, in_channels: int) -> dict[Path, Weight]:
    """Returns the mapping from the weights of the network to the tensors of facebookresearch/DiT.

    The tensor `pos_embed` is not a weight and must be removed by `drop_facebook_positions`.

    Args:
        network: without `block_embeddings`.
        in_channels: channels of the input, 4 for the published networks.

    Raises:
        ValueError: facebookresearch/DiT has no such network.
    """
    if network.block_embeddings or not network.num_classes or network.positions != "sincos":
        raise ValueError(
            "facebookresearch/DiT has one embedding for all blocks, classes and sine-cosine positions, but "
            f"block_embeddings={network.block_embeddings}, num_classes={network.num_classes}, "
            f"positions={network.positions!r}"
        )
    mapping = _dense("patches", "x_embedder.proj", patches(network.patch_size, in_channels))
    mapping |= _dense("embedding/noise_level_0", "t_embedder.mlp.0")
    mapping |= _dense("embedding/noise_level_1", "t_embedder.mlp.2")
    mapping[_path("embedding/classes/embedding")] = Weight("y_embedder.embedding_table.weight")
    for i in range(network.depth):
        mapping |= _dense(f"block_{i}/modulation", f"blocks.{i}.adaLN_modulation.1")
        mapping |= _dense(f"block_{i}/qkv", f"blocks.{i}.attn.qkv")
        mapping |= _dense(f"block_{i}/attention_out", f"blocks.{i}.attn.proj")
        mapping |= _dense(f"block_{i}/mlp_in", f"blocks.{i}.mlp.fc1")
        mapping |= _dense(f"block_{i}/mlp_out", f"blocks.{i}.mlp.fc2")
    mapping |= _dense("modulation", "final_layer.adaLN_modulation.1")
    mapping |= _dense("out", "final_layer.linear")
    return mapping


def facebook_positions(network: DiT, patches_per_side: int) -> dict[str, np.ndarray]:
    """Returns `pos_embed`, the fixed positions of square images, which a file of facebookresearch/DiT also contains."""
    return {"pos_embed": sincos_positions(patches_per_side, patches_per_side, network.width)[None]}


def drop_facebook_positions(tensors: Tensors, network: DiT) -> dict[str, np.ndarray]:
    """Returns the tensors of a file without the position encoding, which the network computes.

    Raises:
        WeightsError: the position encoding of the file differs from that of the network.
    """
    tensors = dict(tensors)
    if (positions := tensors.pop("pos_embed", None)) is not None:
        expected = facebook_positions(network, math.isqrt(positions.shape[1]))["pos_embed"]
        if positions.shape != expected.shape or not np.allclose(positions, expected, atol=1e-5):
            raise WeightsError("pos_embed is not the fixed sine-cosine encoding of a square grid")
    return tensors


def from_facebook_tensors(tensors: Tensors, **options: Any) -> DiT:
    """Infers the network from the shapes of its tensors.

    The number of heads cannot be inferred from the tensors; it is that of the published network of the same width.

    Args:
        tensors: tensors of the file, by name.
        options: further options of the network, which override the inferred options: `num_heads` for a width that was
            not published, null_class=False for a network that was trained without a null class.

    Raises:
        WeightsError: a tensor that determines a size is missing or has a wrong number of axes, the width is not
            published and `num_heads` is not given, or the number of outputs does not match the input channels.
    """
    width, in_channels, patch_size, _ = _shape(tensors, "x_embedder.proj.weight", 4)
    hidden, _ = _shape(tensors, "blocks.0.mlp.fc1.weight", 2)
    rows, _ = _shape(tensors, "y_embedder.embedding_table.weight", 2)
    outputs, _ = _shape(tensors, "final_layer.linear.weight", 2)
    heads = {size["width"]: size["num_heads"] for size in SIZES.values()}
    if width not in heads and "num_heads" not in options:
        published = ", ".join(f"{size['width']} ({name})" for name, size in SIZES.items())
        raise WeightsError(
            f"x_embedder.proj.weight is of width {width}, whose number of heads is unknown: only {published} are known"
        )
    per_patch = in_channels * patch_size**2
    if outputs not in (per_patch, 2 * per_patch):
        raise WeightsError(
            f"final_layer.linear.weight has {outputs} outputs: only {per_patch} for the input's {in_channels} channels, or "
            f"{2 * per_patch} with a variance"
        )
    numbers = [name.split(".")[1] for name in tensors if name.startswith("blocks.")]
    inferred = {
        "width": width,
        "depth": 1 + max(int(number) for number in numbers if number.isdecimal()),
        "num_heads": heads.get(width),
        "patch_size": patch_size,
        "mlp_ratio": hidden / width,
        "learned_variance": outputs == 2 * per_patch,
        "num_classes": rows - options.get("null_class", True),
    }
    return DiT(**(inferred | options))


def facebook_input(tensors: Tensors, network: DiT) -> tuple[int, int]:
    """Returns the height (equal to the width) and the channels of the images of a file of facebookresearch/DiT.

    Raises:
        WeightsError: the tensors that determine the size are missing.
    """
    patches = _shape(tensors, "pos_embed", 3)[1]
    return math.isqrt(patches) * network.patch_size, _shape(tensors, "x_embedder.proj.weight", 4)[1]


def _shape(tensors, name, axes):
    shape = np.shape(tensors.get(name, 0))
    if len(shape) != axes:
        raise WeightsError(f"missing: {name}" if name not in tensors else f"{name} has shape {shape}, not {axes} axes")
    return shape


def diffusers_mapping(network: DiT, in_channels: int) -> dict[Path, Weight]:
    """Returns the mapping from the weights of the network to the tensors of diffusers' DiTTransformer2DModel.

    Args:
        network: a network from `from_diffusers_config`.
        in_channels: channels of the input.

    Raises:
        ValueError: DiTTransformer2DModel has no such network.
    """
    if not (network.block_embeddings and network.num_classes and network.null_class and network.positions == "sincos"):
        raise ValueError(
            "DiTTransformer2DModel has an embedding in each block, classes, a null class and sine-cosine positions, but "
            f"block_embeddings={network.block_embeddings}, num_classes={network.num_classes}, "
            f"null_class={network.null_class}, positions={network.positions!r}"
        )
    mapping = _dense("patches", "pos_embed.proj", patches(network.patch_size, in_channels))
    for i in range(network.depth):
        block, embedding = f"transformer_blocks.{i}", f"transformer_blocks.{i}.norm1.emb"
        mapping |= _dense(f"embedding_{i}/noise_level_0", f"{embedding}.timestep_embedder.linear_1")
        mapping |= _dense(f"embedding_{i}/noise_level_1", f"{embedding}.timestep_embedder.linear_2")
        classes = Weight(f"{embedding}.class_embedder.embedding_table.weight")
        mapping[_path(f"embedding_{i}/classes/embedding")] = classes
        mapping |= _dense(f"block_{i}/modulation", f"{block}.norm1.linear")
        mapping |= _dense(f"block_{i}/qkv", tuple(f"{block}.attn1.to_{part}" for part in "qkv"))
        mapping |= _dense(f"block_{i}/attention_out", f"{block}.attn1.to_out.0")
        mapping |= _dense(f"block_{i}/mlp_in", f"{block}.ff.net.0.proj")
        mapping |= _dense(f"block_{i}/mlp_out", f"{block}.ff.net.2")
    mapping |= _dense("modulation", "proj_out_1")
    mapping |= _dense("out", "proj_out_2")
    return mapping


# Required values of keys of config.json without a corresponding option in `DiT`; the first value is the default.
ONLY = {
    "norm_type": ("ada_norm_zero",),
    "activation_fn": ("gelu-approximate",),
    "attention_bias": (True,),
    "norm_elementwise_affine": (False,),
    "cross_attention_dim": (None,),
    "double_self_attention": (False,),
    "only_cross_attention": (False,),
    "num_vector_embeds": (None,),
}

# The keys of `ONLY` that are arguments of DiTTransformer2DModel.
WRITTEN = ("norm_type", "activation_fn", "attention_bias", "norm_elementwise_affine")


def from_diffusers_config(config: Mapping[str, Any], **options: Any) -> DiT:
    """Returns the network of a config.json of diffusers' DiTTransformer2DModel (Transformer2DModel in older files).

    Args:
        config: the JSON object, or a part of it; absent keys have the defaults of diffusers.
        options: further options of the network, such as `dtype`.

    Raises:
        ValueError: a key has a value without counterpart in `DiT`; the message names the key.
    """
    for key, allowed in ONLY.items():
        if config.get(key, allowed[0]) not in allowed:
            raise ValueError(f"{key}={config[key]!r} is not supported by diffusers' DiT: only {allowed[0]!r}")
    in_channels, num_heads = config.get("in_channels", 4), config.get("num_attention_heads", 16)
    patch_size, out_channels = config.get("patch_size", 2), config.get("out_channels") or in_channels
    learned_variance = out_channels == 2 * in_channels
    converted = {
        "width": num_heads * config.get("attention_head_dim", 72),
        "depth": config.get("num_layers", 28),
        "num_heads": num_heads,
        "patch_size": patch_size,
        "out_channels": 0 if learned_variance or out_channels == in_channels else out_channels,
        "learned_variance": learned_variance,
        "num_classes": config.get("num_embeds_ada_norm", 1000),
        "position_span": config.get("sample_size", 32) // patch_size,
        "frequencies": "ddpm",
        "block_embeddings": True,
        "mlp_norm_epsilon": config.get("norm_eps", 1e-5),
        "dropout": config.get("dropout", 0.0),
    }
    return DiT(**(converted | options))


def to_diffusers_config(network: DiT, in_channels: int, image_size: int) -> dict[str, Any]:
    """Returns the config.json of a network, the inverse of `from_diffusers_config` except for `dtype` and `remat`.

    Raises:
        ValueError: DiTTransformer2DModel has no such network; the message names the option.
    """
    diffusers_mapping(network, in_channels)  # raises ValueError for options that concern the weights
    config = {
        "_class_name": "DiTTransformer2DModel",
        "num_attention_heads": network.num_heads,
        "attention_head_dim": network.width // network.num_heads,
        "in_channels": in_channels,
        "out_channels": (network.out_channels or in_channels) * (2 if network.learned_variance else 1),
        "num_layers": network.depth,
        "dropout": network.dropout,
        "sample_size": image_size,
        "patch_size": network.patch_size,
        "num_embeds_ada_norm": network.num_classes,
        "norm_eps": network.mlp_norm_epsilon,
    } | {key: values[0] for key, values in ONLY.items() if key in WRITTEN}
    restored = from_diffusers_config(config, dtype=network.dtype, remat=network.remat)
    for option in type(network).__dataclass_fields__:
        if option not in ("parent", "name") and getattr(network, option) != getattr(restored, option):
            raise ValueError(
                f"DiTTransformer2DModel has no network with {option}={getattr(network, option)!r}, "
                f"only with {getattr(restored, option)!r}"
            )
    return config


def patches(patch_size: int, in_channels: int) -> Layout:
    """Returns the layout from a Conv2d kernel (out, in, p, p) of stride p to a kernel of tokens (p p in, out)."""
    theirs = (patch_size, patch_size, in_channels, -1)
    return Layout(
        lambda a: a.transpose(2, 3, 1, 0).reshape(-1, a.shape[0]),
        lambda a: a.reshape(*theirs).transpose(3, 2, 0, 1),
    )


def _path(name: str) -> Path:
    return ("params", *name.split("/"))


def _dense(ours: str, theirs: str | tuple[str, ...], layout: Layout = DENSE) -> dict[Path, Weight]:
    """Maps kernel and bias of a dense layer; several layers of the file are concatenated."""
    names = (theirs,) if isinstance(theirs, str) else theirs
    return {
        _path(f"{ours}/kernel"): Weight(tuple(f"{name}.weight" for name in names), layout),
        _path(f"{ours}/bias"): Weight(tuple(f"{name}.bias" for name in names)),
    }
