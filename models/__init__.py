"""Networks: arrays in, array out. `create("unet", channels=64)` makes one; its file says what its options mean.

Every network is a Flax linen module called as `network.apply(variables, x, noise_level, condition, train=...)`,
with x (B, H, W, C), noise_level (B,) and condition a dict of leaves by name, or None for no leaf:

- `label` (B,), for networks with `num_classes`. The null is `num_classes`, one more than the last class, and stands for no
  class in every network: where it has no weights for that, the class's embedding is zero (the parameters of NCSN's norms,
  where zero would mean nothing, are the mean over the classes).
- `augmentation` (B, augment_features), for networks with `augment_features`: how each image was augmented in training. The
  null is zeros, and may be left out.

A network may have a static method `project(variables)`: training replaces the weights by it at the start and after every
update.

Networks that only give features of images, to judge samples by, are no part of this list: `models/efficientnet.py`.
"""

import dataclasses
import difflib
import importlib
import pkgutil
from typing import Any

import flax.linen as nn

from models.adm import ADM
from models.classifier import UNetClassifier, WideResNetClassifier
from models.ddpm import DDPM
from models.dit import DiT
from models.edm2 import EDM2
from models.mlp import MLP
from models.ncsn import NCSN, NCSNv2
from models.ncsnpp import NCSNpp
from models.unet import UNet

__all__ = [
    "ADM",
    "CLASSIFIERS",
    "DDPM",
    "EDM2",
    "KNOWN",
    "MLP",
    "NCSN",
    "NETWORKS",
    "DiT",
    "NCSNpp",
    "NCSNv2",
    "UNet",
    "UNetClassifier",
    "WideResNetClassifier",
    "create",
    "names",
    "options",
]


def _named(attribute: str) -> dict[str, type[nn.Module]]:
    """Returns the networks that the modules of this package name in a mapping, sorted; a module more is one file.

    Raises:
        ValueError: two modules use one name.
    """
    found: dict[str, type[nn.Module]] = {}
    for file in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{file.name}")
        for name, network in getattr(module, attribute, {}).items():
            if name in found:
                raise ValueError(f"{module.__name__}: another module of models has the name {name!r}")
            found[name] = network
    return dict(sorted(found.items()))


NETWORKS: dict[str, type[nn.Module]] = _named("NETWORKS")
# What says of a noisy image which class it is of, (B, num_classes); for guidance.
CLASSIFIERS: dict[str, type[nn.Module]] = _named("CLASSIFIERS")
KNOWN = NETWORKS | CLASSIFIERS


def names() -> list[str]:
    """The names of the networks whose output has the shape of their input."""
    return sorted(NETWORKS)


def options(name: str) -> dict[str, Any]:
    """The options of network `name` with their defaults. Raises ValueError for an unknown name."""
    _check_known("network", name, KNOWN)
    fields = dataclasses.fields(KNOWN[name])
    return {field.name: field.default for field in fields if field.name not in ("parent", "name")}


def create(name: str, **given: Any) -> nn.Module:
    """Makes network `name`. Lists among the options become tuples, since a module must be hashable.

    Raises:
        ValueError: for an unknown name, option or choice; the message gives the nearest that exists.
    """
    allowed = options(name)
    for option in given:
        _check_known(f"option of {name}", option, allowed)
    return KNOWN[name](**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})


def _check_known(what, name, allowed):
    if name not in allowed:
        near = difflib.get_close_matches(str(name), list(allowed), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(sorted(allowed))}"
        raise ValueError(f"unknown {what} {name!r}: {hint}")
