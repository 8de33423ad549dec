"""What the mappings of the U-Nets have in common: our modules, one by one, under the names of another code base.

A mapping first says which module of theirs each of ours is ("down_0_1" is "down_blocks.0.resnets.1"), then what the layers
within a residual block and within an attention are called.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from models.classifier import UNetClassifier
from models.pretrained.mapping import CONV, DENSE, SAME, Layout, Path, Weight, flatten
from models.unet import UNet

LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}


class Layer(NamedTuple):
    """One of our layers in the file.

    Attributes:
        names: of the layer there; several are joined along our last axis.
        kernel: layout of the kernel; None is that of PyTorch's Conv2d or Linear.
        bias: layout of the bias.
        table: layout of an embedding's table.
        leaves: what the file calls our leaves.
    """

    names: str | tuple[str, ...]
    kernel: Layout | None = None
    bias: Layout = SAME
    table: Layout = SAME
    leaves: Mapping[str, str] = LEAVES

    def weight(self, module: str, leaf: str, ndim: int, separator: str) -> Weight:
        """The weight named `leaf` here, which has `ndim` axes, of this layer of their module."""
        names = (self.names,) if isinstance(self.names, str) else self.names
        names = tuple(separator.join(part for part in (module, name, self.leaves[leaf]) if part) for name in names)
        kernel = self.kernel or (CONV if ndim == 4 else DENSE)
        layout = {"kernel": kernel, "bias": self.bias, "embedding": self.table}.get(leaf, SAME)
        return Weight(names[0] if len(names) == 1 else names, layout)


class Place(NamedTuple):
    """One of our modules in the file: the name of theirs, and its layers by our names; "" is a module that is a layer."""

    name: str
    layers: Mapping[str, Layer] = {"": Layer("")}


def weights(shapes: Any, places: Mapping[str, Place], separator: str = ".") -> dict[Path, Weight]:
    """The mapping of a U-Net's variables (or their shapes), given where each of its modules is in the file."""
    mapping = {}
    for path, array in flatten(shapes).items():
        _, module, *layer, leaf = path
        place = places[module]
        mapping[path] = place.layers["".join(layer)].weight(place.name, leaf, len(array.shape), separator)
    return mapping


def down(network: UNet | UNetClassifier) -> Iterator[tuple[int, int | str]]:
    """(level, number of the block) and (level, "resample") in the order of the way down."""
    levels = len(network.channel_multipliers)
    for level in range(levels):
        yield from ((level, i) for i in range(network.blocks_per_level))
        if level < levels - 1:
            yield level, "resample"


def up(network: UNet | UNetClassifier) -> Iterator[tuple[int, int | str]]:
    """(level, number of the block) and (level, "resample") in the order of the way up."""
    for level in reversed(range(len(network.channel_multipliers))):
        yield from ((level, i) for i in range(network.blocks_per_level + 1))
        if level:
            yield level, "resample"


def require(network: UNet, peer: str, **allowed: Any) -> None:
    """Each option named has its value, or one of them in a tuple; raises ValueError for what the peer's network is not."""
    for option, values in allowed.items():
        values = values if isinstance(values, tuple) else (values,)
        if (value := getattr(network, option)) not in values:
            choices = " or ".join(repr(v) for v in values)
            raise ValueError(f"{peer} has no network with {option}={value!r}, only with {choices}")
