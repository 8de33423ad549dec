"""Import of EDM's SongUNet (DDPM++ and NCSN++, `--arch=ddpmpp` and `ncsnpp`) as `models.ncsnpp.NCSNpp`.

EDM names the modules of its network by resolution: `enc.32x32_block0`, `dec.16x16_up`, ... A block includes the
attention that follows it. The output channels of the kernel of q, k and v are interleaved: q0 k0 v0 q1 k1 v1 ...

Source: Karras et al. (2022), https://github.com/NVlabs/edm/blob/main/training/networks.py.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from models.ncsnpp import NCSNpp
from models.pretrained.edm import arguments, by_channel
from models.pretrained.mapping import CONV, DENSE, SAME, Path, Tensors, Weight, flatten


def mapping(network: NCSNpp, shapes: Any, image_size: int) -> dict[Path, Weight]:
    """Returns the tensor of SongUNet's state for each weight of the network, with the names of `named_model`.

    Args:
        network: a network from `from_settings`, or with "biggan" blocks, `fir` if resample_filter is not [1, 1],
            `progressive_input` "residual" or "input_skip" for encoder_type "residual" or "skip", and `progressive`
            "output_skip" for decoder_type "skip".
        shapes: its variables, or their shapes (`jax.eval_shape` of its init).
        image_size: height of the images in pixels.
    """
    pyramid = {"residual": "aux_residual", "input_skip": "aux_skip", "none": ""}[network.progressive_input]
    sizes = [f"{image_size >> level}x{image_size >> level}" for level in range(len(network.channel_multipliers))]

    def place(part):
        """Returns the name in SongUNet of a module of the network."""
        if part in WHOLE:
            return WHOLE[part].format(finest=sizes[0], coarsest=sizes[-1])
        match part.split("_"):
            case ["down", level, "resample"]:
                return f"enc.{sizes[int(level) + 1]}_down"
            case ["down", level, "pyramid"]:
                return f"enc.{sizes[int(level) + 1]}_{pyramid}"
            case ["up", level, "resample"]:
                return f"dec.{sizes[int(level) - 1]}_up"
            case ["up", level, "pyramid", "norm"]:
                return f"dec.{sizes[int(level)]}_aux_norm"
            case ["up", level, "pyramid"]:
                return f"dec.{sizes[int(level)]}_aux_conv"
            case ["up", level, "attention"]:
                return f"dec.{sizes[int(level)]}_block{network.blocks_per_level}"
            case [direction, level, i, *_]:
                return f"{'enc' if direction == 'down' else 'dec'}.{sizes[int(level)]}_block{i}"
        raise ValueError(f"SongUNet has no counterpart of {part}")

    def weight(path):
        _, part, *inner, leaf = path
        names = [place(part), *(LAYERS[layer] for layer in inner), LEAVES.get(leaf, leaf)]
        return Weight(".".join(names), _layout(part, inner, leaf))

    return {path: weight(path) for path in flatten(shapes)}


def named_model(tensors: Tensors) -> Mapping[str, np.ndarray]:
    """Returns the parameters of EDM's network without the prefix of its preconditioning and without filter taps."""
    named = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in named.items() if not name.endswith("resample_filter")}


# Modules outside of the levels; {finest} and {coarsest} are replaced by resolutions.
WHOLE = {
    "fourier": "map_noise",
    "classes": "map_label",
    "augmentation": "map_augment",
    "embedding_0": "map_layer0",
    "embedding_1": "map_layer1",
    "conv_in": "enc.{finest}_conv",
    "middle_0": "dec.{coarsest}_in0",
    "middle_attention": "dec.{coarsest}_in0",
    "middle_1": "dec.{coarsest}_in1",
    "norm_out": "dec.{finest}_aux_norm",
    "conv_out": "dec.{finest}_aux_conv",
}
LAYERS = {
    "norm_in": "norm0",
    "conv_in": "conv0",
    "embedding": "affine",
    "norm_out": "norm1",
    "conv_out": "conv1",
    "skip": "skip",
    "norm": "norm2",
    "qkv": "qkv",
    "out": "proj",
}
LEAVES = {"kernel": "weight", "scale": "weight", "frequencies": "freqs"}
DENSE_PARTS = ("classes", "augmentation", "embedding_0", "embedding_1")


def _layout(part, inner, leaf):
    if leaf != "kernel":
        layout = SAME
    elif part in DENSE_PARTS or inner == ["embedding"]:
        layout = DENSE
    else:
        layout = CONV
    return by_channel(layout) if inner == ["qkv"] else layout


# Arguments of SongUNet with EDM's defaults.
DEFAULTS = {
    "label_dim": 0,
    "augment_dim": 0,
    "model_channels": 128,
    "channel_mult": (1, 2, 2, 2),
    "channel_mult_emb": 4,
    "num_blocks": 4,
    "attn_resolutions": (16,),
    "dropout": 0.10,
    "label_dropout": 0,
    "embedding_type": "positional",
    "channel_mult_noise": 1,
    "encoder_type": "standard",
    "decoder_type": "standard",
    "resample_filter": (1, 1),
}


def from_settings(settings: Mapping[str, Any]) -> NCSNpp:
    """Returns the network for the arguments of EDM's SongUNet.

    Raises:
        ValueError: an argument has no counterpart, or an unsupported value; the message names the argument.
    """
    fourier = settings.get("embedding_type") == "fourier"
    allowed = {
        "embedding_type": ("positional", "fourier"),
        "channel_mult_noise": (2 if fourier else 1,),
        "channel_mult_emb": (4,),
        "encoder_type": ("standard", "residual", "skip"),
        "decoder_type": ("standard", "skip"),
    }
    c = arguments("SongUNet", settings, DEFAULTS, allowed)
    fir = c["resample_filter"] != (1, 1)
    return NCSNpp(
        channels=c["model_channels"],
        channel_multipliers=c["channel_mult"],
        blocks_per_level=c["num_blocks"],
        attention_resolutions=c["attn_resolutions"],
        dropout=c["dropout"],
        num_classes=c["label_dim"],
        augment_features=c["augment_dim"],
        out_channels=0 if c["out_channels"] == c["in_channels"] else c["out_channels"],
        fir=fir,
        **({"fir_kernel": c["resample_filter"]} if fir else {}),
        embedding="fourier" if fourier else "positional",
        progressive_input={"standard": "none", "residual": "residual", "skip": "input_skip"}[c["encoder_type"]],
        progressive={"standard": "none", "skip": "output_skip"}[c["decoder_type"]],
    )
