"""Import of the released networks of EDM2.

The tensors are those of the U-Net inside the released `Precond`, without the prefix `unet.`, including the frequencies
and phases of the Fourier features. `UNCERTAINTY` lists the other tensors of `Precond`: the learned uncertainty of the
training loss, which sampling does not use.

Source: https://github.com/NVlabs/edm2/blob/main/training/networks_edm2.py, class UNet.
"""

from collections.abc import Mapping
from typing import Any

from models.edm2 import EDM2
from models.pretrained.mapping import CONV, DENSE, Path, Weight

UNCERTAINTY = ("logvar_fourier.freqs", "logvar_fourier.phases", "logvar_linear.weight")

BLOCK = {
    ("embedding_gain",): Weight("emb_gain"),
    ("conv_in", "kernel"): Weight("conv_res0.weight", CONV),
    ("embedding", "kernel"): Weight("emb_linear.weight", DENSE),
    ("conv_out", "kernel"): Weight("conv_res1.weight", CONV),
}
SKIP = {("skip", "kernel"): Weight("conv_skip.weight", CONV)}
ATTENTION = {
    ("attention", "qkv", "kernel"): Weight("attn_qkv.weight", CONV),
    ("attention", "out", "kernel"): Weight("attn_proj.weight", CONV),
}


def mapping(network: EDM2, image_size: int) -> dict[Path, Weight]:
    """Returns the mapping from the weights of the network to the tensors of the file.

    Args:
        network: the network.
        image_size: height of the images in pixels (64 for the latents of 512 pixels). It occurs in the names of the
            tensors and determines which levels have attention.
    """
    weights = {
        ("out_gain",): Weight("out_gain"),
        ("fourier", "frequencies"): Weight("emb_fourier.freqs"),
        ("fourier", "phases"): Weight("emb_fourier.phases"),
        ("noise_level", "kernel"): Weight("emb_noise.weight", DENSE),
        ("conv_in", "kernel"): Weight(f"enc.{image_size}x{image_size}_conv.weight", CONV),
        ("conv_out", "kernel"): Weight("out_conv.weight", CONV),
    }
    if network.num_classes:
        weights["classes", "kernel"] = Weight("emb_label.weight", DENSE)

    def block(ours, part, theirs, level, skip=False, attention=False):
        size = image_size >> level
        for path, weight in (BLOCK | (SKIP if skip else {}) | (ATTENTION if attention else {})).items():
            weights[ours, *path] = Weight(f"{part}.{size}x{size}_{theirs}.{weight.names}", weight.layout)

    multipliers = network.channel_multipliers
    last = len(multipliers) - 1
    for level, multiplier in enumerate(multipliers):
        attention = image_size >> level in network.attention_resolutions
        for i in range(network.blocks_per_level):
            widens = i == 0 and multiplier != multipliers[max(level - 1, 0)]
            block(f"down_{level}_{i}", "enc", f"block{i}", level, widens, attention)
        for i in range(network.blocks_per_level + 1):
            block(f"up_{level}_{i}", "dec", f"block{i}", level, True, attention)
        if level < last:
            block(f"down_{level}_resample", "enc", "down", level + 1)
            block(f"up_{level + 1}_resample", "dec", "up", level)
    block("middle_0", "dec", "in0", last, attention=True)
    block("middle_1", "dec", "in1", last)
    return {("params", *path): weight for path, weight in weights.items()}


def from_settings(settings: Mapping[str, Any]) -> EDM2:
    """Returns the network for the arguments of a released UNet; absent arguments have the defaults of EDM2.

    Raises:
        ValueError: an argument has no counterpart; the message names the argument.
    """
    known = {
        "model_channels": "channels",
        "channel_mult": "channel_multipliers",
        "num_blocks": "blocks_per_level",
        "attn_resolutions": "attention_resolutions",
        "channels_per_head": "head_channels",
        "label_dim": "num_classes",
        "label_balance": "class_balance",
        "concat_balance": "concat_balance",
        "res_balance": "residual_balance",
        "attn_balance": "attention_balance",
        "clip_act": "clip",
        "dropout": "dropout",
    }
    units = {"channel_mult_noise": "fourier_channels", "channel_mult_emb": "embedding_channels"}
    options = {}
    for key, value in settings.items():
        if key in known:
            options[known[key]] = tuple(value) if isinstance(value, list) else value
        elif key in units:
            options[units[key]] = round((value or 0) * settings.get("model_channels", 192))
        elif key not in ("img_resolution", "img_channels") and not (key == "resample_filter" and list(value) == [1, 1]):
            raise ValueError(f"UNet: {key}={value!r} has no counterpart here")
    return EDM2(**options)
