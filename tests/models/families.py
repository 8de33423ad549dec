"""Every network at a size that compiles in seconds, for the tests that hold of them all."""

import functools
import zlib
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import models

CLASSES = 3


@dataclass(frozen=True)
class Family:
    """A small member of a family of networks.

    Attributes:
        name: for `models.create`.
        options: of the small one.
        smaller: changes to them, where a gradient is compiled.
        shape: of one input.
        levels: noise levels, in the unit of the network.
        classes: whether it can be class-conditional.
        blind: whether it knows the noise level from the image alone.
    """

    name: str
    options: dict[str, Any]
    smaller: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = (8, 12, 2)
    levels: tuple[float, ...] = (10.0, 40.0, 60.0, 90.0)
    classes: bool = True
    blind: bool = False

    def network(self, **changes):
        """The module, with dropout, and class-conditional if it can be."""
        options = self.options | {"dropout": 0.4} | ({"num_classes": CLASSES} if self.classes else {}) | changes
        return _create(
            self.name, tuple(sorted((k, tuple(v) if isinstance(v, list) else v) for k, v in options.items()))
        )

    def batch(self):
        """(x, noise_level, condition) of four examples."""
        condition = {"label": jnp.arange(4) % CLASSES} if self.classes else None
        return normal(0, 4, *self.shape), jnp.asarray(self.levels), condition


@functools.cache
def _create(name, options):
    return models.create(name, **dict(options))


REFINENET = {"channels": 8, "channel_multipliers": (1, 2, 2), "dilations": (1, 1, 2)}
ONE_STAGE = {"channel_multipliers": (1,), "dilations": (1,)}

SMALL_UNET = {
    "channels": 8,
    "channel_multipliers": (1, 2),
    "blocks_per_level": 1,
    "attention_resolutions": (4,),
    "num_heads": 2,
}
ONE_LEVEL = {"channel_multipliers": (1,), "middle_attention": False}

FAMILIES = {
    family.name: family
    for family in (
        Family("adm", SMALL_UNET | {"head_channels": 4, "norm_groups": 4, "learned_variance": True}, ONE_LEVEL),
        Family("ddpm", SMALL_UNET | {"norm_groups": 4}, ONE_LEVEL),
        Family("dit", {"width": 16, "depth": 2, "num_heads": 2}, {"depth": 1}),
        Family("mlp", {"width": 8, "depth": 2}, {"depth": 1}, shape=(5,)),
        Family(
            "edm2",
            {
                "channels": 8,
                "channel_multipliers": (1, 2),
                "blocks_per_level": 1,
                "attention_resolutions": (4,),
                "head_channels": 8,
            },
            {"channel_multipliers": (1,)},
            levels=(-0.8, -0.3, 0.2, 0.9),
        ),
        Family("ncsn", REFINENET, ONE_STAGE, levels=(-0.5, -1.6, -2.7, -4.0)),
        Family(
            "ncsnpp",
            {
                "channels": 8,
                "channel_multipliers": (1, 2),
                "blocks_per_level": 1,
                "attention_resolutions": (4,),
                "progressive_input": "input_skip",
                "progressive": "output_skip",
            },
            {"channel_multipliers": (1,)},
            levels=(-4.0, -1.0, 1.0, 3.0),
        ),
        Family("ncsnv2", REFINENET, ONE_STAGE, levels=(-0.5, -1.6, -2.7, -4.0), blind=True),
        Family("unet", SMALL_UNET, ONE_LEVEL),
        Family(
            "unet_classifier",
            {
                "num_classes": 3,
                "channels": 8,
                "channel_multipliers": (1, 2),
                "blocks_per_level": 1,
                "attention_resolutions": (4,),
                "head_channels": 4,
                "norm_groups": 0,
            },
            {"channel_multipliers": (1,)},
            classes=False,
        ),
        Family(
            "wideresnet_classifier",
            {"num_classes": 3, "width": 1, "blocks_per_group": 1},
            levels=(-4.0, -1.0, 1.0, 3.0),
            classes=False,
        ),
    )
}


def normal(seed, *shape):
    """Standard normal numbers, float32."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def randomized(shapes):
    """Random values for every weight: at initialization most layers are zero and hide their faults."""

    def draw(path, leaf):
        fan_in = np.prod(leaf.shape[:-1])
        return normal(zlib.crc32(str(path).encode()), *leaf.shape) / np.sqrt(fan_in) + (path[-1].key == "scale")

    return jax.tree_util.tree_map_with_path(draw, shapes)
