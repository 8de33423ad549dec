"""Import of DINOv2 from facebookresearch's files, such as dinov2_vitl14_pretrain.pth.

Source: https://github.com/facebookresearch/dinov2/blob/main/dinov2/hub/backbones.py and
dinov2/models/vision_transformer.py.
"""

from pathlib import Path as FilePath
from typing import Any

from models.dinov2 import DINOv2
from models.pretrained import frozen
from models.pretrained.dit import patches
from models.pretrained.mapping import Path, Weight

SIZE = 224  # side of the images in pixels for published Frechet distances


def read(path: FilePath, network: DINOv2) -> Any:
    """Reads the variables of the network.

    Raises:
        ValueError: the file is broken, unsafe or belongs to another network; the message names the weights.
        OSError: the file cannot be read.
    """
    tensors = frozen.tensors(path)
    tensors.pop("mask_token", None)  # replaces masked patches in training only
    return frozen.variables(network, network.patch_size, tensors, mapping(network))


def mapping(network: DINOv2) -> dict[Path, Weight]:
    """Returns the mapping from the weights of the network to the tensors of the file."""
    weights = {
        ("params", "class_token"): Weight("cls_token"),
        ("params", "positions"): Weight("pos_embed"),
        ("params", "patches", "kernel"): Weight("patch_embed.proj.weight", patches(network.patch_size, 3)),
        ("params", "patches", "bias"): Weight("patch_embed.proj.bias"),
    }
    weights |= _norm("norm", "norm")
    for i in range(network.depth):
        ours, theirs = f"block_{i}", f"blocks.{i}"
        for number in (1, 2):
            weights |= _norm(f"{ours}/norm_{number}", f"{theirs}.norm{number}")
            weights["params", ours, f"gamma_{number}"] = Weight(f"{theirs}.ls{number}.gamma")
        weights |= frozen.dense(f"{ours}/qkv", f"{theirs}.attn.qkv")
        weights |= frozen.dense(f"{ours}/attention_out", f"{theirs}.attn.proj")
        weights |= frozen.dense(f"{ours}/mlp_in", f"{theirs}.mlp.fc1")
        weights |= frozen.dense(f"{ours}/mlp_out", f"{theirs}.mlp.fc2")
    return weights


def _norm(ours: str, theirs: str) -> dict[Path, Weight]:
    path = ("params", *ours.split("/"))
    return {(*path, "scale"): Weight(f"{theirs}.weight"), (*path, "bias"): Weight(f"{theirs}.bias")}
