"""The networks that `benchmark --suite=networks` measures: of each family that of its paper, or a stated fraction of it."""

from dataclasses import dataclass, field
from typing import Any

import models


@dataclass(frozen=True)
class Case:
    """A network to measure.

    Attributes:
        family: its name in `models`.
        what: whose network it is, and what fraction of it.
        shape: of one input.
        batch: number of inputs.
        options: of the network.
        peer: how diffusers has it, a key of `torch_networks.MAKERS`; empty where it has not.
    """

    family: str
    what: str
    shape: tuple[int, ...]
    batch: int
    options: dict[str, Any] = field(default_factory=dict)
    peer: str = ""

    def network(self) -> Any:
        """The module, without dropout."""
        return models.create(self.family, **(self.options | {"dropout": 0.0}))


CASES = (
    Case(
        "unet",
        "that of configs/digits.py with strided convolutions and 8 groups",
        (8, 8, 1),
        64,
        {
            "channels": 32,
            "channel_multipliers": (1, 2),
            "blocks_per_level": 1,
            "attention_resolutions": (),
            "head_channels": 32,
            "resampling": "strided_symmetric",
            "norm_groups": 8,
        },
        "unet",
    ),
    Case("ddpm", "CIFAR-10", (32, 32, 3), 4, {}, "unet"),
    Case(
        "adm",
        "ImageNet 64 px at half of the width, with heads of 32",
        (64, 64, 3),
        1,
        {"channels": 96, "head_channels": 32, "num_classes": 1000},
        "unet",
    ),
    Case("ncsnpp", "NCSN++, CIFAR-10", (32, 32, 3), 2),
    Case(
        "ncsnpp",
        "NCSN++, CelebA-HQ 256 px: its five finest levels at 64 px",
        (64, 64, 3),
        1,
        {
            "channel_multipliers": (1, 1, 2, 2, 2),
            "blocks_per_level": 2,
            "progressive_input": "input_skip",
            "progressive": "output_skip",
        },
        "ncsnpp",
    ),
    Case(
        "ncsnpp",
        "DDPM++, CIFAR-10",
        (32, 32, 3),
        2,
        {"fir": False, "progressive_input": "none", "embedding": "positional"},
    ),
    Case("edm2", "EDM2-XXS, latents of ImageNet 512 px", (64, 64, 4), 1, {"channels": 64, "num_classes": 1000}),
    Case(
        "dit",
        "DiT-S/2, latents of ImageNet 256 px, with an embedding in each block as diffusers has it",
        (32, 32, 4),
        4,
        {
            "num_classes": 1000,
            "position_span": 16,
            "frequencies": "ddpm",
            "block_embeddings": True,
            "mlp_norm_epsilon": 1e-5,
        },
        "dit",
    ),
    Case("ncsn", "CIFAR-10", (32, 32, 3), 2),
    Case("ncsnv2", "CIFAR-10", (32, 32, 3), 2, {}),
    Case("unet_classifier", "ImageNet 64 px at half of the width", (64, 64, 3), 2, {"channels": 64}),
    Case("wideresnet_classifier", "CIFAR-10, WideResNet-28-10", (32, 32, 3), 4),
    Case("mlp", "the default, for points in the plane", (2,), 1024),
)
