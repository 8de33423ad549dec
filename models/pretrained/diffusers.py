"""Import and export of diffusers' `UNet2DModel` (weights and config.json) as `models.unet.UNet`.

Covers the architectures of DDPM (google/ddpm-cifar10-32, google/ddpm-church-256), of ADM as in the consistency models
(openai/diffusers-cd_imagenet64_l2), and combinations of their options. `noise_level` is the integer step.

Old files name the layers of attention query, key, value and proj_attn; newer files name them to_q, to_k, to_v and
to_out.0. `has_old_names` distinguishes the two.

Source: https://github.com/huggingface/diffusers/blob/main/src/diffusers/models/unets/unet_2d.py and unet_2d_blocks.py.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from models.pretrained.mapping import POINTWISE, Path, Weight
from models.pretrained.unet import Layer, Place, down, require, up, weights
from models.unet import UNet

RESIDUAL = {
    "norm_in": Layer("norm1"),
    "conv_in": Layer("conv1"),
    "embedding": Layer("time_emb_proj"),
    "norm_out": Layer("norm2"),
    "conv_out": Layer("conv2"),
    "skip": Layer("conv_shortcut"),
}


def _attention(query, key, value, out):
    return {
        "norm": Layer("group_norm"),
        "qkv": Layer((query, key, value), POINTWISE),
        "out": Layer(out, POINTWISE),
    }


ATTENTION = _attention("to_q", "to_k", "to_v", "to_out.0")
OLD_ATTENTION = _attention("query", "key", "value", "proj_attn")

# Keys of config.json with the defaults of diffusers 0.42.
DEFAULTS = {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (224, 448, 672, 896),
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "downsample_padding": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "dropout": 0.0,
    "act_fn": "silu",
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "class_embed_type": None,
    "num_class_embeds": None,
    "num_train_timesteps": None,
}
# Keys that diffusers' training scripts add for an exponential moving average; they do not concern the architecture.
OF_AVERAGES = {
    "decay",
    "inv_gamma",
    "min_decay",
    "optimization_step",
    "power",
    "update_after_step",
    "use_ema_warmup",
}
EMBEDDINGS = {(False, 1): "positional", (True, 0): "positional_adm"}  # by flip_sin_to_cos and freq_shift
PADDINGS = {0: "strided", 1: "strided_symmetric"}  # by downsample_padding
# Whether the block has attention, and the kind of resampling after it; None for the key downsample_type or
# upsample_type.
DOWN_BLOCKS = {
    "DownBlock2D": (False, "conv"),
    "ResnetDownsampleBlock2D": (False, "resnet"),
    "AttnDownBlock2D": (True, None),
}
UP_BLOCKS = {"UpBlock2D": (False, "conv"), "ResnetUpsampleBlock2D": (False, "resnet"), "AttnUpBlock2D": (True, None)}


class Facts(NamedTuple):
    """Values of config.json other than the architecture.

    Attributes:
        image_size: (height, width) of the training images, or None.
        in_channels: channels of x, including those of conditioning images.
    """

    image_size: tuple[int, int] | None
    in_channels: int


def has_old_names(tensor_names: Iterable[str]) -> bool:
    """Returns whether a file with these tensors names the layers of attention query, key, value and proj_attn."""
    return any(name.endswith(".proj_attn.weight") for name in tensor_names)


def mapping(network: UNet, shapes: Any, *, old_names: bool = False) -> dict[Path, Weight]:
    """Returns the mapping from the weights of the network to the tensors of the file.

    Args:
        network: a network from `from_config`.
        shapes: its variables, or their shapes (`jax.eval_shape` of its init with images of the published size).
        old_names: result of `has_old_names` for the file.

    Raises:
        ValueError: UNet2DModel has no such network; the message names the option.
    """
    _require_expressible(network)
    attention = OLD_ATTENTION if old_names else ATTENTION
    last = len(network.channel_multipliers) - 1
    places = {
        "conv_in": Place("conv_in"),
        "embedding_0": Place("time_embedding.linear_1"),
        "embedding_1": Place("time_embedding.linear_2"),
        "classes": Place("class_embedding"),
        "middle_0": Place("mid_block.resnets.0", RESIDUAL),
        "middle_attention": Place("mid_block.attentions.0", attention),
        "middle_1": Place("mid_block.resnets.1", RESIDUAL),
        "norm_out": Place("conv_norm_out"),
        "conv_out": Place("conv_out"),
    }
    for direction, steps in (("down", down(network)), ("up", up(network))):
        for level, step in steps:
            name = f"{direction}_{level}_{step}"
            theirs = f"{direction}_blocks.{level if direction == 'down' else last - level}"
            if step != "resample":
                places[name] = Place(f"{theirs}.resnets.{step}", RESIDUAL)
                places[f"{name}_attention"] = Place(f"{theirs}.attentions.{step}", attention)
            elif network.resampling == "block":
                places[name] = Place(f"{theirs}.{direction}samplers.0", RESIDUAL)
            else:
                places[name] = Place(f"{theirs}.{direction}samplers.0.conv")
    return weights(shapes, places)


def from_config(config: Mapping[str, Any]) -> tuple[UNet, Facts]:
    """Returns the network of a config.json, given as a dictionary, and its values other than the architecture.

    Twice as many output channels as input channels are interpreted as a learned variance.

    Raises:
        ValueError: `UNet` has no such network; the message gives the key, its value and the allowed values.
    """
    for key in config:
        if key not in DEFAULTS and key not in OF_AVERAGES and not key.startswith("_"):
            raise ValueError(f"config.json: {key!r} is not a key of UNet2DModel")
    if (kind := config.get("_class_name", "UNet2DModel")) != "UNet2DModel":
        raise _inexpressible("_class_name", kind, "'UNet2DModel'")
    c: dict[str, Any] = DEFAULTS | {key: tuple(v) if isinstance(v, list) else v for key, v in config.items()}
    widths, levels = c["block_out_channels"], len(c["block_out_channels"])
    scale_shift = c["resnet_time_scale_shift"] == "scale_shift"
    # If attn_norm_num_groups is None and the embedding scales and shifts, diffusers' middle attention has no norm.
    unset = () if scale_shift and c["add_attention"] else (None,)
    for key, allowed in {
        "center_input_sample": (False,),
        "time_embedding_type": ("positional",),
        "time_embedding_dim": (None, 4 * widths[0]),
        "flip_sin_to_cos": tuple(flip for flip, _ in EMBEDDINGS),
        "freq_shift": tuple(shift for flip, shift in EMBEDDINGS if flip == c["flip_sin_to_cos"]),
        "mid_block_type": ("UNetMidBlock2D",),
        "mid_block_scale_factor": (1,),
        "downsample_padding": tuple(PADDINGS),
        "act_fn": ("silu", "swish"),
        "resnet_time_scale_shift": ("default", "scale_shift"),
        "class_embed_type": (None,),
        "attn_norm_num_groups": (c["norm_num_groups"], *unset),
    }.items():
        if c[key] not in allowed:
            raise _inexpressible(key, c[key], " or ".join(repr(value) for value in allowed))
    attending, resampling = _blocks(c, levels)
    image_size = _pair(c["sample_size"])
    if attending and image_size is None:
        raise _inexpressible("sample_size", None, "a number, since attention_resolutions depends on it")
    side = image_size[0] if image_size else 0
    heads: dict[str, Any] = {} if c["attention_head_dim"] is None else {"head_channels": c["attention_head_dim"]}
    doubled = c["out_channels"] == 2 * c["in_channels"]
    network = UNet(
        channels=widths[0],
        channel_multipliers=tuple(_ratio(width, widths[0]) for width in widths),
        blocks_per_level=c["layers_per_block"],
        attention_resolutions=tuple(side // 2**level for level in attending),
        middle_attention=c["add_attention"],
        dropout=c["dropout"],
        num_classes=c["num_class_embeds"] or 0,
        embedding=EMBEDDINGS[c["flip_sin_to_cos"], c["freq_shift"]],
        scale_shift=scale_shift,
        resampling=resampling,
        norm_groups=c["norm_num_groups"],
        norm_epsilon=c["norm_eps"],
        out_channels=0 if doubled or c["out_channels"] == c["in_channels"] else c["out_channels"],
        learned_variance=doubled,
        **heads,
    )
    return network, Facts(image_size, c["in_channels"])


def to_config(network: UNet, facts: Facts) -> dict[str, Any]:
    """Returns the config.json of a network, the inverse of `from_config` except for `dtype` and `remat`.

    Raises:
        ValueError: UNet2DModel has no such network; the message names the option.
    """
    _require_expressible(network)
    require(network, "UNet2DModel", num_heads=1)
    if not network.norm_groups:
        raise ValueError("UNet2DModel has no network with norm_groups=0, only with a number of groups for all norms")
    levels = range(len(network.channel_multipliers))
    if facts.image_size is None:
        raise ValueError("config.json needs the image size, which sets the levels with attention")
    attends = [facts.image_size[0] // 2**level in network.attention_resolutions for level in levels]
    block = network.resampling == "block"

    def types(direction, plain):
        kinds = [f"Attn{direction}Block2D" if attend else plain for attend in attends]
        return kinds if direction == "Down" else kinds[::-1]

    flip, shift = next(key for key, name in EMBEDDINGS.items() if name == network.embedding)
    padding = {name: number for number, name in PADDINGS.items()}
    kind = "resnet" if block else "conv"
    height, width = facts.image_size
    out_channels = network.out_channels or facts.in_channels
    changed = {
        "sample_size": height if height == width else [height, width],
        "in_channels": facts.in_channels,
        "out_channels": out_channels * (2 if network.learned_variance else 1),
        "freq_shift": shift,
        "flip_sin_to_cos": flip,
        "down_block_types": types("Down", "ResnetDownsampleBlock2D" if block else "DownBlock2D"),
        "up_block_types": types("Up", "ResnetUpsampleBlock2D" if block else "UpBlock2D"),
        "block_out_channels": [round(network.channels * multiplier) for multiplier in network.channel_multipliers],
        "layers_per_block": network.blocks_per_level,
        "downsample_padding": padding.get(network.resampling, 1),
        "downsample_type": kind,
        "upsample_type": kind,
        "dropout": network.dropout,
        "attention_head_dim": network.head_channels or None,
        "norm_num_groups": network.norm_groups,
        "attn_norm_num_groups": network.norm_groups,
        "norm_eps": network.norm_epsilon,
        "resnet_time_scale_shift": "scale_shift" if network.scale_shift else "default",
        "add_attention": network.middle_attention,
        "num_class_embeds": network.num_classes or None,
    }
    return {"_class_name": "UNet2DModel"} | DEFAULTS | changed


def _require_expressible(network):
    resampling = ("block", *PADDINGS.values())
    require(network, "UNet2DModel", embedding=tuple(EMBEDDINGS.values()), resampling=resampling, up_attention="block")
    require(network, "UNet2DModel", augment_features=0)


def _blocks(c, levels):
    """Returns the levels with attention, and the option `resampling` of `UNet`."""
    attends, kinds = {}, set()
    for key, known, kind_key in (
        ("down_block_types", DOWN_BLOCKS, "downsample_type"),
        ("up_block_types", UP_BLOCKS, "upsample_type"),
    ):
        # The first releases of diffusers name the blocks UNetResDownBlock2D and so on.
        names = [name.removeprefix("UNetRes") for name in c[key]]
        if unknown := [name for name in names if name not in known]:
            raise _inexpressible(key, unknown[0], " or ".join(known))
        if len(names) != levels:
            raise _inexpressible(key, c[key], f"{levels} blocks, as block_out_channels has")
        attends[key] = [known[name][0] for name in names]
        kinds |= {known[name][1] or c[kind_key] for name in names[:-1]}  # the last block has no resampling
    if attends["up_block_types"] != attends["down_block_types"][::-1]:
        raise _inexpressible("up_block_types", c["up_block_types"], "attention at the levels of down_block_types")
    if not kinds <= {"conv", "resnet"} or len(kinds) > 1:
        raise _inexpressible("downsample_type", c["downsample_type"], "one of 'conv' and 'resnet' in the whole network")
    resampling = "block" if kinds == {"resnet"} else PADDINGS[c["downsample_padding"]]
    return [level for level, attend in enumerate(attends["down_block_types"]) if attend], resampling


def _ratio(width, unit):
    return width // unit if width % unit == 0 else width / unit


def _pair(size):
    return size if size is None or isinstance(size, tuple) else (size, size)


def _inexpressible(key, value, allowed):
    return ValueError(f"config.json: {key}={value!r} has no counterpart here: only {allowed}")
