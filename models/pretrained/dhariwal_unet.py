"""Import of EDM's DhariwalUNet (ADM, `--arch=adm`) as `models.adm.ADM`.

EDM names the modules of its network by resolution: `enc.32x32_block0`, `dec.16x16_up`, ... A block includes the
attention that follows it. The output channels of the kernel of q, k and v are interleaved: q0 k0 v0 q1 k1 v1 ... Labels
are one-hot vectors, so the kernel of the label layer is the transposed class embedding; the zero vector is the label
`num_classes`, no class.

Source: Karras et al. (2022), https://github.com/NVlabs/edm/blob/main/training/networks.py, class DhariwalUNet.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from models.adm import ADM
from models.pretrained.edm import arguments, by_channel
from models.pretrained.mapping import CONV, DENSE, SAME, Path, Tensors, Weight
from models.pretrained.unet import Layer, Place, down, up, weights
from models.unet import UNet

RESIDUAL = {
    "norm_in": Layer("norm0"),
    "conv_in": Layer("conv0"),
    "embedding": Layer("affine"),
    "norm_out": Layer("norm1"),
    "conv_out": Layer("conv1"),
    "skip": Layer("skip"),
}
ATTENTION = {"norm": Layer("norm2"), "qkv": Layer("qkv", by_channel(CONV), by_channel(SAME)), "out": Layer("proj")}

# Arguments of DhariwalUNet with EDM's defaults. label_dropout affects only training and has no option in `ADM`.
DEFAULTS = {
    "label_dim": 0,
    "augment_dim": 0,
    "model_channels": 192,
    "channel_mult": (1, 2, 3, 4),
    "channel_mult_emb": 4,
    "num_blocks": 3,
    "attn_resolutions": (32, 16, 8),
    "dropout": 0.10,
    "label_dropout": 0,
}


def mapping(network: UNet, shapes: Any, image_size: int) -> dict[Path, Weight]:
    """Returns the tensor of DhariwalUNet's state for each weight of the network, with the names of `named_model`.

    Args:
        network: a network from `from_settings`.
        shapes: its variables, or their shapes (`jax.eval_shape` of its init).
        image_size: height of the images in pixels.
    """
    sizes = [f"{image_size >> level}x{image_size >> level}" for level in range(len(network.channel_multipliers))]
    places = {
        "embedding_0": Place("map_layer0"),
        "embedding_1": Place("map_layer1"),
        "augmentation": Place("map_augment"),
        "classes": Place("map_label", {"": Layer("", table=DENSE)}),
        "conv_in": Place(f"enc.{sizes[0]}_conv"),
        "middle_0": Place(f"dec.{sizes[-1]}_in0", RESIDUAL),
        "middle_attention": Place(f"dec.{sizes[-1]}_in0", ATTENTION),
        "middle_1": Place(f"dec.{sizes[-1]}_in1", RESIDUAL),
        "norm_out": Place("out_norm"),
        "conv_out": Place("out_conv"),
    }
    for direction, part, next_level, steps in (("down", "enc", 1, down(network)), ("up", "dec", -1, up(network))):
        for level, step in steps:
            name = f"{direction}_{level}_{step}"
            if step == "resample":
                places[name] = Place(f"{part}.{sizes[level + next_level]}_{direction}", RESIDUAL)
                continue
            places[name] = Place(f"{part}.{sizes[level]}_block{step}", RESIDUAL)
            places[f"{name}_attention"] = Place(f"{part}.{sizes[level]}_block{step}", ATTENTION)
    return weights(shapes, places)


def named_model(tensors: Tensors) -> Mapping[str, np.ndarray]:
    """Returns the parameters of EDM's network without the prefix of its preconditioning.

    The taps of the resampling filters and the noise levels of iDDPM are omitted.
    """
    named = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    return {n: tensor for n, tensor in named.items() if n != "u" and not n.endswith("resample_filter")}


def from_settings(settings: Mapping[str, Any]) -> ADM:
    """Returns the network for the arguments of EDM's DhariwalUNet.

    Twice as many output channels as input channels mean a learned variance, as in iDDPM's preconditioning.

    Raises:
        ValueError: an argument has no counterpart; the message names the argument.
    """
    c = arguments("DhariwalUNet", settings, DEFAULTS, {"channel_mult_emb": (4,)})
    learned_variance = c["out_channels"] == 2 * c["in_channels"]
    return ADM(
        channels=c["model_channels"],
        channel_multipliers=c["channel_mult"],
        blocks_per_level=c["num_blocks"],
        attention_resolutions=c["attn_resolutions"],
        dropout=c["dropout"],
        num_classes=c["label_dim"],
        augment_features=c["augment_dim"],
        out_channels=0 if learned_variance or c["out_channels"] == c["in_channels"] else c["out_channels"],
        learned_variance=learned_variance,
        norm_groups=0,  # 32, or fewer with at least 4 channels each
    )
