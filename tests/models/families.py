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
    """

    name: str
    options: dict[str, Any]
    smaller: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = (8, 12, 2)
    levels: tuple[float, ...] = (10.0, 40.0, 60.0, 90.0)
    classes: bool = True

    def network(self, **changes):
        """The module, with dropout, and class-conditional if it can be."""
        options = self.options | {"dropout": 0.4} | ({"num_classes": CLASSES} if self.classes else {}) | changes
        return _create(
            self.name, tuple(sorted((k, tuple(v) if isinstance(v, list) else v) for k, v in options.items()))
        )

    def batch(self):
        """(x, noise_level, condition) of four examples."""
        labels = jnp.arange(4) % CLASSES if self.classes else None
        return normal(0, 4, *self.shape), jnp.asarray(self.levels), labels


@functools.cache
def _create(name, options):
    return models.create(name, **dict(options))


FAMILIES = {
    family.name: family
    for family in (
        Family(
            "adm",
            {
                "channels": 8,
                "channel_multipliers": (1, 2),
                "blocks_per_level": 1,
                "attention_resolutions": (4,),
                "head_channels": 8,
                "norm_groups": 4,
                "learned_variance": True,
            },
            {"channel_multipliers": (1,), "middle_attention": False},
        ),
        Family(
            "ddpm",
            {
                "channels": 8,
                "channel_multipliers": (1, 2),
                "blocks_per_level": 1,
                "attention_resolutions": (4,),
                "norm_groups": 4,
            },
            {"channel_multipliers": (1,), "middle_attention": False},
        ),
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
        Family(
            "unet",
            {
                "channels": 8,
                "channel_multipliers": (1, 2),
                "blocks_per_level": 1,
                "attention_resolutions": (4,),
                "num_heads": 2,
            },
            {"channel_multipliers": (1,), "middle_attention": False},
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
