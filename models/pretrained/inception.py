"""Import of the FID's InceptionV3 from pytorch-fid's file, a port of TensorFlow's inception-2015-12-05.tgz.

Source: https://github.com/mseitzer/pytorch-fid/blob/master/src/pytorch_fid/inception.py, which gives the URL of the
file. The tensors have the names of torchvision's InceptionV3.
"""

from pathlib import Path as FilePath
from typing import Any

from models.inception import InceptionV3, layer_names
from models.pretrained import frozen
from models.pretrained.mapping import DENSE, Path, Weight

# The name ends with the first digits of the SHA-256. The file is published among the releases of pytorch-fid.
FILE = "pt_inception-2015-12-05-6726825d.pth"
SIZE = 299


def read(path: FilePath) -> Any:
    """Reads the variables of `InceptionV3`.

    Raises:
        ValueError: the file is broken, unsafe or belongs to another network; the message names the weights.
        OSError: the file cannot be read.
    """
    tensors = frozen.tensors(path)
    tensors.pop("fc.bias", None)  # no metric uses the bias
    return frozen.variables(InceptionV3(), SIZE, tensors, mapping())


def mapping() -> dict[Path, Weight]:
    """Returns the mapping from the weights of `InceptionV3` to the tensors of the file; layers have equal names."""
    weights: dict[Path, Weight] = {("params", "fc", "kernel"): Weight("fc.weight", DENSE)}
    for name in layer_names():
        theirs = name.replace("/", ".")
        weights |= frozen.conv(name, f"{theirs}.conv", f"{theirs}.bn")
    return weights
