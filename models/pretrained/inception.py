"""Weights of the FID's InceptionV3 from pytorch-fid's file, a port of TensorFlow's inception-2015-12-05.tgz.

Source: https://github.com/mseitzer/pytorch-fid/blob/master/src/pytorch_fid/inception.py, which names the file; names of its
tensors are those of torchvision's InceptionV3.
"""

from pathlib import Path as FilePath
from typing import Any

from models.inception import InceptionV3, layer_names
from models.pretrained import frozen
from models.pretrained.mapping import DENSE, Path, Weight

# Its name ends in the first digits of its SHA-256. The publisher has it among the releases of pytorch-fid.
FILE = "pt_inception-2015-12-05-6726825d.pth"
SIZE = 299


def read(path: FilePath) -> Any:
    """The variables of `InceptionV3`.

    Raises:
        ValueError: the file is broken, unsafe or of another network; its weights are named.
        OSError: it cannot be read.
    """
    found = frozen.tensors(path)
    found.pop("fc.bias", None)  # no figure of the FID's family uses it
    return frozen.variables(InceptionV3(), SIZE, found, mapping())


def mapping() -> dict[Path, Weight]:
    """The weights of `InceptionV3` in the file: layers have the same names in both."""
    weights: dict[Path, Weight] = {("params", "fc", "kernel"): Weight("fc.weight", DENSE)}
    for name in layer_names():
        theirs = name.replace("/", ".")
        weights |= frozen.conv(name, f"{theirs}.conv", f"{theirs}.bn")
    return weights
