"""Networks conditioned on the noise level: `create("unet", channels=64)` builds one; its class documents the options.

Every network is a Flax linen module called as `network.apply(variables, x, noise_level, condition, train=...)`, with
x (B, H, W, C) (for `MLP`, (B, D)), noise_level (B,), and condition a dict of leaves by name, or None for no leaves:

- `label` (B,), for networks with `num_classes` > 0. The null label, which stands for no class, is `num_classes` in every
  network. In networks without an embedding of the null label, the embedding is zero; in NCSN, the parameters of the
  norms are the mean over the classes.
- `augmentation` (B, augment_features), for networks with `augment_features` > 0: the augmentation of each image in
  training. The null is zeros, and is the default if the leaf is omitted.

A network can define a static method `project(variables)`. Training applies it to the initial weights and after every
update.

Feature networks for the evaluation of samples are not registered here: `models/efficientnet.py`, `models/inception.py`
and `models/dinov2.py`.
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


def _collect(attribute: str) -> dict[str, type[nn.Module]]:
    """Collects the mappings `attribute` (name -> network) of all modules of this package, sorted by name.

    A new network therefore needs only a new file.

    Raises:
        ValueError: two modules use the same name.
    """
    networks: dict[str, type[nn.Module]] = {}
    for file in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{file.name}")
        for name, network in getattr(module, attribute, {}).items():
            if name in networks:
                raise ValueError(f"{module.__name__}: another module of models has the name {name!r}")
            networks[name] = network
    return dict(sorted(networks.items()))


NETWORKS: dict[str, type[nn.Module]] = _collect("NETWORKS")
# Classifiers of noisy images, which return logits (B, num_classes), for classifier guidance.
CLASSIFIERS: dict[str, type[nn.Module]] = _collect("CLASSIFIERS")
KNOWN = NETWORKS | CLASSIFIERS


def names() -> list[str]:
    """Returns the sorted names of the networks that map images (or vectors) to images (or vectors)."""
    return sorted(NETWORKS)


def options(name: str) -> dict[str, Any]:
    """Returns the options of network `name` with their defaults. Raises ValueError for an unknown name."""
    _check_known("network", name, KNOWN)
    fields = dataclasses.fields(KNOWN[name])
    return {field.name: field.default for field in fields if field.name not in ("parent", "name")}


def create(name: str, **given: Any) -> nn.Module:
    """Builds network `name`.

    Args:
        name: key of `NETWORKS` or `CLASSIFIERS`.
        **given: options of the network, see `options`. Lists are converted to tuples, since a module must be hashable.

    Raises:
        ValueError: unknown name or option; the message contains the nearest match.
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
