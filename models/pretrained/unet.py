"""Common parts of the mappings of U-Nets: names of modules and layers in another code base.

A mapping of a U-Net gives the module of the other code base for each module ("down_0_1" is "down_blocks.0.resnets.1"),
and the names of the layers within a residual block and within an attention module.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from models.classifier import UNetClassifier
from models.pretrained.mapping import CONV, DENSE, SAME, Layout, Path, Weight, flatten
from models.unet import UNet

LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}


class Layer(NamedTuple):
    """Names and layouts of one layer in the file.

    Attributes:
        names: name of the layer in the file; several layers are concatenated along the last axis of the weight.
        kernel: layout of the kernel; None for the layout of PyTorch's Conv2d or Linear.
        bias: layout of the bias.
        table: layout of the table of an embedding.
        leaves: names of the leaves in the file, by our names.
    """

    names: str | tuple[str, ...]
    kernel: Layout | None = None
    bias: Layout = SAME
    table: Layout = SAME
    leaves: Mapping[str, str] = LEAVES

    def weight(self, module: str, leaf: str, ndim: int, separator: str) -> Weight:
        """Returns the `Weight` of our `leaf`, of `ndim` axes, in this layer of their module `module`."""
        names = (self.names,) if isinstance(self.names, str) else self.names
        names = tuple(separator.join(part for part in (module, name, self.leaves[leaf]) if part) for name in names)
        kernel = self.kernel or (CONV if ndim == 4 else DENSE)
        layout = {"kernel": kernel, "bias": self.bias, "embedding": self.table}.get(leaf, SAME)
        return Weight(names[0] if len(names) == 1 else names, layout)


class Place(NamedTuple):
    """A module in the file: its name, and its layers by our names; the key "" means a module that is a single layer."""

    name: str
    layers: Mapping[str, Layer] = {"": Layer("")}


def weights(shapes: Any, places: Mapping[str, Place], separator: str = ".") -> dict[Path, Weight]:
    """Returns the mapping of the variables of a U-Net (or their shapes), given the place of each module in the file."""
    mapping = {}
    for path, array in flatten(shapes).items():
        _, module, *layer, leaf = path
        place = places[module]
        mapping[path] = place.layers["".join(layer)].weight(place.name, leaf, len(array.shape), separator)
    return mapping


def down(network: UNet | UNetClassifier) -> Iterator[tuple[int, int | str]]:
    """Yields (level, index of the block) and (level, "resample") in the order of the encoder."""
    levels = len(network.channel_multipliers)
    for level in range(levels):
        yield from ((level, i) for i in range(network.blocks_per_level))
        if level < levels - 1:
            yield level, "resample"


def up(network: UNet | UNetClassifier) -> Iterator[tuple[int, int | str]]:
    """Yields (level, index of the block) and (level, "resample") in the order of the decoder."""
    for level in reversed(range(len(network.channel_multipliers))):
        yield from ((level, i) for i in range(network.blocks_per_level + 1))
        if level:
            yield level, "resample"


def require(network: UNet, peer: str, **allowed: Any) -> None:
    """Checks that each option has its allowed value, or one of a tuple of values; raises ValueError otherwise."""
    for option, values in allowed.items():
        values = values if isinstance(values, tuple) else (values,)
        if (value := getattr(network, option)) not in values:
            choices = " or ".join(repr(v) for v in values)
            raise ValueError(f"{peer} has no network with {option}={value!r}, only with {choices}")
