"""Import of guided-diffusion's `UNetModel` (ADM) as `models.adm.ADM`.

The modules of guided-diffusion are numbered in the order of execution: input_blocks.0.0 is the first convolution, and
each block (with its attention) and each change of the resolution has the next number. The file is the plain
`state_dict` of the EMA.

Queries, keys and values are the output of one convolution. With `use_new_attention_order=True`, its channels are
ordered as here (all queries, all keys, all values); otherwise they are ordered by head (queries, keys and values of the
first head, then of the second). The order cannot be inferred from the tensors: of the published networks, that for
ImageNet at 64 px has the new order, and all others have the legacy order.

Source: https://github.com/openai/guided-diffusion/blob/main/guided_diffusion/unet.py.
"""

from typing import Any

import numpy as np

from models.pretrained.mapping import POINTWISE_1D, Layout, Path, Weight
from models.pretrained.unet import Layer, Place, down, require, up, weights
from models.unet import UNet

RESIDUAL = {
    "norm_in": Layer("in_layers.0"),
    "conv_in": Layer("in_layers.2"),
    "embedding": Layer("emb_layers.1"),
    "norm_out": Layer("out_layers.0"),
    "conv_out": Layer("out_layers.3"),
    "skip": Layer("skip_connection"),
}


def mapping(network: UNet, shapes: Any, *, new_attention_order: bool) -> dict[Path, Weight]:
    """Returns the mapping from the weights of the network to the tensors of the file.

    Args:
        network: an `ADM`, or a `UNet` with equivalent options.
        shapes: its variables, or their shapes (`jax.eval_shape` of its init with images of the published size).
        new_attention_order: `use_new_attention_order` of the network in the file.

    Raises:
        ValueError: guided-diffusion has no such network; the message names the option.
    """
    require(
        network,
        "guided-diffusion",
        embedding="positional_adm",
        norm_groups=32,
        norm_epsilon=1e-5,
        resampling=("block", "strided_symmetric", "plain"),
        middle_attention=True,
        up_attention="block",
        augment_features=0,
    )
    modules = shapes["params"]

    def attention(name):
        channels = modules[name]["norm"]["scale"].shape[0]
        heads = channels // network.head_channels if network.head_channels else network.num_heads
        order = (lambda layout: layout) if new_attention_order else (lambda layout: by_head(layout, heads))
        qkv = Layer("qkv", order(POINTWISE_1D), order(Layout(np.asarray, np.asarray)))
        return {"norm": Layer("norm"), "qkv": qkv, "out": Layer("proj_out", POINTWISE_1D)}

    places = {
        "conv_in": Place("input_blocks.0.0"),
        "embedding_0": Place("time_embed.0"),
        "embedding_1": Place("time_embed.2"),
        "classes": Place("label_emb"),
        "middle_0": Place("middle_block.0", RESIDUAL),
        "middle_attention": Place("middle_block.1", attention("middle_attention")),
        "middle_1": Place("middle_block.2", RESIDUAL),
        "norm_out": Place("out.0"),
        "conv_out": Place("out.2"),
    }
    as_block = network.resampling == "block"
    for number, (level, step) in enumerate(down(network), start=1):
        name, theirs = f"down_{level}_{step}", f"input_blocks.{number}"
        if step == "resample":
            places[name] = Place(f"{theirs}.0", RESIDUAL) if as_block else Place(f"{theirs}.0.op")
            continue
        places[name] = Place(f"{theirs}.0", RESIDUAL)
        if f"{name}_attention" in modules:
            places[f"{name}_attention"] = Place(f"{theirs}.1", attention(f"{name}_attention"))
    number, last = -1, 0
    for level, step in up(network):
        name = f"up_{level}_{step}"
        if step == "resample":  # the last module of the previous block
            theirs = f"output_blocks.{number}.{last + 1}"
            places[name] = Place(theirs, RESIDUAL) if as_block else Place(f"{theirs}.conv")
            continue
        number, last = number + 1, 0
        places[name] = Place(f"output_blocks.{number}.0", RESIDUAL)
        if f"{name}_attention" in modules:
            last = 1
            places[f"{name}_attention"] = Place(f"output_blocks.{number}.1", attention(f"{name}_attention"))
    return weights(shapes, places)


def by_head(layout, heads):
    """Returns the layout of channels ordered (head, q/k/v, channel) in the file and (q/k/v, head, channel) here."""

    def swapped(array, first, second):
        split = array.reshape(*array.shape[:-1], first, second, -1)
        return split.swapaxes(-3, -2).reshape(array.shape)

    return Layout(
        lambda theirs: swapped(layout.to_ours(theirs), heads, 3), lambda ours: layout.to_theirs(swapped(ours, 3, heads))
    )
