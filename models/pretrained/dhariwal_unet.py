"""The weights of EDM's DhariwalUNet (ADM, `--arch=adm`) as those of our `models.adm.ADM`.

EDM names the parts of its network by resolution: `enc.32x32_block0`, `dec.16x16_up`, ... A block there holds the attention
after it. The kernel of q, k and v has them side by side for each channel: q0 k0 v0 q1 k1 v1 ... A label enters as a vector
of zeros and a one, so the kernel of labels is our table of classes, and zeros alone are the label `num_classes`, no class.

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

# DhariwalUNet's arguments with EDM's defaults; what label_dropout does to labels in training no option decides.
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
    """For each weight of the network its tensor in DhariwalUNet's state, named as `named_model` does.

    Args:
        network: as `from_settings` makes it.
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
        for level, what in steps:
            name = f"{direction}_{level}_{what}"
            if what == "resample":
                places[name] = Place(f"{part}.{sizes[level + next_level]}_{direction}", RESIDUAL)
                continue
            places[name] = Place(f"{part}.{sizes[level]}_block{what}", RESIDUAL)
            places[f"{name}_attention"] = Place(f"{part}.{sizes[level]}_block{what}", ATTENTION)
    return weights(shapes, places)


def named_model(tensors: Tensors) -> Mapping[str, np.ndarray]:
    """The parameters of EDM's network without the prefix of its preconditioning.

    Left out are the filters' taps and iDDPM's table of noise levels.
    """
    named = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    return {n: tensor for n, tensor in named.items() if n != "u" and not n.endswith("resample_filter")}


def from_settings(settings: Mapping[str, Any]) -> ADM:
    """The network of the arguments that EDM made a DhariwalUNet with.

    Twice as many output channels as input channels are a learned variance, as iDDPM's preconditioning has it.

    Raises:
        ValueError: an argument has no counterpart; it is named.
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
