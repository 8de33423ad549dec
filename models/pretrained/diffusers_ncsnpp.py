"""Import of NCSN++ from diffusers, a `UNet2DModel` with skip blocks (google/ncsnpp-church-256), as `NCSNpp`.

The architecture is score_sde's NCSN++ for 256 px: the downsampled image is added to each level (input pyramid), and the
output is summed over the levels (output pyramid). In diffusers, the network takes sigma and its output is divided by
sigma (score_sde's `scale_by_sigma`); here the parameterization does both. `center_input_sample=True` means that images
lie in [0, 1].

Source: https://github.com/huggingface/diffusers/blob/main/src/diffusers/models/unets/unet_2d.py and unet_2d_blocks.py.
"""

import math
from collections.abc import Mapping
from typing import Any

from models.ncsnpp import NCSNpp
from models.pretrained.diffusers import ATTENTION, DEFAULTS, OLD_ATTENTION, RESIDUAL, Facts
from models.pretrained.mapping import Path, Weight
from models.pretrained.unet import LEAVES, Layer, Place, weights

BLOCKS = {"SkipDownBlock2D": False, "AttnSkipDownBlock2D": True, "SkipUpBlock2D": False, "AttnSkipUpBlock2D": True}
# Required values of keys. Keys that are absent here have no effect on skip blocks, or correspond to an option.
ONLY = {
    "center_input_sample": (True,),
    "time_embedding_type": ("fourier",),
    "mid_block_type": ("UNetMidBlock2D",),
    "act_fn": ("silu", "swish"),
    "attention_head_dim": (None,),
    "norm_num_groups": (None,),
    "attn_norm_num_groups": (None,),
    "norm_eps": (1e-6,),
    "resnet_time_scale_shift": ("default",),
    "add_attention": (True,),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
    "in_channels": (3,),
    "out_channels": (3,),
}


def has_skip_blocks(config: Mapping[str, Any]) -> bool:
    """Returns whether a config.json of UNet2DModel describes NCSN++, that is, has skip blocks."""
    names = (*config.get("down_block_types", ()), *config.get("up_block_types", ()))
    return any(name in BLOCKS for name in names)


def from_config(config: Mapping[str, Any]) -> tuple[NCSNpp, Facts]:
    """Returns the network of a config.json with skip blocks, and its values other than the architecture.

    Raises:
        ValueError: `NCSNpp` has no such network; the message gives the key, its value and the allowed values.
    """
    c: dict[str, Any] = DEFAULTS | {key: tuple(v) if isinstance(v, list) else v for key, v in config.items()}
    widths, size = c["block_out_channels"], c["sample_size"]
    for key, allowed in (ONLY | {"time_embedding_dim": (None, 4 * widths[0])}).items():
        if c[key] not in allowed:
            raise _inexpressible(key, c[key], " or ".join(repr(value) for value in allowed))
    if not math.isclose(c["mid_block_scale_factor"], math.sqrt(2)):
        raise _inexpressible("mid_block_scale_factor", c["mid_block_scale_factor"], "the square root of 2")
    for key, direction in (("down_block_types", "Down"), ("up_block_types", "Up")):
        if unknown := [name for name in c[key] if name not in BLOCKS or direction not in name]:
            raise _inexpressible(
                key, unknown[0], f"Skip{direction}Block2D and AttnSkip{direction}Block2D for all blocks"
            )
    attends = [BLOCKS[name] for name in c["down_block_types"]]
    if [BLOCKS[name] for name in c["up_block_types"]] != attends[::-1] or len(attends) != len(widths):
        raise _inexpressible("up_block_types", c["up_block_types"], "attention at the levels of down_block_types")
    if not isinstance(size, int):
        raise _inexpressible("sample_size", size, "the side of square images")
    if invalid := [width for width in widths if width % widths[0]]:
        raise _inexpressible("block_out_channels", invalid[0], f"multiples of the first, {widths[0]}")
    network = NCSNpp(
        channels=widths[0],
        channel_multipliers=tuple(width // widths[0] for width in widths),
        blocks_per_level=c["layers_per_block"],
        attention_resolutions=tuple(size >> level for level, attend in enumerate(attends) if attend),
        dropout=c["dropout"],
        progressive="output_skip",
        progressive_input="input_skip",
    )
    return network, Facts((size, size), c["in_channels"])


def mapping(network: NCSNpp, shapes: Any, *, old_names: bool = False) -> dict[Path, Weight]:
    """Returns the mapping from the weights of the network to the tensors of the file.

    Args:
        network: a network from `from_config`.
        shapes: its variables, or their shapes (`jax.eval_shape` of its init with images of the published size).
        old_names: result of `models.pretrained.diffusers.has_old_names` for the file.
    """
    attention, last = OLD_ATTENTION if old_names else ATTENTION, len(network.channel_multipliers) - 1
    places = {
        "fourier": Place("time_proj", {"": Layer("", leaves=LEAVES | {"frequencies": "weight"})}),
        "embedding_0": Place("time_embedding.linear_1"),
        "embedding_1": Place("time_embedding.linear_2"),
        "conv_in": Place("conv_in"),
        "middle_0": Place("mid_block.resnets.0", RESIDUAL),
        "middle_attention": Place("mid_block.attentions.0", attention),
        "middle_1": Place("mid_block.resnets.1", RESIDUAL),
    }
    for level in range(last + 1):
        down, up = f"down_blocks.{level}", f"up_blocks.{last - level}"
        for i in range(network.blocks_per_level):
            places[f"down_{level}_{i}"] = Place(f"{down}.resnets.{i}", RESIDUAL)
            places[f"down_{level}_{i}_attention"] = Place(f"{down}.attentions.{i}", attention)
        for i in range(network.blocks_per_level + 1):
            places[f"up_{level}_{i}"] = Place(f"{up}.resnets.{i}", RESIDUAL)
        places |= {
            f"up_{level}_attention": Place(f"{up}.attentions.0", attention),
            f"down_{level}_resample": Place(f"{down}.resnet_down", RESIDUAL),
            f"down_{level}_pyramid": Place(f"{down}.skip_conv"),
            f"up_{level}_resample": Place(f"{up}.resnet_up", RESIDUAL),
            f"up_{level}_pyramid": Place(f"{up}.skip_conv" if level else "conv_out"),
            f"up_{level}_pyramid_norm": Place(f"{up}.skip_norm" if level else "conv_norm_out"),
        }
    return weights(shapes, places)


def _inexpressible(key, value, allowed):
    return ValueError(f"config.json: {key}={value!r} has no counterpart in NCSN++: only {allowed}")
